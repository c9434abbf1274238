"""Reading many rows of one view at once: from stored bytes to columns of numbers, as of a time.

The values are those of `_view_reader`, row by row; here they go straight into arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from materialize.definitions import BatchView, StreamView, View
from materialize.kernel import BAD_SHAPE, FOUND, KEEP_SLACK_MS, compile_program, empty_block, merge_row
from materialize.online._batch_rows import BatchRow, FieldValue, bitmap_size, decode_batch_row
from materialize.online._errors import RowRefusedError
from materialize.online._header import BATCH_ROW, HEADER_SIZE, STREAM_ROW, Header, unseal
from materialize.online._stream_rows import APPLIED_SIZE
from materialize.online._view_reader import INTEGERS, NO_AGE, FeatureStatus, ReadCounts

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
FLOAT_KINDS = ("DOUBLE", "FLOAT")
INTEGER_KINDS = (*INTEGERS, "UNIX_TIMESTAMP")
NUMBER_KINDS = (*FLOAT_KINDS, *INTEGER_KINDS, "BOOL")
PRESENT, NULL = np.uint8(FeatureStatus.PRESENT), np.uint8(FeatureStatus.NULL_VALUE)
EXACT_MAX = 2**53
"""Integers up to here are the same as float64."""


@dataclass(frozen=True)
class ViewBlock:
    """What U rows of a view give for S features.

    values: float64[U, S], NaN unless PRESENT and a number. statuses: uint8[U, S]. ages_ms: int64[U], −1 for none.
    objects: feature → its values as they are, where float64 cannot hold them.
    """

    values: Floats
    statuses: NDArray[np.uint8]
    ages_ms: Times
    objects: dict[int, NDArray[np.object_]]


class ColumnReader(Protocol):
    """Reads chosen features of one view from many rows."""

    def read(self, rows: Sequence[bytes | None], as_of_ms: int, counts: ReadCounts) -> ViewBlock:
        """The values of stored rows (None for no row) as of a time. A row that is refused counts as no row."""
        ...


def column_reader(view: View, places: Sequence[int]) -> ColumnReader:
    """A reader of the view's fields at `places`."""
    return _StreamColumns(view, places) if isinstance(view, StreamView) else _BatchColumns(view, places)


class _StreamColumns:
    def __init__(self, view: StreamView, places: Sequence[int]) -> None:
        self._view = view
        self._places = np.array(places, dtype=np.intp)
        self._program = compile_program(view.spec)
        self._no_events = empty_block(len(view.spec.value_columns), len(view.spec.distinct_columns))

    def read(self, rows: Sequence[bytes | None], as_of_ms: int, counts: ReadCounts) -> ViewBlock:
        out = np.full((len(rows), len(self._view.fields)), np.nan)
        newest_ms = np.zeros(len(rows), np.int64)
        found = np.zeros(len(rows), np.bool_)
        for i, data in enumerate(rows):
            if data is not None:
                found[i], newest_ms[i] = self._merge(data, as_of_ms, out[i], counts)
        return _block(out[:, self._places], {}, found, as_of_ms - newest_ms, self._view.ttl_ms)

    def _merge(self, data: bytes, as_of_ms: int, out: Floats, counts: ReadCounts) -> tuple[bool, int]:
        try:
            header = unseal(data, STREAM_ROW, self._view.fingerprint)
        except RowRefusedError as error:
            counts.refuse(error.reason)
            return False, 0
        none = self._no_events
        outcome, newest_ms = merge_row(
            np.frombuffer(data, np.uint8),
            HEADER_SIZE + APPLIED_SIZE * header.partitions,
            header.items,
            header.tiles_newest_ms,
            self._program,
            as_of_ms,
            none.times,
            none.ids,
            none.values,
            none.hashes,
            out,
        )
        if outcome == BAD_SHAPE:
            counts.refuse("bad_shape")
            out[:] = np.nan
        else:
            counts.inexact += header.tiles_newest_ms > as_of_ms or header.event_time_ms - KEEP_SLACK_MS > as_of_ms
        return outcome == FOUND, newest_ms


class _BatchColumns:
    """Rows of fixed width are decoded all at once; a view with a section for longer values, row by row."""

    def __init__(self, view: BatchView, places: Sequence[int]) -> None:
        self._view = view
        self._places = np.array(places, dtype=np.intp)
        self._kinds = [view.fields[place].kind for place in places]
        self._fixed = all(field.kind in NUMBER_KINDS for field in view.fields)
        self._bitmap_size = bitmap_size(view)
        self._size = HEADER_SIZE + self._bitmap_size + 8 * len(view.fields)

    def read(self, rows: Sequence[bytes | None], as_of_ms: int, counts: ReadCounts) -> ViewBlock:
        times_ms = np.zeros(len(rows), np.int64)
        found = np.zeros(len(rows), np.bool_)
        good: list[Any] = []
        for i, data in enumerate(rows):
            if data is None:
                continue
            try:
                row = self._checked(data) if self._fixed else decode_batch_row(self._view, data)
            except RowRefusedError as error:
                counts.refuse(error.reason)
                continue
            found[i], times_ms[i] = True, row.event_time_ms
            good.append(data[HEADER_SIZE : self._size] if self._fixed else row)
        counts.inexact += int((times_ms[found] > as_of_ms).sum())
        values, objects = self._numbers(good, found) if self._fixed else self._mixed(good, found)
        return _block(values, objects, found, np.maximum(as_of_ms - times_ms, 0), self._view.ttl_ms)

    def _checked(self, data: bytes) -> Header:
        header = unseal(data, BATCH_ROW, self._view.fingerprint)
        if header.items != len(self._view.fields) or len(data) < self._size:
            raise RowRefusedError("bad_shape", "the row has other fields than its view")
        return header

    def _numbers(
        self, bodies: Sequence[bytes], found: NDArray[np.bool_]
    ) -> tuple[Floats, dict[int, NDArray[np.object_]]]:
        """Values float64[U, S] of the rows' bitmaps and slots, and the integers that float64 cannot hold."""
        raw = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1 if bodies else self._size - HEADER_SIZE)
        there = np.unpackbits(raw[:, : self._bitmap_size], axis=1, bitorder="little")[:, self._places] != 0
        slots = np.ascontiguousarray(raw[:, self._bitmap_size :]).view(np.int64)[:, self._places]
        values = np.full((len(found), len(self._kinds)), np.nan)
        objects = {}
        for s, kind in enumerate(self._kinds):
            column = slots[:, s]
            numbers = column.copy().view(np.float64) if kind in FLOAT_KINDS else column.astype(np.float64)
            values[found, s] = np.where(there[:, s], numbers, np.nan)
            if kind in INTEGER_KINDS and np.any(there[:, s] & ((column > EXACT_MAX) | (column < -EXACT_MAX))):
                exact = column.astype(object)
                exact[~there[:, s]] = None
                objects[s] = _spread(exact, found)
        return values, objects

    def _mixed(
        self, rows: Sequence[BatchRow], found: NDArray[np.bool_]
    ) -> tuple[Floats, dict[int, NDArray[np.object_]]]:
        values = np.full((len(found), len(self._kinds)), np.nan)
        objects = {}
        for s, (place, kind) in enumerate(zip(self._places.tolist(), self._kinds, strict=True)):
            column: list[FieldValue] = [row.values[place] for row in rows]
            if kind in NUMBER_KINDS:
                values[found, s] = [np.nan if value is None else value for value in column]
            if kind not in NUMBER_KINDS or (kind in INTEGER_KINDS and any(map(_is_long, column))):
                objects[s] = _spread(object_column(column), found)
        return values, objects


def object_column(values: Sequence[FieldValue]) -> NDArray[np.object_]:
    """The values as they are, object[n]: numpy would look into lists."""
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def statuses_of(values: Sequence[FieldValue]) -> NDArray[np.uint8]:
    """uint8[n]: NULL_VALUE for None, PRESENT for the rest."""
    missing = np.array([value is None for value in values], dtype=np.bool_)
    return np.where(missing, NULL, PRESENT)


def _is_long(value: FieldValue) -> bool:
    return isinstance(value, int) and abs(value) > EXACT_MAX


def _spread(column: NDArray[np.object_], found: NDArray[np.bool_]) -> NDArray[np.object_]:
    spread = np.empty(len(found), dtype=object)
    spread[found] = column
    return spread


def _block(
    values: Floats, objects: dict[int, NDArray[np.object_]], found: NDArray[np.bool_], ages_ms: Times, ttl_ms: int
) -> ViewBlock:
    """The block with its statuses; what is too old loses its values and keeps its age."""
    statuses = np.where(np.isnan(values), NULL, PRESENT)
    for s, column in objects.items():
        statuses[:, s] = statuses_of(column.tolist())
    expired = found & (ages_ms > ttl_ms) if ttl_ms else np.zeros(len(found), np.bool_)
    gone = ~found | expired
    statuses[~found] = FeatureStatus.NOT_FOUND
    statuses[expired] = FeatureStatus.OUTSIDE_MAX_AGE
    values[gone] = np.nan
    for column in objects.values():
        column[gone] = None
    return ViewBlock(values, statuses, np.where(found, ages_ms, NO_AGE), objects)
