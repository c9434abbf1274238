"""Fetching rows over a connection that is kept apart from the client's pool.

Taking a connection from the pool and giving it back, and the library's way of reading an answer, take longer than the
round trip. Whatever is unusual, very many keys, a dropped connection or an error for an answer, is left to the client,
which sends the same call once more and knows all errors by name. A cluster is read by `_shards.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
import redis
import redis.asyncio
from redis import exceptions as failures

from materialize.online._connect import closed_is_lost
from materialize.online._fetch import KEYS_MAX, Rows, fetch, fetch_async


class RowFetcher:
    """Fetches rows through one client; for any number of threads."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._idle: list[Any] = []

    def fetch(self, keys: Sequence[bytes]) -> Rows:
        """The row of each key, None for none. Raises redis-py's errors."""
        if not keys or len(keys) > KEYS_MAX or not isinstance(self._client, redis.Redis):
            return fetch(self._client, keys)
        return self._asked(keys)

    def close(self) -> None:
        """Give the connections back; the client stays open."""
        while self._idle:
            self._client.connection_pool.release(self._idle.pop())

    def _asked(self, keys: Sequence[bytes]) -> Rows:
        connection = self._taken()
        try:
            connection.send_packed_command([hiredis.pack_command(("MGET", *keys))])
            rows = cast(Rows, connection.read_response())
        except failures.TimeoutError:
            self._drop(connection)
            raise
        except failures.RedisError:
            self._drop(connection)
            return fetch(self._client, keys)
        except BaseException:
            self._drop(connection)
            raise
        self._idle.append(connection)
        return rows

    def _taken(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:  # asking first would be a race of threads
            return self._client.connection_pool.get_connection()

    def _drop(self, connection: Any) -> None:
        """An answer that nobody read would be taken for that of the next command."""
        connection.disconnect()
        self._client.connection_pool.release(connection)


class AsyncRowFetcher:
    """The same for asyncio: all requests share one connection, each sent at once, the answers in their order."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._line: Line | None = None
        self._connecting: asyncio.Task[Line] | None = None
        self._timeout_s: float | None = None

    async def fetch(self, keys: Sequence[bytes]) -> Rows:
        """The row of each key, None for none. Raises redis-py's errors."""
        if not keys or len(keys) > KEYS_MAX:
            return await fetch_async(self._client, keys)
        return await self._asked(keys)

    async def close(self) -> None:
        """Close the connection; the client stays open."""
        if self._line is not None:
            self._line.close()
            self._line = None

    async def _asked(self, keys: Sequence[bytes]) -> Rows:
        line = self._line
        if line is None or not line.is_open:
            line = await self._connected()
        answer = line.send(hiredis.pack_command(("MGET", *keys)))
        # A timer alone: `asyncio.timeout` costs three times as much, at every read.
        late = None if self._timeout_s is None else line.loop.call_later(self._timeout_s, self._give_up, line, answer)
        try:
            rows = await answer
        finally:
            if late is not None:
                late.cancel()
        if isinstance(rows, list):
            return rows
        return await fetch_async(self._client, keys)  # no answer but an error: the client knows it by name

    def _give_up(self, line: Line, answer: asyncio.Future[Any]) -> None:
        """An answer is late; whoever waits behind it would wait as long: the client sends their calls once more."""
        if not answer.done():
            answer.set_exception(failures.TimeoutError(f"no answer from Redis within {self._timeout_s} s"))
            line.close()

    async def _connected(self) -> Line:
        """The connection. All who wait for it wait for the same attempt, and learn together that it failed."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(look_at)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Line:
        """Made by the client's own means: TLS, user, database and Sentinel are its business."""
        pool = self._client.connection_pool
        self._timeout_s = pool.connection_kwargs.get("socket_timeout")
        self._line = await open_line(pool.make_connection())
        return self._line


def look_at(done: asyncio.Task[Line]) -> None:
    """An error that nobody waited for any more is not worth a warning."""
    if not done.cancelled():
        done.exception()


async def open_line(connection: Any) -> Line:
    """A line over a connection of redis-py that is not connected yet. Raises redis-py's errors."""
    with closed_is_lost():
        await connection.connect()
    if connection._writer.is_closing() or connection._reader.at_eof():  # nobody would tell the line any more
        await connection.disconnect(nowait=True)
        raise failures.ConnectionError("the connection was lost as soon as it was made")
    return Line(connection)


class Line(asyncio.Protocol):
    """A connection that redis-py made, with its streams taken away: bytes out, answers in, nothing between.

    The answer to a command is what Redis said, an error included; or None when the connection was lost first.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection  # it closes its socket when nobody holds it
        self._transport: asyncio.Transport = connection._writer.transport
        self._before = self._transport.get_protocol()
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self.loop = asyncio.get_running_loop()
        self.is_open = True
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    def send(self, command: bytes) -> asyncio.Future[Any]:
        """What Redis will answer."""
        answer = self.loop.create_future()
        if self.is_open:
            self._waiting.append(answer)
            self._transport.write(command)
        else:
            answer.set_result(None)
        return answer

    def close(self) -> None:
        """Close; who still waits gets None."""
        self._transport.abort()
        self._lost()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            answer = self._reader.gets()
            while answer is not False:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(answer)
                answer = self._reader.gets()
        except (hiredis.ProtocolError, IndexError):  # what comes is no Redis, or no answer to anything
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()
        self._before.connection_lost(error)

    def _lost(self) -> None:
        self.is_open = False
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
