"""What is wrong with a request is said, with a 4xx that names the field, and changes nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from materialize.online import OnlineStoreUnavailableError
from serving.decision import Problem
from serving.errors import BodyTooSlowError
from serving.http import read_body
from serving.problems import problem_of
from tests.serving.fakes import BODY_BYTES_MAX, KEYS, NOW_MS, SERVICE, Answer, World, click

DEEP = b"[" * 10_000 + b"]" * 10_000
HUGE = b"9" * 6_000


def problem(answer: Answer) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    found = msgspec.json.decode(answer.body, type=Problem)
    assert found.status == answer.status
    assert found.title
    assert found.detail
    return found


def within(path: str, value: bytes) -> bytes:
    """A request that is good but for `value` at `path`."""
    body: dict[str, Any] = {"model": SERVICE, "entities": dict(KEYS), "event": click(), "request": {}}
    *outer, last = path.split("/")
    place = body
    for name in outer:
        place = place[name]
    place[last] = "@@@"
    return msgspec.json.encode(body).replace(b'"@@@"', value)


MALFORMED = {
    "nothing": b"",
    "half": b'{"model": "ad_click_risk"',
    "text": b"hello",
    "two documents": b'{"model": "a"} {}',
    "NaN": within("entities/ip", b"NaN"),
    "Infinity": within("request/ms_since_impression", b"Infinity"),
    "a byte order mark": b"\xef\xbb\xbf" + within("model", b'"ad_click_risk"'),
    "bytes that are no UTF-8": within("model", b'"\xff\xfe"'),
    "a lone surrogate": within("model", rb'"\ud800"'),
    "a lone surrogate in an entity": within("entities/ip", rb'"\udfff"'),
    "a lone surrogate in the event": within("event/ip", rb'"\ud800"'),
    "10,000 levels": DEEP,
    "10,000 levels in an entity": within("entities/ip", DEEP),
    "10,000 levels in the event": within("event/os", DEEP),
    "100,000 levels that never end": within("event", b"[" * 100_000),
    "a number with a leading zero": within("entities/ip", b"01"),
    "a control character": within("entities/ip", b'"\x00"'),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_json_is_a_400_or_names_the_field(shared_world: World, body: bytes) -> None:
    answer = asyncio.run(shared_world.score(body))
    assert answer.status in (400, 422)
    assert problem(answer).type in ("/docs#problem-malformed-json", "/docs#problem-invalid-field")


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("model", b"5", "model"),
        ("model", b"null", "model"),
        ("model", b'""', "model"),
        ("model", b"1e999", "model"),
        ("model", DEEP, "model"),
        ("unheard", b"1", "unheard"),
        ("entities", b'"ip"', "entities"),
        ("entities", DEEP, "entities"),
        ("entities/ip", b"null", "entities.ip"),
        ("entities/ip", b"5", "entities.ip"),
        ("entities/ip", b'""', "entities.ip"),
        ("entities/ip", b"1e999", "entities.ip"),
        ("entities/ip", b'"' + b"x" * 257 + b'"', "entities.ip"),
        ("entities/ip", HUGE, "entities.ip"),
        ("entities/ip", b'"198.51.100.9"', "entities.ip"),
        ("entities/unheard", b'"x"', "entities.unheard"),
        ("entities/", b'"x"', "entities"),
        ("event", b"5", "event"),
        ("event", b'"click"', "event"),
        ("event", b"{}", "event_topic"),
        ("event/ip", b"5", "event.ip"),
        ("event/ip", b"null", "event.ip"),
        ("event/event_time", b"5", "event.event_time"),
        ("event/event_time", HUGE, "event.event_time"),
        ("event/event_time", b'"yesterday"', "event.event_time"),
        ("event/event_time", str(NOW_MS + 60_001).encode(), "event.event_time"),
        ("event/event_type", b'"dance"', "event.event_type"),
        ("event/amount_usd", b"-1", "event.amount_usd"),
        ("event/amount_usd", b"1e999", "event.amount_usd"),
        ("event/ms_since_impression", b"0.5", "event.ms_since_impression"),
        ("event_topic", b'"clicks"', "event_topic"),
        ("event_topic", b"5", "event_topic"),
        ("request/ms_since_impression", b'"fast"', "request.ms_since_impression"),
        ("request/ms_since_impression", b"1e999", "request.ms_since_impression"),
        ("request/ms_since_impression", HUGE, "request.ms_since_impression"),
        ("request/attempts", b"9223372036854775808", "request.attempts"),
        ("request/attempts", b"1.5", "request.attempts"),
        ("request/attempts", b"true", "request.attempts"),
        ("request/country", b"[]", "request.country"),
        ("request/unheard", b"1", "request.unheard"),
        ("explain", b'"everything"', "explain"),
        ("publish_event", b'"no"', "publish_event"),
        ("trace_id", b'"a b"', "trace_id"),
        ("trace_id", rb'"\u0000"', "trace_id"),
    ],
)
def test_a_wrong_field_is_a_4xx_that_names_it(shared_world: World, path: str, value: bytes, field: str) -> None:
    answer = asyncio.run(shared_world.score(within(path, value)))
    assert answer.status in (400, 422)
    assert problem(answer).field == field


@pytest.mark.parametrize("missing", ["ip", "device_id"])
def test_a_missing_entity_key_is_named(world: World, missing: str) -> None:
    entities = {name: value for name, value in KEYS.items() if name != missing}
    answer = asyncio.run(world.score({"model": SERVICE, "entities": entities}))
    assert (answer.status, problem(answer).field) == (422, f"entities.{missing}")
    assert world.features.reads == []


def test_a_missing_field_of_the_event_is_named_in_the_topic_that_fits_best(world: World) -> None:
    answer = asyncio.run(world.score({"model": SERVICE, "event": click(advertiser_id=...)}))
    assert (answer.status, problem(answer).field) == (422, "event.advertiser_id")
    assert world.publisher.published == []


def test_an_entity_that_contradicts_the_event_is_refused(world: World) -> None:
    answer = asyncio.run(world.score({"model": SERVICE, "entities": {"ip": "198.51.100.9"}, "event": click()}))
    assert (answer.status, problem(answer).field) == (422, "entities.ip")


def test_an_unknown_model_is_a_404_that_lists_the_models(world: World) -> None:
    answer = asyncio.run(world.score({"model": "unheard", "entities": KEYS}))
    assert answer.status == 404
    assert problem(answer).field == "model"
    assert SERVICE in problem(answer).detail


def test_odd_but_valid_values_are_scored(world: World) -> None:
    bodies = [
        {"model": SERVICE, "entities": {**KEYS, "ip": "\x00\n}{:"}},
        {"model": SERVICE, "entities": {**KEYS, "ip": "😀" * 60}},
        {"model": SERVICE, "entities": KEYS, "request": {"ms_since_impression": 1e308, "attempts": -(2**63)}},
        {"model": SERVICE, "event": click(event_time="0001-01-01T00:00:00+14:00", amount_usd=0)},
    ]
    answers = [asyncio.run(world.score(body)) for body in bodies]
    repeated = asyncio.run(world.score(b'{"model": "x", "model": "ad_click_risk", "entities": %b}' % json_bytes(KEYS)))
    assert {answer.status for answer in (*answers, repeated)} <= {200, 422}
    assert [answer.status for answer in (*answers[:3], repeated)] == [200, 200, 200, 200]


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 10_000_000])
def test_a_body_that_is_too_large_is_a_413_however_it_comes(world: World, size: int) -> None:
    answer = asyncio.run(world.score(b" " * size))
    assert answer.status == 413
    assert str(BODY_BYTES_MAX) in problem(answer).detail


def test_a_body_that_does_not_come_is_a_408() -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(BodyTooSlowError) as failed:
        asyncio.run(read_body({}, never, BODY_BYTES_MAX, timeout_s=0.01))
    assert problem_of(failed.value).status == 408


def test_a_body_of_exactly_the_limit_is_read(world: World) -> None:
    body = json_bytes({"model": SERVICE, "entities": KEYS})
    assert asyncio.run(world.score(body.ljust(BODY_BYTES_MAX))).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": "application/vnd.risk+json"}, 200),
        ({}, 200),
    ],
)
def test_only_plain_json_is_read(world: World, headers: dict[str, str], status: int) -> None:
    body = json_bytes({"model": SERVICE, "entities": KEYS})
    assert asyncio.run(world.call("POST", "/v1/score", body, headers)).status == status


def test_redis_away_is_a_503_that_says_when_to_come_back(world: World) -> None:
    world.features.failure = OnlineStoreUnavailableError("Redis did not answer: start it, or set REDIS_URL")
    answer = asyncio.run(world.score({"model": SERVICE, "event": click()}))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert problem(answer).type == "/docs#problem-online-store-unavailable"
    assert len(world.publisher.published) == 1  # meanwhile: sent again with the request, it counts once


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = ("model", "entities", "event", "event_topic", "request", "explain", "publish_event", "trace_id")
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(st.binary(max_size=300))
@FUZZ
def test_no_bytes_make_a_5xx(shared_world: World, body: bytes) -> None:
    assert 400 <= asyncio.run(shared_world.score(body)).status < 500


@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES))
@FUZZ
def test_no_json_makes_a_5xx(shared_world: World, body: dict[str, Any]) -> None:
    assert asyncio.run(shared_world.score(json_bytes(body))).status < 500


@given(st.sampled_from(["ip", "device_id", "event_time", "event_type", "amount_usd", "os", "event_id"]), JSON_VALUES)
@FUZZ
def test_no_event_makes_a_5xx(shared_world: World, name: str, value: Any) -> None:
    body = {"model": SERVICE, "event": click(**{name: value}), "request": {"country": value}}
    assert asyncio.run(shared_world.score(json_bytes(body))).status < 500


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
@FUZZ
def test_no_damaged_request_makes_a_5xx(shared_world: World, place: int, damage: bytes) -> None:
    body = json_bytes({"model": SERVICE, "event": click()})
    damaged = body[:place] + damage + body[place + len(damage) :]
    assert asyncio.run(shared_world.score(damaged)).status < 500
