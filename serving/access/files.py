"""A file that is followed while the server runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from serving.errors import SettingsError

T = TypeVar("T")
Signature = tuple[int, int, int]


class AccessFileError(SettingsError):
    """A file of keys cannot be read, or is not as it should be. It quotes nothing that stands in it."""


class WatchedFile(Generic[T]):
    """What a file says. A new file that cannot be read or is not valid is refused: what the old one said stays."""

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        """Raises AccessFileError when the file cannot be read, or `parse` does."""
        self._path = path
        self._parse = parse
        self._seen, self.value = self._load()
        self.failure: str | None = None

    def refresh(self) -> bool:
        """Look at the file again. Returns whether it was read anew; `failure` is why it was refused, or None."""
        try:
            if self.failure is None and _signature(self._path) == self._seen:
                return False
            self._seen, self.value = self._load()
        except AccessFileError as error:
            self.failure = str(error)
            return False
        self.failure = None
        return True

    def _load(self) -> tuple[Signature, T]:
        seen = _signature(self._path)  # before it is read: a change in between is seen the next time
        return seen, self._parse(read(self._path))


def read(path: Path) -> bytes:
    """What stands in a file. Raises AccessFileError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessFileError(f"it cannot be read: {error.strerror}") from error


def _signature(path: Path) -> Signature:
    try:
        status = path.stat()
    except OSError as error:
        raise AccessFileError(f"it cannot be read: {error.strerror}") from error
    return status.st_ino, status.st_mtime_ns, status.st_size
