"""What of a view's backfill is done: one small JSON file for each part, in a folder of its own for each definition.

    <state>/<project>/<view>/<meaning>/
        looked-<start>-<end>.json         a span was read and profiled; of a stream view, its events are staged
        rows-<start>-<end>.json           a batch view's rows of a span are in Redis
        side-<batch end>-<shard>of<n>.json    a stream view's rows of a shard are in Redis
        job-<start>-<end>.json            a whole job is done: its watermark may follow
        staged/<start>-<end>/<try>/       the events of a stream view on their way, removed at the end of the job

Only the driver of a job writes here, while it holds the view's lease. A file appears whole or not at all, and only
after what it says is true: rows first, then the mark in Redis, then the file. `meaning` is the hash of the view's
definition: folders of other definitions are removed by the next job.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from materialize.backfill._profile import ColumnProfile
from materialize.backfill._spans import Span
from materialize.whole_file import write_whole

FORMAT = 1
_UNSAFE = re.compile(r"[^A-Za-z0-9_.=-]")


class Mark(msgspec.Struct, frozen=True):
    """Which of the job's results Redis has acknowledged, and in which of its lives: see `_lease`."""

    incarnation: str
    number: int


class Counts(msgspec.Struct, frozen=True):
    """events: rows of history read. rows: written. skipped: events without a key. verified: rows that are there."""

    events: int = 0
    rows: int = 0
    skipped: int = 0
    verified: int = 0
    size_bytes: int = 0

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(
            *(a + b for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True))
        )


class Staged(msgspec.Struct, frozen=True):
    """The events of a span in `staged/`, in so many shards. `newest_ms`: of all rows read; None for none.

    attempt: the folder's last name, another one each time: whoever gathers a span twice, by mistake, spoils nothing.
    """

    attempt: str
    shards: int
    newest_ms: int | None
    shard_bytes: tuple[int, ...]


class _OfSpan(msgspec.Struct, frozen=True):
    """An entry about a span, of which there is one of each kind."""

    start_ms: int
    end_ms: int

    @property
    def span(self) -> Span:
        return Span(self.start_ms, self.end_ms)

    @property
    def file_name(self) -> str:
        return f"{self.__struct_config__.tag}-{span_name(self.span)}.json"


class LookedEntry(_OfSpan, frozen=True, tag="looked"):
    """A span was read. `inputs`: the digest of the files that were."""

    inputs: str
    events: int
    skipped: int
    columns: dict[str, ColumnProfile]
    staged: Staged | None = None
    format: int = FORMAT


class RowsEntry(_OfSpan, frozen=True, tag="rows"):
    """The newest rows of a span are in Redis."""

    inputs: str
    mark: Mark
    counts: Counts
    format: int = FORMAT


class SideEntry(msgspec.Struct, frozen=True, tag="side"):
    """The batch side of a shard's rows is in Redis. `inputs`: of the whole span that was gathered."""

    shard: int
    shards: int
    batch_end_ms: int
    inputs: str
    mark: Mark
    counts: Counts
    format: int = FORMAT

    @property
    def file_name(self) -> str:
        return f"side-{time_name(self.batch_end_ms)}-{self.shard:05d}of{self.shards:05d}.json"


class JobEntry(_OfSpan, frozen=True, tag="job"):
    """A job is done. `seconds` of work for `events`, in all of its runs: the next job's estimate."""

    batch_end_ms: int | None
    inputs: str
    mark: Mark
    counts: Counts
    seconds: float
    format: int = FORMAT


Entry = LookedEntry | RowsEntry | SideEntry | JobEntry
Kind = TypeVar("Kind", LookedEntry, RowsEntry, SideEntry, JobEntry)


class Manifest:
    """The entries of one view under one definition."""

    def __init__(self, state: Path, project: str, view: str, meaning: str) -> None:
        self._view_folder = state / safe_name(project) / safe_name(view)
        self.folder = self._view_folder / meaning
        self._entries: dict[str, Entry] = {}
        for path in sorted(self.folder.glob("*.json")):
            entry = _read(path)
            if entry is not None and path.name == entry.file_name:
                self._entries[path.name] = entry

    @property
    def staging(self) -> Path:
        """Where the events of a stream view are on their way."""
        return self.folder / "staged"

    def entries(self, kind: type[Kind]) -> list[Kind]:
        """The entries of one kind, by the names of their files."""
        return [entry for _, entry in sorted(self._entries.items()) if isinstance(entry, kind)]

    def put(self, entry: Entry) -> None:
        """Keep the entry, in place of one with its name, through a power failure."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / entry.file_name, msgspec.json.encode(entry))
        self._entries[entry.file_name] = entry

    def forget(self, entries: Iterable[Entry]) -> None:
        """Remove these entries."""
        for entry in entries:
            self._entries.pop(entry.file_name, None)
            (self.folder / entry.file_name).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what other definitions, and killed jobs, left."""
        for path in self._view_folder.iterdir() if self._view_folder.is_dir() else ():
            if path.is_dir() and path != self.folder:
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_file() and path.name not in self._entries:
                path.unlink(missing_ok=True)

    def clean_staging(self, keep: Iterable[LookedEntry] = ()) -> None:
        """Remove all staged events but those of these entries."""
        kept = {self.staged_folder(entry) for entry in keep}
        if not kept:
            shutil.rmtree(self.staging, ignore_errors=True)
            return
        for path in self.staging.glob("*/*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def span_folder(self, span: Span) -> Path:
        """Where the events of a span are staged, each time in a folder of its own."""
        return self.staging / span_name(span)

    def staged_folder(self, entry: LookedEntry) -> Path:
        """Where the events of an entry's span are staged."""
        assert entry.staged is not None
        return self.span_folder(entry.span) / entry.staged.attempt

    def has_staged(self, entry: LookedEntry) -> bool:
        """Whether the events of the entry's span are there, each file as long as it was written."""
        if entry.staged is None:
            return False
        files = sorted(self.staged_folder(entry).glob("*.arrow"))
        return tuple(path.stat().st_size for path in files) == entry.staged.shard_bytes


def forget_view(state: Path, project: str, view: str) -> None:
    """Remove all that is known of a view: its rows are no more."""
    shutil.rmtree(state / safe_name(project) / safe_name(view), ignore_errors=True)


def span_name(span: Span) -> str:
    """A span in a file name, as 20261101T000000Z-20261102T000000Z."""
    return f"{time_name(span.start_ms)}-{time_name(span.end_ms)}"


def time_name(time_ms: int) -> str:
    """A time in a file name, with milliseconds where it has any."""
    name = datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y%m%dT%H%M%S")
    return f"{name}.{time_ms % 1000:03d}Z" if time_ms % 1000 else f"{name}Z"


def safe_name(name: str) -> str:
    """A name that is a file name everywhere, and no other name's."""
    return _UNSAFE.sub(lambda found: f"%{ord(found.group()):02X}", name)


def _read(path: Path) -> Entry | None:
    """The entry in a file; None for one of another format, or damaged, which is as good as not there."""
    try:
        entry: Entry = msgspec.json.decode(path.read_bytes(), type=Entry)
    except (OSError, msgspec.MsgspecError):
        return None
    return entry if entry.format == FORMAT else None
