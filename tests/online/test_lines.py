"""Rows fetched over a connection of their own: each request gets its own answer, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest
import redis
import redis.asyncio
import uvloop
from redis import exceptions as failures

from actor_risk.local import Valkey
from materialize.online import RedisSettings, connect, connect_async
from materialize.online._fetch import KEYS_MAX
from materialize.online._line import AsyncRowFetcher, RowFetcher

TIMEOUT_S, PATIENCE_S = 0.3, 60.0
RESETS = 100
KEYS = [b"k%d" % i for i in range(2 * KEYS_MAX + 5)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("lines")) as running:
        with redis.Redis.from_url(running.url) as operator:
            operator.mset({key: b"of " + key for key in KEYS})
        yield running


@pytest.fixture
def operator(server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


class Resetting:
    """A port that answers whatever is sent first, if it has an answer, and resets the connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if self._answer:
                    connection.recv(1 << 12)
                    connection.sendall(self._answer)


def expected(keys: list[bytes]) -> list[bytes]:
    return [b"of " + key for key in keys]


def kill_all(operator: redis.Redis) -> None:
    operator.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
"""Ray Serve runs the second one, which says other errors of a connection that is closed."""


def run_async(url: str, use: Callable[[AsyncRowFetcher], Awaitable[None]], timeout_s: float = TIMEOUT_S) -> None:
    """Use a fetcher on either event loop, one after the other."""
    for loop in LOOPS.values():
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(used(url, use, timeout_s))


async def used(url: str, use: Callable[[AsyncRowFetcher], Awaitable[None]], timeout_s: float) -> None:
    client = connect_async(RedisSettings(url, socket_timeout=timeout_s))
    fetcher = AsyncRowFetcher(client)
    try:
        await use(fetcher)
    finally:
        await fetcher.close()
        await client.aclose()


@pytest.fixture
def fetcher(server: Valkey) -> Iterator[RowFetcher]:
    client = connect(RedisSettings(server.url, socket_timeout=TIMEOUT_S))
    made = RowFetcher(client)
    yield made
    made.close()
    client.close()


@pytest.mark.parametrize("count", [0, 1, 4, KEYS_MAX, len(KEYS)])
def test_any_number_of_keys(server: Valkey, fetcher: RowFetcher, count: int) -> None:
    keys = [*KEYS[:count], b"nothing"][: count + (count > 0)]
    wanted = [*expected(KEYS[:count]), None][: len(keys)]
    assert fetcher.fetch(keys) == wanted

    async def use(line: AsyncRowFetcher) -> None:
        assert await line.fetch(keys) == wanted

    run_async(server.url, use, timeout_s=5)


def test_requests_at_once_get_each_its_own_rows(server: Valkey, fetcher: RowFetcher) -> None:
    requests = [[KEYS[i], KEYS[2 * i]] for i in range(200)]

    async def use(line: AsyncRowFetcher) -> None:
        assert await asyncio.gather(*map(line.fetch, requests)) == [expected(keys) for keys in requests]

    run_async(server.url, use, timeout_s=5)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(fetcher.fetch, requests)) == [expected(keys) for keys in requests]


def test_a_connection_that_was_dropped_is_made_anew_without_an_error(
    server: Valkey, operator: redis.Redis, fetcher: RowFetcher
) -> None:
    async def use(line: AsyncRowFetcher) -> None:
        for _ in range(3):
            assert await line.fetch(KEYS[:2]) == expected(KEYS[:2])
            kill_all(operator)

    run_async(server.url, use)
    for _ in range(3):
        assert fetcher.fetch(KEYS[:2]) == expected(KEYS[:2])
        kill_all(operator)


def test_a_late_answer_is_never_taken_for_that_of_the_next_request(
    server: Valkey, operator: redis.Redis, fetcher: RowFetcher
) -> None:
    async def use(line: AsyncRowFetcher) -> None:
        await line.fetch(KEYS[:1])
        operator.client_pause(int(TIMEOUT_S * 1500))
        with pytest.raises(failures.TimeoutError):
            await line.fetch(KEYS[:1])
        await asyncio.to_thread(operator.ping)  # answered when the pause is over
        assert await line.fetch(KEYS[5:6]) == expected(KEYS[5:6])

    run_async(server.url, use)
    fetcher.fetch(KEYS[:1])
    operator.client_pause(int(TIMEOUT_S * 1500))
    with pytest.raises(failures.TimeoutError):
        fetcher.fetch(KEYS[:1])
    operator.ping()  # answered when the pause is over
    assert fetcher.fetch(KEYS[5:6]) == expected(KEYS[5:6])


def test_a_request_that_is_given_up_costs_the_others_nothing(server: Valkey) -> None:
    async def use(line: AsyncRowFetcher) -> None:
        await line.fetch(KEYS[:1])
        given_up = asyncio.ensure_future(line.fetch(KEYS[:500]))
        await asyncio.sleep(0)
        kept = asyncio.ensure_future(line.fetch(KEYS[7:9]))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await kept == expected(KEYS[7:9])
        assert await line.fetch(KEYS[3:4]) == expected(KEYS[3:4])

    run_async(server.url, use, timeout_s=5)


def test_all_who_wait_for_a_connection_learn_together_that_there_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0?protocol=3"  # says hello first, and is not answered

        async def use(line: AsyncRowFetcher) -> None:
            async with asyncio.timeout(50 * TIMEOUT_S):  # one after the other they would wait for longer
                failed = await asyncio.gather(*(line.fetch(KEYS[:1]) for _ in range(100)), return_exceptions=True)
            assert {type(error) for error in failed} == {failures.TimeoutError}

        run_async(url, use)


@pytest.mark.parametrize("hello", [b"", b"+OK\r\n" * 2], ids=["at once", "after the greeting"])
def test_a_connection_that_is_reset_before_it_is_used_is_a_lost_one(hello: bytes) -> None:
    with Resetting(hello) as server:

        async def use(line: AsyncRowFetcher) -> None:
            for _ in range(RESETS):  # it depends on the moment who notices first
                for count in (1, KEYS_MAX + 1):
                    with pytest.raises(failures.ConnectionError):
                        await line.fetch(KEYS[:count])

        run_async(server.url, use, timeout_s=PATIENCE_S)


def test_what_redis_refuses_is_refused_by_name(server: Valkey, operator: redis.Redis) -> None:
    operator.execute_command("ACL SETUSER", "blind", "on", ">x", "resetkeys", "~*", "nocommands", "+ping")
    url = server.url.replace("redis://", "redis://blind:x@")
    client = connect(RedisSettings(url))
    with pytest.raises(failures.NoPermissionError):
        RowFetcher(client).fetch(KEYS[:1])
    client.close()

    async def use(line: AsyncRowFetcher) -> None:
        with pytest.raises(failures.NoPermissionError):
            await line.fetch(KEYS[:1])

    run_async(url, use)


def test_a_server_that_is_gone_is_an_error_and_one_that_is_back_answers(tmp_path: Path) -> None:
    with Valkey(tmp_path / "away") as server:
        url = server.url
        client = connect(RedisSettings(url, socket_timeout=TIMEOUT_S))
        fetcher = RowFetcher(client)
        assert fetcher.fetch([b"k"]) == [None]
    with pytest.raises(failures.ConnectionError):
        fetcher.fetch([b"k"])

    async def use(line: AsyncRowFetcher) -> None:
        with pytest.raises(failures.ConnectionError):
            await line.fetch([b"k"])

    run_async(url, use)
    client.close()
