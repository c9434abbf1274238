"""Values that whoever comes first sets, for a while: beside the rows, in the same Redis."""

from __future__ import annotations

from collections.abc import Callable

import redis.asyncio

from materialize.online._connect import no_answer_is_unavailable


class ShortLived:
    """Named bytes with a time to live. Every method raises OnlineStoreUnavailableError when Redis does not do it."""

    def __init__(
        self, client: redis.asyncio.Redis, prefix: str, require: Callable[[bytes], None] | None = None
    ) -> None:
        """All keys begin with `prefix`. `require(key)` raises when it is known that nobody would answer for a key."""
        self._client = client
        self._prefix = prefix
        self._require = require

    async def take(self, name: str, value: bytes, ttl_ms: int) -> bytes | None:
        """Set the value if there is none. Returns the one that there was, None when there was none.

        Returns `value` itself when it was sent twice, for the first answer was lost, or when the one that there was has
        ended meanwhile. Whoever must know sends values that nobody else does.
        """
        key = self._key(name)
        with no_answer_is_unavailable():
            if await self._client.set(key, value, nx=True, px=ttl_ms):
                return None
            found: bytes | None = await self._client.get(key)
        return value if found is None else found

    async def put(self, name: str, value: bytes, ttl_ms: int) -> None:
        """Set the value, whatever there is."""
        key = self._key(name)
        with no_answer_is_unavailable():
            await self._client.set(key, value, px=ttl_ms)

    async def delete(self, name: str) -> None:
        """Forget the value."""
        key = self._key(name)
        with no_answer_is_unavailable():
            await self._client.delete(key)

    def _key(self, name: str) -> str:
        key = self._prefix + name
        if self._require is not None:
            self._require(key.encode())
        return key
