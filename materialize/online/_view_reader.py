"""Reading one view's rows: each row's values with their statuses and age, as of a time, as Python's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from materialize.definitions import View
from materialize.kernel import EventBlock
from materialize.online._batch_rows import FieldValue
from materialize.online._row_reader import NO_EVENTS, Found, RowReader, Wanted
from materialize.online._values import NO_AGE, FeatureStatus, ReadCounts, plain_column


@dataclass(frozen=True)
class ViewValues:
    """What one row gives: each feature's value (None for none) and status, and the age of the row."""

    values: Sequence[FieldValue]
    statuses: Sequence[FeatureStatus]
    age_ms: int


class ViewReader:
    """Reads chosen features of one view."""

    def __init__(self, view: View, places: Sequence[int]) -> None:
        self._kinds = [view.fields[place].kind for place in places]
        self._reader = RowReader([Wanted(view, tuple(places))])

    def read(
        self, data: bytes | None, as_of_ms: int, counts: ReadCounts, extra: EventBlock | None = None
    ) -> ViewValues:
        """The values of a stored row (None for no row) as of a time. A row that is refused counts as no row.

        `extra` are events of a stream view to count in unless the row has them.
        """
        return self.read_many([data], as_of_ms, counts, extra)[0]

    def read_many(
        self, rows: Sequence[bytes | None], as_of_ms: int, counts: ReadCounts, extra: EventBlock | None = None
    ) -> list[ViewValues]:
        """The same for many rows."""
        found = Found(rows, np.zeros(len(rows), np.int64), np.arange(len(rows))[np.newaxis])
        block = self._reader.read(found, as_of_ms, counts, NO_EVENTS if extra is None else {0: extra})
        columns = [
            block.objects[slot].tolist()
            if slot in block.objects
            else plain_column(block.values[:, slot], block.statuses[:, slot], kind)
            for slot, kind in enumerate(self._kinds)
        ]
        ages_ms = block.ages_ms[:, 0].tolist() if columns else [NO_AGE] * len(rows)
        return [
            ViewValues([column[n] for column in columns], [FeatureStatus(s) for s in statuses], age_ms)
            for n, (statuses, age_ms) in enumerate(zip(block.statuses.tolist(), ages_ms, strict=True))
        ]


def view_reader(view: View, places: Sequence[int]) -> ViewReader:
    """A reader of the view's fields at `places`."""
    return ViewReader(view, places)
