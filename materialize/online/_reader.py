"""Reading a feature service: keys, one pipelined round trip, and the vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import redis.asyncio
from feast import FeatureStore
from feast.errors import FeatureServiceNotFoundException

from materialize.definitions import compile_service, open_feature_store
from materialize.events import TOPICS, Event, columns_from_events
from materialize.online._errors import UnknownServiceError
from materialize.online._plan import ReadPlan, compile_plan
from materialize.online._vector import FeatureVector, assemble
from materialize.online._writer import unavailable_if_redis_fails


class FeatureReader:
    """Reads the feature services of one registry from one Redis, without touching the registry on a request."""

    def __init__(self, client: redis.asyncio.Redis, store: FeatureStore) -> None:
        self._client = client
        self._store = store
        self._plans: dict[str, ReadPlan] = {}

    def services(self) -> list[str]:
        """The names of the registry's feature services."""
        return sorted(service.name for service in self._store.list_feature_services())

    def plan(self, service: str) -> ReadPlan:
        """The plan of a feature service, compiled at its first use. Raises UnknownServiceError."""
        if service not in self._plans:
            self._plans[service] = read_plan(self._store, service)
        return self._plans[service]

    def refresh(self) -> None:
        """Read the registry again and forget the plans; a read under way keeps the plan that it began with."""
        self._store.refresh_registry()
        self._plans = {}

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
        keys = [row.encoder.key([entities[name] for name in row.key_names]) for row in plan.rows]
        with unavailable_if_redis_fails():
            async with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.get(key)
                rows = await pipeline.execute()
        merged = None if event is None else (topic_of(event), columns_from_events([event]))
        return assemble(plan, rows, entities, as_of_ms, merged, request)

    async def ping(self) -> None:
        """Raises OnlineStoreUnavailableError when Redis does not answer."""
        with unavailable_if_redis_fails():
            await self._client.ping()

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def read_plan(store: FeatureStore, service: str) -> ReadPlan:
    """The plan of a feature service in the store's registry. Raises UnknownServiceError."""
    try:
        definition = store.get_feature_service(service, allow_cache=True)
    except FeatureServiceNotFoundException:
        names = ", ".join(sorted(found.name for found in store.list_feature_services())) or "none"
        raise UnknownServiceError(
            f"no feature service {service!r} in the registry (there are: {names}): run `actor-risk apply`"
        ) from None
    return compile_plan(store.project, compile_service(definition, store.registry, store.project))


def topic_of(event: Event) -> str:
    """The topic whose schema the event has."""
    return next(topic for topic, struct in TOPICS.items() if type(event) is struct)


def open_reader(
    redis_url: str, repo_path: Path, registry_path: Path | None = None, timeout_s: float = 0.5
) -> FeatureReader:
    """A reader of the registry of `repo_path` through a new Redis client with time-outs."""
    client = redis.asyncio.Redis.from_url(redis_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    return FeatureReader(client, open_feature_store(repo_path, registry_path))
