"""Files in a directory, of a local disk or of a POSIX file system that several machines share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from models._files import FILE_BYTES_MAX, checked_file
from models.errors import UnsupportedStoreError
from models.storage._protocol import checked, is_name

T = TypeVar("T")


class DirectoryStorage:
    """See `Storage`. Names that begin with a dot are files on their way; a killed writer may leave one behind."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str, bytes_max: int = FILE_BYTES_MAX) -> bytes:
        return checked_file(self._root / checked(name), bytes_max).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        target = self._root / checked(name)
        staged = _staged(target, content)
        staged.replace(target)
        _sync(target.parent)

    def create(self, name: str, content: bytes) -> None:
        target = self._root / checked(name)
        staged = _staged(target, content)
        try:
            os.link(staged, target)
        except FileExistsError:
            raise
        except OSError as error:
            raise UnsupportedStoreError(
                f"{self._root} is on a file system without hard links ({error}): aliases cannot be changed there safely"
            ) from error
        finally:
            staged.unlink()
        _sync(target.parent)

    def names(self, folder: str) -> list[str]:
        directory = self._root / checked(folder) if folder else self._root
        if not directory.is_dir():
            return []
        return sorted(path.name for path in directory.iterdir() if is_name(path.name))

    def fetch(self, folder: str, files: Callable[[], Sequence[str]], use: Callable[[Path], T]) -> T:  # noqa: ARG002
        directory = self._root / checked(folder)
        if not directory.is_dir() or directory.is_symlink():
            raise FileNotFoundError(directory)
        return use(directory)


def _staged(target: Path, content: bytes) -> Path:
    """The content in a file beside `target` whose name no reader looks at, safe from a power cut."""
    _make(target.parent)
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with staged.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return staged


def _make(directory: Path) -> None:
    """The directory and those above it, safe from a power cut."""
    if directory.is_dir():
        return
    _make(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
