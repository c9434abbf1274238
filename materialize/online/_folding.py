"""Folding events into stored rows, many in one compiled call: the hot form of decode, `kernel.fold_events`, encode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from materialize.definitions import StreamView, ViewEvents
from materialize.kernel import (
    HEAD_MAX,
    KEEP_SLACK_MS,
    NO_TIME_MS,
    EventBlock,
    FoldCounts,
    compile_program,
    empty_block,
    fold_rows,
    hop_starts,
    program_reaches,
)
from materialize.online._errors import RowRefusedError
from materialize.online._header import HEADER_SIZE, STREAM_ROW, Header, seal, unseal
from materialize.online._keys import KeyEncoder
from materialize.online._stream_rows import APPLIED_SIZE

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class EventsByRow:
    """A micro-batch as one view's rows see it: the events of row r are those from begins[r] to begins[r + 1].

    keys: the rows' keys. block: the events by row, time and identity. repeats: bool[n], the identity came before in its
    row. partitions, offsets: int64[n], where each event stands in the log.
    """

    keys: tuple[bytes, ...]
    begins: Ints
    block: EventBlock
    repeats: Bools
    partitions: Ints
    offsets: Ints

    def rows(self, chosen: Sequence[int]) -> EventsByRow:
        """The same for some of the rows."""
        index = np.concatenate([np.arange(self.begins[r], self.begins[r + 1]) for r in chosen])
        lengths = [int(self.begins[r + 1] - self.begins[r]) for r in chosen]
        return EventsByRow(
            tuple(self.keys[r] for r in chosen),
            np.cumsum([0, *lengths]).astype(np.int64),
            self.block.take(index),
            self.repeats[index],
            self.partitions[index],
            self.offsets[index],
        )


@dataclass(frozen=True)
class FoldedRow:
    """What became of one row: its new bytes, or None when it has every event already, and what became of its events."""

    data: bytes | None
    counts: FoldCounts
    replayed: int


def events_by_row(encoder: KeyEncoder, seen: ViewEvents, partitions: Ints, offsets: Ints) -> EventsByRow:
    """A view's events grouped by the rows that they belong to. partitions, offsets: int64[n], of `seen`'s events."""
    codes_of: dict[tuple[object, ...], int] = {}
    entities = zip(*(column.tolist() for column in seen.keys), strict=True)
    codes = np.fromiter((codes_of.setdefault(entity, len(codes_of)) for entity in entities), np.int64, len(seen.block))
    order = np.lexsort((seen.block.ids, seen.block.times, codes))
    block, codes = seen.block.take(order), codes[order]
    return EventsByRow(
        tuple(encoder.key(entity) for entity in codes_of),
        np.searchsorted(codes, np.arange(len(codes_of) + 1)).astype(np.int64),
        block,
        _repeats(codes, block),
        partitions[order],
        offsets[order],
    )


class RowFolder:
    """Folds events into the rows of one view."""

    def __init__(self, view: StreamView) -> None:
        self._fingerprint = view.fingerprint
        self._program = compile_program(view.spec)
        self._hop_ats = np.array(hop_starts(self._program), dtype=np.int64)
        self._reaches = program_reaches(view.spec)
        columns = len(view.spec.value_columns) + len(view.spec.distinct_columns)
        tiles = sum(8 * (1 + layout.width + 2 * len(layout.distinct)) for layout in view.spec.hops)
        self._bytes_per_event = 8 * (2 + columns) + tiles + APPLIED_SIZE
        self._bytes_per_row = 8 * len(view.spec.hops)
        # Compiles, or loads what was compiled, before the first batch.
        nothing = empty_block(len(view.spec.value_columns), len(view.spec.distinct_columns))
        none = np.empty(0, np.int64)
        self.fold([None], [1], EventsByRow((b"",), np.zeros(2, np.int64), nothing, none.astype(bool), none, none), {})

    def fold(
        self, stored: Sequence[bytes | None], versions: Sequence[int], events: EventsByRow, refused: dict[str, int]
    ) -> list[FoldedRow]:
        """The rows with their events in them. `versions` are those that the new rows get.

        A stored row that is refused counts as none; why is counted in `refused`.
        """
        headers = [self._header(data, refused) for data in stored]
        parts = [b"" if header is None or data is None else data for header, data in zip(headers, stored, strict=True)]
        row_begins = np.cumsum([0, *map(len, parts)]).astype(np.int64)
        metas = np.array([_meta(header) for header in headers], dtype=np.int64)
        block, count = events.block, len(parts)
        given = len(block)
        out = np.empty(int(row_begins[-1]) + given * self._bytes_per_event + count * self._bytes_per_row, np.uint8)
        out_begins, newest = np.empty(count + 1, np.int64), np.empty(count, np.int64)
        counts = np.zeros((count, 5), np.int64)
        damaged = fold_rows(
            np.frombuffer(b"".join(parts) + b"\0", np.uint8),
            row_begins,
            HEADER_SIZE,
            metas,
            (self._program, self._hop_ats, self._reaches),
            (KEEP_SLACK_MS, HEAD_MAX),
            events.begins,
            (block.times, block.ids, block.values, block.hashes, events.repeats),
            (events.partitions, events.offsets),
            out,
            out_begins,
            newest,
            counts,
        )
        if damaged:
            refused["bad_shape"] = refused.get("bad_shape", 0) + damaged
        bodies = out[: out_begins[-1]].tobytes()
        return [
            FoldedRow(
                self._sealed(bodies[begin:stop], versions[r], metas[r].tolist(), int(newest[r]))
                if stop > begin
                else None,
                FoldCounts(*counts[r, :4].tolist()),
                int(counts[r, 4]),
            )
            for r, (begin, stop) in enumerate(zip(out_begins[:-1].tolist(), out_begins[1:].tolist(), strict=True))
        ]

    def _header(self, data: bytes | None, refused: dict[str, int]) -> Header | None:
        if data is None:
            return None
        try:
            return unseal(data, STREAM_ROW, self._fingerprint)
        except RowRefusedError as error:
            refused[error.reason] = refused.get(error.reason, 0) + 1
            return None

    def _sealed(self, body: bytes, version: int, meta: list[int], newest_ms: int) -> bytes:
        items, partitions, batch_end_ms, tiles_newest_ms = meta
        header = Header(
            STREAM_ROW, self._fingerprint, version, newest_ms, batch_end_ms, tiles_newest_ms, items, partitions
        )
        return seal(header, body)


def _meta(header: Header | None) -> tuple[int, int, int, int]:
    if header is None:
        return 0, 0, 0, NO_TIME_MS
    return header.items, header.partitions, header.second_time_ms, header.tiles_newest_ms


def _repeats(codes: Ints, block: EventBlock) -> Bools:
    """Which events, sorted by row, time and identity, repeat the identity of an earlier one of their row."""
    repeats = np.zeros(len(block), dtype=bool)
    ids = np.sort(block.ids)
    if (ids[1:] == ids[:-1]).any():
        order = np.lexsort((np.arange(len(block)), block.ids, codes))
        same = (codes[order][1:] == codes[order][:-1]) & (block.ids[order][1:] == block.ids[order][:-1])
        repeats[order[1:][same]] = True
    return repeats
