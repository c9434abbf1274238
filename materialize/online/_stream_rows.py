"""The bytes of a stream row: header, applied offsets, the head's events, and the tiles of each hop.

    offset size
         0   16  see `_header`
        16    8  row version: compared and set by the writer
        24    8  event time, ms: the newest event that the row includes
        32    8  batch end, ms
        40    8  newest event time in its tiles, ms
        48    2  events in the head
        50    2  partitions in the applied offsets
        52    4  0
    applied offsets   partitions × { partition uint32, log's incarnation uint32, offset int64 }
    head              times int64[n], ids uint64[n], values float64[n × value columns],
                      hashes uint64[n × distinct columns]
    for each hop of the view, by growing hop:
        tiles         m uint32, 0 uint32, index int64[m], states float64[m × width]
        for each distinct column of the hop: ends int64[m], hashes uint64[ends[m − 1]]

`docs/row-format.md` walks through a row byte by byte.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from materialize.kernel import EventBlock, HopLayout, Row, Sets, Tiles, ViewSpec
from materialize.online._errors import RowRefusedError
from materialize.online._header import PREFIX_SIZE, STREAM_ROW, refused, seal, unseal

_HEADER = struct.Struct("<QqqqHHI")
_APPLIED = struct.Struct("<qq")
_COUNT = struct.Struct("<II")

HEADER_SIZE = PREFIX_SIZE + _HEADER.size
"""Bytes before the applied offsets."""

APPLIED_SIZE = _APPLIED.size
"""Bytes that one partition's applied offset takes, between the header and the head."""


@dataclass(frozen=True)
class StreamRow:
    """A row as it is stored: its state, its version, and the last offset applied from each partition.

    A partition is told by its number and, in the bits from 32 on, by the incarnation of its log: the offsets of a log
    that was made anew say nothing about those of the one before.
    """

    state: Row
    version: int
    applied: Mapping[int, int]


def encode_stream_row(spec: ViewSpec, row: StreamRow) -> bytes:
    """The bytes of a row."""
    state = row.state
    parts = [_APPLIED.pack(partition, offset) for partition, offset in sorted(row.applied.items())]
    head = state.head
    parts += [head.times.tobytes(), head.ids.tobytes(), head.values.tobytes(), head.hashes.tobytes()]
    for tiles in state.tiles:
        parts += [_COUNT.pack(len(tiles), 0), tiles.index.tobytes(), tiles.states.tobytes()]
        for sets in tiles.sets:
            parts += [sets.ends.tobytes(), sets.hashes.tobytes()]
    times = (state.newest_ms, state.batch_end_ms, state.tiles_newest_ms)
    header = _HEADER.pack(row.version, *times, len(head), len(row.applied), 0)
    return seal(STREAM_ROW, spec.fingerprint, header + b"".join(parts))


def decode_stream_row(spec: ViewSpec, data: bytes) -> StreamRow:
    """The row that the bytes hold; its arrays are views of them.

    Raises RowRefusedError for bytes that are no row of this view.
    """
    unseal(data, STREAM_ROW, spec.fingerprint)
    if len(data) < HEADER_SIZE:
        raise refused("bad_shape")
    version, _, batch_end_ms, tiles_newest_ms, n, partitions, _ = _HEADER.unpack_from(data, PREFIX_SIZE)
    cursor = _Cursor(data, HEADER_SIZE)
    applied = {}
    for _ in range(partitions):
        partition, offset = _APPLIED.unpack(cursor.bytes(_APPLIED.size))
        applied[partition] = offset
    head = EventBlock(
        cursor.array(np.int64, n),
        cursor.array(np.uint64, n),
        cursor.array(np.float64, n, len(spec.value_columns)),
        cursor.array(np.uint64, n, len(spec.distinct_columns)),
    )
    tiles = tuple(_tiles(cursor, layout) for layout in spec.hops)
    cursor.expect_end()
    return StreamRow(Row(head, tiles, batch_end_ms, tiles_newest_ms), version, applied)


def _tiles(cursor: _Cursor, layout: HopLayout) -> Tiles:
    m, _ = _COUNT.unpack(cursor.bytes(_COUNT.size))
    index = cursor.array(np.int64, m)
    states = cursor.array(np.float64, m, layout.width)
    sets = []
    for _ in layout.distinct:
        ends = cursor.array(np.int64, m)
        sets.append(Sets(cursor.array(np.uint64, int(ends[-1]) if m else 0), ends))
    return Tiles(index, states, tuple(sets))


class _Cursor:
    """Reads sections one after the other, never beyond the end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position

    def bytes(self, size: int) -> bytes:
        begin = self._advance(size)
        return self._data[begin : begin + size]

    def array(self, dtype: Any, length: int, width: int | None = None) -> np.ndarray[Any, Any]:
        count = length if width is None else length * width
        begin = self._advance(count * 8)
        flat = np.frombuffer(self._data, dtype, count, begin)
        return flat if width is None else flat.reshape(length, width)

    def expect_end(self) -> None:
        if self._position != len(self._data):
            raise RowRefusedError("bad_shape", f"{len(self._data) - self._position} bytes after the row's end")

    def _advance(self, size: int) -> int:
        begin = self._position
        if size < 0 or begin + size > len(self._data):
            raise RowRefusedError("bad_shape", "the row ends before its sections do")
        self._position = begin + size
        return begin
