"""Reading a feature service: keys, one pipelined round trip, and the vector or the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import redis
import redis.asyncio
from feast import FeatureStore

from materialize.definitions import JoinKey, open_feature_store
from materialize.events import Event
from materialize.online._connect import connect, connect_async, no_answer_is_unavailable, redis_settings
from materialize.online._errors import PartlyUnreadError
from materialize.online._feature_matrix import Entity, FeatureMatrix, FeatureVector, apart, assemble, lookup
from materialize.online._line import AsyncRowFetcher, RowFetcher
from materialize.online._plan import ReadPlan
from materialize.online._plans import EntityFeatures, Plans
from materialize.online._scored_events import NO_SCORED, Events
from materialize.online._shards import AsyncShardFetcher
from materialize.online._short_lived import ShortLived


class _Asked(NamedTuple):
    """What `assemble` takes of a read."""

    entities: Sequence[Entity]
    as_of_ms: Sequence[int]
    requests: Sequence[Entity] | None
    events: Events

    @classmethod
    def one(cls, entities: Entity, as_of_ms: int, request: Entity | None, event: Event | None) -> _Asked:
        requests = None if request is None else [request]
        return cls([entities], [as_of_ms], requests, NO_SCORED if event is None else {0: event})

    @classmethod
    def many(
        cls,
        entities: Sequence[Entity],
        as_of_ms: int | Sequence[int],
        requests: Sequence[Entity] | None,
        events: Events,
    ) -> _Asked:
        times = [as_of_ms] * len(entities) if isinstance(as_of_ms, int) else as_of_ms
        return cls(entities, times, requests, events)


class FeatureReader:
    """Reads the feature services of one registry from one Redis, without touching the registry on a request."""

    def __init__(self, client: redis.asyncio.Redis, store: FeatureStore) -> None:
        self._client = client
        self._fetcher: AsyncRowFetcher | AsyncShardFetcher = (
            AsyncShardFetcher(client) if isinstance(client, redis.asyncio.RedisCluster) else AsyncRowFetcher(client)
        )
        self._store = store
        self._plans = Plans(store)

    @property
    def redis_url(self) -> str:
        """The URL that `feature_store.yaml`, or whoever opened the store, names. Raises ConnectionSettingsError."""
        return redis_settings(self._store).url

    def services(self) -> list[str]:
        """The names of the registry's feature services."""
        return self._plans.services()

    def join_keys(self) -> Mapping[str, JoinKey]:
        """The join keys of all entities in the registry, by name."""
        return self._plans.join_keys()

    def entities(self) -> Mapping[str, EntityFeatures]:
        """The entities of the registry, by name."""
        return self._plans.entities()

    def plan(self, service: str) -> ReadPlan:
        """The plan of a feature service, compiled at its first use. Raises UnknownServiceError."""
        return self._plans.of_service(service)

    def plan_for(self, features: Sequence[str]) -> ReadPlan:
        """The plan of a list of features, each "view:feature", in that order; the plans used last are kept.

        Raises UnknownFeatureError, and DefinitionError for an on-demand view that cannot be served.
        """
        return self._plans.of_features(features)

    def refresh(self) -> bool:
        """Read the registry again, and if it has changed, compile the plans in use anew and swap them in at once.

        Returns whether it has changed. A read under way keeps the plan that it began with. It blocks for a moment, and
        may be called from another thread than the reads.
        """
        return self._plans.refresh()

    async def read(
        self,
        plan: ReadPlan,
        entities: Mapping[str, object],
        as_of_ms: int,
        *,
        event: Event | None = None,
        request: Mapping[str, object] | None = None,
    ) -> FeatureVector:
        """The features of one set of entities as of a time, with `event` merged in unless the rows have it.

        `entities` has a value for each of the plan's join keys. Raises OnlineStoreUnavailableError.
        """
        asked = _Asked.one(entities, as_of_ms, request, event)
        return (await self._read(plan, asked)).vector(0)

    async def read_many(
        self,
        plan: ReadPlan,
        entities: Sequence[Entity],
        as_of_ms: int | Sequence[int],
        requests: Sequence[Entity] | None = None,
        events: Events = NO_SCORED,
        *,
        in_part: bool = False,
    ) -> FeatureMatrix:
        """The features of many sets of entities, in one round trip; each value is that of `read`.

        Each of `entities` has a value for each of the plan's join keys, an as-of time, if they differ, and one of
        `requests`. `events`: a position in `entities` → the event to merge in. Raises OnlineStoreUnavailableError.
        `in_part`: where some shards of a Redis Cluster are away, their rows count as not found, and `met.unread` tells.
        """
        return await self._read(plan, _Asked.many(entities, as_of_ms, requests, events), in_part=in_part)

    def unread(
        self,
        plan: ReadPlan,
        entities: Entity,
        as_of_ms: int,
        *,
        event: Event | None = None,
        request: Entity | None = None,
    ) -> FeatureMatrix:
        """What `read` would give if nothing were stored of these entities, without asking Redis."""
        asked = _Asked.one(entities, as_of_ms, request, event)
        wanted = lookup(plan, asked.entities)
        return assemble(plan, wanted, [None] * len(wanted.keys), *asked)

    async def _read(self, plan: ReadPlan, asked: _Asked, *, in_part: bool = False) -> FeatureMatrix:
        wanted = lookup(plan, asked.entities, apart(asked.as_of_ms, asked.events))
        try:
            rows = await self._rows(wanted.keys)
        except PartlyUnreadError as error:
            if not in_part:
                raise
            matrix = assemble(plan, wanted, error.rows, *asked)
            matrix.met.unread = Counter(np.nonzero(np.isin(wanted.owners, error.unread))[1].tolist())
            return matrix
        return assemble(plan, wanted, rows, *asked)

    async def _rows(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            return await self._fetcher.fetch(keys)
        except Exception:
            with no_answer_is_unavailable():  # only now: entering it takes longer than a row does
                raise

    def short_lived(self, prefix: str) -> ShortLived:
        """Values with a time to live in the same Redis, all of whose keys begin with `prefix`."""
        require = self._fetcher.require if isinstance(self._fetcher, AsyncShardFetcher) else None
        return ShortLived(self._client, prefix, require)

    def shards_away(self) -> list[str]:
        """The shards of a Redis Cluster that do not answer and are not asked but for probes, and why."""
        return self._fetcher.away() if isinstance(self._fetcher, AsyncShardFetcher) else []

    async def ping(self) -> None:
        """Raises OnlineStoreUnavailableError when Redis does not answer, of a cluster no shard."""
        with no_answer_is_unavailable():
            await (self._fetcher if isinstance(self._fetcher, AsyncShardFetcher) else self._client).ping()

    async def close(self) -> None:
        """Give the connections back."""
        await self._fetcher.close()
        await self._client.aclose()


class FeatureReaderSync:
    """The same without asyncio: for notebooks, batch scoring and tests."""

    def __init__(self, client: redis.Redis, store: FeatureStore) -> None:
        self._client = client
        self._fetcher = RowFetcher(client)
        self._plans = Plans(store)

    def plan(self, service: str) -> ReadPlan:
        """As `FeatureReader.plan`."""
        return self._plans.of_service(service)

    def plan_for(self, features: Sequence[str]) -> ReadPlan:
        """As `FeatureReader.plan_for`."""
        return self._plans.of_features(features)

    def refresh(self) -> bool:
        """As `FeatureReader.refresh`."""
        return self._plans.refresh()

    def read(
        self,
        plan: ReadPlan,
        entities: Mapping[str, object],
        as_of_ms: int,
        *,
        event: Event | None = None,
        request: Mapping[str, object] | None = None,
    ) -> FeatureVector:
        """As `FeatureReader.read`."""
        return self._read(plan, _Asked.one(entities, as_of_ms, request, event)).vector(0)

    def read_many(
        self,
        plan: ReadPlan,
        entities: Sequence[Entity],
        as_of_ms: int | Sequence[int],
        requests: Sequence[Entity] | None = None,
        events: Events = NO_SCORED,
    ) -> FeatureMatrix:
        """As `FeatureReader.read_many`."""
        return self._read(plan, _Asked.many(entities, as_of_ms, requests, events))

    def _read(self, plan: ReadPlan, asked: _Asked) -> FeatureMatrix:
        wanted = lookup(plan, asked.entities, apart(asked.as_of_ms, asked.events))
        return assemble(plan, wanted, self._rows(wanted.keys), *asked)

    def _rows(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with no_answer_is_unavailable():
            return self._fetcher.fetch(keys)

    def close(self) -> None:
        """Give the connections back."""
        self._fetcher.close()
        self._client.close()


def open_reader(
    redis_url: str | None, repo_path: Path, registry_path: Path | None = None, timeout_s: float = 0.5
) -> FeatureReader:
    """A reader of the registry of `repo_path` through a new Redis client with time-outs.

    The client is that of `feature_store.yaml`, at `redis_url` if one is given. Raises ConnectionSettingsError.
    """
    store = open_feature_store(repo_path, registry_path, redis_url)
    return FeatureReader(connect_async(replace(redis_settings(store), socket_timeout=timeout_s)), store)


def open_reader_sync(
    redis_url: str | None, repo_path: Path, registry_path: Path | None = None, timeout_s: float = 0.5
) -> FeatureReaderSync:
    """The same without asyncio."""
    store = open_feature_store(repo_path, registry_path, redis_url)
    return FeatureReaderSync(connect(replace(redis_settings(store), socket_timeout=timeout_s)), store)
