"""Who applied what and when: an append-only file beside the registry, with the sources that can be applied again.

<home>/applies.jsonl          one line when an apply begins to write, one when it has ended
<home>/applies/<snapshot>/    the feature repository as it was applied, by the digest of its files

Whoever writes holds the lock of the registry. A line is on disk before what it announces is done, so after a crash the
last line says what was under way; a line that was cut off announced nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from actor_risk.changes.registered import Registered
from actor_risk.errors import ActorRiskError

LOG, SNAPSHOTS = "applies.jsonl", "applies"
FILES_BYTES_MAX = 32 << 20
"""Of a feature repository: it holds definitions, and no data."""
_LEFT_OUT_FOLDERS = {"__pycache__"}
_LEFT_OUT_ENDINGS = {".pyc", ".db", ".parquet", ".lock"}
_HIDDEN_BUT_READ = {".feastignore"}

Ending = Literal["applied", "not applied", "overwritten"]


class Begun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="begun", tag_field="line"):
    """An apply that is about to write the registry.

    at_ms: ms UTC. what: the changes in words. registered: what the registry defines once it is written; before: the
    fingerprint of what it defined. snapshot: of the sources. commit: of Git, ending in `+` where files differ from it.
    restores: the number of the apply whose sources these are again, None unless it goes back.
    """

    number: int
    at_ms: int
    by: str
    what: tuple[str, ...]
    registered: Registered
    before: str
    snapshot: str
    commit: str = ""
    restores: int | None = None

    @property
    def original(self) -> int:
        """The number of the apply that brought these sources first."""
        return self.number if self.restores is None else self.restores


class Ended(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ended", tag_field="line"):
    """How it ended. found: whether that was found out by a later command, since the process was killed."""

    number: int
    at_ms: int
    how: Ending
    found: bool = False


class ApplyLog:
    """The log of one home. Writing needs the registry's lock; reading does not."""

    def __init__(self, root: Path) -> None:
        self._path = root / LOG
        self._snapshots = root / SNAPSHOTS

    def applies(self) -> list[Begun]:
        """Those that were applied, oldest first. Raises ActorRiskError for a line that is damaged."""
        begun, ended = self._entries()
        return [entry for number, entry in begun.items() if number in ended and ended[number].how == "applied"]

    def unfinished(self) -> Begun | None:
        """The apply that began to write and did not say how it ended."""
        begun, ended = self._entries()
        return next((entry for number, entry in begun.items() if number not in ended), None)

    def next_number(self) -> int:
        """The number of the next apply."""
        return max(self._entries()[0], default=0) + 1

    def add(self, entry: Begun | Ended) -> None:
        """Append a line; on disk when this returns. What a killed writer left of its last line is taken away first."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            file.seek(0)
            whole = file.read()
            file.truncate(whole.rfind(b"\n") + 1)
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def keep(self, files: Mapping[str, bytes]) -> str:
        """Keep the sources, and return their digest."""
        snapshot = digest_of(files)
        folder = self.folder(snapshot)
        if not folder.exists():
            self._snapshots.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self._snapshots))
            for name, content in files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).write_bytes(content)
            draft.replace(folder)
        return snapshot

    def folder(self, snapshot: str) -> Path:
        """Where the sources of that digest are."""
        return self._snapshots / snapshot

    def clean(self) -> None:
        """Remove what killed writers left."""
        for draft in self._snapshots.glob(".draft-*"):
            shutil.rmtree(draft, ignore_errors=True)

    def _entries(self) -> tuple[dict[int, Begun], dict[int, Ended]]:
        begun: dict[int, Begun] = {}
        ended: dict[int, Ended] = {}
        for entry in self._lines():
            if isinstance(entry, Begun):
                begun[entry.number] = entry
            else:
                ended[entry.number] = entry
        return begun, ended

    def _lines(self) -> list[Begun | Ended]:
        try:
            whole = self._path.read_bytes()
        except FileNotFoundError:
            return []
        lines = whole[: whole.rfind(b"\n") + 1].splitlines()
        try:
            return [msgspec.json.decode(line, type=Begun | Ended) for line in lines]
        except msgspec.MsgspecError as error:
            raise ActorRiskError(f"{self._path} is damaged ({error}): mend that line, or move the file away") from error


def sources_of(repo: Path) -> dict[str, bytes]:
    """The files of a feature repository by their names below it, without caches, hidden files and data.

    Raises ActorRiskError when they are too large to be definitions.
    """
    found: dict[str, bytes] = {}
    size = 0
    for folder, folders, names in os.walk(repo):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if not _is_source(path):
                continue
            size += path.stat().st_size
            if size > FILES_BYTES_MAX:
                raise ActorRiskError(
                    f"{repo} has over {FILES_BYTES_MAX >> 20} MiB in files: keep data outside of the feature repository"
                )
            found[path.relative_to(repo).as_posix()] = path.read_bytes()
    return found


def digest_of(files: Mapping[str, bytes]) -> str:
    """16 hexadecimal digits that change with any name or content."""
    text = "\n".join(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_source(path: Path) -> bool:
    if path.suffix in _LEFT_OUT_ENDINGS or not path.is_file():
        return False
    return not path.name.startswith(".") or path.name in _HIDDEN_BUT_READ
