"""Which files of a model store are read: plain ones, of bounded size."""

from __future__ import annotations

import stat
from pathlib import Path

from models.errors import BundleCorruptError

FILE_BYTES_MAX = 512 * 2**20
"""Of one file of a bundle, and of a model file that is imported."""


def checked_file(path: Path, bytes_max: int) -> Path:
    """The path itself, if a file is there that is no link and no device.

    Raises BundleCorruptError for anything else and for more than `bytes_max` bytes, FileNotFoundError.
    """
    found = path.lstat()
    where = f"{path.parent.name}/{path.name}"
    if stat.S_ISLNK(found.st_mode):
        raise BundleCorruptError(f"{where} is a link: a bundle holds its own files; publish again")
    if not stat.S_ISREG(found.st_mode):
        raise BundleCorruptError(f"{where} is no plain file: restore it or publish again")
    check_size(where, found.st_size, bytes_max)
    return path


def check_size(where: str, size: int, bytes_max: int) -> None:
    """Raises BundleCorruptError when a file has more bytes than it may have."""
    if size > bytes_max:
        raise BundleCorruptError(f"{where} has {size:,} bytes, more than {bytes_max:,}: restore it or publish again")
