"""The Feast OnlineStore plug-in: Feast's own calls on the packed rows, with the values of our own fast path.

Name it in `feature_store.yaml`:

    online_store:
      type: materialize.online.feast_store.PackedRedisOnlineStore
      connection_string: redis://127.0.0.1:6379/0    # optional; REDIS_URL otherwise
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import redis
from feast import Entity, FeatureView, RepoConfig
from feast import utils as feast_utils
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel
from google.protobuf.timestamp_pb2 import Timestamp

from materialize.definitions import BatchView, StreamView, View, compile_view
from materialize.online._batch_rows import BatchRow, value_from_proto, value_to_proto
from materialize.online._errors import OnlineStoreError
from materialize.online._keys import KeyEncoder, view_prefix
from materialize.online._view_reader import NO_AGE, FeatureStatus, ReadCounts, ViewValues, view_reader
from materialize.online._writer import RowWriter, unavailable_if_redis_fails

DEFAULT_URL = "redis://127.0.0.1:6379/0"
SCAN_COUNT = 1_000

FeastRow = tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]


class PackedRedisOnlineStoreConfig(FeastConfigBaseModel):
    """Settings of the store."""

    type: Literal["materialize.online.feast_store.PackedRedisOnlineStore"] = (
        "materialize.online.feast_store.PackedRedisOnlineStore"
    )
    connection_string: str | None = None
    """A redis:// URL; the environment's REDIS_URL, or a Redis on this machine, when it is not given."""
    socket_timeout: float = 5.0
    """Seconds that one answer may take."""


class PackedRedisOnlineStore(OnlineStore):
    """Feature rows packed into one Redis string per entity and view; windows merged as of the moment of the read."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms: Callable[[], int] = _wall_clock_ms
        self.counts = ReadCounts()
        self._client: redis.Redis | None = None
        self._compiled: dict[str, tuple[object, View]] = {}

    def client(self, config: RepoConfig) -> redis.Redis:
        """The Redis client, made at the first use."""
        if self._client is None:
            settings = config.online_store
            url = settings.connection_string or os.environ.get("REDIS_URL") or DEFAULT_URL
            self._client = redis.Redis.from_url(
                url, socket_timeout=settings.socket_timeout, socket_connect_timeout=settings.socket_timeout
            )
        return self._client

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of a batch view; of two rows of one entity the newer event time wins, then the later created time.

        Raises OnlineStoreError for a stream view with aggregations: its rows come from the stream and the backfill.
        """
        view = self._view(table)
        if isinstance(view, StreamView):
            raise OnlineStoreError(
                f"view {view.name!r} holds windows: publish its events to the log (`actor-risk stream`), "
                "or materialize its history; finished rows cannot be written into it"
            )
        encoder = KeyEncoder(config.project, view.name, view.join_keys)
        rows = [
            (encoder.key_of(entity), _batch_row(view, values, event_time, created))
            for entity, values, event_time, created in data
        ]
        RowWriter(self.client(config)).write_batch_rows(view, rows)
        if progress is not None:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
        """The newest values of each entity as of now: (None, None) where there are none or they are too old."""
        view = self._view(table)
        names = [field.name for field in view.fields] if requested_features is None else requested_features
        as_of_ms = self.now_ms()
        out: list[tuple[datetime | None, dict[str, ValueProto] | None]] = []
        for read in self._read(config, [(view, names, entity_keys)], as_of_ms)[0]:
            if read.statuses and read.statuses[0] in (FeatureStatus.NOT_FOUND, FeatureStatus.OUTSIDE_MAX_AGE):
                out.append((None, None))
            else:
                event_time = datetime.fromtimestamp((as_of_ms - read.age_ms) / 1000, UTC)
                out.append((event_time, dict(zip(names, _protos(view, names, read), strict=True))))
        return out

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Delete the rows of views that are gone; a view that is new needs nothing."""
        for table in tables_to_delete:
            self._delete_rows(config, table.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete the rows of the views."""
        for table in tables:
            self._delete_rows(config, table.name)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Feast's hook for reading all views at once: one round trip, and the true status of every value."""
        requests = []
        spreads = []
        for table, features in grouped_refs:
            entities, indexes, length = feast_utils._get_unique_entities(
                table, join_key_values, entity_name_to_join_key_map
            )
            requests.append((self._view(table), list(features), feast_utils._get_entity_key_protos(entities)))
            spreads.append((table, tuple(indexes), length))
        as_of_ms = self.now_ms()
        for (view, features, _), (table, indexes, length), reads in zip(
            requests, spreads, self._read(config, requests, as_of_ms), strict=True
        ):
            name = table.projection.name_to_use()
            _append(online_features_response, view, features, reads, indexes, length, as_of_ms)
            online_features_response.metadata.feature_names.val.extend(
                f"{name}__{feature}" if full_feature_names else feature for feature in features
            )

    def _read(
        self,
        config: RepoConfig,
        requests: Sequence[tuple[View, Sequence[str], Sequence[EntityKeyProto]]],
        as_of_ms: int,
    ) -> list[list[ViewValues]]:
        """One pipelined round trip for all views and entities."""
        with unavailable_if_redis_fails():
            pipeline = self.client(config).pipeline(transaction=False)
            for view, _, entities in requests:
                encoder = KeyEncoder(config.project, view.name, view.join_keys)
                for entity in entities:
                    pipeline.get(encoder.key_of(entity))
            rows = iter(pipeline.execute())
        reads = []
        for view, features, entities in requests:
            names = [field.name for field in view.fields]
            reader = view_reader(view, [names.index(feature) for feature in features])
            reads.append([reader.read(next(rows), as_of_ms, self.counts) for _ in entities])
        return reads

    def _view(self, table: FeatureView) -> View:
        """The compiled view, compiled anew when Feast hands over another definition."""
        stamp = (table.last_updated_timestamp, tuple((f.name, str(f.dtype)) for f in table.features))
        known = self._compiled.get(table.name)
        if known is None or known[0] != stamp:
            known = (stamp, compile_view(table))
            self._compiled[table.name] = known
        return known[1]

    def _delete_rows(self, config: RepoConfig, view_name: str) -> None:
        client = self.client(config)
        pattern = _glob_escaped(view_prefix(config.project, view_name)) + b"{*"
        with unavailable_if_redis_fails():
            batch: list[bytes] = []
            for key in client.scan_iter(pattern, count=SCAN_COUNT):
                batch.append(key)
                if len(batch) == SCAN_COUNT:
                    client.unlink(*batch)
                    batch = []
            if batch:
                client.unlink(*batch)


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _batch_row(
    view: BatchView, values: Mapping[str, ValueProto], event_time: datetime, created: datetime | None
) -> BatchRow:
    none = ValueProto()
    stored = tuple(value_from_proto(field, values.get(field.name, none)) for field in view.fields)
    return BatchRow(_milliseconds(event_time), 0 if created is None else _milliseconds(created), stored)


def _milliseconds(when: datetime) -> int:
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _protos(view: View, names: Sequence[str], read: ViewValues) -> list[ValueProto]:
    fields = {field.name: field for field in view.fields}
    return [value_to_proto(fields[name], value) for name, value in zip(names, read.values, strict=True)]


def _append(
    response: GetOnlineFeaturesResponse,
    view: View,
    features: Sequence[str],
    reads: Sequence[ViewValues],
    indexes: Sequence[Sequence[int]],
    length: int,
    as_of_ms: int,
) -> None:
    """Add one vector per feature to the response, each entity's value at every row that asked for it."""
    owner = [0] * length
    for entity, rows in enumerate(indexes):
        for row in rows:
            owner[row] = entity
    times = [_timestamp(as_of_ms - read.age_ms if read.age_ms != NO_AGE else None) for read in reads]
    protos = [_protos(view, features, read) for read in reads]
    for position in range(len(features)):
        response.results.append(
            GetOnlineFeaturesResponse.FeatureVector(
                values=[protos[entity][position] for entity in owner],
                statuses=[_feast_status(reads[entity].statuses[position]) for entity in owner],
                event_timestamps=[times[entity] for entity in owner],
            )
        )


def _feast_status(status: FeatureStatus) -> Any:
    return int(status)


def _timestamp(time_ms: int | None) -> Timestamp:
    stamp = Timestamp()
    if time_ms is not None:
        stamp.FromMilliseconds(time_ms)
    return stamp


def _glob_escaped(text: bytes) -> bytes:
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\" else bytes([c]) for c in text)
