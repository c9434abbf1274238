"""The first 56 bytes of every row: what it is, for which schema, and when it was written.

    offset size
         0    2  magic, "AR"
         2    1  format version
         3    1  kind: 1 batch row, 2 stream row
         4    4  CRC-32 of everything from offset 8 on
         8    8  schema fingerprint
        16    8  row version: compared and set by the writer of a stream row
        24    8  event time, ms: the newest event that the row includes
        32    8  batch row: created time, ms; stream row: batch end, ms
        40    8  stream row: newest event time in its tiles, ms; batch row: 0
        48    2  stream row: events in the head; batch row: fields
        50    2  stream row: partitions in the applied offsets
        52    4  reserved, 0

All numbers are little-endian; every section that follows starts at a multiple of 8.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from materialize.online._errors import RowRefusedError

MAGIC = b"AR"
FORMAT_VERSION = 1
BATCH_ROW = 1
STREAM_ROW = 2

_HEADER = struct.Struct("<2sBBIQQqqqHHI")
HEADER_SIZE = _HEADER.size
CHECKED_FROM = 8
VERSION_SLICE = slice(16, 24)


@dataclass(frozen=True)
class Header:
    """The header's fields; see the module's table."""

    kind: int
    fingerprint: int
    version: int
    event_time_ms: int
    second_time_ms: int
    tiles_newest_ms: int = 0
    items: int = 0
    partitions: int = 0


def seal(header: Header, body: bytes) -> bytes:
    """The row: header, checksum and body."""
    rest = (
        header.fingerprint,
        header.version,
        header.event_time_ms,
        header.second_time_ms,
        header.tiles_newest_ms,
        header.items,
        header.partitions,
        0,
    )
    unchecked = _HEADER.pack(MAGIC, FORMAT_VERSION, header.kind, 0, *rest) + body
    checksum = zlib.crc32(memoryview(unchecked)[CHECKED_FROM:])
    return _HEADER.pack(MAGIC, FORMAT_VERSION, header.kind, checksum, *rest) + body


def unseal(data: bytes, kind: int, fingerprint: int) -> Header:
    """The header of a row, once everything about it has been checked.

    Raises RowRefusedError with reason `too_short`, `not_a_row`, `other_format`, `other_kind`, `damaged` or
    `other_schema`.
    """
    if len(data) < HEADER_SIZE:
        raise RowRefusedError("too_short", f"{len(data)} bytes are no row")
    magic, version, found_kind, checksum, *rest = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise RowRefusedError("not_a_row", "the bytes do not begin as a row does")
    if version != FORMAT_VERSION:
        raise RowRefusedError(
            "other_format", f"row format {version}, this code reads {FORMAT_VERSION}: run a backfill of the view"
        )
    if zlib.crc32(memoryview(data)[CHECKED_FROM:]) != checksum:
        raise RowRefusedError("damaged", "the row's checksum is wrong")
    if found_kind != kind:
        raise RowRefusedError("other_kind", f"a row of kind {found_kind} where kind {kind} belongs")
    header = Header(found_kind, *rest[:-1])
    if header.fingerprint != fingerprint:
        raise RowRefusedError("other_schema", "the row was written under another definition of the view: backfill it")
    return header
