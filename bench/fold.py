"""Our side of the fold benchmark: micro-batches into stored rows as the stream worker folds them, without Redis."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from materialize.definitions import StreamView, identities_of
from materialize.events import Columns
from materialize.online import KeyEncoder, RowFolder, StreamRow, decode_stream_row, events_by_row

PROJECT = "bench"


@dataclass
class Stages:
    """Nanoseconds spent so far: making a view's events of columns, grouping them by row, folding them into rows."""

    events: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    fold: list[int] = field(default_factory=list)

    def shares(self) -> dict[str, float]:
        """What share of the time each stage took."""
        sums = {"events": sum(self.events), "group": sum(self.group), "fold": sum(self.fold)}
        return {name: round(taken / sum(sums.values()), 3) for name, taken in sums.items()}


@dataclass(frozen=True)
class _Batch:
    """A micro-batch with what its views share: identities uint64[n], offsets int64[n]."""

    columns: Columns
    identities: np.ndarray
    offsets: np.ndarray


class Folder:
    """The stored rows of some views, by key, kept in memory between micro-batches."""

    def __init__(self, views: Sequence[StreamView]) -> None:
        self.stages = Stages()
        self.refused: dict[str, int] = {}
        self._views = [(view, KeyEncoder(PROJECT, view.name, view.join_keys), RowFolder(view)) for view in views]
        self._rows: dict[bytes, bytes] = {}
        self._offset = 0

    def fold(self, columns: Columns) -> None:
        """One micro-batch into the rows of all views."""
        count = len(columns["event_time"])
        offsets = np.arange(self._offset, self._offset + count)
        self._offset += count
        began = time.perf_counter_ns()
        identities = identities_of(columns)
        self.stages.events.append(time.perf_counter_ns() - began)
        for view, encoder, folder in self._views:
            self._fold(view, encoder, folder, _Batch(columns, identities, offsets))

    def row(self, view: StreamView, entity: str) -> StreamRow:
        """An entity's row. Raises KeyError when it has none."""
        key = KeyEncoder(PROJECT, view.name, view.join_keys).key([entity])
        return decode_stream_row(view.spec, self._rows[key])

    def _fold(self, view: StreamView, encoder: KeyEncoder, folder: RowFolder, batch: _Batch) -> None:
        clock = time.perf_counter_ns
        began = clock()
        seen = view.events(batch.columns, batch.identities)
        made = clock()
        events = events_by_row(encoder, seen, np.zeros(len(seen.rows), np.int64), batch.offsets[seen.rows])
        grouped = clock()
        stored = [self._rows.get(key) for key in events.keys]
        folded = folder.fold(stored, events, self.refused)
        self._rows.update((key, row) for key, row in zip(events.keys, folded.data, strict=True) if row is not None)
        self.stages.events.append(made - began)
        self.stages.group.append(grouped - made)
        self.stages.fold.append(clock() - grouped)
