"""Stored rows by key, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

import redis
import redis.asyncio

KEYS_MAX = 1_024
"""Keys that one command names: it keeps the server from everything else for half a millisecond or so."""


def fetch(client: redis.Redis, keys: Sequence[bytes]) -> list[bytes | None]:
    """The row of each key, None for none. One server is asked by MGET; in a cluster each node for its own keys."""
    if isinstance(client, redis.Redis) and len(keys) <= KEYS_MAX:
        return list(client.mget(keys)) if keys else []
    pipeline = client.pipeline(transaction=False)
    if not isinstance(client, redis.Redis):
        for key in keys:
            pipeline.get(key)
        return list(pipeline.execute())
    for begin in range(0, len(keys), KEYS_MAX):
        pipeline.mget(keys[begin : begin + KEYS_MAX])
    return [row for rows in pipeline.execute() for row in rows]


async def fetch_async(client: redis.asyncio.Redis, keys: Sequence[bytes]) -> list[bytes | None]:
    """The same without blocking the event loop."""
    if isinstance(client, redis.asyncio.Redis) and len(keys) <= KEYS_MAX:
        return list(await client.mget(keys)) if keys else []
    async with client.pipeline(transaction=False) as pipeline:
        if not isinstance(client, redis.asyncio.Redis):
            for key in keys:
                pipeline.get(key)
            return list(await pipeline.execute())
        for begin in range(0, len(keys), KEYS_MAX):
            pipeline.mget(keys[begin : begin + KEYS_MAX])
        return [row for rows in await pipeline.execute() for row in rows]
