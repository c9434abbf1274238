"""What is answered while the store is away or slow: by policy, by the request's deadline, and without waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from materialize.online import OnlineStoreUnavailableError
from models import ModelStore
from serving.breaker import FAILURES_MAX, OPEN_MS
from serving.clock import NS_PER_MS, Clock
from serving.policy import Canary, Policy
from tests.serving.doors import Times
from tests.serving.fakes import (
    FEATURES,
    KEYS,
    NOW_MS,
    SERVICE,
    Answer,
    MemoryLog,
    World,
    build_world,
    click,
    publish_model,
)
from tests.serving.test_http import metrics

BODY = {"model": SERVICE, "entities": KEYS}
AWAY = OnlineStoreUnavailableError("away")
IN_TIME_S = 1.0
"""Deadlines here are far below, the stores take far longer: machines are busy."""
DEADLINE = "x-request-timeout-seconds"


@pytest.fixture
def times() -> Times:
    return Times()


@dataclass
class Place:
    """A server on a stopwatch that is moved by hand, or on the real one."""

    world: World
    log: MemoryLog

    def play(self, **policy: Any) -> None:
        asyncio.run(self.world.service.load({SERVICE: Policy(**{"champion": "champion", **policy})}))

    def ask(self, body: Any = BODY, **headers: str) -> Answer:
        return asyncio.run(self.world.score(body, headers))


def open_place(root: Path, clock: Clock) -> Place:
    log = MemoryLog()
    publish_model(ModelStore(root))
    publish_model(ModelStore(root), seed=2, alias="challenger")
    world = build_world(root, log, clock)
    world.features.values[KEYS["ip"]] = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]
    return Place(world, log)


@pytest.fixture
def still(tmp_path: Path, times: Times) -> Place:
    return open_place(tmp_path, times.clock())


@pytest.fixture
def real(tmp_path: Path) -> Place:
    return open_place(tmp_path, Clock(now_ms=lambda: NOW_MS, monotonic_ns=time.perf_counter_ns))


def slow_for(seconds: float) -> Callable[[], Any]:
    async def answering() -> None:
        await asyncio.sleep(seconds)

    return answering


def test_without_the_store_a_request_is_refused_unless_the_policy_says_otherwise(still: Place) -> None:
    still.play()
    still.world.features.failure = AWAY
    answer = still.ask()
    assert (answer.status, answer.json()["type"]) == (503, "/docs#problem-online-store-unavailable")
    assert answer.headers["retry-after"] == "1"
    assert still.log.entries == []


def test_without_the_store_the_score_may_be_that_of_an_unknown_actor(still: Place) -> None:
    """What comes with the request is known all the same."""
    still.play(store_away="default", canary=Canary("challenger", 1.0))
    unknown = still.ask({"model": SERVICE, "event": click(ip="198.51.100.1")}).decision()
    still.world.publisher.published.clear()
    still.log.entries.clear()
    still.world.features.failure = AWAY
    answer = still.ask({"model": SERVICE, "event": click()}).decision()
    assert answer.degraded == ["explanation_skipped", "features_defaulted"]
    assert (answer.mode, answer.actor_known, answer.reasons) == ("canary", False, [])
    assert answer.features_absent == unknown.features_absent
    assert [feature.feature for feature in answer.features_absent] == list(FEATURES[:-1])
    assert (answer.score, answer.margin) == (unknown.score, unknown.margin)
    read = still.world.features.unreads[-1]
    assert (read.entities, read.request["ms_since_impression"], read.event is None) == (KEYS, 180.0, False)
    assert len(still.world.publisher.published) == 1
    (entry,) = still.log.entries
    assert (entry.decision.decision_id, entry.decision.degraded) == (answer.decision_id, answer.degraded)


def test_without_the_store_the_score_may_be_the_policys(still: Place) -> None:
    still.play(store_away="fallback", fallback_score=0.02)
    still.world.features.failure = AWAY
    answer = still.ask(BODY | {"explain": "none"}).decision()
    assert (answer.score, answer.verdict, answer.degraded) == (0.02, "allow", ["fallback_score"])


def test_a_server_that_answers_without_the_store_is_ready_and_says_what_is_away(still: Place) -> None:
    for policy, status in (({}, 503), ({"store_away": "default"}, 200)):
        still.play(**policy)
        still.world.features.failure = AWAY
        answer = asyncio.run(still.world.call("GET", "/readyz"))
        told = answer.json()["reasons" if status == 503 else "notes"]
        assert (answer.status, told[0]) == (status, "the online store does not answer: away")


def test_after_some_failures_nobody_waits_for_the_store(still: Place) -> None:
    still.play()
    still.world.features.failure = AWAY
    answers = [still.ask() for _ in range(FAILURES_MAX + 5)]
    assert {answer.status for answer in answers} == {503}
    assert still.world.features.rounds == FAILURES_MAX
    assert "not asked now" in answers[-1].json()["detail"]


def test_one_read_tries_whether_the_store_is_back_and_then_all_go_through(still: Place, times: Times) -> None:
    still.play()
    features = still.world.features
    features.failure = AWAY
    for _ in range(FAILURES_MAX):
        still.ask()
    times.monotonic_ns += int(OPEN_MS * NS_PER_MS)
    assert [still.ask().status for _ in range(3)] == [503] * 3
    assert features.rounds == FAILURES_MAX + 1
    features.failure = None
    assert still.ask().status == 503
    times.monotonic_ns += int(OPEN_MS * NS_PER_MS)
    assert [still.ask().status for _ in range(3)] == [200] * 3
    features.failure = AWAY
    assert still.ask().status == 503
    assert features.rounds == FAILURES_MAX + 1 + 3 + 1


def test_while_one_tries_the_others_do_not(still: Place, times: Times) -> None:
    """Also those of other models: the store is the same."""
    still.play(canary=Canary("challenger", 0.5))
    features = still.world.features
    features.failure = AWAY
    for _ in range(FAILURES_MAX):
        still.ask()
    times.monotonic_ns += int(OPEN_MS * NS_PER_MS)

    async def run() -> list[int]:
        gate = asyncio.Event()

        async def held() -> None:
            await gate.wait()

        features.failure, features.answering = None, held
        tries = asyncio.create_task(still.world.score(BODY))
        await asyncio.sleep(0.01)
        others = [body_of(f"198.51.100.{n}") for n in range(10)]
        waiting = [asyncio.create_task(still.world.score(body)) for body in others]
        await asyncio.sleep(0.01)
        assert features.rounds == FAILURES_MAX + 1
        gate.set()
        return [(await task).status for task in (tries, *waiting)]

    found = asyncio.run(run())
    assert found[0] == 200
    assert set(found) == {200, 503}  # of the same model they wait for their turn, of the other they are told at once


def test_a_slow_read_from_before_the_outage_does_not_let_two_try(still: Place, times: Times) -> None:
    still.play(canary=Canary("challenger", 0.5))
    features = still.world.features
    live, canary = one_of_each(still)

    async def run() -> None:
        slow, probe = asyncio.Event(), asyncio.Event()
        waits = iter([slow, probe])

        async def held() -> None:
            await next(waits).wait()

        features.answering = held
        before = asyncio.create_task(still.world.score(live))
        await asyncio.sleep(0.01)
        features.answering, features.failure = None, AWAY
        for _ in range(FAILURES_MAX):
            await still.world.score(canary)
        times.monotonic_ns += int(OPEN_MS * NS_PER_MS)
        features.answering = held
        tries = asyncio.create_task(still.world.score(canary))
        await asyncio.sleep(0.01)
        slow.set()
        assert (await before).status == 503
        features.answering = None
        rounds = features.rounds
        assert (await still.world.score(live)).status == 503
        assert features.rounds == rounds
        probe.set()
        await tries

    asyncio.run(run())


def body_of(ip: str) -> dict[str, Any]:
    return {**BODY, "entities": {**KEYS, "ip": ip}}


def one_of_each(place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request that the champion answers, and one that the canary does."""
    found = {place.ask(body_of(ip)).decision().mode: body_of(ip) for ip in (f"10.0.0.{n}" for n in range(20))}
    return found["live"], found["canary"]


@pytest.mark.parametrize(
    ("policy", "degraded"),
    [
        ({}, ["explanation_skipped", "features_defaulted"]),
        ({"late": "fallback", "fallback_score": 0.3}, ["explanation_skipped", "fallback_score"]),
    ],
)
def test_an_answer_is_there_in_time_however_slow_the_store_is(
    real: Place, policy: dict[str, Any], degraded: list[str]
) -> None:
    real.play(**policy)
    real.world.features.answering = slow_for(5)
    begun = time.perf_counter()
    answer = real.ask(**{DEADLINE: "0.1"}).decision()
    assert time.perf_counter() - begun < IN_TIME_S
    assert answer.degraded == degraded


def test_who_has_no_answer_for_the_late_says_so_in_time(real: Place) -> None:
    real.play(late="refuse")
    real.world.features.answering = slow_for(5)
    begun = time.perf_counter()
    answer = real.ask(**{DEADLINE: "0.1"})
    assert time.perf_counter() - begun < IN_TIME_S
    assert (answer.status, answer.json()["type"]) == (503, "/docs#problem-deadline-exceeded")
    assert answer.headers["retry-after"] == "1"


def test_what_there_is_no_time_to_explain_is_scored_all_the_same(still: Place, times: Times) -> None:
    """When the features come with less time left than explaining takes."""
    still.play()
    in_time = still.ask(**{DEADLINE: "0.1"}).decision()
    assert (in_time.degraded, len(in_time.reasons)) == ([], 5)
    still.world.features.answering = slow_by(times, 99 * NS_PER_MS)
    answer = still.ask(**{DEADLINE: "0.1"}).decision()
    assert answer.degraded == ["explanation_skipped"]
    assert (answer.actor_known, answer.reasons, answer.score) == (True, [], in_time.score)
    assert still.ask(BODY | {"explain": "none"}, **{DEADLINE: "0.1"}).decision().degraded == []


@pytest.fixture
def sharded(still: Place) -> Place:
    """Of what a request reads, two rows, one lies on a shard that is away; of who is `gone`, both."""
    features = still.world.features
    features.plan_now = replace(features.plan_now, rows=cast(Any, (None, None)))
    features.unread_rows = {KEYS["ip"]: 1, "gone": 2}
    features.away = ["10.0.0.7:6379: no answer within 0.5 s"]
    return still


def test_with_a_shard_away_the_score_may_rest_on_what_there_is(sharded: Place) -> None:
    sharded.play(store_away="default")
    answers = [sharded.ask(body_of(ip)).decision() for ip in (KEYS["ip"], "gone", "198.51.100.1")]
    assert [answer.degraded for answer in answers] == [["features_partial"], ["features_defaulted"], []]
    assert len(answers[0].reasons) == 5
    assert [entry.decision.degraded for entry in sharded.log.entries] == [answer.degraded for answer in answers]


def test_with_a_shard_away_only_who_needs_it_is_refused_or_answered_otherwise(sharded: Place) -> None:
    """And as many of them as there may be, the store as a whole is asked on."""
    sharded.play(store_away="refuse")
    for _ in range(FAILURES_MAX + 2):
        refused = [sharded.ask(body_of(ip)) for ip in (KEYS["ip"], "gone")]
        assert [answer.json()["type"] for answer in refused] == ["/docs#problem-online-store-unavailable"] * 2
        assert refused[0].headers["retry-after"] == "1"
        assert sharded.ask(body_of("198.51.100.1")).decision().degraded == []
    sharded.play(store_away="fallback", fallback_score=0.02)
    answers = [sharded.ask(body_of(ip)).decision() for ip in (KEYS["ip"], "198.51.100.1")]
    assert [answer.degraded for answer in answers] == [["explanation_skipped", "fallback_score"], []]


def test_who_shares_a_round_with_those_who_need_the_shard_is_answered(sharded: Place) -> None:
    sharded.play(store_away="refuse")

    async def run() -> list[int]:
        asked = [sharded.world.score(body_of(ip)) for ip in ("198.51.100.1", KEYS["ip"], "198.51.100.2", "gone")]
        return [answer.status for answer in await asyncio.gather(*asked)]

    assert asyncio.run(run()) == [200, 503, 200, 503]
    assert sharded.world.features.rounds == 1


def test_a_server_with_a_shard_away_is_ready_and_says_which(sharded: Place) -> None:
    sharded.play(store_away="refuse")
    answer = asyncio.run(sharded.world.call("GET", "/readyz"))
    assert (answer.status, answer.json()["notes"][0]) == (
        200,
        "a shard of the online store does not answer: 10.0.0.7:6379: no answer within 0.5 s",
    )
    assert metrics(sharded.world)["actor_risk_shards_away", ()] == 1
    assert metrics(sharded.world)["actor_risk_breaker_open", ()] == 0


def slow_by(times: Times, ns: int) -> Callable[[], Any]:
    """The stopwatch says that a read took so long, and the event loop has not heard of it yet."""

    async def answering() -> None:
        times.monotonic_ns += ns

    return answering


def test_the_stream_is_not_waited_for_beyond_the_deadline(real: Place) -> None:
    real.play()
    real.world.publisher.fail = slow_for(5)
    begun = time.perf_counter()
    answer = real.ask({"model": SERVICE, "event": click()}, **{DEADLINE: "0.03"}).decision()
    assert time.perf_counter() - begun < IN_TIME_S
    assert answer.degraded == ["event_publish_unconfirmed"]


def test_many_who_are_late_leave_room_for_others(real: Place) -> None:
    real.play()
    real.world.features.answering = slow_for(0.6)

    async def run() -> list[int]:
        found = []
        for _ in range(4):
            asked = [real.world.score(BODY, {DEADLINE: "0.05"}) for _ in range(60)]
            found += [answer.status for answer in await asyncio.gather(*asked)]
        return found

    assert set(asyncio.run(run())) == {200}


@pytest.mark.parametrize("text", ["0", "-1", "61", "nan", "inf", "soon", ""])
def test_a_deadline_that_is_none_is_refused(real: Place, text: str) -> None:
    real.play()
    answer = real.ask(**{DEADLINE: text})
    assert (answer.status, DEADLINE in answer.json()["detail"]) == (422, True)
