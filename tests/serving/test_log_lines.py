"""What the server logs says nothing of the people that it is asked about."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from materialize.personal import trace_of
from tests.serving.fakes import SERVICE, World, click

SECRET = "swordfish"
PERSON = {"ip": f"{SECRET}-ip", "device_id": f"{SECRET}-device"}


def raises(error: BaseException) -> Any:
    async def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "failure", [ValueError(f"odd value {SECRET}"), KeyError(SECRET), UnicodeDecodeError("utf-8", b"x", 0, 1, SECRET)]
)
def test_no_value_of_a_request_is_in_a_log_line(world: World, caplog: Any, failure: Exception) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.run(world.service.readiness())
    bodies: list[Any] = [
        {"model": SERVICE, "entities": PERSON},
        {"model": SERVICE, "event": click(ip=PERSON["ip"], device_id=PERSON["device_id"])},
        {"model": SECRET, "entities": PERSON},
        {"model": SERVICE, "entities": PERSON | {"ip": [SECRET]}},
        {"model": SERVICE, "entities": PERSON, SECRET: SECRET},
        f'{{"model": "{SECRET}'.encode(),
    ]
    for world.features.failure in (None, failure):  # type: ignore[assignment]
        for body in bodies:
            asyncio.run(world.score(body))
        asyncio.run(world.call("POST", "/v1/events", b'{"event": {"ip": "%b"}}' % SECRET.encode()))
        asyncio.run(world.call("GET", f"/{SECRET}?ip={SECRET}", headers={"cookie": SECRET}))
    assert "nobody foresaw" in caplog.text
    assert SECRET not in caplog.text


def test_a_trace_leads_to_the_cause_and_quotes_nothing() -> None:
    try:
        try:
            try:
                int(SECRET)
            except ValueError as error:
                raise KeyError(SECRET) from error
        except KeyError:
            raise OSError(SECRET)  # noqa: B904
    except OSError as error:
        trace = trace_of(error)
    assert [line for line in trace.splitlines() if not line.startswith(" ")] == [
        "builtins.OSError",
        "caused by builtins.KeyError",
        "caused by builtins.ValueError",
    ]
    assert "int(SECRET)" in trace
    assert SECRET not in trace


def test_a_trace_of_errors_in_a_circle_ends() -> None:
    first, second = ValueError(), ValueError()
    first.__context__, second.__context__ = second, first
    assert trace_of(first).count("ValueError") == 2
