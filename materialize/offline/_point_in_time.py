"""The features of views for many rows, each as of its own time.

Rows are taken in parts by time: so many that the events which their windows reach fit into memory, or, where one part's
windows reach more than that, so that going back again costs no more than the part itself. What still does not fit is
put aside on disk by entity. Views that read the same events read them once.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from feast.data_source import DataSource

from materialize.definitions import EVENT_ID, StreamView, View, identities_of
from materialize.events import columns_from_table
from materialize.kernel import ViewSpec, values_as_of
from materialize.offline._batch_values import batch_values
from materialize.offline._columns import Column, ColumnNotReadError, Ints
from materialize.offline._declared import ViewColumns, field_of, no_values, values_as_declared
from materialize.offline._entities import Entities, entities_of
from materialize.offline._gathering import Asked, Shards, block_of, gather
from materialize.offline._history import History, open_history
from materialize.offline._knowledge import Knowledge, values_as_known
from materialize.offline._queries import DEFAULT_LIMITS, Limits, ViewQuery

Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

AT_ONCE = min(os.cpu_count() or 1, 4)
"""Views of one source whose values are computed at a time: most of the work is compiled, and needs no interpreter."""


@dataclass(frozen=True)
class PointInTime:
    """Values of several views for rows as of `times`, int64[q], milliseconds; columns of the queries have length q.

    known_as_of: leave out what was created after a row's time, where the source says when that was.
    """

    queries: tuple[ViewQuery, ...]
    times: Ints
    repo_path: Path | None
    known_as_of: bool = False
    limits: Limits = DEFAULT_LIMITS

    def parts(self) -> Iterator[Ints]:
        """The positions of the rows of each part, by growing time. Raises HistoryError."""
        order = np.argsort(self.times, kind="stable")
        waiting = [order] if len(order) else []
        while waiting:
            rows = waiting.pop()
            middle = self._cut(rows)
            if middle:
                waiting += [rows[middle:], rows[:middle]]
            else:
                yield rows

    def values(self, rows: Ints, knowledge: Knowledge | None = None) -> list[ViewColumns]:
        """The values of each query, in their order, for these rows. Raises HistoryError and DefinitionError.

        knowledge: what each of all rows knows besides, or does not; all rows are then one part.
        """
        found: dict[int, ViewColumns] = {}
        times = self.times[rows]
        asked = [query.of_rows(rows) for query in self.queries]
        entities = [entities_of(query.view.join_keys, query.keys, len(rows)) for query in asked]
        if not len(rows):
            return [no_values(query.view, query.features, 0) for query in asked]
        for places in self._sources:
            together = [asked[place] for place in places]
            if knowledge is None:
                values = _stream_values(self, together, [entities[place] for place in places], times)
            else:
                values = _values_as_known(self, together, times, knowledge)
            found.update(zip(places, values, strict=True))
        for place, query in enumerate(asked):
            if place not in found:
                known_ms = times if self.known_as_of else None if knowledge is None else knowledge.known_ms
                found[place] = batch_values(query, entities[place], self.repo_path, times, known_ms)
        return [found[place] for place in range(len(asked))]

    def open(self, queries: Sequence[ViewQuery], times: Ints) -> History:
        """The events of the queries' source that values as of these times may come from."""
        first_ms, last_ms = int(times.min()), int(times.max())
        from_ms = min(_spec(query).tail_ms(first_ms) for query in queries)
        return open_history(queries[0].source, self.repo_path, from_ms, last_ms + 1)

    @cached_property
    def _sources(self) -> list[list[int]]:
        """The places of the stream views' queries, those of one source together."""
        groups: dict[str, list[int]] = defaultdict(list)
        for place, query in enumerate(self.queries):
            if isinstance(query.view, StreamView):
                groups[query.source.name].append(place)
        return list(groups.values())

    def _cut(self, rows: Ints) -> int:
        """Where to cut rows, in order of time, in two; 0 when they are to be one part."""
        times = self.times[rows]
        if len(rows) > self.limits.rows:
            return len(rows) // 2
        if times[0] < times[-1] and self._reads_too_much(times):
            return int(np.searchsorted(times, times[0] + (times[-1] - times[0] + 1) // 2))
        return 0

    def _reads_too_much(self, times: Ints) -> bool:
        """Whether what the part reads does not fit into memory, and halves of it would each read much less."""
        first_ms, last_ms = int(times[0]), int(times[-1])
        for places in self._sources:
            queries = [self.queries[place] for place in places]
            reaches_ms = max(_spec(query).reach_ms for query in queries)
            if last_ms - first_ms > reaches_ms and not self._fits(queries, self.open(queries, times)):
                return True
        stored = [query for query in self.queries if not isinstance(query.view, StreamView)]
        return any(
            not self._fits([query], open_history(query.source, self.repo_path, first_ms + 1, last_ms + 1))
            for query in stored
        )

    def _fits(self, queries: Sequence[ViewQuery], history: History) -> bool:
        return history.count() * sum(map(_record_bytes, queries)) <= self.limits.events_bytes


def values_of_view(
    view: View,
    source: DataSource,
    repo_path: Path | None,
    features: Sequence[str],
    query_keys: Sequence[Column],
    query_times: Ints,
    known_as_of: bool = False,
) -> ViewColumns:
    """The features of a view for each queried entity as of each time (int64[q], milliseconds), all in one part.

    query_keys: one column of length q for each join key of the view. known_as_of: leave out what was created after the
    as-of time. Raises HistoryError for history that cannot be read.
    """
    query = ViewQuery(view, source, tuple(features), query_keys)
    asked = PointInTime((query,), np.asarray(query_times, np.int64), repo_path, known_as_of)
    return asked.values(np.arange(len(query_times)))[0]


def _stream_values(
    asked: PointInTime, queries: Sequence[ViewQuery], entities: Sequence[Entities], times: Ints
) -> list[ViewColumns]:
    history = asked.open(queries, times)
    created = (queries[0].source.created_timestamp_column or None) if asked.known_as_of else None
    first_ms, last_ms = int(times.min()), int(times.max())
    views = [
        Asked(query.view, own, _spec(query).tail_ms(first_ms), last_ms)
        for query, own in zip(queries, entities, strict=True)
        if isinstance(query.view, StreamView)
    ]
    size = history.count() * sum(map(_record_bytes, queries))
    count = -(-size // asked.limits.events_bytes) or 1
    with tempfile.TemporaryDirectory() as folder:
        shards = _gathered(history, views, created, count, Path(folder))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            each = pool.map(_windows, views, shards, [times] * len(views), [created is not None] * len(views))
            return [_declared(query, values, there) for query, (values, there) in zip(queries, each, strict=True)]


def _gathered(history: History, views: Sequence[Asked], created: str | None, count: int, folder: Path) -> list[Shards]:
    for columns in (None, history.names):
        shards = [
            Shards(one.kind, count, folder / f"{columns is None}-{place}" if count > 1 else None)
            for place, one in enumerate(views)
        ]
        try:
            gather(history, views, created, shards, columns)
        except ColumnNotReadError:
            continue
        return shards
    raise AssertionError("with every column read, none is missing")


def _values_as_known(
    asked: PointInTime, queries: Sequence[ViewQuery], times: Ints, knowledge: Knowledge
) -> list[ViewColumns]:
    """The features of each query where rows have knowledge of their own: all events of the span are in memory."""
    source = queries[0].source
    columns = columns_from_table(asked.open(queries, times).table())
    identities = identities_of(columns) if EVENT_ID in columns else None
    created_ms = columns[source.created_timestamp_column or source.timestamp_field]
    found = []
    for query in queries:
        view, keys = query.view, [np.asarray(column) for column in query.keys]
        assert isinstance(view, StreamView)
        values, there, newest = values_as_known(view, columns, identities, created_ms, keys, times, knowledge)
        if view.ttl_ms:
            there &= times - newest <= view.ttl_ms
        found.append(_declared(query, values.T, there))
    return found


def _windows(asked: Asked, shards: Shards, times: Ints, known_as_of: bool) -> tuple[Floats, Mask]:
    """The view's values, float64[features, q], and whether there are any, bool[q]."""
    values = np.full((len(asked.view.fields), len(times)), np.nan)
    there = np.zeros(len(times), dtype=bool)
    rows: Any
    of_rows, ttl_ms = asked.entities.of_rows, asked.view.ttl_ms
    for shard in range(shards.count):
        numbers, block, known = block_of(shards.take(shard))
        if shards.count == 1:
            rows, own = slice(None), of_rows
        else:
            rows = np.flatnonzero(of_rows % shards.count == shard)
            numbers, own = numbers // shards.count, np.where(of_rows[rows] < 0, -1, of_rows[rows] // shards.count)
        found, is_found, newest = values_as_of(
            asked.view.spec, numbers, block, own, times[rows], known if known_as_of else None
        )
        values[:, rows] = found.T
        there[rows] = is_found & (times[rows] - newest <= ttl_ms) if ttl_ms else is_found
    return values, there


def _declared(query: ViewQuery, values: Floats, there: Mask) -> ViewColumns:
    places = {field.name: place for place, field in enumerate(query.view.fields)}
    columns = []
    for name in query.features:
        column = values[places[name]]
        numbers = pa.array(column, mask=~there | np.isnan(column))
        columns.append(values_as_declared(field_of(query.view, name), pa.chunked_array([numbers])))
    return ViewColumns(query.features, tuple(columns))


def _record_bytes(query: ViewQuery) -> int:
    """What one event, or one row, takes when it is gathered."""
    if isinstance(query.view, StreamView):
        return 32 + 8 * (len(query.view.spec.value_columns) + len(query.view.spec.distinct_columns))
    return 24 + 16 * len(query.features)


def _spec(query: ViewQuery) -> ViewSpec:
    assert isinstance(query.view, StreamView)
    return query.view.spec
