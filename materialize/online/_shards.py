"""Fetching rows from a Redis Cluster: each shard over a connection of its own, and without those that are away.

    keys ──► by slot ──► by shard ──► MGET for each slot, all sent at once ──► the answers, within one time-out
                            │ does not answer, or only errors: it is away
                            ▼
              nobody asks it but a probe beside the requests, which also looks where its slots are now

A shard that is away costs one read its time-out, and then no read anything: its rows are unread at once. What concerns
the cluster as a whole, its shape and slots that move, is left to the client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextvars import Context
from itertools import count, starmap
from typing import Any

import hiredis
import redis.asyncio
from redis import exceptions as failures
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from materialize.online._connect import closed_is_lost
from materialize.online._errors import OnlineStoreUnavailableError, PartlyUnreadError
from materialize.online._fetch import Rows, fetch_async
from materialize.online._line import Line, look_at, open_line

PAUSE_S, PAUSE_MAX_S = 0.5, 8.0
"""So long after a probe that failed comes the next one. A shard that is away again soon after is left alone for longer
each time: each return that does not last costs a read its time-out."""
PROBES_PER_LOOK = 4
"""Each so many probes it is looked where the shard's slots are: that takes the event loop some milliseconds."""
CALM_S = 30.0
"""A shard that answered for so long was well."""

_PING = hiredis.pack_command(("PING",))
_REDIRECTS = ("MOVED ", "ASK ")
_NO_ANSWER = (failures.RedisError, failures.RedisClusterException, OSError, TimeoutError)
_LOG = logging.getLogger(__name__)


class _Shard:
    """One primary of the cluster. away: why it is not asked, None while it is. probe: what it is asked then."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.line: Line | None = None
        self.connecting: asyncio.Task[Line] | None = None
        self.away: str | None = None
        self.probe = _PING
        self.back_s = -CALM_S
        self.pause_s = 0.0


class _Part:
    """What one shard is asked by one command, and what it said: None for nothing."""

    __slots__ = ("answer", "command", "positions", "shard")

    def __init__(self, shard: _Shard, command: bytes, positions: Sequence[int] = ()) -> None:
        self.shard = shard
        self.command = command
        self.positions = positions
        self.answer: Any = None


class AsyncShardFetcher:
    """Fetches rows through the client of a cluster, for one event loop."""

    def __init__(self, client: redis.asyncio.RedisCluster) -> None:
        self._client = client
        self._timeout_s: float | None = client.get_connection_kwargs().get("socket_timeout")
        self._shards: dict[str, _Shard] = {}
        self._watches: set[asyncio.Task[None]] = set()

    def away(self) -> list[str]:
        """The shards that are not asked now, and why."""
        return [f"{shard.name}: {shard.away}" for shard in self._shards.values() if shard.away is not None]

    def require(self, key: bytes) -> None:
        """Raises OnlineStoreUnavailableError when the shard that has a key's slot is away."""
        nodes = self._client.nodes_manager.slots_cache.get(key_slot(key))
        shard = self._shards.get(nodes[0].name) if nodes else None
        if shard is not None and shard.away is not None:
            raise OnlineStoreUnavailableError(f"shard {shard.name} of the online store is away: {shard.away}")

    async def fetch(self, keys: Sequence[bytes]) -> Rows:
        """The row of each key, None for none.

        Raises PartlyUnreadError with the rows that there are when a shard does not give its own, and redis-py's errors
        when no node says where the slots are.
        """
        if not keys:
            return []
        primaries = await self._primaries()
        slots: dict[int, list[int]] = {}
        for position, key in enumerate(keys):
            slots.setdefault(key_slot(key), []).append(position)
        parts = [
            _Part(
                self._shard(primaries[slot][0].name),
                hiredis.pack_command(("MGET", *[keys[n] for n in positions])),
                positions,
            )
            for slot, positions in slots.items()
        ]
        await self._ask(parts)
        rows: Rows = [None] * len(keys)
        unread: list[_Part] = []
        for part in parts:
            if isinstance(part.answer, list):
                for position, row in zip(part.positions, part.answer, strict=True):
                    rows[position] = row
            else:
                unread.append(part)
        if unread:
            await self._read_what_has_moved(unread, keys, rows)
        return rows

    async def ping(self) -> None:
        """Return when any shard answers. Raises PartlyUnreadError when none does, and as `fetch` does."""
        names = dict.fromkeys(nodes[0].name for nodes in (await self._primaries()).values())
        parts = [_Part(self._shard(name), _PING) for name in names]
        await self._ask(parts)
        if all(part.answer is None for part in parts):
            raise PartlyUnreadError([], [], self._told())

    async def close(self) -> None:
        """Close the connections, those too over which the cluster was asked for its shape."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for shard in self._shards.values():
            if shard.line is not None:
                shard.line.close()
        self._shards.clear()
        for nodes in ("nodes_cache", "startup_nodes"):
            await self._client.nodes_manager.aclose(nodes)

    async def _primaries(self) -> Mapping[int, Sequence[ClusterNode]]:
        """The nodes of each slot, its primary first."""
        manager = self._client.nodes_manager
        if not manager.slots_cache:
            await self._look_for_slots()
        slots: Mapping[int, Sequence[ClusterNode]] = manager.slots_cache
        return slots

    def _shard(self, name: str) -> _Shard:
        shard = self._shards.get(name)
        if shard is None:
            shard = self._shards[name] = _Shard(name)
        return shard

    async def _ask(self, parts: Sequence[_Part]) -> None:
        """Give each part its answer; a shard that does not answer in time, or that cannot, is away from now on."""
        asked: list[tuple[_Part, asyncio.Future[Any]]] = []
        anew: dict[_Shard, list[_Part]] = {}
        for part in parts:
            shard = part.shard
            if shard.away is not None:
                continue
            if shard.line is not None and shard.line.is_open:
                asked.append((part, shard.line.send(part.command)))
            else:
                anew.setdefault(shard, []).append(part)
        connecting = asyncio.gather(*starmap(self._ask_anew, anew.items())) if anew else None
        await self._take(asked)
        if connecting is not None:
            await connecting
        lost: dict[_Shard, list[_Part]] = {}
        for part, _ in asked:
            if part.answer is None and part.shard.away is None:
                lost.setdefault(part.shard, []).append(part)
        if lost:
            await asyncio.gather(*starmap(self._ask_anew, lost.items()))

    async def _ask_anew(self, shard: _Shard, parts: Sequence[_Part]) -> None:
        """Ask over a new connection: a restart or an idle time-out may have ended the one before."""
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await self._connected(shard)
        except _NO_ANSWER as error:
            self._is_away(shard, str(error) or f"no connection within {self._timeout_s} s", _PING)
            return
        await self._take([(part, line.send(part.command)) for part in parts])
        if any(part.answer is None for part in parts):
            self._is_away(shard, "the connection was lost", parts[0].command)

    async def _take(self, asked: Sequence[tuple[_Part, asyncio.Future[Any]]]) -> None:
        """The answers that come within the time-out."""
        try:
            async with asyncio.timeout(self._timeout_s):
                for part, answer in asked:
                    part.answer = await answer
        except TimeoutError:
            for part, answer in asked:
                if answer.done() and not answer.cancelled():
                    part.answer = answer.result()
                else:
                    self._is_away(part.shard, f"no answer within {self._timeout_s} s", part.command)
        for part, _ in asked:
            if isinstance(part.answer, hiredis.ReplyError) and not _is_redirect(part.answer):
                self._is_away(part.shard, str(part.answer), part.command)
                part.answer = None

    async def _connected(self, shard: _Shard) -> Line:
        """The connection to a shard. All who wait for it wait for the same attempt."""
        if shard.connecting is None or shard.connecting.done():
            if shard.line is not None and shard.line.is_open:
                return shard.line
            shard.connecting = asyncio.ensure_future(self._connect(shard))
            shard.connecting.add_done_callback(look_at)
        return await asyncio.shield(shard.connecting)

    async def _connect(self, shard: _Shard) -> Line:
        """Made by the client's own means: TLS and user are its business."""
        node = self._client.nodes_manager.nodes_cache.get(shard.name)
        if node is None:
            raise failures.ConnectionError("it is no node of the cluster any more")
        options = {**node.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
        shard.line = await open_line(node.connection_class(**options))
        return shard.line

    async def _read_what_has_moved(self, unread: Sequence[_Part], keys: Sequence[bytes], rows: Rows) -> None:
        """The client follows redirections, and knows better from then on. Raises PartlyUnreadError for the rest."""
        left = [n for part in unread if part.answer is None for n in part.positions]
        moved = [n for part in unread if part.answer is not None for n in part.positions]
        if moved:
            try:
                async with asyncio.timeout(self._timeout_s):
                    found = await fetch_async(self._client, [keys[n] for n in moved])
            except _NO_ANSWER:
                left += moved
            else:
                for n, row in zip(moved, found, strict=True):
                    rows[n] = row
        if left:
            raise PartlyUnreadError(rows, left, self._told())

    def _told(self) -> str:
        return "; ".join(self.away()) or "slots are moving"

    def _is_away(self, shard: _Shard, why: str, probe: bytes) -> None:
        if shard.away is not None:
            return
        _LOG.warning("shard %s of the online store is away, the others are read on: %s", shard.name, why)
        shard.away, shard.probe = why, probe
        if shard.line is not None:
            shard.line.close()  # whoever else waits for it need not wait for the time-out
        loop = asyncio.get_running_loop()
        was_well = loop.time() - shard.back_s >= CALM_S
        shard.pause_s = 0.0 if was_well else min(max(PAUSE_S, 2 * shard.pause_s), PAUSE_MAX_S)
        self._client.nodes_manager.move_node_to_end_of_cached_nodes(shard.name)  # it is asked last for the slots
        watch = loop.create_task(self._watch(shard), context=Context())
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, shard: _Shard) -> None:
        """Ask a shard that is away again and again, until it answers or another one has its slots."""
        await asyncio.sleep(shard.pause_s)
        for probe in count():
            if probe % PROBES_PER_LOOK == 0 and await self._has_no_slots(shard):
                _LOG.info("the slots of shard %s of the online store are those of others now", shard.name)
                self._shards.pop(shard.name, None)
                return
            if await self._is_back(shard):
                _LOG.info("shard %s of the online store answers again", shard.name)
                break
            await asyncio.sleep(PAUSE_S)
        shard.away, shard.back_s = None, asyncio.get_running_loop().time()

    async def _has_no_slots(self, shard: _Shard) -> bool:
        """Whether others have its slots, as any node of the cluster says."""
        try:
            await self._look_for_slots()
        except _NO_ANSWER:
            return False
        return shard.name not in {nodes[0].name for nodes in self._client.nodes_manager.slots_cache.values()}

    async def _look_for_slots(self) -> None:
        """Ask the nodes where the slots are now. Raises redis-py's errors."""
        with closed_is_lost():
            await self._client.nodes_manager.initialize()

    async def _is_back(self, shard: _Shard) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await (await self._connected(shard)).send(shard.probe)
        except _NO_ANSWER:
            answer = None
        if answer is None or (isinstance(answer, hiredis.ReplyError) and not _is_redirect(answer)):
            if shard.line is not None:
                shard.line.close()
            return False
        return True


def _is_redirect(error: hiredis.ReplyError) -> bool:
    return str(error).startswith(_REDIRECTS)
