"""Compiled views and rows for tests that need no registry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from materialize.definitions import BatchView, FeatureField, JoinKey, StreamView
from materialize.kernel import AggregationSpec, EventBlock, Row, ViewSpec, Window, empty_row, fold_events
from materialize.online import KeyEncoder

DAY_MS = 86_400_000
NOW_MS = 1_760_000_000_000
KEYS = (JoinKey("ip", "STRING"),)

FUNCTIONS = ("count", "sum", "mean", "min", "max", "var", "last", "first", "decayed_sum(30m)")
SPEC = ViewSpec(
    "traffic",
    tuple(
        AggregationSpec(f"{function}_{length}", "ip" if function == "count_distinct" else "amount", function, window)
        for length in (300_000, 3_600_000, 7 * DAY_MS)
        for function in (*FUNCTIONS, "count_distinct")
        for window in (Window.of(length),)
    ),
)


def batch_view(kinds: Sequence[str], name: str = "profile", ttl_ms: int = 0, fingerprint: int = 77) -> BatchView:
    """A batch view with one field, f0, f1, …, of each kind."""
    return BatchView(
        name, KEYS, tuple(FeatureField(f"f{i}", kind) for i, kind in enumerate(kinds)), fingerprint, ttl_ms
    )


def stream_view(spec: ViewSpec = SPEC, ttl_ms: int = 0) -> StreamView:
    """A stream view over `ad_events`, without a transformation."""
    fields = tuple(
        FeatureField(s.feature, "INT64" if s.function.startswith("count") else "DOUBLE") for s in spec.aggregations
    )
    return StreamView(spec.name, KEYS, fields, spec, "ad_events", "event_time", ttl_ms, None)


def key(project: str, view: BatchView | StreamView, entity: str) -> bytes:
    """The Redis key of an entity."""
    return KeyEncoder(project, view.name, view.join_keys).key([entity])


def block(events: Sequence[tuple[str, int, float | None, str | None]], spec: ViewSpec = SPEC) -> EventBlock:
    """Events given as (identity, time in ms, amount, ip)."""
    ids, times, amounts, ips = zip(*events, strict=True) if events else ((), (), (), ())
    columns = {"amount": np.array(amounts, dtype=object), "ip": np.array(ips, dtype=object)}
    return spec.block(np.array(times, dtype=np.int64), list(ids), columns)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Rows that events made, in several batches."""
    row = empty_row(SPEC)
    for batch in range(draw(st.integers(0, 3))):
        ages = draw(st.lists(st.integers(0, 8 * DAY_MS), max_size=40))
        amount = st.none() | st.floats(-1e6, 1e6)
        ip = st.none() | st.sampled_from("abcde")
        events = [(f"{batch}-{i}", NOW_MS - age, draw(amount), draw(ip)) for i, age in enumerate(ages)]
        row, _ = fold_events(SPEC, row, block(events))
    return row
