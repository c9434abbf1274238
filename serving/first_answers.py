"""Idempotency keys: a request that is sent again gets the first answer, whichever replica it reaches.

    begin ──► nobody has the key: it is ours for `HELD_MS` ──► answer ──► kept for `KEPT_MS`
          ├─► there is an answer: that is it
          └─► somebody answers it right now: come back

While the store is away, or slower than the request's deadline allows, requests are answered all the same, and say in
`degraded` that the answer is not kept.

What is stored: the digest of the request, then the answer, or while there is none a zero byte and who holds the key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType

import xxhash

from materialize.online import OnlineStoreUnavailableError
from serving.errors import AnswerUnderWayError, InvalidFieldError
from serving.ports import AnswerStore

HELD_MS = 10_000
"""So long a key stays with a replica that died before it answered."""
KEPT_MS = 600_000
"""So long a request that is sent again gets the first answer."""

_DIGEST_BYTES = 16
_HELD = b"\0"
_HOLDER_BYTES = 8
_AWAY = (OnlineStoreUnavailableError, TimeoutError)
_LOG = logging.getLogger(__name__)


def digest_of(body: bytes) -> bytes:
    """Tells whether two requests are the same: 16 bytes."""
    return xxhash.xxh3_128_digest(body)


class Kept:
    """A key: its answer, if there is one already; else it is this request's to answer, within `async with`."""

    def __init__(self, store: AnswerStore, key: str, digest: bytes, answer: bytes | None, *, is_held: bool) -> None:
        self._store, self._key, self._digest = store, key, digest
        self.answer = answer
        self.is_held = is_held

    async def keep(self, answer: bytes, timeout_s: float | None = None) -> None:
        """Keep the answer for whoever sends the request again, if that takes no longer than `timeout_s`."""
        if self.is_held:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._store.put(self._key, self._digest + answer, KEPT_MS)
            except _AWAY:
                _LOG.debug("an answer could not be kept for its idempotency key")

    async def __aenter__(self) -> Kept:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A request that failed gives its key back: sent again, it is tried again."""
        if error is not None and self.is_held:
            try:
                await self._store.delete(self._key)
            except _AWAY:
                _LOG.debug("an idempotency key stays held until it expires")


class FirstAnswers:
    """The first answer to each idempotency key."""

    def __init__(self, store: AnswerStore, random_bytes: Callable[[int], bytes]) -> None:
        """`random_bytes(n)` gives n bytes that tell holders apart."""
        self._store = store
        self._random_bytes = random_bytes

    async def begin(self, client: str, key: str, digest: bytes, timeout_s: float | None = None) -> Kept:
        """The key of a client, for a request of this digest; without a hold on it when that takes longer.

        Raises InvalidFieldError when the key was another request's, AnswerUnderWayError while that is being answered.
        """
        name = f"{len(client)}:{client}:{key}"
        ours = digest + _HELD + self._random_bytes(_HOLDER_BYTES)
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._store.take(name, ours, HELD_MS)
        except _AWAY:
            return Kept(self._store, name, digest, None, is_held=False)
        if found is None or found == ours:  # ours: it was sent twice, for the first answer was lost on its way
            return Kept(self._store, name, digest, None, is_held=True)
        if found[:_DIGEST_BYTES] != digest:
            raise InvalidFieldError("another request was sent with this idempotency-key: give each one its own")
        if found[_DIGEST_BYTES:].startswith(_HELD):
            raise AnswerUnderWayError
        return Kept(self._store, name, digest, found[_DIGEST_BYTES:], is_held=False)
