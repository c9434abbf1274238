"""Feast stores of a few objects, applied in this process, on our three plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, FileSource, ValueType
from feast.field import Field
from feast.repo_config import RepoConfig

TIME = pa.timestamp("ms", "UTC")
ip = Entity(name="ip", join_keys=["ip"], value_type=ValueType.STRING)


def small_store(directory: Path, project: str, redis_url: str, objects: Sequence[Any]) -> FeatureStore:
    """A store whose registry lies in `directory`, with the objects applied."""
    config = RepoConfig(
        project=project,
        provider="local",
        registry=str(directory / "registry.db"),
        entity_key_serialization_version=3,
        online_store={
            "type": "materialize.online.feast_store.PackedRedisOnlineStore",
            "connection_string": redis_url,
        },
        offline_store={"type": "materialize.offline.feast_store.WindowedParquetOfflineStore"},
        batch_engine={"type": "materialize.backfill.feast_engine.BackfillEngine"},
    )
    config.repo_path = directory
    store = FeatureStore(config=config)
    store.apply(list(objects))
    return store


def file_source(directory: Path, name: str, table: pa.Table, **options: Any) -> FileSource:
    """A Parquet file of that table, as a source."""
    path = directory / f"{name}.parquet"
    pq.write_table(table, path)
    return FileSource(name=name, path=str(path), timestamp_field="event_time", **options)


def view_over(
    source: FileSource, fields: dict[str, Any], entities: Sequence[Entity] = (ip,), ttl: timedelta = timedelta(0)
) -> FeatureView:
    """The batch view `profile` of these fields."""
    return FeatureView(
        name="profile",
        entities=list(entities),
        schema=[Field(name=name, dtype=dtype) for name, dtype in fields.items()],
        source=source,
        ttl=ttl,
    )


def profiles(rows: Sequence[dict[str, Any]], **types: pa.DataType) -> pa.Table:
    """A table of `ip`, `event_time` and `created` (milliseconds) and further columns of these types."""
    schema = pa.schema([("ip", pa.string()), ("event_time", TIME), ("created", TIME), *types.items()])
    return pa.Table.from_pylist([{"created": row.get("event_time"), **row} for row in rows], schema=schema)


def at(time_ms: int) -> datetime:
    """Milliseconds as a datetime in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)
