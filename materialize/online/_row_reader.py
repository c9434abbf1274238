"""Reading rows: from stored bytes to each entity's values, statuses and ages, as of times, in a few compiled calls.

    bytes ──► open_rows: headers, checksums ──► merge_rows: windows ──► read_rows: the matrix

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
Reasons = NDArray[np.uint8]
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
    for none. objects: slot → values as they are, object[N], where float64 cannot hold them. reasons: uint8[rows], why a
    row is refused, by REASONS. inexact: uint8[rows], 1 for a row read further into the past than it can answer exactly.
    rows_found: int64[N], how many rows there were of each entity. odd_rows: how many rows are refused or inexact.
    """

    values: NDArray[np.float64]
    statuses: NDArray[np.uint8]
    ages_ms: Ints
    objects: dict[int, NDArray[np.object_]]
    reasons: Reasons
    inexact: NDArray[np.uint8]
    rows_found: Ints
    odd_rows: int

    def tell(self, counts: ReadCounts) -> None:
        """Add what the rows were like, each counted once."""
        counts.rows_found += int(np.count_nonzero(self.reasons != NO_ROW))
        counts.inexact += int(np.count_nonzero(self.inexact))
        for reason in self.reasons[self.reasons > NO_ROW].tolist():
            counts.refuse(REASONS[reason])


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
        starts = np.cumsum([0, *(len(table.windows) for table in tables)]).tolist()
        self._windows = np.array([number for table in tables for number in table.windows], dtype=np.int64)
        self._window_begins = np.array(
            [start if table.windows else -1 for table, start in zip(tables, starts, strict=False)], dtype=np.int64
        )
        streams = [one.view for one in wanted if isinstance(one.view, StreamView)]
        self._merged_width = max((len(view.fields) for view in streams), default=0)
        self._kinds = [one.view.fields[place].kind for one in wanted for place in one.places]
        self._spans = [slot for slot, kind in enumerate(self._kinds) if kind not in NUMBER_KINDS]
        self.origins = [(v, place) for v, one in enumerate(wanted) for place in one.places]
        self._warm_up()

    def read(self, found: Found, as_of_ms: Ints, extra: Mapping[int, EventBlock] = NO_EVENTS) -> Block:
        """The values of the rows as of times, int64[N]: entities that share a row have the same. A row that is refused
        is as no row.

        `extra` has, for a stream view's row by its position, events to count in unless the row has them.
        """
        rows, row_views, owners = found
        words, begins = joined_rows(rows)
        shape = (owners.shape[1], self.slots)
        values, statuses, ages_ms = np.empty(shape), np.empty(shape, np.uint8), np.empty(shape, np.int64)
        reasons, inexact = np.empty(len(rows), np.uint8), np.empty(len(rows), np.uint8)
        rows_found = np.empty(shape[0], np.int64)
        if len(self._windows):
            opened = np.empty((len(rows), OPENED_SIZE), np.int64)
            open_rows(words, begins, row_views, self._views, self._fingerprints, opened, reasons)
            merged = self._merge(words, found, opened, as_of_ms, extra)
            long_integers, odd_rows = read_rows(
                words, opened, reasons, inexact, owners, self._views, self._programs, as_of_ms, merged,
                values, statuses, ages_ms, rows_found,
            )  # fmt: skip
        else:
            long_integers, odd_rows = read_batch_rows(
                words, begins, row_views, reasons, inexact, owners, self._views, self._fingerprints, self._programs,
                as_of_ms, values, statuses, ages_ms, rows_found,
            )  # fmt: skip
        block = Block(values, statuses, ages_ms, {}, reasons, inexact, rows_found, odd_rows)
        if self._spans or long_integers:
            block = block._replace(odd_rows=odd_rows + self._read_objects(found, block))
        return block

    def _merge(
        self, words: Ints, found: Found, opened: Ints, as_of_ms: Ints, extra: Mapping[int, EventBlock]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], Ints]:
        """The windows of the stream rows: values float64[rows, widest view], outcomes and newest event times."""
        count = len(found.rows)
        merged = np.empty((count, self._merged_width))
        outcomes, newest, row_as_of = np.empty(count, np.uint8), np.empty(count, np.int64), np.empty(count, np.int64)
        row_as_of[found.owners] = as_of_ms
        events, begins = _words_of(extra, count)
        merge_rows(
            words, opened, found.row_views, self._windows, self._window_begins, row_as_of, events, begins,
            merged, outcomes, newest,
        )  # fmt: skip
        return merged, outcomes, newest

    def _read_objects(self, found: Found, block: Block) -> int:
        """What float64 cannot hold: fields that are no numbers, and long integers. Returns how many rows it refuses."""
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
                    block.reasons[row] = REASONS.index(error.reason)
                    refused.add((view, row))
            block.objects[slot] = column
        for view, row in refused:
            self._take_away(view, found.owners[view] == row, block)
        return len(refused)

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
        self.read(Found([None] * len(views), views, views[:, np.newaxis]), np.zeros(1, np.int64))


@dataclass(frozen=True)
class _Table:
    """A view as `read_rows` knows it, and its windows as `merge_rows` does."""

    kind: int
    program: list[int]
    windows: list[int]

    @classmethod
    def of(cls, wanted: Wanted) -> _Table:
        if isinstance(wanted.view, StreamView):
            return cls(STREAM_ROW, list(wanted.places), compile_program(wanted.view.spec).tolist())
        layout = layout_of(wanted.view)
        sizes = [len(layout.wide), len(layout.integers), len(layout.floats), len(layout.classes)]
        fields = [number for p in wanted.places for number in (layout.classes[p], layout.indexes[p], p)]
        return cls(BATCH_ROW, sizes + fields, [])


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


def _words_of(extra: Mapping[int, EventBlock], count: int) -> tuple[Ints, Ints]:
    """The events of each of `count` rows, laid out as its head is, and where each row's begin, int64[rows + 1]."""
    sizes = np.zeros(count + 1, np.int64)
    if not extra:
        return _NO_EXTRA, sizes
    parts: list[Ints] = []
    for r, block in sorted(extra.items()):
        columns = (block.times, block.ids, block.values, block.hashes)
        own = [np.ascontiguousarray(column).view(np.int64).ravel() for column in columns]
        sizes[r + 1] = sum(map(len, own))
        parts += own
    return np.concatenate(parts), np.cumsum(sizes)


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
