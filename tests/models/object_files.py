"""An object store for tests that several processes see: fsspec's local files, with whole and conditional uploads."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from models.storage import RemoteStorage


class ObjectFiles(LocalFileSystem):
    """`pipe_file` puts an object there as a whole, and with mode "create" only if there is none, as S3 does.

    `fails_at`: the upload of names with this end is cut off in the middle, as by a network that goes away.
    """

    cachable = False

    def __init__(self, fails_at: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._fails_at = fails_at

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:  # noqa: ARG002
        target = Path(self._strip_protocol(path))
        staged = target.with_name(f".{uuid.uuid4().hex}")
        if self._fails_at and path.endswith(self._fails_at):
            raise TimeoutError("the network went away")
        staged.write_bytes(value)
        try:
            if mode == "create":
                os.link(staged, target)
                staged.unlink()
            else:
                staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)


def object_storage(root: Path, cache: Path | None = None, fails_at: str = "") -> RemoteStorage:
    """Storage over such files."""
    return RemoteStorage(ObjectFiles(fails_at), str(root), cache=cache, creates_exclusively=True)
