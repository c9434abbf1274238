"""The folder of the decision log: its files, how far each has been shipped, and who may ship them.

    <folder>/<writer>.lock                                locked (flock) by the process that writes or ships its files
    <folder>/date=2026-11-25/134501-<writer>-0001.jsonl   decisions, begun at 13:45:01 UTC
    …/134501-<writer>-0001.jsonl.offset                   how many of its bytes the event log has acknowledged
    …/134501-<writer>-0001.jsonl.shipped                  instead of it, when that is all

A lock goes with its process, however that ends. So a writer whose lock can be taken is dead, and who has taken it is
alone with its files. Names of writers are never used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

SUFFIX = ".jsonl"

_OFFSET = ".offset"
_SHIPPED = ".shipped"
_LOCK = ".lock"
_DAY = "date="
_MODE = 0o640


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """One file, by its name: the `number`th of its writer, begun at `opened_ms` (whole seconds)."""

    path: Path
    writer: str
    number: int
    opened_ms: int
    is_shipped: bool


def begin_file(folder: Path, writer: str, number: int, now_ms: int) -> tuple[int, Path]:
    """A descriptor that appends to a new file, and its path. Raises OSError."""
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    path = folder / f"{_DAY}{at:%Y-%m-%d}" / f"{at:%H%M%S}-{writer}-{number:04}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE), path


def spool_files(folder: Path) -> list[SpoolFile]:
    """All files, oldest first, those of one writer in its own order."""
    found = [file for day in folder.glob(f"{_DAY}*") for file in _files_of_a_day(day)]
    return sorted(found, key=lambda file: (file.opened_ms, file.writer, file.number))


def shipped_to(path: Path) -> int:
    """How many of the file's bytes have been acknowledged, as far as is known."""
    try:
        return int(_beside(path, _OFFSET).read_bytes())
    except (FileNotFoundError, ValueError):  # shipping it again does no harm
        return 0


def note_shipped_to(path: Path, offset: int) -> None:
    """Remember how many of the file's bytes have been acknowledged. Raises OSError."""
    new = _beside(path, f"{_OFFSET}.new")
    new.write_bytes(b"%d" % offset)
    new.replace(_beside(path, _OFFSET))


def note_shipped(path: Path) -> None:
    """Remember that all of the file has been acknowledged. Raises OSError."""
    try:
        _beside(path, _OFFSET).replace(_beside(path, _SHIPPED))
    except FileNotFoundError:  # nothing of it was noted before
        _beside(path, _SHIPPED).touch()


def delete_file(path: Path) -> None:
    """Delete the file with all that lies beside it. Raises FileNotFoundError when another process was faster."""
    path.unlink()
    for suffix in (_OFFSET, _SHIPPED):
        _beside(path, suffix).unlink(missing_ok=True)


class WriterLock:
    """The right to write or ship a writer's files, until it is released or the process ends."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor, self._path = descriptor, path

    def release(self, *, forget: bool) -> None:
        """Give the right up; `forget` when nothing of the writer is left to be shipped."""
        if forget:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def lock_writer(folder: Path, writer: str, *, wait: bool = False) -> WriterLock | None:
    """The lock of a writer; None, unless we wait, when another process has it. Raises OSError."""
    path = folder / f"{writer}{_LOCK}"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_at(descriptor, path):
            return WriterLock(descriptor, path)
        os.close(descriptor)  # who had it before has just deleted it


def locked_writers(folder: Path) -> set[str]:
    """The writers that a lock file lies there for, dead or alive."""
    return {path.name.removesuffix(_LOCK) for path in folder.glob(f"*{_LOCK}")}


def newest_of_each(files: Iterable[SpoolFile]) -> dict[str, SpoolFile]:
    """The last file of each writer: the one that it writes, if it lives."""
    newest: dict[str, SpoolFile] = {}
    for file in files:
        if file.writer not in newest or file.number > newest[file.writer].number:
            newest[file.writer] = file
    return newest


def _files_of_a_day(day: Path) -> Iterator[SpoolFile]:
    try:
        midnight = datetime.strptime(day.name, f"{_DAY}%Y-%m-%d").replace(tzinfo=UTC)
        names = {entry.name for entry in os.scandir(day)}
    except (ValueError, OSError):  # none of ours, or deleted just now
        return
    for name in names:
        if name.endswith(SUFFIX):
            with contextlib.suppress(ValueError):
                clock, _, rest = name.removesuffix(SUFFIX).partition("-")
                writer, _, number = rest.rpartition("-")
                seconds = int(clock[:2]) * 3600 + int(clock[2:4]) * 60 + int(clock[4:])
                opened_ms = (int(midnight.timestamp()) + seconds) * 1000
                yield SpoolFile(day / name, writer, int(number), opened_ms, f"{name}{_SHIPPED}" in names)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
