"""A sample of a few thousand events with a table and labels, and stores of a few views over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore, FeatureView, FileSource, KafkaSource, RequestSource
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.field import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, String

from actor_risk.changes.described import FeatureDefinition, RepoDefinition, ViewDefinition
from tests.support.small_store import TIME, ip, small_store

START_MS = 1_763_596_800_000
HOUR_MS = 3_600_000
EVENTS, IPS = 3_000, 60
NOWHERE = "redis://127.0.0.1:1/0"
SCHEMA = "event_id string, event_time timestamp, event_type string, ip string, country string, amount_usd double"

Transform = Callable[[dict[str, Any]], dict[str, Any]]


def write_sample(folder: Path, events: int = EVENTS, *, seed: int = 5) -> Path:
    """Events of two days, by time, some of which share a millisecond; a table of IPs; labels of the clicks."""
    rng = np.random.default_rng(seed)
    times = START_MS + np.sort(rng.integers(0, 48 * HOUR_MS, events))
    times[1::50] = times[0::50][: len(times[1::50])]
    kinds = np.array(["impression", "click", "conversion"])[rng.choice(3, events, p=(0.6, 0.35, 0.05))]
    names = np.array([f"203.0.113.{n}" for n in range(IPS)])[(IPS * rng.power(0.6, events)).astype(int)]
    amounts = np.round(rng.lognormal(0, 1, events), 2)
    table = pa.table(
        {
            "event_id": [f"evt_{n}" for n in range(events)],
            "event_time": pa.array(times, TIME),
            "created": pa.array(times + 5, TIME),
            "event_type": kinds,
            "ip": names,
            "country": np.array(["de", "fr", "us"])[rng.integers(0, 3, events)],
            "amount_usd": amounts,
        }
    )
    (folder / "events").mkdir(parents=True)
    pq.write_table(table, folder / "events" / "part-0.parquet", row_group_size=500)
    (folder / "profiles").mkdir()
    known = [f"203.0.113.{n}" for n in range(IPS)]
    profiles = {
        "ip": known,
        "event_time": pa.array([START_MS] * IPS, TIME),
        "age_days": np.arange(IPS, dtype=np.float64),
        "city": [f"city of {name}" for name in known],
    }
    pq.write_table(pa.table(profiles), folder / "profiles" / "ips.parquet")
    clicks = np.flatnonzero(kinds == "click")
    (folder / "labels").mkdir()
    labels = {"event_id": table.column("event_id").take(clicks), "label": (amounts[clicks] > 1).astype(np.int64)}
    pq.write_table(pa.table(labels), folder / "labels" / "invalid_click.parquet")
    return folder


def mark_clicks(events: dict[str, Any]) -> dict[str, Any]:
    """The usual transformation."""
    import numpy as np

    return {"click": np.where(events["event_type"] == "click", 1.0, np.nan)}


def failing(events: dict[str, Any]) -> dict[str, Any]:
    """Looks at a column that there is not."""
    return {"click": events["amount_eur"]}


def over_mean(inputs: dict[str, Any]) -> dict[str, Any]:
    """Divides."""
    pairs = zip(inputs["amount_usd"], inputs["paid_24h"], inputs["events_24h"], strict=True)
    return {"over_mean": [None if not paid or a is None else a * n / paid for a, paid, n in pairs]}


def stream_view(
    transform: Transform = mark_clicks,
    name: str = "ip_stats",
    aggregations: Sequence[tuple[str, str, str, int]] = (
        ("clicks_1h", "click", "count", 1),
        ("events_24h", "event_id", "count", 24),
        ("paid_24h", "amount_usd", "sum", 24),
        ("countries_24h", "country", "count_distinct", 24),
    ),
    schema: str = SCHEMA,
    topic: str = "events",
) -> StreamFeatureView:
    """A view of a topic by IP. aggregations: name, column, function, hours."""
    history = FileSource(
        name=f"{topic}_history",
        path=f"elsewhere/{topic}",
        timestamp_field="event_time",
        created_timestamp_column="created",
    )
    source = KafkaSource(
        name=topic,
        topic=topic,
        kafka_bootstrap_servers="",
        message_format=JsonFormat(schema_json=schema),
        timestamp_field="event_time",
        batch_source=history,
    )
    return StreamFeatureView(
        name=name,
        entities=[ip],
        source=source,
        mode="python",
        timestamp_field="event_time",
        ttl=timedelta(days=3),
        schema=[Field(name="ip", dtype=String), *(Field(name=n, dtype=Float64) for n, *_ in aggregations)],
        aggregations=[
            Aggregation(column=column, function=function, time_window=timedelta(hours=hours), name=n)
            for n, column, function, hours in aggregations
        ],
        udf=transform,
    )


def table_view() -> FeatureView:
    """The view `ip_profile`: a number and a text."""
    return FeatureView(
        name="ip_profile",
        entities=[ip],
        ttl=timedelta(days=30),
        source=FileSource(name="ips", path="elsewhere/profiles/ips.parquet", timestamp_field="event_time"),
        schema=[
            Field(name="ip", dtype=String),
            Field(name="age_days", dtype=Float64),
            Field(name="city", dtype=String),
        ],
    )


def ratios(streams: StreamFeatureView, function: Transform) -> Any:
    """An on-demand view over the stream view and a field of the request."""
    function.__module__ = function.__globals__["__name__"]  # Feast has changed it, if it had the function before
    request = RequestSource(name="request", schema=[Field(name="amount_usd", dtype=Float64)])
    decorate = on_demand_feature_view(
        sources=[streams, request], schema=[Field(name="over_mean", dtype=Float64)], mode="python"
    )
    return decorate(function)


def store_of(folder: Path, *objects: Any) -> FeatureStore:
    """A store with these objects applied."""
    folder.mkdir(parents=True, exist_ok=True)
    return small_store(folder, "sampled", NOWHERE, [ip, *objects])


def definition(*views: ViewDefinition) -> RepoDefinition:
    """A repository of these views."""
    return RepoDefinition(project="sampled", views=views)


def described(
    name: str,
    *features: str,
    kinds: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    **more: Any,
) -> ViewDefinition:
    """A view as plain data."""
    found = tuple(FeatureDefinition(name=one, kind=(kinds or {}).get(one, "DOUBLE")) for one in features)
    return ViewDefinition(name=name, kind=more.pop("kind", "stream"), features=found, tags=dict(tags or {}), **more)
