"""Rows with knowledge of their own, against the kernel over a history that is cut and filled for each row alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.definitions import EVENT_ID, identities_of
from materialize.kernel import values_as_of
from materialize.offline import Knowledge, OwnEvents, _knowledge
from materialize.offline._knowledge import values_as_known
from tests.offline.test_history import stream_view

NOW_MS = 1_795_000_000_000
KEYS = ("a", "b", "c")

events = st.lists(
    st.tuples(
        st.integers(0, 12),  # identity: some events come twice
        st.sampled_from(KEYS),
        st.integers(-400_000, 1_000),  # time, before now
        st.integers(0, 60_000),  # how much later it was created
    ),
    max_size=30,
)
queries = st.lists(
    st.tuples(st.sampled_from((*KEYS, "nobody")), st.integers(-20_000, 5_000), st.integers(-30_000, 60_000)),
    min_size=1,
    max_size=8,
)


def columns(found: list[tuple[int, str, int, int]], value: str) -> dict[str, np.ndarray[Any, Any]]:
    view = stream_view()
    (key,) = view.join_keys
    return {
        EVENT_ID: np.array([f"e{identity}" for identity, *_ in found], dtype=object),
        key.name: np.array([name for _, name, *_ in found], dtype=object),
        view.timestamp_field: np.array([NOW_MS + time for _, _, time, _ in found], dtype=np.int64),
        value: np.array([float(identity) for identity, *_ in found]),
    }


@pytest.mark.parametrize("copied_max", [3, 2_000_000])
@given(events, st.lists(st.tuples(st.integers(0, 20), st.integers(-10_000, 0)), max_size=8), queries)
@settings(max_examples=40, deadline=None)
def test_each_row_sees_history_as_it_was_known_and_its_own_events_once(
    copied_max: int,
    history: list[tuple[int, str, int, int]],
    own: list[tuple[int, int]],
    asked: list[tuple[str, int, int]],
) -> None:
    view = stream_view()
    value = next(iter(view.spec.value_columns), "value")
    own_events = [(identity, asked[row][0], time, 0) for row, (identity, time) in enumerate(own[: len(asked)])]
    rows = np.arange(len(own_events), dtype=np.int64)
    topic = {view.topic: OwnEvents(rows, columns(own_events, value))} if own_events else {}
    times = np.array([NOW_MS + time for _, time, _ in asked], dtype=np.int64)
    known_ms = np.array([NOW_MS + known for *_, known in asked], dtype=np.int64)
    names = np.array([name for name, *_ in asked], dtype=object)
    table = columns(history, value)
    created = np.array([NOW_MS + time + later for _, _, time, later in history], dtype=np.int64)
    before, _knowledge.COPIED_MAX = _knowledge.COPIED_MAX, copied_max
    try:
        values, found, _ = values_as_known(
            view, table, identities_of(table), created, [names], times, Knowledge(topic, known_ms)
        )
    finally:
        _knowledge.COPIED_MAX = before
    for row, name in enumerate(names):
        mine = [e for e, at in zip(history, created, strict=True) if at <= known_ms[row] and e[1] == name]
        mine += own_events[row : row + 1]
        seen = view.events(columns(mine, value))
        alone, there, _ = values_as_of(
            view.spec, np.zeros(len(seen.block), np.int64), seen.block, np.zeros(1, np.int64), times[row : row + 1]
        )
        np.testing.assert_allclose(values[row], alone[0], rtol=1e-9, atol=1e-9)
        assert found[row] == there[0]
