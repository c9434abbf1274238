"""The seam between the model store and where its files are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from models._files import FILE_BYTES_MAX
from models.errors import UnsafeNameError

T = TypeVar("T")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Storage(Protocol):
    """Files by name below one root. A name is made of parts, `model/version/file`; see `checked`.

    What each kind promises:

                            DirectoryStorage              RemoteStorage
    where                   a path, or file://            s3://, gs://, memory://, and what else fsspec knows
    `write`: a reader sees  always: written aside, then   where one upload appears as a whole: s3, gs, az, memory.
    all of it or nothing    renamed                       Elsewhere (sftp, …) a cut file fails its hash
    `create`: of several    always: a hard link           s3 (s3fs ≥ 2025.7), gs (gcsfs ≥ 2024.12), by conditional
    writers one succeeds                                  writes; memory within one process. Elsewhere `create` is
                                                          refused, so that no change can be lost
    after a power cut       what was written is there     what the service promises
    `names`                 what is there now             the same: listings are never cached
    `fetch`                 the directory itself          a copy in `cache`, proven before it is kept, shared by all
                                                          processes of the machine; without `cache` a passing copy
    """

    def read(self, name: str, bytes_max: int = FILE_BYTES_MAX) -> bytes:
        """The content of a file. Raises FileNotFoundError, BundleCorruptError for more than `bytes_max` bytes."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, over an old one if there is one."""
        ...

    def create(self, name: str, content: bytes) -> None:
        """Writes a file that must not be there yet.

        Raises FileExistsError, or UnsupportedStoreError where the kind cannot tell two writers apart.
        """
        ...

    def names(self, folder: str) -> list[str]:
        """What is directly in a folder ("" is the root), sorted, without names that `checked` refuses."""
        ...

    def fetch(self, folder: str, files: Callable[[], Sequence[str]], use: Callable[[Path], T]) -> T:
        """What `use` makes of the folder as a directory of this machine.

        `files` says which files belong to it, if they have to be brought. `use` raises BundleCorruptError or
        BundleNotFoundError for a copy that must not be kept. Raises FileNotFoundError when there is no such folder.
        """
        ...


def checked(name: str) -> str:
    """The name itself, if it cannot leave the root on any kind of storage. Raises UnsafeNameError."""
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        raise UnsafeNameError(f"{name!r} is no name of a file in a model store: parts have letters, digits, ., _ and -")
    return name


def is_name(part: str) -> bool:
    """Whether this may be one part of a name."""
    return _PART.fullmatch(part) is not None
