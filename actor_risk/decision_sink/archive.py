"""Where decisions are kept for good: Parquet by the hour in which they were made.

    <archive>/date=2026-11-25/hour=13/<first ms>-<last ms>-<random>.parquet

A file appears when it is whole, is never changed, and has each decision once, sorted by id. Two files may have the same
one: when the process that wrote it was killed before it could tell the log.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

ROW_GROUP_ROWS = 4_096
"""A decision that is looked for is read with so many others."""


class Archive:
    """Writes to a directory, or to an address that pyarrow knows, such as s3://bucket/decisions."""

    def __init__(self, where: str) -> None:
        """Raises pyarrow's errors for an address of a kind that it does not know. Writes nothing yet."""
        self._is_local = "://" not in where
        self._filesystem, self._root = fs.LocalFileSystem(), str(Path(where).absolute())
        if not self._is_local:
            self._filesystem, self._root = fs.FileSystem.from_uri(where)

    def write(self, hour_ms: int, table: pa.Table) -> str:
        """Write one hour's decisions, sorted by id. Returns the file's path, when it is safe. Raises OSError."""
        folder = f"{self._root}/{datetime.fromtimestamp(hour_ms / 1000, UTC):date=%Y-%m-%d/hour=%H}"
        times = table.column("time").cast(pa.int64())
        path = f"{folder}/{times[0]}-{times[-1]}-{secrets.token_hex(4)}.parquet"
        self._filesystem.create_dir(folder)
        if self._is_local:
            _write_durably(table, Path(path))
        else:
            _write(table, path, self._filesystem)  # such a file is there when it is closed, or not at all
        return path


def _write(table: pa.Table, path: str, filesystem: fs.FileSystem) -> None:
    pq.write_table(table, path, filesystem=filesystem, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def _write_durably(table: pa.Table, path: Path) -> None:
    new = path.with_name(f".{path.name}")  # readers of datasets pass over such names
    try:
        _write(table, str(new), fs.LocalFileSystem())
        _sync(new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
