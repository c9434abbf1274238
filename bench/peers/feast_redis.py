"""Feast with its stock Redis store, in its default configuration, read in the way that is fastest for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis
from feast import FeatureStore

from bench.actors import SERVICE, FeastRow, batch_objects, open_store
from bench.timing import Timed, awaited, each, fastest

TRIALS = 25

Names = Sequence[str]
KeysOf = Callable[[str], Sequence[bytes]]


class FeastRedis:
    """A store of `views` batch views over the 60 features, at the Redis of `address` (host:port)."""

    def __init__(
        self, directory: Path, address: str, views: int, runner: asyncio.Runner, *, skip_dedup: bool = False
    ) -> None:
        """`skip_dedup` is Feast's option to write without looking at what is stored: faster, and older rows win."""
        settings: dict[str, object] = {"type": "redis", "connection_string": address, "skip_dedup": skip_dedup}
        project = f"stock_{views}_blind" if skip_dedup else f"stock_{views}"
        self.store: FeatureStore = open_store(directory, project, settings, batch_objects(directory, views))
        self._runner = runner
        self._tables = [self.store.get_feature_view(f"profile_{i}") for i in range(views)]
        self._service = self.store.get_feature_service(SERVICE)
        self._references = [f"{table.name}:{field.name}" for table in self._tables for field in table.features]
        self._online = self.store._get_provider().online_store

    def write(self, view: int, rows: list[FeastRow]) -> None:
        """The store's own write path."""
        self._online.online_write_batch(self.store.config, self._tables[view], rows, None)

    def matrix(self, names: Names, features: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """What the store answers, float64[actors, features] with NaN for null."""
        answer = self.store.get_online_features(self._service, {"actor": list(names)}).to_dict()
        columns = [[np.nan if value is None else float(value) for value in answer[name]] for name in features]
        return np.array(columns, dtype=np.float64).T

    def fastest_read(self, trial: Sequence[Names]) -> tuple[str, Timed[Names]]:
        """The fastest of Feast's forms of reading, by trial, and its name. Decoded to Feast's messages, no further."""
        forms: Mapping[str, Timed[Names]] = {
            "service": each(lambda names: self.store.get_online_features(self._service, {"actor": list(names)})),
            "references": each(lambda names: self.store.get_online_features(self._references, {"actor": list(names)})),
            "service_async": self._awaited(
                lambda names: self.store.get_online_features_async(self._service, {"actor": list(names)})
            ),
        }
        return fastest(forms, trial)

    def _awaited(self, call: Callable[[Names], Awaitable[object]]) -> Timed[Names]:
        return lambda items: self._runner.run(awaited(call, items))


def bare_redis(client: redis.Redis, keys_of: KeysOf) -> Timed[Names]:
    """Nothing but the round trip: a pipelined GET of each row's key by redis-py, its answers thrown away."""

    def get(keys: Sequence[bytes]) -> None:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        pipeline.execute()

    return _with_keys(get, keys_of)


def bare_mget(client: redis.Redis, keys_of: KeysOf) -> Timed[Names]:
    """The same in one command, which Redis Cluster allows only within one slot."""
    return _with_keys(client.mget, keys_of)


def _with_keys(get: Callable[[Sequence[bytes]], object], keys_of: KeysOf) -> Timed[Names]:
    """Times the call alone; making the keys is not in it."""
    timed_get = each(get)
    return lambda items: timed_get([[key for name in names for key in keys_of(name)] for names in items])
