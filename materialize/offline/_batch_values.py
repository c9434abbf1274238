"""Batch views as of a time: of each entity the newest row that is not after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from materialize.definitions import BatchView
from materialize.offline._columns import Ints, known_from, milliseconds
from materialize.offline._declared import ViewColumns, field_of, no_values, values_as_declared
from materialize.offline._entities import Entities
from materialize.offline._history import History, open_history
from materialize.offline._queries import ViewQuery

COMPACT_ROWS = 1 << 20
"""Rows gathered until those that newer ones have replaced for good are let go."""

_ENTITY, _TIME, _CREATED = "__entity", "__time", "__created"


def batch_history(query: ViewQuery, repo_path: Path | None, times: Ints) -> History:
    """The rows that the view's values as of these times, int64[q], may come from."""
    ttl_ms = query.view.ttl_ms
    from_ms = int(times.min()) - ttl_ms if ttl_ms else None
    return open_history(query.source, repo_path, from_ms, int(times.max()) + 1)


def batch_values(
    query: ViewQuery, entities: Entities, repo_path: Path | None, times: Ints, known_ms: Ints | None
) -> ViewColumns:
    """The features of a batch view for each queried row, as of its time, int64[q]; beyond the view's TTL null.

    known_ms: int64[q], rows that were created later are stepped over.
    """
    view = query.view
    assert isinstance(view, BatchView)
    gathered = _gathered(query, entities, batch_history(query, repo_path, times), int(times.min()), known_ms)
    if not gathered.num_rows:
        return no_values(view, query.features, len(times))
    codes, row_times, created = (gathered.column(name).to_numpy() for name in (_ENTITY, _TIME, _CREATED))
    row = _newest_row(codes, row_times, created, entities.of_rows, times, known_ms)
    found = row >= 0
    if view.ttl_ms:
        found &= times - row_times[row] <= view.ttl_ms
    index = pa.array(np.where(found, row, 0), mask=~found)
    columns = [values_as_declared(field_of(view, name), gathered.column(name).take(index)) for name in query.features]
    return ViewColumns(query.features, tuple(columns))


def _gathered(query: ViewQuery, entities: Entities, history: History, first_ms: int, known_ms: Ints | None) -> pa.Table:
    """The rows of the queried entities, without those that a newer one has replaced before the first as-of time."""
    keys = [key.name for key in query.view.join_keys]
    created = query.source.created_timestamp_column or None
    used = [*keys, *query.features, *([created] if created else [])]
    where = f"source {query.source.name!r}"
    parts: list[pa.Table] = []
    rows = 0
    for batch in history.batches(list(dict.fromkeys(used))):
        numbers = entities.numbers([batch.column(key) for key in keys], where, batch.num_rows)
        own = np.flatnonzero(numbers >= 0)
        times = milliseconds(batch.column(query.source.timestamp_field))
        made = known_from(batch.column(created), times) if created else times
        asked = pa.Table.from_batches([batch.select(list(query.features)).take(pa.array(own))])
        for name, column in ((_ENTITY, numbers), (_TIME, times), (_CREATED, made)):
            asked = asked.append_column(name, pa.array(column[own]))
        parts.append(asked)
        rows += len(own)
        if rows > COMPACT_ROWS:
            parts = [_compacted(pa.concat_tables(parts), first_ms, known_ms)]
            rows = parts[0].num_rows // 2  # so that what must be kept is not gone through again for each batch
    return pa.concat_tables(parts) if parts else pa.table({_ENTITY: pa.array([], pa.int64())})


def _compacted(table: pa.Table, first_ms: int, known_ms: Ints | None) -> pa.Table:
    codes, times, created = (table.column(name).to_numpy() for name in (_ENTITY, _TIME, _CREATED))
    settled = times <= first_ms
    if known_ms is not None:
        settled &= created <= known_ms.min()
    order = np.lexsort((created, times, codes))
    order = order[settled[order]]
    last = np.append(codes[order][1:] != codes[order][:-1], True)[: len(order)]
    return table.take(pa.array(np.sort(np.concatenate([order[last], np.flatnonzero(~settled)]))))


def _newest_row(codes: Ints, times: Ints, created: Ints, asked: Ints, as_of: Ints, known_ms: Ints | None) -> Ints:
    """The position of the newest row of each queried entity at its time, −1 for none; ties go to the later created."""
    order = np.lexsort((created, times, codes))
    begins = np.searchsorted(codes[order], asked, "left")
    first = int(times.min())
    span = int(max(times.max(), as_of.max())) - first + 2
    ranks = codes[order] * span + (times[order] - first)
    ends = np.searchsorted(ranks, asked * span + np.clip(as_of - first, -1, span - 2), "right")
    last = np.where((asked >= 0) & (ends > begins), ends - 1, -1)
    if known_ms is not None:
        last = _known(last, begins, created[order], known_ms)
    out = np.full(len(asked), -1, dtype=np.int64)
    out[last >= 0] = order[last[last >= 0]]
    return out


def _known(last: Ints, begins: Ints, created: Ints, known_ms: Ints) -> Ints:
    """Steps back from rows that were created after a time, as far as each entity's first row."""
    last = last.copy()
    late = np.flatnonzero(last >= 0)
    while len(late):
        late = late[created[last[late]] > known_ms[late]]
        last[late] -= 1
        gone = last[late] < begins[late]
        last[late[gone]] = -1
        late = late[~gone]
    return last
