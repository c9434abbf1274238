"""Reading one view's rows: each row's values with their statuses and age, as of a time, as Python's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from materialize.definitions import View
from materialize.kernel import EventBlock
from materialize.online._batch_rows import FieldValue
from materialize.online._row_reader import NO_EVENTS, Found, RowReader, Wanted
from materialize.online._values import INTEGER_KINDS, NO_AGE, FeatureStatus, ReadCounts

_PRESENT = int(FeatureStatus.PRESENT)
_STATUSES = {int(status): status for status in FeatureStatus}
_CONVERTERS: dict[str, Callable[[float], FieldValue]] = {**dict.fromkeys(INTEGER_KINDS, int), "BOOL": bool}


@dataclass(frozen=True)
class ViewValues:
    """What one row gives: each feature's value (None for none) and status, and the age of the row."""

    values: list[FieldValue]
    statuses: list[FeatureStatus]
    age_ms: int


class ViewReader:
    """Reads chosen features of one view."""

    def __init__(self, view: View, places: Sequence[int]) -> None:
        self._kinds = [view.fields[place].kind for place in places]
        self._converters = [_CONVERTERS.get(kind) for kind in self._kinds]
        self._reader = RowReader([Wanted(view, tuple(places))])

    def read(
        self, data: bytes | None, as_of_ms: int, counts: ReadCounts, extra: EventBlock | None = None
    ) -> ViewValues:
        """The values of a stored row (None for no row) as of a time. A row that is refused counts as no row.

        `extra` are events of a stream view to count in unless the row has them.
        """
        return self._read([data], as_of_ms, counts, NO_EVENTS if extra is None else {0: extra})[0]

    def read_many(self, rows: Sequence[bytes | None], as_of_ms: int, counts: ReadCounts) -> list[ViewValues]:
        """The same for many rows."""
        return self._read(rows, as_of_ms, counts, NO_EVENTS)

    def _read(
        self, rows: Sequence[bytes | None], as_of_ms: int, counts: ReadCounts, extra: Mapping[int, EventBlock]
    ) -> list[ViewValues]:
        found = Found(rows, np.zeros(len(rows), np.int64), np.arange(len(rows))[np.newaxis])
        block = self._reader.read(found, np.full(len(rows), as_of_ms), extra)
        block.tell(counts)
        ages_ms = block.ages_ms[:, 0].tolist() if self._kinds else [NO_AGE] * len(rows)
        read = [
            ViewValues(self._plain(values, statuses), [_STATUSES[status] for status in statuses], age_ms)
            for values, statuses, age_ms in zip(block.values.tolist(), block.statuses.tolist(), ages_ms, strict=True)
        ]
        for slot, column in block.objects.items():
            for one, value in zip(read, column.tolist(), strict=True):
                one.values[slot] = value
        return read

    def _plain(self, values: Sequence[float], statuses: Sequence[int]) -> list[FieldValue]:
        """Numbers as Python's own, of the feature's kind, None where there is none."""
        return [
            (value if convert is None or value != value else convert(value)) if status == _PRESENT else None
            for value, status, convert in zip(values, statuses, self._converters, strict=True)
        ]


def view_reader(view: View, places: Sequence[int]) -> ViewReader:
    """A reader of the view's fields at `places`."""
    return ViewReader(view, places)
