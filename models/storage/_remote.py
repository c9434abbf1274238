"""Files at an address that fsspec knows, and their copies on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from fsspec import AbstractFileSystem

from models._files import FILE_BYTES_MAX, check_size
from models.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    ModelError,
    StoreUnavailableError,
    UnsupportedStoreError,
)
from models.storage._protocol import checked, is_name

T = TypeVar("T")
_CREATING = threading.Lock()
"""memory:// looks and then writes, so its creations take turns; the others decide at the service."""


class RemoteStorage:
    """See `Storage`."""

    def __init__(self, files: AbstractFileSystem, root: str, *, cache: Path | None, creates_exclusively: bool) -> None:
        """`files` must not cache listings. `creates_exclusively`: `pipe_file(mode="create")` is one conditional write.

        `cache` is a directory of this machine for copies; None keeps none.
        """
        self._files = files
        self._root = root.rstrip("/")
        self._address = str(files.unstrip_protocol(root))
        self._cache = None if cache is None else cache / hashlib.sha256(self._address.encode()).hexdigest()[:16]
        self._creates_exclusively = creates_exclusively

    def read(self, name: str, bytes_max: int = FILE_BYTES_MAX) -> bytes:
        path = self._path(name)
        with self._reached():
            size = int(self._files.info(path)["size"])
            check_size(name, size, bytes_max)
            return bytes(self._files.cat_file(path, start=0, end=size)) if size else b""

    def write(self, name: str, content: bytes) -> None:
        with self._reached():
            self._put(name, content, "overwrite")

    def create(self, name: str, content: bytes) -> None:
        if not self._creates_exclusively:
            raise UnsupportedStoreError(
                f"{self._address}: two writers at once would both seem to succeed there, so aliases cannot be changed: "
                "use a directory, s3:// (s3fs 2025.7 or newer) or gs:// (gcsfs 2024.12 or newer); versions still load"
            )
        with self._reached(), _CREATING:
            self._put(name, content, "create")

    def names(self, folder: str) -> list[str]:
        path = self._path(folder) if folder else self._root
        self._files.invalidate_cache()
        with self._reached():
            try:
                found = self._files.ls(path, detail=False)
            except FileNotFoundError:
                return []
        entries = (str(entry).rstrip("/") for entry in found)
        return sorted({part for entry in entries if entry != path and is_name(part := entry.rsplit("/", 1)[-1])})

    def fetch(self, folder: str, files: Callable[[], Sequence[str]], use: Callable[[Path], T]) -> T:
        checked(folder)
        if self._cache is None:
            with tempfile.TemporaryDirectory(prefix="model-") as passing:
                return use(self._brought(folder, files(), Path(passing)))
        kept = self._cache / folder
        if kept.is_dir() and not kept.is_symlink():
            with suppress(*_UNUSABLE):
                return use(kept)
            with _alone(kept.parent):  # another process may have brought a good one meanwhile: it must not be taken
                try:
                    return use(kept)
                except _UNUSABLE:
                    _discard(kept)
        return self._keep(folder, files(), use, kept)

    def _keep(self, folder: str, files: Sequence[str], use: Callable[[Path], T], kept: Path) -> T:
        """1. bring the files aside, 2. prove and use them there, 3. rename: others see a whole, proven copy or none."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".fetch-", dir=kept.parent))
        try:
            brought = self._brought(folder, files, aside)
            used = use(brought)
            with _alone(kept.parent):
                if not kept.exists():  # else another process was faster, with the same content
                    brought.rename(kept)
            return used
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _brought(self, folder: str, files: Sequence[str], aside: Path) -> Path:
        target = aside / folder.rsplit("/", 1)[-1]
        target.mkdir(mode=0o755)
        for name in files:  # not get_file: readers of memory:// at the same time would share one position in the file
            (target / name).write_bytes(self.read(f"{folder}/{name}"))
        return target

    def _put(self, name: str, content: bytes, mode: str) -> None:
        path = self._path(name)
        try:
            self._files.pipe_file(path, content, mode=mode)
        except FileNotFoundError:  # a file system with folders; object stores have none, and must not be asked for one
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._files.pipe_file(path, content, mode=mode)

    def _path(self, name: str) -> str:
        return f"{self._root}/{checked(name)}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """What services raise is of many kinds; to callers it is one."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, ModelError):
            raise
        except Exception as error:
            raise StoreUnavailableError(f"the model store {self._address} did not answer: {error!r}") from error


_UNUSABLE = (BundleCorruptError, BundleNotFoundError, FileNotFoundError)
"""What reading a copy may end with when it is damaged, or is taken away in the middle."""


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process of this machine at a time changes which copies are in a directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _discard(kept: Path) -> None:
    """Take a damaged copy away in one step, so that no other process finds half of it."""
    aside = kept.with_name(f".damaged-{uuid.uuid4().hex}")
    try:
        kept.rename(aside)
    except FileNotFoundError:  # another process was faster
        return
    shutil.rmtree(aside, ignore_errors=True)
