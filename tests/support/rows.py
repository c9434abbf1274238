"""Stored rows against the events that they should hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import redis

from materialize.definitions import StreamView
from materialize.events import columns_from_table
from materialize.kernel import values_as_of
from materialize.offline import entity_codes
from materialize.online import KeyEncoder, ReadCounts, view_reader


def assert_rows_hold_exactly(
    client: redis.Redis, project: str, views: Iterable[StreamView], tables: Mapping[str, pa.Table], as_of_ms: int
) -> int:
    """Every entity's row, as of a time, equals the point-in-time values of all events of its topic's table.

    Returns how many rows were compared; no view has a row of anybody else.
    """
    compared = 0
    for view in views:
        events = view.events(columns_from_table(tables[view.topic]))
        codes, asked = entity_codes(events.keys, events.keys)
        entities = np.unique(codes)
        times = np.full(len(entities), as_of_ms)
        expected, found, newest = values_as_of(view.spec, codes, events.block, entities, times)
        encoder = KeyEncoder(project, view.name, view.join_keys)
        first = {int(code): position for position, code in reversed(list(enumerate(asked)))}
        keys = [encoder.key([column[first[int(code)]] for column in events.keys]) for code in entities]
        counts, reader = ReadCounts(), view_reader(view, range(len(view.fields)))
        for position, data in enumerate(client.mget(keys) if keys else []):
            read = reader.read(data, as_of_ms, counts)
            values = np.array([np.nan if value is None else value for value in read.values], dtype=np.float64)
            wanted = expected[position] if found[position] else np.full(len(view.fields), np.nan)
            np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{view.name} {keys[position]!r}")
            assert not found[position] or read.age_ms == as_of_ms - newest[position]
        stored = set(client.scan_iter(match=f"{project}:{view.name}:*", count=5_000))
        assert stored <= set(keys)
        assert not counts.rows_refused
        compared += len(keys)
    return compared
