"""`GET /v1/features/{entity}/{key}`: its answers, and what it refuses. With a real registry it is in tests/parity."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from materialize.definitions import JoinKey
from materialize.online import EntityFeatures, FeatureStatus, OnlineStoreUnavailableError
from serving.openapi import openapi_document
from tests.serving.fakes import IP_FEATURES, NOW_MS, SERVICE, Answer, World

KNOWN = "203.0.113.9"


def ask(world: World, rest: str) -> Answer:
    return asyncio.run(world.call("GET", f"/v1/features/{rest}"))


def read(world: World, rest: str) -> dict[str, Any]:
    answer = ask(world, rest)
    assert answer.status == 200, answer.body
    told: dict[str, Any] = answer.json()
    return told


def test_all_features_of_an_entity_have_value_status_and_age(world: World) -> None:
    world.features.statuses[KNOWN] = [FeatureStatus.PRESENT, FeatureStatus.OUTSIDE_MAX_AGE] * 4
    answer = ask(world, f"ip/{KNOWN}")
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    features = told.pop("features")
    assert told == {
        "entity": "ip",
        "join_key": "ip",
        "key": KNOWN,
        "is_known": True,
        "as_of": "2026-11-18T11:06:40.000Z",
        "as_of_ms": NOW_MS,
    }
    assert [feature["feature"] for feature in features] == list(IP_FEATURES)
    assert features[:2] == [
        {
            "feature": IP_FEATURES[0],
            "description": f"About {IP_FEATURES[0]}",
            "type": "DOUBLE",
            "value": 40.0,
            "status": "PRESENT",
            "age_ms": 0,
        },
        {
            "feature": IP_FEATURES[1],
            "description": f"About {IP_FEATURES[1]}",
            "type": "DOUBLE",
            "value": None,
            "status": "OUTSIDE_MAX_AGE",
            "age_ms": 1000,
        },
    ]


def test_of_an_unknown_key_nothing_is_stored(world: World) -> None:
    told = read(world, "ip/nobody")
    assert not told["is_known"]
    assert told["features"][0] | {"description": ""} == {
        "feature": IP_FEATURES[0],
        "description": "",
        "type": "DOUBLE",
        "value": None,
        "status": "NOT_FOUND",
        "age_ms": None,
    }


def test_a_service_or_a_list_says_which(world: World) -> None:
    some = ",".join(reversed(IP_FEATURES[:2]))
    found = read(world, f"ip/{KNOWN}?features={some}")["features"]
    assert [feature["feature"] for feature in found] == [IP_FEATURES[1], IP_FEATURES[0]]
    found = read(world, f"ip/{KNOWN}?service={SERVICE}")["features"]
    assert [feature["feature"] for feature in found] == list(IP_FEATURES)


def test_a_key_has_the_type_of_its_entity(world: World) -> None:
    world.features.entities_now["seller"] = EntityFeatures(JoinKey("ip", "INT32"), IP_FEATURES)
    assert read(world, "seller/-7")["key"] == -7
    assert world.features.reads[-1].entities == {"ip": -7}
    for key in ("x", "2147483648", "1.5", "9" * 400):
        refused = ask(world, f"seller/{key}")
        assert (refused.status, refused.json()["field"]) == (422, "key")


@pytest.mark.parametrize(
    ("rest", "status", "field", "told"),
    [
        ("unheard/x", 404, "entity", "the entities are ['bare', 'bytes', 'ip']"),
        ("ip/" + "x" * 257, 422, "key", "length <= 256"),
        ("bytes/x", 422, "key", "type BYTES cannot stand in a path"),
        ("bare/x", 422, "features", "no feature of 'bare'"),
        ("ip/x?service=nothing", 422, "service", "no feature service 'nothing'"),
        ("ip/x?features=device:age_days", 422, "features", "no feature of 'ip' alone: device:age_days"),
        ("ip/x?features=", 422, "features", "no feature of 'ip' alone"),
        (f"ip/x?features={IP_FEATURES[0]}&service={SERVICE}", 422, "features", "give one service, or one list"),
        ("ip/x?features=a&features=b", 422, "features", "give one service, or one list"),
        ("ip/x?as_of=1", 422, "as_of", "unknown"),
        ("ip/x?features=%ff", 422, None, "the query cannot be read"),
        ("ip/x?" + "a=1&" * 30, 422, None, "the query cannot be read"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_field_at_fault(
    world: World, rest: str, status: int, field: str | None, told: str
) -> None:
    world.features.entities_now["bytes"] = EntityFeatures(JoinKey("ip", "BYTES"), IP_FEATURES)
    world.features.entities_now["bare"] = EntityFeatures(JoinKey("ip", "STRING"), ())
    refused = ask(world, rest)
    assert (refused.status, refused.json().get("field")) == (status, field), refused.body
    assert told in refused.json()["detail"]


def test_a_path_without_a_key_is_not_there(world: World) -> None:
    assert ask(world, "ip").status == 404
    assert ask(world, "ip/").status == 404


def test_without_redis_the_answer_is_to_try_again(world: World) -> None:
    world.features.failure = OnlineStoreUnavailableError("Redis is away")
    answer = ask(world, "ip/x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_real_answers_fit_the_document(world: World) -> None:
    document = msgspec.json.decode(msgspec.json.encode(openapi_document(with_entities=True)))
    answers = document["paths"]["/v1/features/{entity}/{key}"]["get"]["responses"]
    for rest in (f"ip/{KNOWN}", "ip/nobody", "unheard/x", "ip/x?as_of=1"):
        answer = ask(world, rest)
        schema = answers[str(answer.status)]["content"][answer.headers["content-type"]]["schema"]
        Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())
