"""Stored rows against the naive oracle: every event of every entity looked at for every feature."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import redis

from materialize.definitions import StreamView
from materialize.events import columns_from_table
from materialize.online import KeyEncoder, ReadCounts, view_reader
from tests.kernel.oracle import OracleEvent, oracle_values

DISTINCT_EXACT_MAX = 255
ROWS_AT_ONCE = 2_000


def assert_rows_equal_oracle(
    client: redis.Redis, project: str, views: Iterable[StreamView], tables: Mapping[str, pa.Table], as_of_ms: int
) -> int:
    """What a scoring read gives for every entity is what the oracle computes from the tables; no other row is stored.

    A distinct count above DISTINCT_EXACT_MAX is an estimate, and left out. Returns how many values were compared.
    """
    return sum(_compare(client, project, view, tables[view.topic], as_of_ms) for view in views)


def _compare(client: redis.Redis, project: str, view: StreamView, table: pa.Table, as_of_ms: int) -> int:
    events = oracle_events(view, table)
    encoder, reader, counts = KeyEncoder(project, view.name, view.join_keys), *_reader(view)
    keys = {encoder.key(entity): entity for entity in events}
    stored = stored_rows(client, project, view)
    assert stored.keys() <= keys.keys()
    compared = 0
    for key, entity in keys.items():
        read = reader.read(stored.get(key), as_of_ms, counts).values
        wanted = oracle_values(view.spec, events[entity], as_of_ms) or [None] * len(view.fields)
        got, expected = _comparable(view, read, wanted)
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, err_msg=f"{view.name} {entity}")
        compared += len(got)
    assert not counts.rows_refused
    return compared


def oracle_events(view: StreamView, table: pa.Table) -> dict[tuple[object, ...], list[OracleEvent]]:
    """The view's events by entity, transformed, without those that lack its key."""
    columns = columns_from_table(table)
    if view.transform is not None:
        columns = {**columns, **view.transform(columns)}
    names = [*view.spec.value_columns, *view.spec.distinct_columns]
    values = [_plain(columns[name]) for name in names]
    keys = zip(*(_plain(columns[key.name]) for key in view.join_keys), strict=True)
    rows = zip(keys, columns["event_id"], columns[view.timestamp_field].tolist(), *values, strict=True)
    found: dict[tuple[object, ...], list[OracleEvent]] = defaultdict(list)
    for entity, event_id, time_ms, *of_event in rows:
        if None not in entity:
            found[entity].append(OracleEvent(event_id, time_ms, dict(zip(names, of_event, strict=True))))
    return dict(found)


def _plain(column: np.ndarray) -> list[object]:
    """Python values with None for null."""
    return [None if value is None or value != value else value for value in column.tolist()]


def _reader(view: StreamView):  # type: ignore[no-untyped-def]
    return view_reader(view, range(len(view.fields))), ReadCounts()


def stored_rows(client: redis.Redis, project: str, view: StreamView) -> dict[bytes, bytes]:
    """The rows of a view by their keys."""
    keys = list(client.scan_iter(match=f"{project}:{view.name}:*", count=5_000))
    found: dict[bytes, bytes] = {}
    for begin in range(0, len(keys), ROWS_AT_ONCE):
        part = keys[begin : begin + ROWS_AT_ONCE]
        found.update(zip(part, client.mget(part), strict=True))
    return found


def _comparable(
    view: StreamView, read: Sequence[object], wanted: Sequence[float | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 with NaN for none, without the distinct counts that are estimates."""
    estimates = [
        spec.function == "count_distinct" and (value or 0) > DISTINCT_EXACT_MAX
        for spec, value in zip(view.spec.aggregations, wanted, strict=True)
    ]
    kept = [place for place, estimate in enumerate(estimates) if not estimate]

    def numbers(values: Sequence[object]) -> np.ndarray:
        return np.array([np.nan if values[place] is None else values[place] for place in kept], dtype=np.float64)

    return numbers(read), numbers(wanted)
