"""The shifted-event test: does a feature change when the events after its as-of time are left out?

At some moments of the sample, each just before an event, the features of entities that are active there are computed
twice by the same code: once of history that goes on after the moment, once of history that ends with it. What differs
has seen something that nobody could know then: a transformation that moves events to an earlier time, that takes
something of the next event, or of all events that it happens to be given.

`PointInTime` reads events up to the latest moment that it is asked for. So a query alone is one without later events,
and a further query for nobody, at the end of the sample, is what adds these to all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FileSource

from actor_risk.changes.asked_events import AskedEvents, Ints, Objects
from actor_risk.changes.sampling import written
from materialize.definitions import StreamView
from materialize.offline import PointInTime, ViewColumns, ViewQuery

EVENTS_LOOKED_AT = 16_000
"""Of each topic, the newest: every moment costs going through them again."""
MOMENTS = 8
BEFORE, AFTER = 30, 8
"""Events before and from a moment on whose entities are asked for."""
KINDS_MAX = 12
"""A column of texts with no more than so many words says of which kind an event is: moments are of all kinds."""
TOLERANCE = 1e-9
"""Sums are added up in another order when there are more events, so their last digits differ without any leak."""


def leaks_of(topics: Sequence[AskedEvents], folder: Path, without: Collection[str]) -> tuple[dict[str, int], int]:
    """`view:feature` → for how many queries it changed, and how many queries there were.

    without: views that are left out, since they fail anyway.
    """
    leaks: dict[str, int] = {}
    queries = 0
    for topic in topics:
        views = [view for view in topic.views if view.name not in without]
        newest = topic.table.slice(max(0, len(topic) - EVENTS_LOOKED_AT))
        if not views or newest.num_rows <= BEFORE + AFTER:
            continue
        source = written(topic.source, newest, folder / f"{topic.topic}.parquet")
        test = _Shifted(source, AskedEvents(source, newest, tuple(views)), views)
        found, count = test.run()
        leaks |= found
        queries += count
    return leaks, queries


@dataclass(frozen=True)
class _Shifted:
    """The test of the stream views of one topic. events: by time."""

    source: FileSource
    events: AskedEvents
    views: Sequence[StreamView]

    def run(self) -> tuple[dict[str, int], int]:
        """The leaks, and the number of queries."""
        moments = _moments(self.events)
        rows = [self._around(place) for place in moments]
        times = [np.full(len(own), self.events.times[place] - 1) for place, own in zip(moments, rows, strict=True)]
        around = self.events.take(np.concatenate(rows))
        keys = {view.name: around.keys(view, [key.name for key in view.join_keys]) for view in self.views}
        keyed = {name: columns for name, columns in keys.items() if columns is not None}
        views = [view for view in self.views if view.name in keyed]
        last_ms = int(self.events.times[-1])
        whole = self._values(views, keyed, np.concatenate(times), last_ms)
        leaks: dict[str, int] = {}
        begin = 0
        for own in times:
            part = slice(begin, begin + len(own))
            cut = {name: [column[part] for column in columns] for name, columns in keyed.items()}
            alone = self._values(views, cut, own, int(own[0]))
            for name, count in _changed(views, whole, alone, part):
                leaks[name] = leaks.get(name, 0) + count
            begin += len(own)
        return {name: count for name, count in leaks.items() if count}, len(around)

    def _around(self, place: int) -> Ints:
        return np.arange(max(0, place - BEFORE), min(len(self.events), place + AFTER))

    def _values(
        self, views: Sequence[StreamView], keys: dict[str, list[Objects]], times: Ints, until_ms: int
    ) -> list[ViewColumns]:
        """The values of the queries, of events from the first one on to `until_ms`: for that, two queries for nobody
        are added, of which the first says that nothing is left out at the beginning."""
        anchored = np.concatenate([times, [self.events.times[0], until_ms]])
        queries = tuple(
            ViewQuery(
                view,
                self.source,
                tuple(field.name for field in view.fields),
                [np.append(column, [None, None]) for column in keys[view.name]],
            )
            for view in views
        )
        return PointInTime(queries, anchored, None).values(np.arange(len(anchored)))


def _moments(events: AskedEvents) -> list[int]:
    """The positions of the events before which it is looked: from the later half, of every kind in turn."""
    first = max(BEFORE, len(events) // 2)
    kinds = _kinds(events)[first:]
    each = [np.flatnonzero(kinds == kind) + first for kind in np.unique(kinds)]
    each.sort(key=len, reverse=True)
    chosen: list[int] = []
    turn = 0
    while len(chosen) < min(MOMENTS, len(events) - first):
        for places in each:
            if turn < len(places) and len(chosen) < MOMENTS:
                chosen.append(int(places[_spread(turn, len(places))]))
        turn += 1
    return sorted(set(chosen))


def _spread(turn: int, count: int) -> int:
    """The turn-th of so many places, far from those before: halves, quarters, eighths, from the end on."""
    part, step = 0.0, 0.5
    while turn:
        part += step * (turn & 1)
        turn, step = turn >> 1, step / 2
    return count - 1 - int(part * count)


def _kinds(events: AskedEvents) -> Ints:
    """A number for each event that says of which kind it is."""
    found = np.zeros(len(events), np.int64)
    for field in events.table.schema:
        if not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
            continue
        coded = pc.dictionary_encode(events.table.column(field.name).combine_chunks())
        if len(coded.dictionary) <= KINDS_MAX and found.max(initial=0) < KINDS_MAX:
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            found = found * (len(coded.dictionary) + 1) + codes + 1
            found = np.unique(found, return_inverse=True)[1].astype(np.int64)
    return found


def _changed(
    views: Sequence[StreamView], whole: Sequence[ViewColumns], alone: Sequence[ViewColumns], part: slice
) -> Iterator[tuple[str, int]]:
    for view, before, after in zip(views, whole, alone, strict=True):
        for name, one, other in zip(before.names, before.columns, after.columns, strict=True):
            long, short = _numbers(one)[part], _numbers(other)[: part.stop - part.start]
            same = np.isclose(long, short, rtol=TOLERANCE, atol=0, equal_nan=True)
            yield f"{view.name}:{name}", int(np.count_nonzero(~same))


def _numbers(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    found: np.ndarray[Any, np.dtype[np.float64]] = column.cast(pa.float64(), safe=False).to_numpy()
    return found
