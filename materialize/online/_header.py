"""The first 16 bytes of every row: what it is, and for which schema.

    offset size
         0    2  magic, "AR"
         2    1  format version
         3    1  low four bits: kind, 1 batch row, 2 stream row; high four bits: flags of the kind
         4    4  checksum: the low 32 bits of the XXH64 of everything from offset 8 on, with the first 4 bytes, as a
                 number, for its seed
         8    8  schema fingerprint

`_batch_rows` and `_stream_rows` say how each kind goes on. All numbers are little-endian, and the length of a row is a
multiple of 8. The compiled form is `open_rows`.
"""

from __future__ import annotations

import struct

import xxhash

from materialize.online._errors import RowRefusedError

MAGIC = b"AR"
FORMAT_VERSION = 2
BATCH_ROW = 1
STREAM_ROW = 2
CHECKED_FROM = 8
PREFIX_SIZE = 16
VERSION_SLICE = slice(16, 24)
"""Where a stream row has its version, for compare-and-set."""

REASONS = (
    *("", "no_row", "too_short", "not_a_row", "other_format", "damaged", "other_kind", "other_schema", "bad_shape"),
    "bad_value",
)
"""Why a row is refused, by the number that the compiled form gives it; the first two are no refusals."""

_PREFIX = struct.Struct("<2sBBIQ")
_MESSAGES = {
    "too_short": "the bytes are fewer than those of any row",
    "not_a_row": "the bytes do not begin as a row does",
    "other_format": f"another row format than {FORMAT_VERSION}: run a backfill of the view",
    "damaged": "the row's checksum is wrong",
    "other_kind": "a row of another kind than the view's",
    "other_schema": "the row was written under another definition of the view: backfill it",
    "bad_shape": "the row's sections are not exactly its bytes",
    "bad_value": "a field's bytes are no value of its type",
}


def refused(reason: str) -> RowRefusedError:
    """The error for one of REASONS."""
    return RowRefusedError(reason, _MESSAGES[reason])


def checksum(data: bytes) -> int:
    """What bytes 4 to 8 of the row must say."""
    seed = int.from_bytes(data[:4], "little")
    return xxhash.xxh64_intdigest(memoryview(data)[CHECKED_FROM:], seed) & 0xFFFFFFFF


def seal(kind: int, fingerprint: int, rest: bytes) -> bytes:
    """The row: the prefix, then `rest`, padded to a multiple of 8. `kind` has the flags in its high four bits."""
    rest += bytes(-len(rest) % 8)
    unchecked = _PREFIX.pack(MAGIC, FORMAT_VERSION, kind, 0, fingerprint) + rest
    return _PREFIX.pack(MAGIC, FORMAT_VERSION, kind, checksum(unchecked), fingerprint) + rest


def unseal(data: bytes, kind: int, fingerprint: int) -> int:
    """The flags of a row, once everything that its first 16 bytes say has been checked.

    Raises RowRefusedError with reason `too_short`, `not_a_row`, `other_format`, `damaged`, `other_kind` or
    `other_schema`.
    """
    if len(data) < PREFIX_SIZE:
        raise refused("too_short")
    magic, version, found_kind, found_checksum, found_fingerprint = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise refused("not_a_row")
    if version != FORMAT_VERSION:
        raise refused("other_format")
    if len(data) % 8 or checksum(data) != found_checksum:
        raise refused("damaged")
    if found_kind & 15 != kind:
        raise refused("other_kind")
    if found_fingerprint != fingerprint:
        raise refused("other_schema")
    return int(found_kind >> 4)
