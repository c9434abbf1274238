"""A circuit breaker in front of the online store: while it is away, nobody waits for it but one probe now and then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from materialize.online import OnlineStoreUnavailableError
from serving.clock import NS_PER_MS

FAILURES_MAX = 3
"""So many reads in a row must fail before it opens: one may be a failover's."""
OPEN_MS = 500.0
"""So long nobody asks after a failure; then one does, and if it succeeds, all do."""

Answer = TypeVar("Answer")


class Breaker:
    """Closed: all reads go through. Open: all fail at once. Half open: one read tries, the others fail at once."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._failures = 0
        self._closed_again_ns = 0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether reads fail without being tried, but for probes."""
        return self._failures >= FAILURES_MAX

    async def call(self, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `read` gives. Raises OnlineStoreUnavailableError, its own or at once while open."""
        if self.is_open and (self._is_probing or self._monotonic_ns() < self._closed_again_ns):
            raise OnlineStoreUnavailableError(
                "the online store has not answered lately, and is not asked now: try again"
            )
        is_probe = self.is_open
        if is_probe:
            self._is_probing = True
        try:
            answer = await read()
        except OnlineStoreUnavailableError:
            self._failures += 1
            self._closed_again_ns = self._monotonic_ns() + int(OPEN_MS * NS_PER_MS)
            raise
        finally:
            if is_probe:  # a read from before it opened ends no probe
                self._is_probing = False
        self._failures = 0
        return answer
