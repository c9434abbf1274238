"""`POST /v1/events`: what a caller is told about an event is true, whatever the log does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.events import ACCOUNT_EVENTS, AD_EVENTS, TOPICS, decode_event, json_schema, partition_key
from materialize.kernel import AggregationSpec, ViewSpec, Window, read_windows
from materialize.online import decode_stream_row
from materialize.stream import LogUnavailableError, RedisLogSettings, open_event_log
from serving.asgi import ScoringApp
from serving.clock import Clock
from serving.errors import EventRejectedError, EventsUnconfirmedError, SettingsError
from serving.event_results import EventResult, EventsAnswer
from serving.events import REMEMBERED_MS, EventIntake
from serving.ports import Publisher
from serving.settings import Settings
from tests.serving.fakes import (
    BODY_BYTES_MAX,
    EVENTS_MAX,
    NOW_MS,
    REMEMBERED_MAX,
    SERVICE,
    Answer,
    MemoryPublisher,
    World,
    click,
)
from tests.serving.test_http import metrics
from tests.support.streaming import Bench, open_bench, run_until
from tests.support.views import key, stream_view

JSON = {"content-type": "application/json"}
HOUR = Window.of(3_600_000)
LOGIN: dict[str, Any] = {
    "event_id": "login-1",
    "event_time": "2026-11-18T11:06:39.820Z",
    "event_type": "login",
    "actor_type": "creator",
    "actor_id": "cre-7",
    "ip": "203.0.113.9",
    "device_id": "dev-1",
}


def item(**changes: Any) -> dict[str, Any]:
    """A click to be published."""
    return {"event": click(**changes)}


def clicks(count: int) -> list[dict[str, Any]]:
    """Different clicks."""
    return [item(event_id=f"click-{number}") for number in range(count)]


def send(world: World, body: Any) -> Answer:
    """`POST /v1/events` with a body given as bytes, or as what JSON says."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asyncio.run(world.call("POST", "/v1/events", data, JSON))


def statuses(answer: Answer) -> list[str]:
    return [result["status"] for result in answer.json()["results"]]


def published_ids(publisher: MemoryPublisher) -> list[str]:
    return [json.loads(value)["event_id"] for _, _, value in publisher.published]


async def log_is_away() -> None:
    raise LogUnavailableError("Redis did not answer")


async def log_hangs() -> None:
    await asyncio.Event().wait()


def failing_after(count: int, fail: Callable[[], Any]) -> Callable[[], Any]:
    """A log that takes so many events, and none after them."""
    taken = 0

    async def step() -> None:
        nonlocal taken
        taken += 1
        if taken > count:
            await fail()

    return step


def test_one_valid_event_is_in_the_log_when_it_is_accepted(world: World) -> None:
    answer = send(world, item())
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {
        "accepted": 1,
        "duplicate": 0,
        "rejected": 0,
        "results": [{"status": "accepted", "topic": AD_EVENTS, "event_id": "click-1"}],
    }
    [(topic, _, value)] = world.publisher.published
    assert decode_event(topic, value, NOW_MS) == decode_event(AD_EVENTS, json.dumps(click()).encode(), NOW_MS)


def test_of_many_events_each_has_its_result_at_its_place(world: World) -> None:
    send(world, item(event_id="before"))
    body = [
        item(ip=...),
        item(event_id="a"),
        {"event": LOGIN},
        item(event_id="a"),
        item(event_id="before"),
        item(event_time=NOW_MS + 60_001),
        {"event": LOGIN, "event_topic": ACCOUNT_EVENTS},
        {"event": 5},
        item(event_id="b"),
    ]
    answer = send(world, body)
    found = msgspec.json.decode(answer.body, type=EventsAnswer)
    assert answer.status == 200
    assert [(result.status, result.event_id, result.reason, result.field) for result in found.results] == [
        ("rejected", None, "invalid", "event.ip"),
        ("accepted", "a", None, None),
        ("accepted", "login-1", None, None),
        ("duplicate", "a", None, None),
        ("duplicate", "before", None, None),
        ("rejected", None, "from_the_future", "event.event_time"),
        ("duplicate", "login-1", None, None),
        ("rejected", None, "invalid", "event"),
        ("accepted", "b", None, None),
    ]
    assert (found.accepted, found.duplicate, found.rejected) == (3, 3, 3)
    assert sorted(published_ids(world.publisher)) == ["a", "b", "before", "login-1"]


def test_an_empty_list_is_answered_and_publishes_nothing(world: World) -> None:
    assert send(world, []).json() == {"accepted": 0, "duplicate": 0, "rejected": 0, "results": []}


REJECTED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "invalid", "event"),
    ({"evnt": click()}, "invalid", "evnt"),
    ({**item(), "priority": 1}, "invalid", "priority"),
    ({"event": None}, "invalid", "event"),
    ({"event": [click()]}, "invalid", "event"),
    ({"event": {"event_id": "e"}}, "invalid", "event_topic"),
    ({**item(), "event_topic": 5}, "invalid", "event_topic"),
    ({**item(), "event_topic": "nobody"}, "unknown_topic", "event_topic"),
    ({**item(), "event_topic": ACCOUNT_EVENTS}, "invalid", "event.event_type"),
    (item(event_type="teleport"), "invalid", "event.event_type"),
    (item(amount_usd=1e300), "invalid", "event.amount_usd"),
    (item(ip=""), "invalid", "event.ip"),
    (item(schema_version=2), "invalid", "event.schema_version"),
    (item(event_time=NOW_MS + 60_001), "from_the_future", "event.event_time"),
]


@pytest.mark.parametrize(("body", "reason", "where"), REJECTED)
def test_one_event_that_is_not_valid_is_a_422_that_names_the_field(
    shared_world: World, body: dict[str, Any], reason: str, where: str
) -> None:
    answer = send(shared_world, body)
    problem = answer.json()
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    assert (problem["type"], problem["field"]) == ("/docs#problem-event-rejected", where)
    [result] = problem["results"]
    assert (result["status"], result["reason"], result["field"]) == ("rejected", reason, where)
    assert problem["detail"] == result["detail"]
    assert shared_world.publisher.published == []


def test_a_list_of_invalid_events_only_is_answered_for_each(shared_world: World) -> None:
    answer = send(shared_world, [body for body, _, _ in REJECTED])
    results = answer.json()["results"]
    assert (answer.status, answer.json()["rejected"]) == (200, len(REJECTED))
    assert [(result["reason"], result["field"]) for result in results] == [(why, where) for _, why, where in REJECTED]
    assert shared_world.publisher.published == []


def test_text_that_is_not_utf_8_spoils_one_event_and_not_its_neighbours(world: World) -> None:
    spoilt = json.dumps(item(event_id="?")).encode().replace(b"?", b"\xff")
    answer = send(world, b"[" + spoilt + b"," + json.dumps(item()).encode() + b"]")
    assert (answer.status, statuses(answer)) == (200, ["rejected", "accepted"])
    assert answer.json()["results"][0]["reason"] == "malformed"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "malformed-json"),
        (b"{", 400, "malformed-json"),
        (b'{"event": {', 400, "malformed-json"),
        (b'{"event": {"event_id": 1,}}', 400, "malformed-json"),
        (b"[nope]", 400, "malformed-json"),
        (b"[{}", 400, "malformed-json"),
        (b"{} {}", 400, "malformed-json"),
        (b"event_id=1&ip=2", 400, "malformed-json"),
        (b"\xef\xbb\xbf[]", 400, "malformed-json"),
        (b"[" * 50_000, 400, "malformed-json"),
        (b"5", 422, "invalid-field"),
        (b"null", 422, "invalid-field"),
        (b'"event"', 422, "invalid-field"),
        (b"[" + b",".join([b"{}"] * (EVENTS_MAX + 1)) + b"]", 422, "invalid-field"),
        (b" " * (BODY_BYTES_MAX + 1), 413, "body-too-large"),
    ],
)
def test_a_body_that_is_no_request_is_a_problem_as_a_whole(
    shared_world: World, body: bytes, status: int, kind: str
) -> None:
    answer = send(shared_world, body)
    assert (answer.status, answer.json()["type"]) == (status, f"/docs#problem-{kind}")
    assert "results" not in answer.json()


def test_a_body_that_is_not_declared_as_json_is_refused(shared_world: World) -> None:
    body = json.dumps(item()).encode()
    answer = asyncio.run(shared_world.call("POST", "/v1/events", body, {"content-type": "text/plain"}))
    assert answer.status == 415


def test_one_request_takes_as_many_events_as_it_may_and_publishes_none_of_more(world: World) -> None:
    refused = send(world, clicks(EVENTS_MAX + 1))
    assert (refused.status, world.publisher.published) == (422, [])
    assert str(EVENTS_MAX) in refused.json()["detail"]
    assert send(world, clicks(EVENTS_MAX)).json()["accepted"] == EVENTS_MAX
    assert published_ids(world.publisher) == [f"click-{number}" for number in range(EVENTS_MAX)]


@pytest.mark.parametrize(
    ("body", "topic", "published_under"),
    [(item(ip="198.51.100.7"), AD_EVENTS, b"198.51.100.7"), ({"event": LOGIN}, ACCOUNT_EVENTS, b"cre-7")],
)
def test_an_event_is_published_under_the_key_that_its_topic_is_partitioned_by(
    world: World, body: dict[str, Any], topic: str, published_under: bytes
) -> None:
    send(world, body)
    [(where, under, value)] = world.publisher.published
    assert (where, under) == (topic, published_under)
    assert under == partition_key(decode_event(topic, value, NOW_MS))


def test_a_scored_event_and_one_that_is_sent_here_are_the_same_record(world: World) -> None:
    asyncio.run(world.score({"model": SERVICE, "event": click()}))
    send(world, item())
    scored, sent = world.publisher.published
    assert scored == sent


# Duplicates.


@pytest.mark.parametrize(
    "again",
    [
        item(),
        {"event": dict(reversed(click().items())), "event_topic": AD_EVENTS},
        item(amount_usd=None, schema_version=1, campaign="summer"),
    ],
)
def test_an_event_that_is_sent_again_is_a_duplicate_and_not_published_again(
    world: World, again: dict[str, Any]
) -> None:
    assert statuses(send(world, item())) == ["accepted"]
    for body in (again, [again, again]):
        assert set(statuses(send(world, body))) == {"duplicate"}
    assert len(world.publisher.published) == 1


def test_other_content_under_the_same_event_id_is_published(world: World) -> None:
    bodies = [item(), item(ip="198.51.100.7"), item(event_time=NOW_MS - 999), item(os="ios")]
    assert [statuses(send(world, body)) for body in bodies] == [["accepted"]] * len(bodies)
    assert published_ids(world.publisher) == ["click-1"] * len(bodies)


def test_an_event_that_stands_twice_in_a_request_is_published_once(world: World) -> None:
    assert statuses(send(world, [item(), item(ip="other"), item(), item()])) == [
        "accepted",
        "accepted",
        "duplicate",
        "duplicate",
    ]
    assert len(world.publisher.published) == 2


def test_another_replica_does_not_know_what_this_one_accepted(world: World, empty_world: World) -> None:
    assert statuses(send(world, item())) == statuses(send(empty_world, item())) == ["accepted"]


def taken(intake: EventIntake, body: Any, now_ms: int = NOW_MS) -> list[EventResult]:
    """The results of one request, whatever its answer."""

    async def take() -> list[EventResult]:
        try:
            return (await intake.take(json.dumps(body).encode(), now_ms)).results
        except (EventRejectedError, EventsUnconfirmedError) as error:
            return error.results

    return asyncio.run(take())


def test_an_accepted_event_is_remembered_for_ten_minutes_and_no_longer() -> None:
    intake = EventIntake(MemoryPublisher(), timeout_s=1)
    steps = [(0, "accepted"), (REMEMBERED_MS, "duplicate"), (REMEMBERED_MS + 1, "accepted")]
    steps += [(2 * REMEMBERED_MS, "duplicate")]
    assert REMEMBERED_MS == 600_000
    for later_ms, status in steps:
        assert [result.status for result in taken(intake, item(), NOW_MS + later_ms)] == [status]


def test_the_oldest_accepted_events_are_forgotten_when_there_are_too_many() -> None:
    intake = EventIntake(MemoryPublisher(), timeout_s=1, remembered_max=REMEMBERED_MAX)
    many = clicks(REMEMBERED_MAX + 1)
    assert {result.status for result in taken(intake, many)} == {"accepted"}
    assert [result.status for result in taken(intake, many[1:])] == ["duplicate"] * REMEMBERED_MAX
    assert [result.status for result in taken(intake, many[:2])] == ["accepted", "duplicate"]


# The log away.


@pytest.mark.parametrize("fail", [log_is_away, log_hangs])
@pytest.mark.parametrize("body", [item(), [item()], [item(), item(event_id="b"), item(), item(ip=...)]])
def test_without_the_log_valid_events_are_unconfirmed_and_can_be_sent_again(
    world: World, fail: Callable[[], Any], body: Any
) -> None:
    world.publisher.fail = fail
    answer = send(world, body)
    problem = answer.json()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert problem["type"] == "/docs#problem-events-unconfirmed"
    assert "send them again" in problem["detail"]
    assert statuses(answer) == ["unconfirmed", "unconfirmed", "unconfirmed", "rejected"][: len(problem["results"])]
    assert world.publisher.published == []
    world.publisher.fail = None
    assert statuses(send(world, body))[:3] == ["accepted", "accepted", "duplicate"][: min(len(problem["results"]), 3)]


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 119])
@pytest.mark.parametrize("fail", [log_is_away, log_hangs])
def test_when_the_log_fails_halfway_what_is_accepted_is_there_and_the_rest_is_taken_at_the_next_try(
    world: World, fail: Callable[[], Any], count: int
) -> None:
    world.publisher.fail = failing_after(count, fail)
    first = send(world, clicks(120))
    assert first.status == 503
    assert statuses(first) == ["accepted"] * count + ["unconfirmed"] * (120 - count)
    assert published_ids(world.publisher) == [f"click-{number}" for number in range(count)]
    world.publisher.fail = None
    assert statuses(send(world, clicks(120))) == ["duplicate"] * count + ["accepted"] * (120 - count)
    assert published_ids(world.publisher) == [f"click-{number}" for number in range(120)]


def test_a_log_that_does_not_answer_is_not_asked_for_the_rest(world: World) -> None:
    asked = 0

    async def hang() -> None:
        nonlocal asked
        asked += 1
        await log_hangs()

    world.publisher.fail = hang
    assert send(world, clicks(EVENTS_MAX)).status == 503
    assert 0 < asked < EVENTS_MAX / 2


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.publisher.fail = log_is_away
    for number in range(3):
        send(world, item(event_id=f"{number}"))
    assert [record.message.count("Redis did not answer") for record in caplog.records] == [1]
    world.publisher.fail = None
    send(world, clicks(2))
    assert len(caplog.records) == 2
    assert "published again" in caplog.records[-1].message


@dataclass
class UnreliableLog:
    """Keeps what it took; by turns it takes and says so, refuses, or takes and loses the acknowledgement."""

    behaviours: Iterator[str] = field(default_factory=lambda: iter(()))
    kept: list[bytes] = field(default_factory=list)

    async def publish(self, topic: str, key: bytes, value: bytes) -> None:  # noqa: ARG002 - the port's signature
        behaviour = next(self.behaviours, "take")
        if behaviour != "refuse":
            self.kept.append(value)
        if behaviour != "take":
            raise LogUnavailableError(behaviour)


requests = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8), min_size=1, max_size=5)
behaviours = st.lists(st.sampled_from(["take", "refuse", "take and lose"]), max_size=30)


@settings(deadline=None, max_examples=150)
@given(requests=requests, behaviours=behaviours)
def test_what_is_called_accepted_or_duplicate_is_in_the_log_and_nothing_else_is_lost(
    requests: list[list[int]], behaviours: list[str]
) -> None:
    log = UnreliableLog(iter(behaviours))
    intake = EventIntake(log, timeout_s=1, remembered_max=5)

    def body(numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [item(event_id=f"{number}") for number in numbers]

    def kept() -> set[str]:
        return {json.loads(value)["event_id"] for value in log.kept}

    for numbers in requests:
        for result in taken(intake, body(numbers)):
            assert result.status == "unconfirmed" or result.event_id in kept()
    log.behaviours = iter(())
    wanted = sorted({number for numbers in requests for number in numbers})
    assert {result.status for result in taken(intake, body(wanted))} <= {"accepted", "duplicate"}
    assert kept() == {str(number) for number in wanted}


# The caller away.


def test_a_caller_that_goes_away_before_its_body_is_complete_publishes_nothing(world: World) -> None:
    begun: list[dict[str, Any]] = [
        {"type": "http.request", "body": json.dumps([item()]).encode(), "more_body": True},
        {"type": "http.disconnect"},
    ]
    assert asyncio.run(world.exchange("POST", "/v1/events", begun, JSON)).status == 0
    assert world.publisher.published == []
    assert metrics(world)["actor_risk_requests_total", ("/v1/events", "499")] == 1
    assert statuses(send(world, item())) == ["accepted"]


@pytest.mark.parametrize("count", [0, 1, 60])
def test_a_request_that_is_cancelled_leaves_nothing_that_is_called_a_duplicate_and_is_not_there(
    world: World, count: int
) -> None:
    async def cancelled_halfway() -> None:
        reached = asyncio.Event()

        async def hang() -> None:
            reached.set()
            await log_hangs()

        world.publisher.fail = failing_after(count, hang)
        body = json.dumps(clicks(120)).encode()
        request = asyncio.create_task(world.call("POST", "/v1/events", body, JSON))
        await reached.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*left, return_exceptions=True), 30)

    asyncio.run(cancelled_halfway())
    there = set(published_ids(world.publisher))
    assert len(there) == count
    world.publisher.fail = None
    again = send(world, clicks(120))
    assert {r["event_id"] for r in again.json()["results"] if r["status"] == "duplicate"} <= there
    assert set(published_ids(world.publisher)) == {f"click-{number}" for number in range(120)}


# Around it.


def test_the_metrics_count_events_by_topic_and_by_what_became_of_them(world: World) -> None:
    send(world, [item(), item(), {"event": LOGIN}, item(ip=...), {**item(), "event_topic": "nobody"}])
    send(world, item(event_type="teleport"))
    world.publisher.fail = log_is_away
    send(world, item(event_id="b"))
    found = {labels: value for (name, labels), value in metrics(world).items() if "events_taken" in name}
    assert found == {  # reason, status, topic
        ("", "accepted", AD_EVENTS): 1,
        ("", "duplicate", AD_EVENTS): 1,
        ("", "accepted", ACCOUNT_EVENTS): 1,
        ("invalid", "rejected", ""): 2,
        ("unknown_topic", "rejected", ""): 1,
        ("", "unconfirmed", AD_EVENTS): 1,
    }


@pytest.mark.parametrize("topic", list(TOPICS))
def test_the_schema_of_each_topic_is_given_as_a_document(shared_world: World, topic: str) -> None:
    answer = asyncio.run(shared_world.call("GET", f"/v1/events/schemas/{topic}"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/schema+json")
    assert answer.json() == json_schema(topic)


def test_the_schema_of_an_unknown_topic_is_a_404_that_lists_the_known_ones(shared_world: World) -> None:
    answer = asyncio.run(shared_world.call("GET", "/v1/events/schemas/nobody"))
    assert (answer.status, f"/v1/events/schemas/{AD_EVENTS}" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "2s", "9" * 10])
def test_the_time_that_a_request_waits_for_the_log_is_a_setting(text: str) -> None:
    name = "ACTOR_RISK_INGEST_TIMEOUT_MS"
    assert Settings.from_environment({name: "750"}).ingest_timeout_ms == 750
    with pytest.raises(SettingsError, match=f"{name} must be a whole number from 1"):
        Settings.from_environment({name: text})


# With a real log.


@pytest.fixture
def bench(redis_url: str, redis_namespace: str) -> Iterator[Bench]:
    """Redis Streams with our topics, and no rows."""
    with open_bench(RedisLogSettings(url=redis_url, prefix=redis_namespace), redis_url, redis_namespace) as opened:
        opened.log.ensure_topics(list(TOPICS))
        yield opened


def server_over(world: World, publisher: Publisher) -> World:
    """A server that publishes there, and remembers nothing yet."""
    clock = Clock(now_ms=lambda: NOW_MS, monotonic_ns=lambda: 0)

    async def shut_down() -> None: ...

    app = ScoringApp(
        world.service,
        clock,
        body_bytes_max=BODY_BYTES_MAX,
        shut_down=shut_down,
        intake=EventIntake(publisher, timeout_s=10),
    )
    return replace(world, app=app)


def answers_of(world: World, bench: Bench, bodies: Sequence[Any]) -> list[Answer]:
    """The answers of one server over the log to these bodies."""

    async def ask() -> list[Answer]:
        publisher = bench.log.async_publisher()
        server = server_over(world, publisher)
        try:
            return [await server.call("POST", "/v1/events", json.dumps(body).encode(), JSON) for body in bodies]
        finally:
            await publisher.close()

    return asyncio.run(ask())


def test_an_event_that_is_sent_over_http_counts_once_in_its_feature_row(world: World, bench: Bench) -> None:
    aggregations = (
        AggregationSpec("clicks_1h", "ip", "count", HOUR),
        AggregationSpec("spent_1h", "amount_usd", "sum", HOUR),
    )
    view = stream_view(ViewSpec("traffic", aggregations))
    first = [item(amount_usd=1.5), item(event_id="click-2", amount_usd=2.0), item(event_id="elsewhere", ip="other")]
    told = answers_of(world, bench, [[*first, item(ip=...)], first[0]])
    assert [statuses(answer) for answer in told] == [["accepted"] * 3 + ["rejected"], ["duplicate"]]
    restarted = answers_of(world, bench, [first])
    assert [statuses(answer) for answer in restarted] == [["accepted"] * 3]

    assert bench.log.size(AD_EVENTS) == 6
    with bench.worker([view], lambda: NOW_MS) as worker:
        run_until(worker, lambda: worker.counts.records == 6)
        assert not worker.counts.dead_letters
        assert (worker.counts.folded, worker.counts.duplicates) == (3, 3)
    for ip, wanted in (("203.0.113.9", [2, 3.5]), ("other", [1, 0.0])):
        row = decode_stream_row(view.spec, bench.client.get(key(bench.project, view, ip)))
        assert read_windows(view.spec, row.state, NOW_MS).values.tolist() == wanted


def test_a_log_without_the_topic_or_that_is_not_there_leaves_events_unconfirmed(world: World, bench: Bench) -> None:
    bench.log.delete_topics([AD_EVENTS])
    without_topic, still_works = answers_of(world, bench, [item(), {"event": LOGIN}])
    assert (without_topic.status, statuses(without_topic)) == (503, ["unconfirmed"])
    assert statuses(still_works) == ["accepted"]
    with closing(open_event_log(RedisLogSettings(url="redis://127.0.0.1:1/0"))) as nowhere:
        [answer] = answers_of(world, replace(bench, log=nowhere), [[item(), {"event": LOGIN}]])
    assert (answer.status, statuses(answer)) == (503, ["unconfirmed"] * 2)


def test_a_server_without_events_says_so(world: World) -> None:
    async def shut_down() -> None: ...

    clock = Clock(now_ms=lambda: NOW_MS, monotonic_ns=lambda: 0)
    app = ScoringApp(world.service, clock, body_bytes_max=BODY_BYTES_MAX, shut_down=shut_down)
    assert send(replace(world, app=app), item()).status == 404
