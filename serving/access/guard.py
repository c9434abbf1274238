"""The guard before every request: who asks, whether they may, and how often. It reads header fields only.

Keys and tokens are looked up by their SHA-256: how long that takes says nothing of the keys there are, and a key that
was never made, was revoked or has expired takes the same way to the same answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Protocol

from serving.access.buckets import Buckets
from serving.access.client import Client, Known
from serving.access.files import WatchedFile
from serving.access.keys import digest_of
from serving.access.routes import ANY_KEY, OPEN, SCOPES, need_of
from serving.clock import Clock
from serving.errors import ForbiddenError, UnauthorizedError
from serving.http import Scope, header

POLL_S = 1.0

_LOG = logging.getLogger(__name__)
_BEARER = b"bearer"

NOBODY = Client("", frozenset(), None)
"""Whoever asks for what is open."""
LOCAL = Client("local", frozenset(SCOPES), None)
"""Whoever asks on this machine, when no keys are configured."""


class Gate(Protocol):
    """Lets requests in."""

    def admit(self, scope: Scope, path: str) -> Client:
        """Who asks. Raises UnauthorizedError, ForbiddenError or TooManyRequestsError."""
        ...

    def charge(self, client: Client, requests: int) -> None:
        """Count a request that was let in as so many more, for what its body asks. The next ones wait for it."""
        ...

    def refresh(self) -> bool:
        """Take over keys that have changed. Returns whether some have."""
        ...

    def notes(self) -> list[str]:
        """What is not as it should be, for /readyz."""
        ...


class Tokens(Protocol):
    """Verifies tokens: `serving.access.tokens.TokenVerifier`."""

    @property
    def failure(self) -> str | None:
        """Why a new file of keys was refused, or None."""
        ...

    def find(self, token: bytes, digest: bytes, now_ms: int) -> Known | None:
        """Whom a token stands for; None for one that is not valid now."""
        ...

    def refresh(self) -> bool:
        """Take over keys that have changed. Returns whether some have."""
        ...


class Guard:
    """Asks for an API key or a token."""

    def __init__(
        self, clock: Clock, keys: WatchedFile[Mapping[bytes, Known]] | None, tokens: Tokens | None = None
    ) -> None:
        self._clock = clock
        self._keys = keys
        self._known = {} if keys is None else keys.value
        self._tokens = tokens
        self._buckets = Buckets(clock.monotonic_ns)

    def admit(self, scope: Scope, path: str) -> Client:
        """See `Gate.admit`."""
        need = need_of(path)
        if need is OPEN:
            return NOBODY
        client = self._client(credential(scope))
        if client.limit is not None:
            self._buckets.take(client.name, client.limit)
        if need != ANY_KEY and need not in client.scopes:
            raise ForbiddenError(need)
        return client

    def charge(self, client: Client, requests: int) -> None:
        """See `Gate.charge`."""
        if client.limit is not None:
            self._buckets.charge(client.name, client.limit, requests)

    def refresh(self) -> bool:
        """See `Gate.refresh`."""
        has_new_tokens = self._tokens is not None and self._tokens.refresh()
        if self._keys is None or not self._keys.refresh():
            return has_new_tokens
        self._known = self._keys.value
        return True

    def notes(self) -> list[str]:
        """See `Gate.notes`."""
        sources = {"API keys": self._keys, "JWKS": self._tokens}
        return [
            f"the new file of {name} is refused, the old one counts: {source.failure}"
            for name, source in sources.items()
            if source is not None and source.failure is not None
        ]

    def _client(self, given: bytes) -> Client:
        digest, now_ms = digest_of(given), self._clock.now_ms()
        known = self._known.get(digest)
        if known is None and self._tokens is not None:
            known = self._tokens.find(given, digest, now_ms)
        if known is None or known.expires_ms <= now_ms or not given:
            raise UnauthorizedError
        return known.client


class LoopbackGate:
    """Asks for nothing, and lets in only what comes from this machine.

    The address of the server is held against this when it starts. Here stand the peer, which is another one where a
    proxy that is believed says so, and the host that was asked for: a page in a browser that has its own name resolve
    to this machine is refused by it.
    """

    def admit(self, scope: Scope, path: str) -> Client:
        """See `Gate.admit`."""
        if need_of(path) is OPEN:
            return NOBODY
        peer, host = scope.get("client"), header(scope, b"host")
        if (peer and not is_loopback(peer[0])) or (host and not is_loopback(_without_port(host))):
            raise UnauthorizedError
        return LOCAL

    def charge(self, client: Client, requests: int) -> None:
        """Nothing is counted."""

    def refresh(self) -> bool:
        """There is nothing to follow."""
        return False

    def notes(self) -> list[str]:
        """Nothing is amiss."""
        return []


def credential(scope: Scope) -> bytes:
    """The key or token in `x-api-key`, else in `authorization: Bearer`; nothing when there is none."""
    given = b""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value.strip())
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            given = rest.strip() if scheme.lower() == _BEARER else b""
    return given


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether an address or a name of a host stands for this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _without_port(host: str) -> str:
    """`[::1]:8000` → `::1`, `localhost:8000` → `localhost`."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


async def follow(gate: Gate, every_s: float = POLL_S) -> None:
    """Take over keys that change, looking every so often, for ever. Not on a request: a file may take its time."""
    told: list[str] = []
    while True:
        await asyncio.sleep(every_s)
        if await asyncio.to_thread(gate.refresh):
            _LOG.info("keys have changed, and count from now on")
        if gate.notes() != told:
            told = gate.notes()
            for note in told:
                _LOG.warning(note)
