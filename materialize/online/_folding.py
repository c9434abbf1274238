"""Folding events into stored rows, and replacing their batch sides, many in one compiled call: the hot form of decode,
`kernel.fold_events` or `kernel.replace_batch_side`, encode."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from materialize.definitions import StreamView, ViewEvents
from materialize.kernel import (
    HEAD_MAX,
    KEEP_SLACK_MS,
    NO_TIME_MS,
    EventBlock,
    compile_program,
    empty_block,
    fold_rows,
    gather_ranges,
    group_events,
    hop_starts,
    program_reaches,
    replace_rows,
)
from materialize.online._compiled import FINE, NO_ROW, OPENED_SIZE, open_rows, seal_stream_rows
from materialize.online._header import REASONS, STREAM_ROW, VERSION_SLICE
from materialize.online._keys import KeyEncoder
from materialize.online._row_reader import joined_rows
from materialize.online._stream_rows import APPLIED_SIZE, HEADER_SIZE

Ints = np.ndarray[Any, np.dtype[np.int64]]
Versions = np.ndarray[Any, np.dtype[np.uint64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

VERSION_MAX = (1 << 63) - 1


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
        index, begins = _of_rows(self.begins, chosen)
        return EventsByRow(
            tuple(self.keys[r] for r in chosen),
            begins,
            self.block.take(index),
            self.repeats[index],
            self.partitions[index],
            self.offsets[index],
        )


@dataclass(frozen=True)
class HistoryByRow:
    """A view's history by row: the events of row r are those from begins[r] to begins[r + 1].

    keys, begins, block, repeats: as in EventsByRow.
    """

    keys: tuple[bytes, ...]
    begins: Ints
    block: EventBlock
    repeats: Bools

    def rows(self, chosen: Sequence[int]) -> HistoryByRow:
        """The same for some of the rows."""
        index, begins = _of_rows(self.begins, chosen)
        return HistoryByRow(tuple(self.keys[r] for r in chosen), begins, self.block.take(index), self.repeats[index])


@dataclass(frozen=True)
class FoldedRows:
    """What became of some rows. data: each row's new bytes, or None when it has every event already. counts:
    int64[rows, 5], what became of its events: folded, duplicates, owned by the batch, too late, replayed."""

    data: list[bytes | None]
    counts: Ints


def events_by_row(encoder: KeyEncoder, seen: ViewEvents, partitions: Ints, offsets: Ints) -> EventsByRow:
    """A view's events grouped by the rows that they belong to. partitions, offsets: int64[n], of `seen`'s events."""
    columns = [column.tolist() for column in seen.keys]
    alone = len(columns) == 1
    entities = columns[0] if alone else list(zip(*columns, strict=True))
    distinct = dict.fromkeys(entities)
    code_of = dict(zip(distinct, range(len(distinct)), strict=True))
    count, block = len(entities), seen.block
    codes = np.fromiter(map(code_of.__getitem__, entities), np.int64, count)
    begins, order = np.empty(len(distinct) + 1, np.int64), np.empty(count, np.int64)
    repeats = np.empty(count, np.bool_)
    group_events(codes, block.times, block.ids, begins, order, repeats)
    keys = encoder.keys([(value,) for value in distinct] if alone else distinct)
    return EventsByRow(tuple(keys), begins, block.take(order), repeats, partitions[order], offsets[order])


def history_by_row(keys: Sequence[bytes], codes: Ints, block: EventBlock) -> HistoryByRow:
    """Events grouped by the rows that they belong to. codes: int64[n], the position of each event's row in `keys`."""
    begins, order = np.empty(len(keys) + 1, np.int64), np.empty(len(block), np.int64)
    repeats = np.empty(len(block), np.bool_)
    group_events(codes, block.times, block.ids, begins, order, repeats)
    return HistoryByRow(tuple(keys), begins, block.take(order), repeats)


def _of_rows(begins: Ints, chosen: Sequence[int]) -> tuple[Ints, Ints]:
    """The positions of the events of some rows, and where each row's begin among them."""
    rows = np.asarray(chosen, np.int64)
    lengths = begins[rows + 1] - begins[rows]
    return gather_ranges(begins[rows], lengths), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


class RowFolder:
    """Folds events into the rows of one view, and replaces their batch sides."""

    def __init__(self, view: StreamView) -> None:
        self._fingerprint = np.uint64(view.fingerprint)
        self._views = np.array([[STREAM_ROW, 0, 0, 0, 0, 0]], dtype=np.int64)
        self._fingerprints = np.array([view.fingerprint], dtype=np.uint64)
        self._program = compile_program(view.spec)
        self._hop_ats = np.array(hop_starts(self._program), dtype=np.int64)
        self._reaches = program_reaches(view.spec)
        self._batch_step_ms = view.spec.batch_step_ms
        columns = len(view.spec.value_columns) + len(view.spec.distinct_columns)
        tiles = sum(8 * (1 + layout.width + 2 * len(layout.distinct)) for layout in view.spec.hops)
        self._bytes_per_event = 8 * (2 + columns) + tiles + APPLIED_SIZE
        self._bytes_per_row = HEADER_SIZE + 8 * len(view.spec.hops)
        # Compiles, or loads what was compiled, before the first batch.
        nothing = empty_block(len(view.spec.value_columns), len(view.spec.distinct_columns))
        none, begins, repeats = np.empty(0, np.int64), np.zeros(2, np.int64), np.empty(0, np.bool_)
        group_events(none, nothing.times, nothing.ids, begins, none, repeats)
        self.fold([None], EventsByRow((b"",), begins, nothing, repeats, none, none), {})

    def fold(self, stored: Sequence[bytes | None], events: EventsByRow, refused: dict[str, int]) -> FoldedRows:
        """The rows with their events in them, each with the version that follows its own.

        A stored row that is refused counts as none; why is counted in `refused`.
        """
        words, begins = joined_rows(stored)
        spans, metas = self._opened(words, begins, refused)
        block, count = events.block, len(stored)
        out, out_begins, newest = self._room(words, count, len(block))
        counts = np.zeros((count, 5), np.int64)
        damaged = fold_rows(
            words.view(np.uint8),
            spans,
            HEADER_SIZE,
            metas,
            (self._program, self._hop_ats, self._reaches),
            (KEEP_SLACK_MS, HEAD_MAX),
            events.begins,
            (block.times, block.ids, block.values, block.hashes, events.repeats),
            (events.partitions, events.offsets),
            out.view(np.uint8),
            out_begins,
            newest,
            counts,
        )
        if damaged:
            refused["bad_shape"] = refused.get("bad_shape", 0) + damaged
        return FoldedRows(self._sealed(out, out_begins, next_versions(stored), newest, metas), counts)

    def replace(
        self, stored: Sequence[bytes | None], history: HistoryByRow, batch_end_ms: int, refused: dict[str, int]
    ) -> list[bytes | None]:
        """The rows with everything before `batch_end_ms` replaced by their history, each with the version that follows
        its own; None for a row that has a later batch end.

        A stored row that is refused counts as none; why is counted in `refused`. Raises ValueError for a batch end
        that is within a tile.
        """
        if batch_end_ms % self._batch_step_ms:
            raise ValueError(f"the batch end {batch_end_ms} is not a multiple of {self._batch_step_ms} ms")
        words, begins = joined_rows(stored)
        spans, metas = self._opened(words, begins, refused)
        block = history.block
        out, out_begins, newest = self._room(words, len(stored), len(block))
        damaged = replace_rows(
            words.view(np.uint8),
            spans,
            HEADER_SIZE,
            metas,
            (self._program, self._hop_ats, self._reaches),
            (KEEP_SLACK_MS, HEAD_MAX),
            batch_end_ms,
            history.begins,
            (block.times, block.ids, block.values, block.hashes, history.repeats),
            out.view(np.uint8),
            out_begins,
            newest,
        )
        if damaged:
            refused["bad_shape"] = refused.get("bad_shape", 0) + damaged
        return self._sealed(out, out_begins, next_versions(stored), newest, metas)

    def _room(self, words: Ints, rows: int, events: int) -> tuple[Versions, Ints, Ints]:
        """Room for what the rows may become, for where each begins, and for its newest event time."""
        room = 8 * len(words) + events * self._bytes_per_event + rows * self._bytes_per_row
        return np.empty(room // 8, np.uint64), np.empty(rows + 1, np.int64), np.empty(rows, np.int64)

    def _sealed(self, out: Versions, begins: Ints, versions: Versions, newest: Ints, metas: Ints) -> list[bytes | None]:
        """The rows with their headers; None for an empty one."""
        seal_stream_rows(out, begins >> 3, self._fingerprint, versions, newest, metas)
        data = out[: begins[-1] >> 3].tobytes()
        return [data[a:b] if b > a else None for a, b in pairwise(begins.tolist())]

    def _opened(self, words: Ints, begins: Ints, refused: dict[str, int]) -> tuple[Ints, Ints]:
        """Where in bytes each row begins and ends, int64[rows, 2], and what its header says, int64[rows, 4]: events in
        the head, partitions, batch end, newest event time in tiles. A refused row is empty."""
        count = len(begins) - 1
        opened, reasons = np.empty((count, OPENED_SIZE), np.int64), np.empty(count, np.uint8)
        open_rows(words, begins, np.zeros(count, np.int64), self._views, self._fingerprints, opened, reasons)
        for reason in reasons[reasons > NO_ROW].tolist():
            refused[REASONS[reason]] = refused.get(REASONS[reason], 0) + 1
        there = reasons == FINE
        spans = np.where(there[:, np.newaxis], np.stack([begins[:-1], begins[1:]], axis=1) * 8, 0)
        partitions = (8 * opened[:, 0] - spans[:, 0] - HEADER_SIZE) // APPLIED_SIZE
        metas = np.stack([opened[:, 2], partitions, opened[:, 4], opened[:, 3]], axis=1)
        metas[~there] = (0, 0, 0, NO_TIME_MS)
        return spans, metas


def next_versions(stored: Sequence[bytes | None]) -> Versions:
    """The version that each row gets, uint64[rows], whatever else is in it.

    A row that is new, or new again after it expired, starts anywhere, so that an old version never fits it.
    """
    fresh = np.frombuffer(os.urandom(8 * len(stored)), np.uint64) % np.uint64(1 << 62) + np.uint64(1)
    found = b"".join(b"\0" * 8 if data is None else data[VERSION_SLICE].ljust(8, b"\0") for data in stored)
    versions = np.frombuffer(found, np.uint64)
    known = (versions > 0) & (versions < np.uint64(VERSION_MAX))
    return np.where(known, versions + np.uint64(1), fresh)
