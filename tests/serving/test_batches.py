"""Many actors in one request, explanations, and decisions made before."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from materialize.online import OnlineStoreUnavailableError
from models import ModelStore
from serving.decision import BATCH_MAX, Decision
from serving.errors import DecisionsUnavailableError
from serving.policy import Policy
from tests.serving.fakes import (
    CHAMPION,
    FEATURES,
    KEYS,
    SERVICE,
    Answer,
    MemoryLog,
    World,
    build_world,
    click,
    publish_model,
)

BATCH = "/v1/score:batch"
NDJSON = {"accept": "application/x-ndjson"}


def asked(*questions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": SERVICE, "requests": list(questions), **more}


def of_ip(ip: str = KEYS["ip"], **more: Any) -> dict[str, Any]:
    return {"entities": {**KEYS, "ip": ip}, **more}


def post(world: World, body: Any, headers: dict[str, str] | None = None, path: str = BATCH) -> Answer:
    return asyncio.run(world.post(path, body, headers))


def without_names(decision: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in decision.items() if name not in ("decision_id", "trace_id", "latency_ms")}


def test_each_of_a_batch_is_answered_as_if_it_were_alone_and_in_order(world: World) -> None:
    questions = [of_ip(), of_ip("198.51.100.7", trace_id="mine"), {"event": click()}]
    batch = post(world, asked(*questions, explain="full"))
    alone = [asyncio.run(world.score({"model": SERVICE, "explain": "full", **one})).json() for one in questions]
    found = batch.json()["decisions"]
    assert [without_names(one) for one in found] == [without_names(one) for one in alone]
    assert found[1]["trace_id"] == "mine"
    assert len({one["decision_id"] for one in found}) == 3
    assert batch.headers["cache-control"] == "no-store"


def test_a_batch_takes_one_read_for_a_round(world: World) -> None:
    before = world.features.rounds
    found = post(world, asked(*(of_ip(f"198.51.100.{n % 250}") for n in range(BATCH_MAX)), explain="none"))
    assert len(found.json()["decisions"]) == BATCH_MAX
    assert world.features.rounds - before < BATCH_MAX / 30


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_what_is_wrong_with_one_is_told_in_its_place(world: World, headers: dict[str, str]) -> None:
    odd = [{"entities": {"ip": 7}}, {"event": {"event_type": "click"}}, of_ip(request={"attempts": "many"})]
    answer = post(world, asked(of_ip(), *odd, of_ip()), headers)
    found = [msgspec.json.decode(line) for line in answer.body.splitlines()] if headers else answer.json()["decisions"]
    assert answer.status == 200
    assert [one.get("status", 200) for one in found] == [200, 422, 422, 422, 200]
    assert found[1]["field"] == "entities.ip"
    assert all(one["type"].startswith("/docs#problem-") for one in found[1:4])


def test_lines_come_in_order_as_they_are_made(world: World) -> None:
    answer = post(world, asked(*(of_ip(f"198.51.100.{n}") for n in range(100)), explain="none"), NDJSON)
    lines = answer.body.splitlines()
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "content-length" not in answer.headers
    assert [msgspec.json.decode(line, type=Decision).actor["ip"] for line in lines] == [
        f"198.51.100.{n}" for n in range(100)
    ]


@pytest.mark.parametrize("count", [0, BATCH_MAX + 1])
def test_a_batch_has_at_least_one_and_at_most_a_thousand(world: World, count: int) -> None:
    answer = post(world, asked(*[of_ip()] * count))
    assert (answer.status, answer.json()["field"]) == (422, "requests")
    assert world.features.reads == []


def test_a_batch_for_a_model_that_is_not_there_or_off_is_refused_as_a_whole(world: World) -> None:
    assert post(world, {**asked(of_ip()), "model": "unheard"}).status == 404
    asyncio.run(world.service.load({SERVICE: Policy(champion="champion", is_on=False)}))
    answer = post(world, asked(of_ip()), NDJSON)
    assert (answer.status, answer.json()["type"]) == (503, "/docs#problem-model-off")


def test_while_the_store_is_away_each_of_a_batch_is_told_so(world: World) -> None:
    world.features.failure = OnlineStoreUnavailableError("away")
    found = post(world, asked(of_ip(), of_ip("198.51.100.1"))).json()["decisions"]
    assert [one["status"] for one in found] == [503, 503]


def test_a_failure_that_nobody_foresaw_is_in_the_log_and_not_in_the_answer(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise ZeroDivisionError("se" + "cret")

    world.features.answering = fails
    with caplog.at_level(logging.ERROR, "serving"):
        (found,) = post(world, asked(of_ip())).json()["decisions"]
    assert (found["status"], "secret" in str(found)) == (500, False)
    assert "nobody foresaw: builtins.ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("leaves", ["with an error", "cancelled"])
def test_who_leaves_in_the_middle_of_the_lines_is_not_answered_any_further(world: World, leaves: str) -> None:
    """A server tells it by raising where the answer is sent, or by cancelling; nothing goes on behind its back."""
    body = msgspec.json.encode(asked(*(of_ip(f"198.51.100.{n % 250}") for n in range(500)), explain="none"))

    async def run() -> int:
        sent: list[Any] = []
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 3:
                if leaves == "with an error":
                    raise OSError("gone")
                await asyncio.sleep(60)

        headers = [(b"content-type", b"application/json"), (b"accept", b"application/x-ndjson")]
        scope = {"type": "http", "method": "POST", "path": BATCH, "root_path": "", "headers": headers}
        task = asyncio.ensure_future(world.app(scope, receive, send))
        if leaves == "cancelled":
            while len(sent) < 3:
                await asyncio.sleep(0.001)
            task.cancel()
        with pytest.raises((OSError, asyncio.CancelledError)):
            await task
        rounds = world.features.rounds
        others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        await asyncio.wait(others, timeout=0.5) if others else None
        return world.features.rounds - rounds

    assert asyncio.run(run()) <= 1
    assert asyncio.run(world.score({"model": SERVICE, "entities": KEYS})).status == 200


def test_an_explanation_has_every_feature_and_publishes_nothing(world: World) -> None:
    answer = post(world, {"model": SERVICE, "event": click(), "explain": "none"}, path="/v1/explain").decision()
    assert answer.features is not None
    assert [reading.feature for reading in answer.features] == list(FEATURES)
    assert answer.base_value is not None
    assert world.publisher.published == []
    assert world.features.reads[-1].event is not None


class MemoryFinder:
    """Finds decisions in a log in memory."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.failure: Exception | None = None

    async def find(self, decision_id: str) -> bytes | None:
        if self.failure is not None:
            raise self.failure
        found = [entry.decision for entry in self._log.entries if entry.decision.decision_id == decision_id]
        return msgspec.json.encode(found[0]) if found else None


def test_a_decision_is_found_by_its_id_as_it_was_answered(tmp_path: Path) -> None:
    log = MemoryLog()
    finder = MemoryFinder(log)
    publish_model(ModelStore(tmp_path))
    world = build_world(tmp_path, log, finder=finder)
    asyncio.run(world.service.load(CHAMPION))
    made = asyncio.run(world.score({"model": SERVICE, "entities": KEYS}))
    path = f"/v1/decisions/{made.decision().decision_id}"
    found = asyncio.run(world.call("GET", path))
    assert (found.status, found.body, found.headers["cache-control"]) == (200, made.body, "no-store")
    assert asyncio.run(world.call("HEAD", path)).status == 200
    absent = asyncio.run(world.call("GET", "/v1/decisions/unheard"))
    assert (absent.status, absent.json()["type"]) == (404, "/docs#problem-unknown-decision")
    finder.failure = DecisionsUnavailableError("the archive is away")
    away = asyncio.run(world.call("GET", path))
    assert (away.status, away.headers["retry-after"]) == (503, "1")


def test_without_a_finder_no_decision_is_found(world: World) -> None:
    assert asyncio.run(world.call("GET", "/v1/decisions/any")).status == 404
