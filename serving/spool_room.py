"""Keeps the folder of the decision log within its bound."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from serving.spool import (
    SpoolFile,
    delete_file,
    lock_writer,
    locked_writers,
    newest_of_each,
    shipped_to,
    spool_files,
)

_DECISION = b'{"kind":"decision"'
_LOG = logging.getLogger(__name__)


class SpoolRoom:
    """Deletes the oldest files, as many as are too much; several processes may do so at once.

    deleted_files: how many this one has. lost_unshipped: decisions in them that the event log does not have.
    unshipped_bytes: what waits in the whole folder to be shipped, as of the last `tidy`.
    """

    def __init__(self, folder: Path, writer: str, bytes_max: int, *, is_shipped: bool) -> None:
        """`writer` is our own. `is_shipped`: whether the files are brought to the event log."""
        self._folder, self._writer, self._bytes_max, self._is_shipped = folder, writer, bytes_max, is_shipped
        self.deleted_files = self.lost_unshipped = self.unshipped_bytes = 0

    def tidy(self) -> None:
        """Delete what is too much: files that the event log has, then others; none that is being written.

        Raises OSError.
        """
        files = spool_files(self._folder)
        sizes = {file.path: _size(file.path) for file in files}
        excess = sum(sizes.values()) - self._bytes_max
        newest = {file.path for file in newest_of_each(files).values()}
        for file in sorted(files, key=self._is_wanted):
            if excess <= 0:
                break
            if file.path not in newest or not self._is_alive(file.writer):
                self._delete(file)
                excess -= sizes.pop(file.path)
        if not self._is_shipped:
            self._forget_the_dead()
            return
        waiting = [file.path for file in files if self._is_wanted(file) and file.path in sizes]
        self.unshipped_bytes = sum(max(0, sizes[path] - shipped_to(path)) for path in waiting)

    def _is_wanted(self, file: SpoolFile) -> bool:
        return self._is_shipped and not file.is_shipped

    def _delete(self, file: SpoolFile) -> None:
        lost = _decisions_after(file.path, shipped_to(file.path)) if self._is_wanted(file) else 0
        with contextlib.suppress(FileNotFoundError):  # another writer was faster
            delete_file(file.path)
            self.deleted_files += 1
            self.lost_unshipped += lost
            if lost:
                _LOG.error("the decision log is full: %s is deleted with %d unshipped decisions", file.path, lost)
            else:
                _LOG.warning("the decision log is full: %s is deleted", file.path)

    def _is_alive(self, writer: str) -> bool:
        lock = lock_writer(self._folder, writer)
        if lock is not None:
            lock.release(forget=True)
        return lock is None

    def _forget_the_dead(self) -> None:
        for writer in locked_writers(self._folder) - {self._writer}:
            self._is_alive(writer)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another writer was faster
        return 0


def _decisions_after(path: Path, offset: int) -> int:
    """How many decisions begin at `offset` or later."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(offset)
        return sum(line.startswith(_DECISION) for line in file)
    return 0
