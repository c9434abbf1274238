"""The training-set benchmark's events, rows to be filled in, and Feast objects; and our side of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, FileSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.data_source import KafkaSource
from feast.field import Field
from feast.repo_config import RepoConfig
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

from materialize.kernel import default_hop_ms

DAY_MS = 86_400_000
START_MS = 1_763_596_800_000
SPAN_MS = 14 * DAY_MS
FILES = 14
NULL_SHARE = 0.05
PROJECT, SERVICE = "training", "forty"
SECONDS = {"5m": 300, "1h": 3_600, "24h": 86_400, "7d": 604_800}


@dataclass(frozen=True)
class WindowsOf:
    """One view: its key, how many entities there are, and its features: each function over each window."""

    key: str
    entities: int
    windows: tuple[str, ...]
    functions: tuple[str, ...]

    @property
    def features(self) -> list[tuple[str, str, str]]:
        """(name, function, window) in the view's order."""
        return [(f"{self.key}_{f}_{w}", f, w) for w in self.windows for f in self.functions]


VIEWS = (
    WindowsOf("ip", 50_000, ("5m", "1h", "24h", "7d"), ("count", "sum", "mean", "max")),
    WindowsOf("device_id", 80_000, ("1h", "24h", "7d"), ("count", "sum", "min", "max", "var")),
    WindowsOf("advertiser_id", 2_000, ("1h", "24h", "7d"), ("count", "sum", "mean")),
)
"""40 features. Entities are drawn by a mild power law."""

FEATURES = [name for view in VIEWS for name, _, _ in view.features]


def bounds_ms(window: str) -> tuple[int, int]:
    """Length and hop of a window."""
    length = SECONDS[window] * 1_000
    return length, default_hop_ms(length)


def write_world(folder: Path, events: int, rows: int, seed: int) -> None:
    """History as daily Parquet files, and the rows to be filled in, in random order, with times in its second week."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(START_MS, START_MS + SPAN_MS, events))
    amounts = rng.lognormal(0.0, 1.0, events)
    amounts[rng.random(events) < NULL_SHARE] = np.nan
    table = pa.table(
        {
            "event_id": pa.array([f"e{n:09d}" for n in range(events)]),
            "event_time": pa.array(times, pa.timestamp("ms", "UTC")),
            **{view.key: _names(view, rng, events) for view in VIEWS},
            "amount": pa.array(amounts, mask=np.isnan(amounts)),
        }
    )
    (folder / "events").mkdir()
    ends = np.searchsorted(times, START_MS + np.arange(1, FILES + 1) * (SPAN_MS // FILES))
    begin = 0
    for number, end in enumerate(ends.tolist()):
        pq.write_table(table.slice(begin, end - begin), folder / "events" / f"{number:02d}.parquet")
        begin = end
    asked = rng.integers(START_MS + SPAN_MS // 2, START_MS + SPAN_MS, rows)
    columns: dict[str, Any] = {"event_timestamp": pa.array(asked, pa.timestamp("ms", "UTC"))}
    columns |= {view.key: _names(view, rng, rows) for view in VIEWS}
    pq.write_table(pa.table(columns), folder / "rows.parquet")


def our_values(folder: Path) -> Any:
    """A function that gives the training set as float64[rows, 40], by Feast's own call, everything loaded."""
    store = _store(folder)
    entities = pq.read_table(folder / "rows.parquet").to_pandas()
    service = store.get_feature_service(SERVICE)

    def run(rows: int | None = None) -> np.ndarray:
        table = store.get_historical_features(entities.iloc[:rows], service).to_arrow()
        return as_matrix(table, FEATURES)

    run(1)
    return run


def as_matrix(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """float64[rows, names], NaN for null."""
    return np.column_stack([table.column(name).cast(pa.float64()).to_numpy() for name in names])


def pandas_values(folder: Path, rows: int) -> Any:
    """The first rows by a loop over them, each window cut out of its entity's own events."""
    events = pq.read_table(folder / "events").to_pandas()
    events["ms"] = events["event_time"].astype("datetime64[ms, UTC]").astype("int64")
    asked = pq.read_table(folder / "rows.parquet").slice(0, rows).to_pandas()
    asked["ms"] = asked["event_timestamp"].astype("datetime64[ms, UTC]").astype("int64")

    def run() -> np.ndarray:
        of = {view.key: dict(list(events.groupby(view.key)[["ms", "amount"]])) for view in VIEWS}
        nothing = events.iloc[:0][["ms", "amount"]]
        found = []
        for row in asked.itertuples(index=False):
            values: list[float] = []
            for view in VIEWS:
                frame = of[view.key].get(getattr(row, view.key), nothing)
                for window in view.windows:
                    length, hop = bounds_ms(window)
                    inside = frame[(frame["ms"] >= (row.ms - length) // hop * hop) & (frame["ms"] <= row.ms)]["amount"]
                    values += [getattr(inside, function)() for function in view.functions]
            found.append(values)
        return np.array(found, dtype=np.float64)

    return run


def is_known(values: np.ndarray) -> np.ndarray:
    """bool[rows, 40]: whether the entity has any event in its view's longest window; without, ours is null."""
    known = np.empty(values.shape, dtype=bool)
    place = 0
    for view in VIEWS:
        width = len(view.features)
        known[:, place : place + width] = ~np.isnan(values[:, place : place + 1])
        place += width
    return known


def _names(view: WindowsOf, rng: np.random.Generator, count: int) -> pa.Array:
    drawn = np.minimum((view.entities * rng.random(count) ** 1.5).astype(np.int64), view.entities - 1)
    names = pa.array([f"{view.key}-{n}" for n in range(view.entities)])
    return names.take(pa.array(drawn))


def _store(folder: Path) -> FeatureStore:
    history = FileSource(name="history", path=str(folder / "events"), timestamp_field="event_time")
    schema = {"event_id": "string", **{view.key: "string" for view in VIEWS}, "amount": "double"}
    source = KafkaSource(
        name="events",
        kafka_bootstrap_servers="",
        topic="ad_events",
        timestamp_field="event_time",
        message_format=JsonFormat(schema_json=json.dumps(schema)),
        batch_source=history,
    )
    objects: list[Any] = []
    for view in VIEWS:
        entity = Entity(name=view.key, join_keys=[view.key], value_type=ValueType.STRING)
        objects += [entity, _view(view, entity, source)]
    views = objects[1::2]
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=str(folder / "registry.db"),
        entity_key_serialization_version=3,
        offline_store={"type": "materialize.offline.feast_store.WindowedParquetOfflineStore"},
    )
    config.repo_path = folder
    store = FeatureStore(config=config)
    store.apply([*objects, FeatureService(name=SERVICE, features=views)])
    return store


def _view(view: WindowsOf, entity: Entity, source: KafkaSource) -> StreamFeatureView:
    aggregations = [
        Aggregation(column="amount", function=function, time_window=timedelta(seconds=SECONDS[window]), name=name)
        for name, function, window in view.features
    ]
    schema = [Field(name=name, dtype=Int64 if f == "count" else Float64) for name, f, _ in view.features]
    return StreamFeatureView(
        name=f"{view.key}_windows",
        entities=[entity],
        schema=schema,
        source=source,
        aggregations=aggregations,
        timestamp_field="event_time",
        ttl=timedelta(days=8),
    )
