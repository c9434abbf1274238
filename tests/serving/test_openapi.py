"""The OpenAPI document says what the server does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from serving.decision import BatchRequest, Decision, Health, ModelList, Problem, Readiness, ScoreRequest, StoredFeatures
from serving.event_results import EventItem, EventsAnswer, EventsProblem
from serving.open_inference import (
    InferenceAnswer,
    InferenceError,
    InferenceRequest,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from serving.openapi import openapi_document
from serving.problems import KINDS
from tests.serving.fakes import KEYS, SERVICE, World, click

KINDS_OF_BODIES = (
    BatchRequest,
    ScoreRequest,
    Decision,
    Health,
    ModelList,
    Readiness,
    Problem,
    EventItem,
    EventsAnswer,
    EventsProblem,
    InferenceAnswer,
    InferenceError,
    InferenceRequest,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    StoredFeatures,
)
TYPES = {kind.__name__: kind for kind in KINDS_OF_BODIES}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    whole = openapi_document(with_events=True, with_entities=True)
    encoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(whole))
    return encoded


def nodes(value: Any) -> Iterator[Any]:
    yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from nodes(child)


def media_types(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every schema with an example of it."""
    for node in nodes(document["paths"]):
        if isinstance(node, dict) and "schema" in node:
            shown = [example["value"] for example in node.get("examples", {}).values()]
            yield from ((node["schema"], example) for example in shown)
            if "example" in node:
                yield node["schema"], node["example"]


def validate(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_every_route_and_method_is_described_and_no_other(document: dict[str, Any], world: World) -> None:
    described = {path: tuple(method.upper() for method in methods) for path, methods in document["paths"].items()}
    assert described == world.app.paths


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = {node["$ref"] for node in nodes(document) if isinstance(node, dict) and "$ref" in node}
    assert {reference.rsplit("/", 1)[1] for reference in references} <= document["components"]["schemas"].keys()
    assert all(reference.startswith("#/components/schemas/") for reference in references)


def test_every_schema_is_json_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_example_decodes_into_its_type_and_fits_its_schema(document: dict[str, Any]) -> None:
    seen = 0
    for schema, example in media_types(document):
        kind: Any = TYPES[next(node["$ref"] for node in nodes(schema) if "$ref" in node).rsplit("/", 1)[1]]
        kind = list[kind] if isinstance(example, list) else kind
        msgspec.json.decode(msgspec.json.encode(example), type=kind, strict=True)
        validate(document, schema, example)
        seen += 1
    assert seen > 15


def test_operations_have_distinct_ids_and_described_answers(document: dict[str, Any]) -> None:
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["summary"]
        assert all(answer["description"] for answer in operation["responses"].values())


def test_every_problem_of_scoring_is_listed_under_its_status(document: dict[str, Any]) -> None:
    listed = set(document["paths"]["/v1/score"]["post"]["responses"])
    elsewhere = ("unknown-path", "method-not-allowed", "unknown-decision", "unknown-entity")
    wanted = {str(kind.status) for kind in KINDS.values() if kind.word not in elsewhere}
    assert wanted | {"200", "500"} == listed


def test_real_answers_fit_the_document(document: dict[str, Any], world: World) -> None:
    bodies: list[dict[str, Any]] = [
        {"model": SERVICE, "event": click()},
        {"model": SERVICE, "entities": {**KEYS, "ip": "nobody"}, "explain": "full"},
        {"model": SERVICE, "entities": KEYS, "explain": "none"},
        {"model": "unheard"},
        {"model": SERVICE},
    ]
    answers = document["paths"]["/v1/score"]["post"]["responses"]
    for body in bodies:
        validate(document, {"$ref": "#/components/schemas/ScoreRequest"}, body)
        answer = asyncio.run(world.score(body))
        validate(
            document, answers[str(answer.status)]["content"][answer.headers["content-type"]]["schema"], answer.json()
        )
    for path in ("/v1/models", "/readyz", "/healthz"):
        answer = asyncio.run(world.call("GET", path))
        content = document["paths"][path]["get"]["responses"]["200"]["content"]
        validate(document, content["application/json"]["schema"], answer.json())


def test_the_docs_page_needs_no_network_and_has_a_place_for_every_problem(world: World) -> None:
    page = asyncio.run(world.call("GET", "/docs"))
    text = page.body.decode()
    assert not re.search(r"(?:src|href)\s*[=:]\s*[\"']?(?:https?:)?//", text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert 'fetch("openapi.json")' in text
    shown = openapi_document()["x-problems"]
    assert {kind.uri for kind in KINDS.values()} < {problem["type"] for problem in shown}
