"""A token bucket for each client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from serving.errors import TooManyRequestsError

CLIENTS_MAX = 10_000
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """What one client may send to one replica: `rate` requests a second in the long run, `burst` at once."""

    rate: float
    burst: int
    token_ns: int = field(init=False)
    capacity_ns: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ns", max(1, round(_NS_PER_S / self.rate)))
        object.__setattr__(self, "capacity_ns", self.token_ns * self.burst)


class Buckets:
    """The buckets of all clients. Each is one number, the time at which it will be full again.

    This is the generic cell rate algorithm (ITU-T I.371), in which nothing has to be refilled. The bucket of the client
    that was not seen for longest makes room for a new one: it is the likeliest to be full, which is how one begins.
    """

    def __init__(self, monotonic_ns: Callable[[], int], clients_max: int = CLIENTS_MAX) -> None:
        self._monotonic_ns = monotonic_ns
        self._clients_max = clients_max
        self._full_at_ns: dict[str, int] = {}

    def take(self, client: str, limit: Limit) -> None:
        """Take a token. Raises TooManyRequestsError when there is none."""
        now_ns = self._monotonic_ns()
        full_at_ns = max(self._full_at_ns.get(client, 0), now_ns)
        wait_ns = full_at_ns + limit.token_ns - now_ns - limit.capacity_ns
        self._put(client, full_at_ns if wait_ns > 0 else full_at_ns + limit.token_ns)
        if wait_ns > 0:
            told = f"{client!r} may send {limit.rate:g} requests a second, and {limit.burst} at once"
            raise TooManyRequestsError(told, -(-wait_ns // _NS_PER_S))

    def charge(self, client: str, limit: Limit, tokens: int) -> None:
        """Take tokens that may not be there yet, for a request that is answered: the next ones wait for them."""
        self._put(client, max(self._full_at_ns.get(client, 0), self._monotonic_ns()) + tokens * limit.token_ns)

    def _put(self, client: str, full_at_ns: int) -> None:
        self._full_at_ns.pop(client, None)  # so that the dict stays in the order of use
        self._full_at_ns[client] = full_at_ns
        if len(self._full_at_ns) > self._clients_max:
            del self._full_at_ns[next(iter(self._full_at_ns))]
