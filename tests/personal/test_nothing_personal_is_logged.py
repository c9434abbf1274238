"""Personal values go through everything that can fail, and are looked for in all that was logged or shown of it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event as ThreadEvent
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pytest
import redis
from click.testing import CliRunner

from actor_risk.cli import main
from actor_risk.local import Valkey, wait_until
from materialize.definitions import StreamView
from materialize.online import KeyEncoder, OnlineStoreRefusedError, RowWriter
from materialize.stream import RedisLogSettings, StreamError
from materialize.stream.redis_streams import RedisStreams
from materialize.stream.worker import StreamWorker, WorkerSettings
from models import ModelStore
from serving.decision_files import DecisionFiles, FileLimits
from serving.logged import layout_of
from tests.serving.fakes import CHAMPION, NOW_MS, SERVICE, build_world, click, loaded_world, plan, publish_model
from tests.serving.test_decision_log import entry
from tests.support.streaming import Bench, open_bench, run_until
from tests.support.world import World

IP, DEVICE = "203.0.113.9", "device-swordfish"
SECRETS = (IP, DEVICE)
DEADLINE_S = 30.0


def event(event_id: str, **changes: Any) -> bytes:
    return json.dumps(click(event_id=event_id, ip=IP, device_id=DEVICE, **changes)).encode()


EVENTS = [
    event("good"),
    event("of no type", event_type="dance"),
    event("of a number", amount_usd="much"),
    event("cut")[:-1],
    event("no text").replace(IP.encode(), b"\xff" + IP.encode()),
    event("early", event_time=NOW_MS + 10**9),
    event("converted", os="convert"),
    event("said", os="say"),
    event("found", os="find"),
]


def chokes(columns: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Fails in three ways that tell what it was given."""
    for os, ip, device in zip(columns["os"], columns["ip"], columns["device_id"], strict=True):
        if os == "convert":
            float(ip)
        if os == "say":
            raise ValueError(f"odd device {device} of {ip}")
        if os == "find":
            {}[ip]
    nothing = np.full(len(columns["ip"]), np.nan)
    return dict.fromkeys(("click", "impression", "conversion", "fast_click"), nothing)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[Valkey, redis.Redis]]:
    """A server that can be made to refuse what is written."""
    with Valkey(tmp_path / "valkey") as server, redis.Redis.from_url(server.url) as operator:
        yield server, operator


@pytest.fixture
def bench(full: tuple[Valkey, redis.Redis]) -> Iterator[Bench]:
    server, _ = full
    with open_bench(RedisLogSettings(url=server.url), server.url, "personal") as opened:
        opened.log.ensure_topics(["ad_events", "account_events"])
        yield opened


@pytest.fixture
def view(world: World) -> StreamView:
    return replace(next(view for view in world.views() if view.name == "ip_ad_stats"), transform=chokes)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A model store with one champion."""
    publish_model(ModelStore(tmp_path / "models"))
    return tmp_path / "models"


def assert_none_of_them(shown: str) -> None:
    for secret in SECRETS:
        assert secret not in shown, shown


def publish_all(bench: Bench) -> None:
    with closing(bench.log.producer()) as producer:
        for line in EVENTS:
            producer.send("ad_events", IP.encode(), line)
        producer.flush(10_000)


def test_a_worker_says_nothing_of_them_while_it_fails_and_when_it_puts_events_aside(
    bench: Bench, view: StreamView, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    publish_all(bench)
    stop, settings = ThreadEvent(), WorkerSettings(retry_first_s=0.01, retry_max_s=0.01)
    with (
        Valkey(tmp_path / "rows") as server,
        redis.Redis.from_url(server.url) as rows,
        closing(bench.log.consumer(["ad_events"], "workers")) as consumer,
    ):
        rows.config_set("maxmemory", 1)
        aside = bench.dead_letters
        worker = StreamWorker("personal", [view], consumer, RowWriter(rows), aside, lambda: NOW_MS, settings)
        thread = Thread(target=worker.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: worker.counts.retries >= 3, DEADLINE_S, "it tries again")
            trouble = worker.trouble
            rows.config_set("maxmemory", 0)
            wait_until(lambda: worker.counts.records == len(EVENTS), DEADLINE_S, "it goes on")
        finally:
            stop.set()
            thread.join()
    assert sum(worker.counts.dead_letters.values()) == len(EVENTS) - 1
    assert "maxmemory" in trouble
    assert "trying again" in caplog.text
    assert_none_of_them(caplog.text + trouble)
    letters = aside.list("ad_events")
    details = [letter.detail for letter in letters if letter.reason == "transformation_failed"]
    assert len(details) == 3
    assert_none_of_them(" ".join(details))


def test_a_worker_that_cannot_go_on_says_why_without_them(
    full: tuple[Valkey, redis.Redis], bench: Bench, view: StreamView
) -> None:
    publish_all(bench)
    full[1].lpush(KeyEncoder("personal", view.name, view.join_keys).key([IP]), "not a row")
    with bench.worker([view], lambda: NOW_MS) as worker, pytest.raises(OnlineStoreRefusedError) as caught:
        run_until(worker, lambda: worker.counts.records == len(EVENTS))
    assert "WRONGTYPE" in str(caught.value)
    assert_none_of_them(str(caught.value))


def test_dead_letters_are_listed_without_them_unless_they_are_asked_for(
    full: tuple[Valkey, redis.Redis], bench: Bench, view: StreamView, world: World, tmp_path: Path
) -> None:
    publish_all(bench)
    with bench.worker([view], lambda: NOW_MS) as worker:
        run_until(worker, lambda: worker.counts.records == len(EVENTS))
    shutil.copy(world.registry_path, tmp_path / "registry.db")
    shown, lines = listed(full[0], tmp_path), listed(full[0], tmp_path, "--json")
    assert_none_of_them(shown + lines)
    values = [base64.b64decode(json.loads(line)["value"]) for line in lines.splitlines()]
    assert_none_of_them("".join(value.decode() for value in values))
    assert {base64.b64decode(json.loads(line)["key"]) for line in lines.splitlines()} == {b"***"}
    assert sum(b'"ip": "***"' in value for value in values) == len(EVENTS) - 3, "of JSON the rest is shown"
    assert "transformation_failed" in shown
    asked_for = listed(full[0], tmp_path, "--json", "--values").splitlines()
    assert [base64.b64decode(json.loads(line)["value"]) for line in asked_for] == EVENTS[1:]


def test_without_a_registry_no_value_of_a_dead_letter_is_shown(
    full: tuple[Valkey, redis.Redis], bench: Bench, view: StreamView, tmp_path: Path
) -> None:
    publish_all(bench)
    with bench.worker([view], lambda: NOW_MS) as worker:
        run_until(worker, lambda: worker.counts.records == len(EVENTS))
    shown = listed(full[0], tmp_path) + listed(full[0], tmp_path, "--json")
    assert_none_of_them(shown)
    assert "adv-1" not in shown, "nobody knows that this is not personal"


def listed(server: Valkey, home: Path, *options: str) -> str:
    servers = {"REDIS_URL": server.url, "KAFKA_BOOTSTRAP_SERVERS": ""}
    environment = {"ACTOR_RISK_HOME": str(home), "COLUMNS": "300", **servers}
    done = CliRunner().invoke(main, ["dead-letters", "list", *options], env=environment)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_log_that_refuses_an_event_does_not_quote_it(full: tuple[Valkey, redis.Redis]) -> None:
    server, operator = full
    with closing(RedisStreams(RedisLogSettings(url=server.url))) as log:
        log.ensure_topics(["ad_events"])
        operator.config_set("maxmemory", 1)
        for refuse in (refused_by_producer, refused_by_publisher):
            with pytest.raises(StreamError) as caught:
                refuse(log)
            assert "maxmemory" in str(caught.value)
            assert_none_of_them(str(caught.value))
        operator.config_set("maxmemory", 0)


def refused_by_producer(log: RedisStreams) -> None:
    producer = log.producer()
    producer.send("ad_events", IP.encode(), EVENTS[0])
    producer.flush(10_000)


def refused_by_publisher(log: RedisStreams) -> None:
    async def publish() -> None:
        publisher = log.async_publisher()
        try:
            await publisher.publish("ad_events", IP.encode(), EVENTS[0])
        finally:
            await publisher.close()

    asyncio.run(publish())


FAILURES = [ValueError(f"odd {IP} {DEVICE}"), KeyError(IP), UnicodeEncodeError("utf-8", DEVICE, 0, 1, IP)]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_server_whose_log_fails_says_nothing_of_them(
    published: Path, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    async def fail() -> None:
        raise failure

    caplog.set_level(logging.DEBUG)
    world = build_world(published)
    asyncio.run(world.service.load(CHAMPION))
    world.publisher.fail = fail
    sent = msgspec.json.decode(EVENTS[0])
    assert asyncio.run(world.post("/v1/events", {"event": sent})).status == 503
    keys = {"ip": IP, "device_id": DEVICE}
    scored = asyncio.run(world.score({"model": SERVICE, "entities": keys, "event": sent}))
    assert scored.decision().degraded == ["event_not_published"]
    assert "events are not published, decisions are marked degraded" in caplog.text
    assert_none_of_them(caplog.text)


def test_a_decision_that_cannot_be_logged_is_not_quoted(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = msgspec.structs.replace(entry(loaded_world(published)), others={"profile:device": f"{DEVICE}\ud800"})
    limits = FileLimits(folder_bytes_max=1 << 20)
    with closing(DecisionFiles(tmp_path / "log", "w", limits, lambda: NOW_MS, 1.0)) as files:
        files.append([odd], layout_of(plan()))
        assert files.counts().dropped_failed == 1
    assert "cannot be logged" in caplog.text
    assert_none_of_them(caplog.text)
