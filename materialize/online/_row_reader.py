"""Reading rows: from stored bytes to each entity's values, statuses and ages, as of a time, in a few compiled calls.

    bytes ──► open_rows: headers, checksums ──► merge_rows, for each stream view: windows ──► read_rows: the matrix

No Python object is made for a value, but for what float64 cannot hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from materialize.definitions import BatchView, StreamView, View
from materialize.kernel import KEEP_SLACK_MS, EventBlock, compile_program, merge_rows
from materialize.online._batch_rows import FieldValue, field_value, layout_of
from materialize.online._compiled import (
    EXACT_MAX,
    NO_ROW,
    OPENED_SIZE,
    open_rows,
    read_batch_rows,
    read_rows,
)
from materialize.online._errors import RowRefusedError
from materialize.online._header import BATCH_ROW, REASONS, STREAM_ROW, checksum
from materialize.online._values import INTEGER_KINDS, NO_AGE, NUMBER_KINDS, FeatureStatus, ReadCounts

Ints = NDArray[np.int64]
NO_EVENTS: Mapping[int, EventBlock] = {}


@dataclass(frozen=True)
class Wanted:
    """A view, and which of its fields are read."""

    view: View
    places: tuple[int, ...]


class Found(NamedTuple):
    """Rows of some views for N entities. rows: view after view, None for no row. row_views: int64[rows], which view
    each is of. owners: int64[views, N], which row an entity has of a view."""

    rows: Sequence[bytes | None]
    row_views: Ints
    owners: Ints


class Block(NamedTuple):
    """What rows give N entities, by input slot: the wanted fields of all views, one view after the other.

    values: float64[N, slots], NaN unless PRESENT and a number. statuses: uint8[N, slots]. ages_ms: int64[N, slots], −1
    for none. objects: slot → values as they are, object[N], where float64 cannot hold them.
    """

    values: NDArray[np.float64]
    statuses: NDArray[np.uint8]
    ages_ms: Ints
    objects: dict[int, NDArray[np.object_]]


class RowReader:
    """Reads chosen fields of some views. origins: of each input slot, its view's position and its field's."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = tuple(wanted)
        tables = [_Table.of(one) for one in wanted]
        firsts = np.cumsum([0, *(len(one.places) for one in wanted)]).tolist()
        begins = np.cumsum([0, *(len(table.program) for table in tables)]).tolist()
        self.slots = firsts[-1]
        self._views = np.array(
            [
                [table.kind, one.view.ttl_ms, first, len(one.places), begin, KEEP_SLACK_MS]
                for one, table, first, begin in zip(wanted, tables, firsts, begins, strict=False)
            ],
            dtype=np.int64,
        ).reshape(-1, 6)
        self._programs = np.array([number for table in tables for number in table.program], dtype=np.int64)
        self._fingerprints = np.array([one.view.fingerprint for one in wanted], dtype=np.uint64)
        streams = [(v, one.view) for v, one in enumerate(wanted) if isinstance(one.view, StreamView)]
        self._streams = [(v, compile_program(view.spec)) for v, view in streams]
        self._merged_width = max((len(view.fields) for _, view in streams), default=0)
        self._kinds = [one.view.fields[place].kind for one in wanted for place in one.places]
        self._spans = [slot for slot, kind in enumerate(self._kinds) if kind not in NUMBER_KINDS]
        self.origins = [(v, place) for v, one in enumerate(wanted) for place in one.places]
        self._warm_up()

    def read(
        self, found: Found, as_of_ms: int, counts: ReadCounts, extra: Mapping[int, EventBlock] = NO_EVENTS
    ) -> Block:
        """The values of the rows as of a time. A row that is refused counts as no row.

        `extra` has, for a stream view by its position, events to count in unless its rows have them.
        """
        rows, row_views = found.rows, found.row_views
        words, begins = joined_rows(rows)
        shape = (found.owners.shape[1], self.slots)
        block = Block(np.empty(shape), np.empty(shape, np.uint8), np.empty(shape, np.int64), {})
        reasons = np.empty(len(rows), np.uint8)
        if self._streams:
            opened = np.empty((len(rows), OPENED_SIZE), np.int64)
            open_rows(words, begins, row_views, self._views, self._fingerprints, opened, reasons)
            merged = self._merge(words, row_views, opened, as_of_ms, extra)
            summary = read_rows(
                words, opened, reasons, found.owners, self._views, self._programs, as_of_ms, merged, *block[:3]
            )
        else:
            summary = read_batch_rows(
                words, begins, row_views, reasons, found.owners, self._views, self._fingerprints, self._programs,
                as_of_ms, *block[:3],
            )  # fmt: skip
        found_rows, refused_rows, inexact_rows, long_integers = summary
        counts.rows_found += found_rows
        counts.inexact += inexact_rows
        if refused_rows:
            for reason in reasons[reasons > NO_ROW].tolist():
                counts.refuse(REASONS[reason])
        if self._spans or long_integers:
            self._read_objects(found, block, counts)
        return block

    def _merge(
        self, words: Ints, row_views: Ints, opened: Ints, as_of_ms: int, extra: Mapping[int, EventBlock]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], Ints]:
        """The windows of the stream rows: values float64[rows, widest view], outcomes and newest event times."""
        merged = np.empty((len(row_views), self._merged_width))
        outcomes, newest = np.empty(len(row_views), np.uint8), np.empty(len(row_views), np.int64)
        for view, program in self._streams:
            first, stop = np.searchsorted(row_views, (view, view + 1))
            events, of = _words_of(extra.get(view)), slice(first, stop)
            merge_rows(words, opened[of], program, as_of_ms, events, merged[of], outcomes[of], newest[of])
        return merged, outcomes, newest

    def _read_objects(self, found: Found, block: Block, counts: ReadCounts) -> None:
        """What float64 cannot hold: fields that are no numbers, and long integers."""
        long = set(np.flatnonzero((np.abs(block.values) >= EXACT_MAX).any(axis=0)).tolist())
        integers = [slot for slot, kind in enumerate(self._kinds) if kind in INTEGER_KINDS and slot in long]
        refused: set[tuple[int, int]] = set()
        for slot in sorted({*self._spans, *integers}):
            view, place = self.origins[slot]
            if isinstance(self._wanted[view].view, StreamView):
                continue
            column = np.empty(len(block.values), dtype=object)
            for n in np.flatnonzero(block.statuses[:, slot] == FeatureStatus.PRESENT).tolist():
                row = int(found.owners[view, n])
                try:
                    column[n] = _field(self._wanted[view].view, found.rows[row], place)
                except RowRefusedError as error:
                    if (view, row) not in refused:
                        counts.refuse(error.reason)
                    refused.add((view, row))
            block.objects[slot] = column
        for view, row in refused:
            self._take_away(view, found.owners[view] == row, block)

    def _take_away(self, view: int, entities: NDArray[np.bool_], block: Block) -> None:
        """A row that turned out to be refused is no row."""
        slots = [slot for slot, (of, _) in enumerate(self.origins) if of == view]
        at = np.ix_(np.flatnonzero(entities), np.array(slots))
        block.values[at], block.statuses[at], block.ages_ms[at] = np.nan, FeatureStatus.NOT_FOUND, NO_AGE
        for slot in slots:
            if slot in block.objects:
                block.objects[slot][entities] = None

    def _warm_up(self) -> None:
        """Compile, or load what was compiled, before the first request."""
        views = np.arange(len(self._wanted))
        self.read(Found([None] * len(views), views, views[:, np.newaxis]), 0, ReadCounts())


@dataclass(frozen=True)
class _Table:
    """A view as `read_rows` knows it."""

    kind: int
    program: list[int]

    @classmethod
    def of(cls, wanted: Wanted) -> _Table:
        if isinstance(wanted.view, StreamView):
            return cls(STREAM_ROW, list(wanted.places))
        layout = layout_of(wanted.view)
        sizes = [len(layout.wide), len(layout.integers), len(layout.floats), len(layout.classes)]
        fields = [number for p in wanted.places for number in (layout.classes[p], layout.indexes[p], p)]
        return cls(BATCH_ROW, sizes + fields)


def joined_rows(rows: Sequence[bytes | None]) -> tuple[Ints, Ints]:
    """All rows in one array of words, and where each begins in it, int64[rows + 1]."""
    parts = [b"" if data is None else data or _EMPTY for data in rows]
    sizes = list(map(len, parts))
    if reduce(or_, sizes, 0) & 7:
        parts = [data if len(data) % 8 == 0 else _whole_words(data) for data in parts]
        sizes = list(map(len, parts))
    begins = np.fromiter(accumulate(sizes, initial=0), np.int64, len(sizes) + 1)
    begins >>= 3
    data = b"".join(parts)
    return np.frombuffer(data, np.int64) if data else _NO_WORDS, begins


def _whole_words(data: bytes) -> bytes:
    """No row of this format has such a length. It is made whole words, and so that it is refused all the same."""
    padded = data + bytes(-len(data) % 8)
    return padded[:4] + (checksum(padded) ^ 1).to_bytes(4, "little") + padded[8:]


def _words_of(block: EventBlock | None) -> Ints:
    """Events laid out as a row's head is."""
    if block is None:
        return _NO_EXTRA
    parts = (block.times, block.ids, block.values, block.hashes)
    return np.concatenate([np.ascontiguousarray(part).view(np.int64).ravel() for part in parts])


def _field(view: View, data: bytes | None, place: int) -> FieldValue:
    assert isinstance(view, BatchView)
    assert data is not None
    layout = layout_of(view)
    return field_value(view, layout, data, layout.sections(data[3] >> 4), place)


def _read_only(words: Ints) -> Ints:
    """Read-only, as the words of stored bytes are: another kind of array would be compiled for anew."""
    words.flags.writeable = False
    return words


_EMPTY = bytes(8)
"""Stands for an empty string, which is no row, but something all the same."""

_NO_WORDS = _read_only(np.empty(0, np.int64))
_NO_EXTRA = np.empty(0, np.int64)
