"""Stored rows by key, in one round trip: one server is asked by MGET, in a cluster each node for its own keys."""

from __future__ import annotations

from collections.abc import Sequence

import redis
import redis.asyncio

from materialize.online._connect import closed_is_lost

KEYS_MAX = 1_024
"""Keys that one command names: it keeps the server from everything else for half a millisecond or so."""

Rows = list[bytes | None]


def fetch(client: redis.Redis, keys: Sequence[bytes]) -> Rows:
    """The row of each key, None for none. Raises redis-py's errors."""
    if isinstance(client, redis.Redis):
        parts = [client.mget(keys[begin : begin + KEYS_MAX]) for begin in range(0, len(keys), KEYS_MAX)]
        return [row for rows in parts for row in rows]
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.get(key)
    return list(pipeline.execute())


async def fetch_async(client: redis.asyncio.Redis, keys: Sequence[bytes]) -> Rows:
    """The same without blocking the event loop."""
    with closed_is_lost():
        if isinstance(client, redis.asyncio.Redis):
            parts = [await client.mget(keys[begin : begin + KEYS_MAX]) for begin in range(0, len(keys), KEYS_MAX)]
            return [row for rows in parts for row in rows]
        async with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.get(key)
            return list(await pipeline.execute())
