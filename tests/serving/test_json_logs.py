"""Log lines as JSON: one object on each line, with the trace id of its request."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import SettingsError
from serving.json_logs import PACKAGES, log_as_json
from serving.settings import Settings
from serving.trace_context import TraceIds
from tests.serving.fakes import CHAMPION, KEYS, SERVICE, World, build_world, click

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Where the lines go, until the test is over."""
    stream = io.StringIO()
    before = {name: (log.level, log.propagate) for name in PACKAGES for log in [logging.getLogger(name)]}
    log_as_json(stream)
    yield stream
    for name, (level, propagate) in before.items():
        log = logging.getLogger(name)
        log.handlers.pop()
        log.setLevel(level)
        log.propagate = propagate


@pytest.fixture
def named_world(published: Path) -> World:
    """A server that names the trace of each request for its log lines."""
    world = build_world(published, tracing=TraceIds(lambda length: b"\7" * length))
    asyncio.run(world.service.load(CHAMPION))
    return world


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def fail(world: World, headers: dict[str, str] | None = None) -> None:
    world.features.failure = RuntimeError("swordfish")  # type: ignore[assignment]
    asyncio.run(world.score({"model": SERVICE, "entities": KEYS}, headers))


def test_a_line_says_when_how_bad_who_what_and_for_which_trace(named_world: World, written: io.StringIO) -> None:
    fail(named_world, {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    [line] = lines(written)
    assert line["time"].endswith("Z")
    assert (line["level"], line["trace_id"]) == ("ERROR", TRACE)
    assert line["logger"].startswith("serving.")
    assert "nobody foresaw" in line["message"]
    assert "\n" not in written.getvalue().rstrip("\n"), "a line with a trace of code is one line"


def test_a_request_without_a_trace_gets_one_which_its_decision_has_too(
    named_world: World, written: io.StringIO
) -> None:
    async def broken() -> None:
        raise OSError("no route")

    named_world.publisher.fail = broken
    decision = asyncio.run(named_world.score({"model": SERVICE, "event": click()})).decision()
    [line] = lines(written)
    assert line["trace_id"] == decision.trace_id == "07" * 16


def test_what_no_request_asked_for_has_no_trace(named_world: World, written: io.StringIO) -> None:
    fail(named_world)
    logging.getLogger("serving.tests").info("by itself")
    assert "trace_id" not in lines(written)[-1]


def test_two_requests_at_once_keep_their_traces(published: Path, written: io.StringIO) -> None:
    world = build_world(published, tracing=TraceIds(lambda length: b"\7" * length))
    traces = [f"{n:032x}" for n in range(1, 9)]

    async def ask() -> None:
        await world.service.load(CHAMPION)
        world.features.failure = RuntimeError()  # type: ignore[assignment]
        body = {"model": SERVICE, "entities": KEYS}
        await asyncio.gather(
            *(world.score(body, {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}) for trace in traces)
        )

    asyncio.run(ask())
    assert sorted(line["trace_id"] for line in lines(written)) == traces


def test_an_exception_is_told_without_its_message(written: io.StringIO) -> None:
    try:
        raise ValueError("swordfish")
    except ValueError:
        logging.getLogger("serving.tests").exception("it failed")
    [line] = lines(written)
    assert line["message"] == "it failed"
    assert line["error"].startswith("builtins.ValueError")
    assert "swordfish" not in line["error"].replace('raise ValueError("swordfish")', "")


def test_no_value_of_a_request_is_in_a_line(named_world: World, written: io.StringIO) -> None:
    body = {"model": SERVICE, "entities": {"ip": "swordfish", "device_id": "swordfish"}, "trace_id": "swordfish"}
    asyncio.run(named_world.score(body, {"traceparent": "swordfish", "x-api-key": "swordfish"}))
    named_world.features.failure = RuntimeError("swordfish")  # type: ignore[assignment]
    asyncio.run(named_world.score(body))
    assert lines(written)
    assert "swordfish" not in written.getvalue()


def test_what_is_on_is_said_by_the_environment() -> None:
    assert [
        (found.traces, found.log_format)
        for found in map(
            Settings.from_environment,
            (
                {},
                {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "ACTOR_RISK_LOG_FORMAT": "json"},
                {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318", "ACTOR_RISK_TRACES": "0"},
                {"ACTOR_RISK_TRACES": "1"},
            ),
        )
    ] == [(False, "text"), (True, "json"), (False, "text"), (True, "text")]
    with pytest.raises(SettingsError, match="LOG_FORMAT must be one of text, json"):
        Settings.from_environment({"ACTOR_RISK_LOG_FORMAT": "yaml"})
