"""The actors of the feature benchmark: 60 features each, as Feast objects and as values for either store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from feast import Entity, FeatureService, FeatureStore, FeatureView, FileSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.data_source import KafkaSource
from feast.field import Field
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

FEATURES = 60
INTEGER_EVERY = 4
NULL_SHARE = 0.02
SERVICE = "sixty"
WINDOWS = (timedelta(minutes=5), timedelta(hours=1), timedelta(days=7))
FUNCTIONS = ("count", "sum", "mean", "min", "max", "var", "last", "first")

actor = Entity(name="actor", join_keys=["actor"], value_type=ValueType.STRING)

FeastRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


def is_integer(feature: int) -> bool:
    """Whether a feature is an INT64; the others are DOUBLE."""
    return feature % INTEGER_EVERY == INTEGER_EVERY - 1


@dataclass(frozen=True)
class Actors:
    """ids, and values float64[actors, features] with NaN for null."""

    ids: tuple[str, ...]
    values: np.ndarray[Any, np.dtype[np.float64]]

    def feast_rows(self, first: int, count: int, time_ms: int) -> list[FeastRow]:
        """What Feast hands to a store for the view of the features from `first` on."""
        when = datetime.fromtimestamp(time_ms / 1000, UTC)
        columns = range(first, first + count)
        return [
            (entity_key(name), {feature_name(i): _proto(i, row[i]) for i in columns}, when, None)
            for name, row in zip(self.ids, self.values.tolist(), strict=True)
        ]


def draw_actors(count: int, seed: int) -> Actors:
    """Actors whose ids look like account ids, with amounts, ratios and counts, and some nulls."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(2.0, 2.0, (count, FEATURES))
    whole = [i for i in range(FEATURES) if is_integer(i)]
    values[:, whole] = np.floor(values[:, whole])
    values[rng.random(values.shape) < NULL_SHARE] = np.nan
    return Actors(tuple(f"act_{seed:02d}_{i:08d}" for i in range(count)), values)


def batch_objects(directory: Path, views: int, features: int = FEATURES) -> list[Any]:
    """Feast objects: the entity, `views` batch views that share the features evenly, and the service of all."""
    each = features // views
    tables = [_batch_view(directory, f"profile_{i}", range(i * each, (i + 1) * each)) for i in range(views)]
    return [actor, *tables, FeatureService(name=SERVICE, features=list(tables))]


def windowed_objects(directory: Path) -> list[Any]:
    """Feast objects of 60 features over four views, too: 24 are windowed, in one stream view."""
    tables = [_batch_view(directory, f"profile_{i}", range(i * 12, (i + 1) * 12)) for i in range(3)]
    traffic = _stream_view(directory)
    return [actor, *tables, traffic, FeatureService(name=SERVICE, features=[*tables, traffic])]


def open_store(directory: Path, project: str, online_store: dict[str, object], objects: list[Any]) -> FeatureStore:
    """A Feast store with those objects applied; its registry is a file in `directory`, cached as is Feast's default."""
    config = RepoConfig(
        project=project,
        provider="local",
        registry=str(directory / f"{project}.db"),
        entity_key_serialization_version=3,
        online_store=online_store,
        offline_store={"type": "file"},
    )
    config.repo_path = directory
    store = FeatureStore(config=config)
    store.apply(objects)
    return store


def entity_key(name: str) -> EntityKey:
    """The entity key that Feast gives to a store."""
    return EntityKey(join_keys=["actor"], entity_values=[Value(string_val=name)])


def feature_name(feature: int) -> str:
    """The name of a feature by its number."""
    return f"f{feature:02d}"


def _proto(feature: int, value: float) -> Value:
    if value != value:
        return Value()
    return Value(int64_val=int(value)) if is_integer(feature) else Value(double_val=value)


def _batch_view(directory: Path, name: str, features: range) -> FeatureView:
    schema = [Field(name=feature_name(i), dtype=Int64 if is_integer(i) else Float64) for i in features]
    source = FileSource(name=f"{name}_rows", path=str(directory / f"{name}.parquet"), timestamp_field="event_time")
    return FeatureView(name=name, entities=[actor], schema=schema, source=source, ttl=timedelta(days=30))


def _stream_view(directory: Path) -> StreamFeatureView:
    history = FileSource(name="history", path=str(directory / "history.parquet"), timestamp_field="event_time")
    source = KafkaSource(
        name="ad_events",
        kafka_bootstrap_servers="",
        topic="ad_events",
        timestamp_field="event_time",
        message_format=JsonFormat(schema_json="actor string, amount double"),
        batch_source=history,
    )
    aggregations = [
        Aggregation(
            column="amount", function=function, time_window=window, name=f"{function}_{window.total_seconds():g}"
        )
        for window in WINDOWS
        for function in FUNCTIONS
    ]
    schema = [
        Field(name=a.resolved_name(a.time_window), dtype=Int64 if a.function == "count" else Float64)
        for a in aggregations
    ]
    return StreamFeatureView(
        name="traffic",
        entities=[actor],
        schema=schema,
        source=source,
        aggregations=aggregations,
        timestamp_field="event_time",
        ttl=timedelta(days=8),
    )
