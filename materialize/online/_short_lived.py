"""Values that whoever comes first sets, for a while: beside the rows, in the same Redis."""

from __future__ import annotations

import redis.asyncio

from materialize.online._connect import unavailable_if_redis_fails


class ShortLived:
    """Named bytes with a time to live. Every method raises OnlineStoreUnavailableError when Redis does not answer."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str) -> None:
        """All keys begin with `prefix`."""
        self._client = client
        self._prefix = prefix

    async def take(self, name: str, value: bytes, ttl_ms: int) -> bytes | None:
        """Set the value if there is none. Returns the one that there was, None when there was none."""
        with unavailable_if_redis_fails():
            if await self._client.set(self._prefix + name, value, nx=True, px=ttl_ms):
                return None
            found: bytes | None = await self._client.get(self._prefix + name)
        # Between the two it may have ended: then it is as if it still were, for who asks once more.
        return value if found is None else found

    async def put(self, name: str, value: bytes, ttl_ms: int) -> None:
        """Set the value, whatever there is."""
        with unavailable_if_redis_fails():
            await self._client.set(self._prefix + name, value, px=ttl_ms)

    async def delete(self, name: str) -> None:
        """Forget the value."""
        with unavailable_if_redis_fails():
            await self._client.delete(self._prefix + name)
