"""Micro-batches of ad events for the fold benchmark: many keys of uneven weight, in order, with nulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.peers.feast_tiling import TIME
from materialize.definitions import FeatureField, JoinKey, StreamView
from materialize.events import Columns
from materialize.kernel import AggregationSpec, ViewSpec, Window

START_MS = 1_763_596_800_000
"""A full hour, so that the hops of all contenders begin together."""

BATCH_EVENTS = 5_000
EVENTS_PER_S = 50
NULL_SHARE = 0.05
WINDOW = Window.of(3_600_000, 300_000)
KEYS = ("ip", "device_id", "advertiser_id")


@dataclass(frozen=True)
class Population:
    """How many of each key there are, and how unevenly events fall on them: the exponent of a power law."""

    sizes: tuple[int, ...]
    exponent: float


SOME_KEYS = Population((1_000, 1_000, 100), 0.2)
"""About 1,400 rows of the three views in a micro-batch: few, which suits Feast, whose time goes by rows."""

MANY_KEYS = Population((20_000, 20_000, 500), 0.35)
"""About 7,700 rows in a micro-batch: two events for each."""

FEATURES = (
    ("amount_usd", ("count", "sum", "mean", "min", "max", "var")),
    ("ms_since_impression", ("mean", "max")),
)


def fold_views() -> list[StreamView]:
    """Three views, one for each entity, of the same 8 aggregations over one hour in hops of five minutes."""
    return [_view(key) for key in KEYS]


def draw_batches(population: Population, count: int, seed: int) -> list[Columns]:
    """Micro-batches, one after the other in time, of the columns that the views read."""
    rng = np.random.default_rng(seed)
    return [_batch(population, rng, number) for number in range(count)]


def as_frame(columns: Columns) -> pd.DataFrame:
    """The same events as Feast takes them."""
    times = pd.to_datetime(columns["event_time"], unit="ms", utc=True)
    return pd.DataFrame({**{name: columns[name] for name in columns if name != "event_time"}, TIME: times})


def _view(key: str) -> StreamView:
    spec = ViewSpec(
        f"{key}_stats",
        tuple(
            AggregationSpec(f"{function}_{column}", column, function, WINDOW)
            for column, functions in FEATURES
            for function in functions
        ),
    )
    fields = tuple(FeatureField(a.feature, "DOUBLE") for a in spec.aggregations)
    return StreamView(spec.name, (JoinKey(key, "STRING"),), fields, spec, "ad_events", "event_time", 0, None)


def _batch(population: Population, rng: np.random.Generator, number: int) -> Columns:
    span_ms = BATCH_EVENTS * 1_000 // EVENTS_PER_S
    columns: dict[str, np.ndarray[Any, Any]] = {
        "event_time": START_MS + number * span_ms + np.sort(rng.integers(0, span_ms, BATCH_EVENTS)),
        "event_id": np.array([f"evt_{number:04d}_{i:06d}" for i in range(BATCH_EVENTS)], dtype=object),
    }
    for key, size in zip(KEYS, population.sizes, strict=True):
        drawn = (size * rng.power(population.exponent, BATCH_EVENTS)).astype(int)
        columns[key] = np.array([f"{key}_{i:06d}" for i in drawn.tolist()], dtype=object)
    for column, _ in FEATURES:
        values = rng.lognormal(1.0, 1.0, BATCH_EVENTS)
        values[rng.random(BATCH_EVENTS) < NULL_SHARE] = np.nan
        columns[column] = values
    return columns
