"""A request that is sent again with its idempotency key gets the first answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from materialize.online import OnlineStoreUnavailableError, ShortLived
from models import ModelStore
from serving.clock import Clock
from serving.first_answers import HELD_MS, FirstAnswers, digest_of
from serving.ports import AnswerStore
from tests.serving.fakes import (
    CHAMPION,
    KEYS,
    NOW_MS,
    SERVICE,
    Answer,
    MemoryAnswers,
    MemoryLog,
    World,
    build_world,
    publish_model,
)

BODY = {"model": SERVICE, "entities": KEYS}


@dataclass
class Desk:
    """A server that keeps first answers."""

    world: World
    answers: MemoryAnswers
    log: MemoryLog

    async def ask(self, key: str = "k-1", body: Any = BODY, **headers: str) -> Answer:
        return await self.world.score(body, {"idempotency-key": key, **headers})


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    answers, log = MemoryAnswers(), MemoryLog()
    publish_model(ModelStore(tmp_path))
    clock = Clock(now_ms=lambda: NOW_MS, monotonic_ns=time.perf_counter_ns)
    world = build_world(tmp_path, log, clock, answers)
    asyncio.run(world.service.load(CHAMPION))
    return Desk(world, answers, log)


async def away() -> None:
    raise OnlineStoreUnavailableError("away")


async def slow() -> None:
    await asyncio.sleep(5)


def test_a_request_that_is_sent_again_gets_the_first_answer_byte_by_byte(desk: Desk) -> None:
    first, again = (asyncio.run(desk.ask()) for _ in range(2))
    assert (first.status, again.status) == (200, 200)
    assert again.body == first.body
    assert again.headers == first.headers
    assert len(desk.log.entries) == len(desk.world.features.reads) == 1
    assert asyncio.run(desk.ask("k-2")).decision().decision_id != first.decision().decision_id


def test_a_key_that_was_another_requests_is_refused(desk: Desk) -> None:
    asyncio.run(desk.ask())
    other = asyncio.run(desk.ask(body={**BODY, "explain": "none"}))
    assert (other.status, other.json()["type"]) == (422, "/docs#problem-invalid-field")
    assert "idempotency-key" in other.json()["detail"]


@pytest.mark.parametrize("key", ["", "k" * 256, "ümlaut", "tab\t"])
def test_a_key_that_is_none_is_refused(desk: Desk, key: str) -> None:
    assert asyncio.run(desk.ask(key)).status == 422
    assert desk.answers.kept == {}


def test_while_a_request_is_answered_the_same_one_is_told_to_come_back(desk: Desk) -> None:
    async def run() -> list[Answer]:
        gate = asyncio.Event()

        async def held() -> None:
            await gate.wait()

        desk.world.features.answering = held
        first = asyncio.create_task(desk.ask())
        await asyncio.sleep(0.01)
        meanwhile, another = await desk.ask(), await desk.ask(body={**BODY, "explain": "full"})
        gate.set()
        return [await first, meanwhile, another, await desk.ask()]

    first, meanwhile, another, later = asyncio.run(run())
    assert [answer.status for answer in (first, meanwhile, another, later)] == [200, 409, 422, 200]
    assert meanwhile.headers["retry-after"] == "1"
    assert later.body == first.body


def test_a_request_that_failed_gives_its_key_back(desk: Desk) -> None:
    desk.world.features.failure = OnlineStoreUnavailableError("away")
    assert asyncio.run(desk.ask()).status == 503
    assert desk.answers.kept == {}
    desk.world.features.failure = None
    assert asyncio.run(desk.ask()).status == 200


def test_a_request_whose_client_has_gone_gives_its_key_back(desk: Desk) -> None:
    async def run() -> None:
        desk.world.features.answering = slow
        asked = asyncio.create_task(desk.ask())
        await asyncio.sleep(0.01)
        assert desk.answers.kept
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(run())
    assert desk.answers.kept == {}


def test_a_wrong_request_takes_no_key(desk: Desk) -> None:
    for body, headers in ((b"{", {}), (BODY, {"x-request-timeout-seconds": "soon"})):
        assert asyncio.run(desk.ask(body=body, **headers)).status in (400, 422)
    assert desk.answers.kept == {}


def test_while_the_store_is_away_it_is_answered_and_said_that_the_answer_is_not_kept(desk: Desk) -> None:
    desk.answers.failing = away
    first, again = (asyncio.run(desk.ask()).decision() for _ in range(2))
    assert first.degraded == again.degraded == ["answer_not_kept"]
    assert first.decision_id != again.decision_id
    desk.answers.failing = None
    assert asyncio.run(desk.ask()).decision().degraded == []


def test_an_answer_is_given_in_time_however_slow_the_store_of_answers_is(desk: Desk) -> None:
    desk.answers.failing = slow
    begun = time.perf_counter()
    answer = asyncio.run(desk.ask(**{"x-request-timeout-seconds": "0.1"}))
    assert time.perf_counter() - begun < 1
    assert "answer_not_kept" in answer.decision().degraded


def test_keys_of_clients_do_not_meet_whatever_their_names() -> None:
    async def run() -> list[bool]:
        first = FirstAnswers(MemoryAnswers(), lambda length: b"h" * length)
        named = [("svc", "pay:1"), ("svc:pay", "1"), ("svc", "pay:2")]
        return [(await first.begin(client, key, digest_of(key.encode()))).is_held for client, key in named]

    assert asyncio.run(run()) == [True, True, True]


def test_batches_and_other_routes_take_no_keys(desk: Desk) -> None:
    """So none is held for them."""
    asked = {"model": SERVICE, "requests": [{"entities": KEYS}]}
    for path, body in (("/v1/score:batch", asked), ("/v1/explain", BODY)):
        assert asyncio.run(desk.world.post(path, body, {"idempotency-key": "k"})).status == 200
    assert desk.answers.kept == {}


def test_without_a_store_of_answers_keys_are_not_looked_at(world: World) -> None:
    asked = [asyncio.run(world.score(BODY, {"idempotency-key": "k"})).decision() for _ in range(2)]
    assert asked[0].decision_id != asked[1].decision_id


@asynccontextmanager
async def on_valkey(url: str, prefix: str) -> AsyncIterator[ShortLived]:
    client = redis.asyncio.Redis.from_url(url, socket_timeout=2)
    try:
        yield ShortLived(client, prefix)
    finally:
        await client.aclose()


@asynccontextmanager
async def in_memory(_url: str, _prefix: str) -> AsyncIterator[MemoryAnswers]:
    yield MemoryAnswers()


@pytest.fixture(params=[in_memory, on_valkey], ids=["memory", "valkey"])
def opened(request: pytest.FixtureRequest, redis_url: str, redis_namespace: str) -> Callable[[], Any]:
    return lambda: request.param(redis_url, f"{redis_namespace}:")


class TestAnswerStore:
    """What every store of answers does."""

    def test_who_comes_first_sets_the_value_and_who_comes_later_gets_it(self, opened: Callable[[], Any]) -> None:
        async def run() -> None:
            async with opened() as store:
                assert await store.take("n", b"first\0\xff", 60_000) is None
                assert await store.take("n", b"second", 60_000) == b"first\0\xff"
                assert await store.take("other", b"second", 60_000) is None

        asyncio.run(run())

    def test_put_sets_it_whatever_there_is_and_delete_forgets_it(self, opened: Callable[[], Any]) -> None:
        async def run() -> None:
            async with opened() as store:
                await store.put("n", b"1", 60_000)
                await store.put("n", b"2", 60_000)
                assert await store.take("n", b"3", 60_000) == b"2"
                await store.delete("n")
                await store.delete("n")
                assert await store.take("n", b"4", 60_000) is None

        asyncio.run(run())

    def test_of_many_at_once_one_is_first(self, opened: Callable[[], Any]) -> None:
        async def run() -> list[bytes | None]:
            async with opened() as store:
                return await asyncio.gather(*(store.take("n", b"%d" % n, 60_000) for n in range(20)))

        found = asyncio.run(run())
        assert found.count(None) == 1
        assert set(found) == {None, b"%d" % found.index(None)}


def test_values_end_with_their_time(redis_url: str, redis_namespace: str) -> None:
    async def run() -> None:
        async with on_valkey(redis_url, redis_namespace) as store:
            await store.put("n", b"1", 30)
            await asyncio.sleep(0.06)
            assert await store.take("n", b"2", 30) is None
            await asyncio.sleep(0.06)
            assert await store.take("n", b"3", 60_000) is None

    asyncio.run(run())


def test_a_store_that_is_away_or_refuses_is_unavailable(redis_url: str, redis_namespace: str) -> None:
    """A user without the right to write is no failure of the request."""

    async def refused(store: AnswerStore) -> None:
        calls = (store.take("n", b"", 1_000), store.put("n", b"", 1_000), store.delete("n"))
        for call in calls:
            with pytest.raises(OnlineStoreUnavailableError):
                await call

    async def run() -> None:
        client = redis.asyncio.Redis.from_url(redis_url)
        user = redis_namespace
        await client.acl_setuser(user, enabled=True, nopass=True, categories=["+@read"], commands=[], keys=["*"])
        try:
            async with on_valkey("redis://127.0.0.1:1/0", redis_namespace) as store:
                await refused(store)
            reader = redis.asyncio.Redis.from_url(redis_url, username=user, password="any")
            await refused(ShortLived(reader, redis_namespace))
            await reader.aclose()
        finally:
            await client.acl_deluser(user)
            await client.aclose()

    asyncio.run(run())


def test_a_key_whose_first_try_was_lost_on_its_way_is_held_all_the_same(redis_url: str, redis_namespace: str) -> None:
    """The client sends a command again when its connection drops; the first one may have been done."""

    class Twice(ShortLived):
        async def take(self, name: str, value: bytes, ttl_ms: int) -> bytes | None:
            await super().take(name, value, ttl_ms)
            return await super().take(name, value, ttl_ms)

    async def run() -> None:
        client = redis.asyncio.Redis.from_url(redis_url)
        first = FirstAnswers(Twice(client, redis_namespace), secrets.token_bytes)
        kept = await first.begin("c", "k", digest_of(b"1"))
        assert (kept.is_held, kept.answer) == (True, None)
        assert 0 < await client.pttl(f"{redis_namespace}1:c:k") <= HELD_MS
        await client.aclose()

    asyncio.run(run())
