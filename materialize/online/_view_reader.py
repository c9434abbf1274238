"""Reading one view's row: from stored bytes to values with their statuses and age, as of a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from materialize.definitions import BatchView, StreamView, View
from materialize.kernel import BAD_SHAPE, FOUND, KEEP_SLACK_MS, EventBlock, compile_program, empty_block, merge_row
from materialize.online._batch_rows import FieldValue, decode_batch_row
from materialize.online._errors import RowRefusedError
from materialize.online._header import HEADER_SIZE, STREAM_ROW, Header, unseal
from materialize.online._stream_rows import APPLIED_SIZE

NO_AGE = -1
INTEGERS = ("INT64", "INT32")


class FeatureStatus(IntEnum):
    """What a value read is worth: Feast's `FieldStatus`, by its numbers."""

    PRESENT = 1
    NULL_VALUE = 2
    NOT_FOUND = 3
    OUTSIDE_MAX_AGE = 4


@dataclass
class ReadCounts:
    """What a read met on its way: rows that there were, rows refused by reason, functions and events that failed,
    reads further into the past than a row can answer exactly."""

    rows_found: int = 0
    rows_refused: dict[str, int] = field(default_factory=dict)
    on_demand_failed: int = 0
    event_failed: int = 0
    inexact: int = 0

    def refuse(self, reason: str) -> None:
        """Count a row that was refused."""
        self.rows_refused[reason] = self.rows_refused.get(reason, 0) + 1


@dataclass(frozen=True)
class ViewValues:
    """What one row gives: each feature's value (None for none) and status, and the age of the row."""

    values: Sequence[FieldValue]
    statuses: Sequence[FeatureStatus]
    age_ms: int


class ViewReader(Protocol):
    """Reads chosen features of one view."""

    def read(
        self, data: bytes | None, as_of_ms: int, counts: ReadCounts, extra: EventBlock | None = None
    ) -> ViewValues:
        """The values of a stored row (None for no row) as of a time. A row that is refused counts as no row.

        `extra` are events of a stream view to count in unless the row has them.
        """
        ...


def view_reader(view: View, places: Sequence[int]) -> ViewReader:
    """A reader of the view's fields at `places`."""
    return _StreamReader(view, places) if isinstance(view, StreamView) else _BatchReader(view, places)


class _StreamReader:
    def __init__(self, view: StreamView, places: Sequence[int]) -> None:
        self._view = view
        self._places = [(place, view.fields[place].kind in INTEGERS) for place in places]
        self._program = compile_program(view.spec)
        self._no_events = empty_block(len(view.spec.value_columns), len(view.spec.distinct_columns))
        self._merge(None, None, 0, self._no_events)  # compiles, or loads what was compiled, before the first request

    def read(
        self, data: bytes | None, as_of_ms: int, counts: ReadCounts, extra: EventBlock | None = None
    ) -> ViewValues:
        header = self._header(data, counts)
        events = self._no_events if extra is None else extra
        if header is not None and len(events):
            events = events.take(events.times >= header.second_time_ms)  # what is before the batch end is the batch's
        outcome, newest_ms, values = self._merge(data, header, as_of_ms, events)
        if outcome == BAD_SHAPE:
            counts.refuse("bad_shape")
            header = None
            outcome, newest_ms, values = self._merge(None, None, as_of_ms, events)
        counts.inexact += header is not None and _is_inexact(header, as_of_ms)
        if outcome != FOUND:
            return _nothing(len(self._places), FeatureStatus.NOT_FOUND)
        age_ms = as_of_ms - newest_ms
        if self._view.ttl_ms and age_ms > self._view.ttl_ms:
            return _nothing(len(self._places), FeatureStatus.OUTSIDE_MAX_AGE, age_ms)
        return _with_statuses([_number(values[place], integer) for place, integer in self._places], age_ms)

    def _header(self, data: bytes | None, counts: ReadCounts) -> Header | None:
        if data is None:
            return None
        try:
            return unseal(data, STREAM_ROW, self._view.fingerprint)
        except RowRefusedError as error:
            counts.refuse(error.reason)
            return None

    def _merge(
        self, data: bytes | None, header: Header | None, as_of_ms: int, extra: EventBlock
    ) -> tuple[int, int, list[float]]:
        out = np.empty(len(self._view.fields))
        there = header is not None and data is not None
        outcome, newest_ms = merge_row(
            np.frombuffer(data, np.uint8) if there else _NO_ROW,  # type: ignore[arg-type]
            HEADER_SIZE + APPLIED_SIZE * header.partitions if header is not None else 0,
            header.items if header is not None else 0,
            header.tiles_newest_ms if header is not None else 0,
            self._program,
            as_of_ms,
            extra.times,
            extra.ids,
            extra.values,
            extra.hashes,
            out,
        )
        return outcome, newest_ms, out.tolist()


class _BatchReader:
    def __init__(self, view: BatchView, places: Sequence[int]) -> None:
        self._view = view
        self._places = tuple(places)

    def read(
        self,
        data: bytes | None,
        as_of_ms: int,
        counts: ReadCounts,
        extra: EventBlock | None = None,  # noqa: ARG002
    ) -> ViewValues:
        if data is None:
            return _nothing(len(self._places), FeatureStatus.NOT_FOUND)
        try:
            row = decode_batch_row(self._view, data)
        except RowRefusedError as error:
            counts.refuse(error.reason)
            return _nothing(len(self._places), FeatureStatus.NOT_FOUND)
        counts.inexact += row.event_time_ms > as_of_ms  # the row of that time is gone
        age_ms = max(as_of_ms - row.event_time_ms, 0)
        if self._view.ttl_ms and age_ms > self._view.ttl_ms:
            return _nothing(len(self._places), FeatureStatus.OUTSIDE_MAX_AGE, age_ms)
        return _with_statuses([row.values[place] for place in self._places], age_ms)


def _read_only_empty() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read-only, as the bytes of a row are: another kind of array would be compiled for anew."""
    empty = np.empty(0, np.uint8)
    empty.flags.writeable = False
    return empty


_NO_ROW = _read_only_empty()


def _is_inexact(header: Header, as_of_ms: int) -> bool:
    """Whether newer events are in tiles, or tiles that the read needs may be gone: `WindowValues.exact`, denied."""
    return header.tiles_newest_ms > as_of_ms or header.event_time_ms - KEEP_SLACK_MS > as_of_ms


def _number(value: float, integer: bool) -> FieldValue:
    if value != value:
        return None
    return int(value) if integer else value


def _with_statuses(values: Sequence[FieldValue], age_ms: int) -> ViewValues:
    statuses = [FeatureStatus.NULL_VALUE if value is None else FeatureStatus.PRESENT for value in values]
    return ViewValues(values, statuses, age_ms)


def _nothing(length: int, status: FeatureStatus, age_ms: int = NO_AGE) -> ViewValues:
    return ViewValues([None] * length, [status] * length, age_ms)
