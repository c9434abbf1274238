"""Finds a decision by its id: in the files of this machine, else in the archive of `actor-risk decisions sink`.

The id tells when the decision was made, so few files come into question: of each writer those that it wrote then, and
of the archive, `<archive>/date=2026-11-25/hour=13/<first ms>-<last ms>-….parquet`, those of the hour whose span has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Raw, Struct
from pyarrow import fs

from serving.errors import DecisionsUnavailableError
from serving.spool import SpoolFile, spool_files

LATE_MS = 60_000
"""A decision is written so long after its time at most, unless the disk was full then."""
FILE_AGE_MS_MAX = 3_600_000

_CLOCK_MS = 1_000
_AT_ONCE = 2
_BLOCK_BYTES = 1 << 20
_UUID_7 = 7
_ID_COLUMN = 0


class DecisionLookup:
    """See `serving.ports.DecisionFinder`."""

    def __init__(self, folder: Path, archive: Path | str | None) -> None:
        """`folder` of the decision log; `archive`: a directory, an address such as s3://bucket/decisions, or None."""
        self._folder, self._archive = folder, archive
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def find(self, decision_id: str) -> bytes | None:
        """See `DecisionFinder.find`."""
        at_ms = time_of(decision_id)
        if at_ms is None:
            return None
        async with self._free:
            return await asyncio.to_thread(self._find, decision_id, at_ms)

    def _find(self, decision_id: str, at_ms: int) -> bytes | None:
        try:
            found = find_in_files(spool_files(self._folder), decision_id, at_ms)
            if found is None and self._archive is not None:
                found = find_in_archive(*_opened(self._archive), decision_id, at_ms)
        except (OSError, pa.ArrowException) as error:
            raise DecisionsUnavailableError(str(error)) from error
        return found


def time_of(decision_id: str) -> int | None:
    """The milliseconds UTC in a UUID of version 7, in its one usual form; None for anything else."""
    try:
        found = UUID(decision_id)
    except ValueError:
        return None
    return found.int >> 80 if found.version == _UUID_7 and str(found) == decision_id else None


def find_in_files(files: Iterable[SpoolFile], decision_id: str, at_ms: int) -> bytes | None:
    """The decision as it was answered, from the files of a decision log."""
    needle = b'"decision_id":"%s"' % decision_id.encode()
    for path in _written_at(files, at_ms):
        for line in _lines_with(path, needle):
            decision = _decision_in(line, decision_id)
            if decision is not None:
                return decision
    return None


def find_in_archive(filesystem: fs.FileSystem, root: str, decision_id: str, at_ms: int) -> bytes | None:
    """The decision as it was answered, from an archive. Raises OSError or pyarrow's errors."""
    hour = datetime.fromtimestamp(at_ms / 1000, UTC)
    folder = fs.FileSelector(f"{root}/date={hour:%Y-%m-%d}/hour={hour:%H}", allow_not_found=True)
    for info in filesystem.get_file_info(folder):
        if info.extension == "parquet" and _spans(info.base_name, at_ms):
            with filesystem.open_input_file(info.path) as file:
                record = _record_in(pq.ParquetFile(file), decision_id)
            if record is not None:
                return _decision_in(record.encode(), decision_id)
    return None


class _Named(Struct, frozen=True):
    decision_id: str


class _Kept(Struct, frozen=True):
    decision: Raw


def _written_at(files: Iterable[SpoolFile], at_ms: int) -> Iterator[Path]:
    """The files that were open some time between `at_ms` and `LATE_MS` later."""
    by_writer: dict[str, list[SpoolFile]] = {}
    for file in files:
        by_writer.setdefault(file.writer, []).append(file)
    for own in by_writer.values():
        own.sort(key=lambda file: file.number)
        ends_ms = [following.opened_ms + _CLOCK_MS for _, following in pairwise(own)]
        for file, end_ms in zip(own, [*ends_ms, own[-1].opened_ms + FILE_AGE_MS_MAX + LATE_MS], strict=True):
            if file.opened_ms <= at_ms + LATE_MS and at_ms <= end_ms:
                yield file.path


def _lines_with(path: Path, needle: bytes) -> Iterator[bytes]:
    """The whole lines that have these bytes in them, read in blocks: each keeps the interpreter for a moment only."""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                block += file.readline()
                at = block.find(needle)
                while at >= 0:
                    end = block.find(b"\n", at)
                    if end < 0:
                        return  # cut off
                    yield block[block.rfind(b"\n", 0, at) + 1 : end]
                    at = block.find(needle, end)
    except FileNotFoundError:  # deleted to make room
        return


def _decision_in(line: bytes, decision_id: str) -> bytes | None:
    """The bytes of the decision in a line, if it is this one: what a caller sent may have the id in it as well."""
    try:
        decision = bytes(msgspec.json.decode(line, type=_Kept).decision)
        is_this = msgspec.json.decode(decision, type=_Named).decision_id == decision_id
    except msgspec.DecodeError:
        return None
    return decision if is_this else None


def _opened(archive: Path | str) -> tuple[fs.FileSystem, str]:
    if isinstance(archive, Path):
        return fs.LocalFileSystem(), str(archive)
    filesystem, root = fs.FileSystem.from_uri(archive)
    return filesystem, root


def _spans(name: str, at_ms: int) -> bool:
    first, last, *_ = [*name.split("-"), "", ""]
    return first.isdigit() and last.isdigit() and int(first) <= at_ms <= int(last)


def _record_in(file: pq.ParquetFile, decision_id: str) -> str | None:
    """The whole record of a decision. Rows are sorted by id, so that few row groups come into question."""
    for number in range(file.num_row_groups):
        if _may_have(file.metadata.row_group(number).column(_ID_COLUMN).statistics, decision_id):
            row = pc.index(file.read_row_group(number, ["decision_id"]).column(0), decision_id).as_py()
            if row >= 0:
                return str(file.read_row_group(number, ["record"]).column(0)[row].as_py())
    return None


def _may_have(statistics: pq.Statistics | None, decision_id: str) -> bool:
    return statistics is None or not statistics.has_min_max or statistics.min <= decision_id <= statistics.max
