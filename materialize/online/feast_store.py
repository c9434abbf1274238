"""The Feast OnlineStore plug-in: Feast's own calls on the packed rows, with the values of our own fast path.

Name it in `feature_store.yaml`:

    online_store:
      type: materialize.online.feast_store.PackedRedisOnlineStore
      connection_string: redis://127.0.0.1:6379/0    # optional; REDIS_URL otherwise

`docs/howto/connect-to-redis.md` has the settings for TLS, users, Sentinel and Redis Cluster.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Literal
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from feast import Entity, FeatureStore, FeatureView, RepoConfig
from feast import utils as feast_utils
from feast.infra.infra_object import InfraObject
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel

from materialize.definitions import BatchView, StreamView, View, compile_view
from materialize.online._batch_rows import BatchRow, encode_batch_row
from materialize.online._connect import DEFAULT_URL, RedisSettings, connect, connect_async, unavailable_if_redis_fails
from materialize.online._errors import OnlineStoreError
from materialize.online._feast_values import (
    Answer,
    FeastValues,
    Spread,
    ViewRequest,
    batch_row,
    feast_values,
    owners_of,
)
from materialize.online._fetch import fetch, fetch_async
from materialize.online._keys import KeyEncoder, view_prefix
from materialize.online._scripts import newer_wins_async
from materialize.online._values import ReadCounts
from materialize.online._view_reader import ViewReader, ViewValues, view_reader
from materialize.online._writer import RowWriter

SCAN_COUNT = 1_000

FeastRow = tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]


class PackedRedisOnlineStoreConfig(FeastConfigBaseModel):
    """Settings of the store."""

    type: Literal["materialize.online.feast_store.PackedRedisOnlineStore"] = (
        "materialize.online.feast_store.PackedRedisOnlineStore"
    )
    connection_string: str | None = None
    """A redis://, rediss:// or unix:// URL; the environment's REDIS_URL, or a Redis on this machine, without one."""

    # The others are those of RedisSettings, where they are explained.
    username: str | None = None
    password: str | None = None
    socket_timeout: float = 5.0
    socket_connect_timeout: float | None = None
    ssl: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    cluster: bool = False
    startup_nodes: tuple[str, ...] = ()
    sentinels: tuple[str, ...] = ()
    service_name: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    max_connections: int | None = None
    health_check_interval: int = 0
    retries: int = 1

    def settings(self) -> RedisSettings:
        """How to reach Redis."""
        url = self.connection_string or os.environ.get("REDIS_URL") or DEFAULT_URL
        return RedisSettings(url=url, **self.model_dump(exclude={"type", "connection_string"}))


class PackedRedisOnlineStore(OnlineStore):
    """Feature rows packed into one Redis string per entity and view; windows merged as of the moment of the read."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms: Callable[[], int] = _wall_clock_ms
        self.counts = ReadCounts()
        self._client: redis.Redis | None = None
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()
        self._compiled: dict[str, tuple[object, View]] = {}
        self._readers: dict[tuple[str, tuple[str, ...]], tuple[View, ViewReader]] = {}

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads and writes, both without a thread."""
        return SupportedAsyncMethods(read=True, write=True)

    def client(self, config: RepoConfig) -> redis.Redis:
        """The blocking Redis client, made at the first use."""
        if self._client is None:
            self._client = connect(config.online_store.settings())
        return self._client

    def async_client(self, config: RepoConfig) -> redis.asyncio.Redis:
        """The Redis client of the running event loop, made at the loop's first use."""
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            self._async_clients[loop] = connect_async(config.online_store.settings())
        return self._async_clients[loop]

    async def close(self) -> None:
        """Give back the connections of this event loop and the blocking ones; a later call makes new ones."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
        if self._client is not None:
            self._client.close()
            self._client = None

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
        view, rows = self._rows(config, table, data)
        RowWriter(self.client(config)).write_batch_rows(view, rows)
        if progress is not None:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The same, without blocking the event loop."""
        view, rows = self._rows(config, table, data)
        client = self.async_client(config)
        keys, data_of = [key for key, _ in rows], [encode_batch_row(view, row) for _, row in rows]
        with unavailable_if_redis_fails():
            await newer_wins_async(client, keys, data_of, view.ttl_ms)
        if progress is not None:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[FeastValues]:
        """The newest values of each entity as of now: (None, None) where there are none or they are too old."""
        request = self._request(table, entity_keys, requested_features)
        as_of_ms = self.now_ms()
        return feast_values(request, self._read(config, [request], as_of_ms)[0], as_of_ms)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[FeastValues]:
        """The same, without blocking the event loop."""
        request = self._request(table, entity_keys, requested_features)
        as_of_ms = self.now_ms()
        return feast_values(request, (await self._read_async(config, [request], as_of_ms))[0], as_of_ms)

    def plan(self, config: RepoConfig, desired_registry_proto: RegistryProto) -> list[InfraObject]:
        """Nothing: Redis needs neither tables nor keys made before the first row, so no plan ever changes anything."""
        return []

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
        """Delete the rows of the views.

        Feast 0.67 leaves the stream views out when it tears down a project. So when `tables` are all that Feast would
        name, the project's stream views are torn down with them; fewer tables are taken at their word.
        """
        named = {table.name for table in tables}
        registry = FeatureStore(None if config.repo_path is None else str(config.repo_path), config)
        stream_views = {view.name for view in registry.list_stream_feature_views()}
        if named >= {view.name for view in registry.list_feature_views()} - stream_views:
            named |= stream_views
        for name in sorted(named):
            self._delete_rows(config, name)

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
        spreads = self._spreads(grouped_refs, join_key_values, entity_name_to_join_key_map)
        as_of_ms = self.now_ms()
        reads = self._read(config, [spread.request for spread in spreads], as_of_ms)
        answer = Answer(online_features_response, as_of_ms, full_feature_names, include_feature_view_version_metadata)
        answer.add(spreads, reads)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """The same, without blocking the event loop."""
        spreads = self._spreads(grouped_refs, join_key_values, entity_name_to_join_key_map)
        as_of_ms = self.now_ms()
        reads = await self._read_async(config, [spread.request for spread in spreads], as_of_ms)
        answer = Answer(online_features_response, as_of_ms, full_feature_names, include_feature_view_version_metadata)
        answer.add(spreads, reads)

    def _spreads(
        self, grouped_refs: list[Any], join_key_values: dict[str, Any], entity_name_to_join_key_map: dict[str, str]
    ) -> list[Spread]:
        spreads = []
        for table, features in grouped_refs:
            entities, indexes, length = feast_utils._get_unique_entities(
                table, join_key_values, entity_name_to_join_key_map
            )
            request = self._request(table, feast_utils._get_entity_key_protos(entities), features)
            spreads.append(Spread(request, table, owners_of(indexes, length)))
        return spreads

    def _read(self, config: RepoConfig, requests: Sequence[ViewRequest], as_of_ms: int) -> list[list[ViewValues]]:
        """One pipelined round trip for all views and entities."""
        keys = _keys(config, requests)
        with unavailable_if_redis_fails():
            rows = fetch(self.client(config), keys)
        return self._decoded(requests, rows, as_of_ms)

    async def _read_async(
        self, config: RepoConfig, requests: Sequence[ViewRequest], as_of_ms: int
    ) -> list[list[ViewValues]]:
        """One pipelined round trip for all views and entities."""
        keys = _keys(config, requests)
        with unavailable_if_redis_fails():
            rows = await fetch_async(self.async_client(config), keys)
        return self._decoded(requests, rows, as_of_ms)

    def _decoded(
        self, requests: Sequence[ViewRequest], rows: Sequence[bytes | None], as_of_ms: int
    ) -> list[list[ViewValues]]:
        left = iter(rows)
        return [
            self._reader(view, features).read_many(list(islice(left, len(entities))), as_of_ms, self.counts)
            for view, features, entities in requests
        ]

    def _reader(self, view: View, features: Sequence[str]) -> ViewReader:
        """The reader of these features, kept while Feast hands over the same definition."""
        asked = (view.name, tuple(features))
        known = self._readers.get(asked)
        if known is None or known[0] is not view:
            names = [field.name for field in view.fields]
            known = self._readers[asked] = (view, view_reader(view, [names.index(feature) for feature in features]))
        return known[1]

    def _request(
        self, table: FeatureView, entities: Sequence[EntityKeyProto], features: Sequence[str] | None
    ) -> ViewRequest:
        view = self._view(table)
        return view, [field.name for field in view.fields] if features is None else list(features), entities

    def _rows(
        self, config: RepoConfig, table: FeatureView, data: Sequence[FeastRow]
    ) -> tuple[BatchView, list[tuple[bytes, BatchRow]]]:
        view = self._view(table)
        if isinstance(view, StreamView):
            raise OnlineStoreError(
                f"view {view.name!r} holds windows: publish its events to the log (`actor-risk stream`), "
                "or materialize its history; finished rows cannot be written into it"
            )
        encoder = KeyEncoder(config.project, view.name, view.join_keys)
        return view, [
            (encoder.key_of(entity), batch_row(view, values, event_time, created))
            for entity, values, event_time, created in data
        ]

    def _view(self, table: FeatureView) -> View:
        """The compiled view, compiled anew when Feast hands over another definition."""
        stamp = (table.last_updated_timestamp, tuple((f.name, str(f.dtype)) for f in table.features))
        known = self._compiled.get(table.name)
        if known is None or known[0] != stamp:
            known = (stamp, compile_view(table))
            self._compiled[table.name] = known
        return known[1]

    def _delete_rows(self, config: RepoConfig, view_name: str) -> None:
        """Scans every node: one command for each key, as the keys of a batch lie in many slots of a cluster."""
        client = self.client(config)
        pattern = _glob_escaped(view_prefix(config.project, view_name)) + b"{*"
        with unavailable_if_redis_fails():
            keys = client.scan_iter(match=pattern, count=SCAN_COUNT)
            while batch := list(islice(keys, SCAN_COUNT)):
                pipeline = client.pipeline(transaction=False)
                for key in batch:
                    pipeline.unlink(key)
                pipeline.execute()


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _keys(config: RepoConfig, requests: Sequence[ViewRequest]) -> list[bytes]:
    keys: list[bytes] = []
    for view, _, entities in requests:
        encoder = KeyEncoder(config.project, view.name, view.join_keys)
        keys += [encoder.key_of(entity) for entity in entities]
    return keys


def _glob_escaped(text: bytes) -> bytes:
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\" else bytes([c]) for c in text)
