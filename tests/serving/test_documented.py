"""Whatever is asked of any operation in the OpenAPI document, valid or not: no 5xx, and no answer that it does not
describe. The requests are Schemathesis's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from serving.openapi import openapi_document
from tests.serving.fakes import loaded_world

DOCUMENT = openapi_document(with_feast=False, with_events=True, with_entities=True)
VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
"""Requests that the document allows, and others; an operation that takes nothing cannot be asked wrongly."""
OPERATIONS = [
    pytest.param(path, method, mode, id=f"{method} {path}, {mode.value}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if method in ("get", "post")
    for mode in (VALID, INVALID)
    if mode is VALID or "requestBody" in operation or "parameters" in {*operation, *methods}
]


EXAMPLES = [pytest.param(15, id="short"), pytest.param(2_000, id="long", marks=pytest.mark.soak)]


@pytest.fixture(scope="module")
def documented(published: Path) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", loaded_world(published).app)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_every_answer_is_documented_and_none_is_a_failure(
    documented: Any, path: str, method: str, mode: GenerationMode, examples: int
) -> None:
    operation = documented[path][method]

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def answers(data: st.DataObject) -> None:
        data.draw(operation.as_strategy(generation_mode=mode)).call_and_validate()

    answers()
