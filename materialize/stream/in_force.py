"""Which definitions of a project's views are in force: one short note in Redis, so that a deploy cannot mix rows.

While a changed definition is rolled out, workers of the old and of the new one run side by side, and to each of them
the other's rows are unreadable: each would start them anew, over and over. The rule that settles it:

1. A worker that starts writes into the note which definitions it has, and as of when the registry says so. The later
   registry wins; a worker that finds a later one with other definitions does not start.
2. A worker that meets a row of another definition looks at the note before it writes anything. If other definitions are
   in force by now, it stops; if its own are, the row is an old one, and is started anew.
3. A worker looks at the note before it commits, too. If other definitions are in force it stops without committing:
   what it has not committed is given to the workers that have them.

So no row of the definitions in force is ever written over by others, however late a worker wakes up: its write is a
compare-and-set against the row that it read, and reading another one's row leads to 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import redis

from materialize.definitions import StreamView
from materialize.online import unavailable_if_redis_fails
from materialize.stream.errors import DefinitionsSupersededError

_TAKE = """
local stored = redis.call('GET', KEYS[1])
local as_of = tonumber(ARGV[1])
if stored then
  local known, digest = string.match(stored, '^(%d+) (%x+)$')
  known = tonumber(known) or 0
  if digest == ARGV[2] then
    as_of = math.max(as_of, known)
  elseif ARGV[3] == '1' then
    as_of = math.max(as_of, known + 1)
  elseif known >= as_of then
    return 0
  end
end
redis.call('SET', KEYS[1], string.format('%.0f', as_of) .. ' ' .. ARGV[2])
return 1
"""
"""Put ARGV[2], as of ARGV[1], into the note KEYS[1] unless others are there that are as new; ARGV[3] '1': even then."""


class DefinitionsInForce:
    """The note of one project, and what one worker holds against it."""

    def __init__(self, client: redis.Redis, project: str, views: Iterable[StreamView], as_of_ms: int) -> None:
        """`as_of_ms`: when the registry that the views come from was last changed, milliseconds UTC."""
        self._client = client
        self._key = f"{project}:definitions"
        self._digest = _digest(views)
        self._as_of_ms = as_of_ms

    def take(self, *, by_force: bool = False) -> None:
        """Put our definitions in force; with `by_force` whatever the registries say.

        Raises DefinitionsSupersededError when a later registry defines the views otherwise, and
        OnlineStoreUnavailableError.
        """
        with unavailable_if_redis_fails():
            taken = self._client.eval(_TAKE, 1, self._key, self._as_of_ms, self._digest, int(by_force))
        if not taken:
            raise DefinitionsSupersededError

    def check(self) -> None:
        """Return if our definitions are in force, also after the note was lost. Raises as `take` does."""
        with unavailable_if_redis_fails():
            stored = self._client.get(self._key)
        if stored is None:
            self.take()
        elif stored.rpartition(b" ")[2] != self._digest.encode():
            raise DefinitionsSupersededError


def _digest(views: Iterable[StreamView]) -> str:
    text = "\n".join(sorted(f"{view.name}={view.topic}:{view.fingerprint:016x}" for view in views))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
