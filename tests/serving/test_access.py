"""Who may ask what: keys, scopes, rotation, limits, and what is answered to everybody else."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.access import (
    ANY_KEY,
    OPEN,
    SCOPES,
    Guard,
    Limit,
    WatchedFile,
    known_keys,
    need_of,
)
from serving.asgi import ScoringApp
from serving.clock import Clock
from tests.serving.fakes import (
    BODY_BYTES_MAX,
    KEYS,
    NOW_MS,
    SERVICE,
    Answer,
    World,
    loaded_world,
)

ROUTES = {
    "/v1/score": "score",
    "/v1/score:batch": "score",
    "/v1/explain": "score",
    "/v1/events": "score",
    "/v2/models/ad_click_risk/infer": "score",
    "/v2/models/ad_click_risk/versions/1/infer": "score",
    "/get-online-features": "features:read",
    "/v1/features/ip_ad_stats": "features:read",
    "/v1/decisions/0001": "features:read",
    "/metrics": "admin",
    "/v1/models": ANY_KEY,
    "/v1/events/schemas/ad_events": ANY_KEY,
    "/v2": ANY_KEY,
    "/v2/models/ad_click_risk": ANY_KEY,
    "/v2/models/ad_click_risk/ready": ANY_KEY,
    "/nowhere": ANY_KEY,
    "/": ANY_KEY,
    "": ANY_KEY,
    "/healthz/": ANY_KEY,
    "/healthz": OPEN,
    "/readyz": OPEN,
    "/health": OPEN,
    "/docs": OPEN,
    "/openapi.json": OPEN,
    "/v2/health/live": OPEN,
    "/v2/health/ready": OPEN,
}
SCORING = {"model": SERVICE, "entities": KEYS}
DEFAULT = Limit(1_000, 1_000)


@dataclass
class Door:
    """A server that asks for keys: one for each scope, `ark_<scope>`, one that has expired, and its clock."""

    world: World
    keys: Path
    guard: Guard
    times: dict[str, int] = field(default_factory=dict)

    def write(self, *entries: dict[str, Any]) -> None:
        write_keys(self.keys, *entries)

    def ask(self, path: str, credential: str | None = None, method: str = "GET", **headers: str) -> Answer:
        given = {} if credential is None else {"authorization": f"Bearer {credential}"}
        return asyncio.run(self.world.call(method, path, headers={**given, **headers}))

    def score(self, credential: str) -> Answer:
        return asyncio.run(self.world.score(SCORING, {"authorization": f"Bearer {credential}"}))


def entry(key: str, *scopes: str, **more: Any) -> dict[str, Any]:
    return {"name": key.removeprefix("ark_"), "sha256": sha256(key.encode()).hexdigest(), "scopes": scopes, **more}


def write_keys(path: Path, *entries: dict[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode({"keys": entries}))
    draft.replace(path)


@pytest.fixture
def door(published: Path, tmp_path: Path) -> Door:
    keys, times = tmp_path / "keys.json", {"now_ms": NOW_MS, "monotonic_ns": 0}
    write_keys(
        keys,
        entry("ark_score", "score"),
        entry("ark_features", "features:read"),
        entry("ark_admin", "admin"),
        entry("ark_expired", *SCOPES, expires="2020-01-01T00:00:00Z"),
    )
    clock = Clock(lambda: times["now_ms"], lambda: times["monotonic_ns"])
    world = loaded_world(published)
    guard = Guard(clock, WatchedFile(keys, partial(known_keys, default=DEFAULT)))
    world.app = guarded(world, guard)
    return Door(world, keys, guard, times)


def guarded(world: World, guard: Guard) -> ScoringApp:
    ticks = itertools.count(0, 250_000)

    async def shut_down() -> None:
        pass

    clock = Clock(lambda: NOW_MS, lambda: next(ticks))
    return ScoringApp(world.service, clock, body_bytes_max=BODY_BYTES_MAX, shut_down=shut_down, gate=guard)


def test_the_table_says_what_each_path_needs(world: World) -> None:
    assert {path: need_of(path) for path in ROUTES} == ROUTES
    assert world.app.routes.keys() <= {*ROUTES, "/v1/events/schemas/account_events"}, "a new route belongs in the table"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "BREW"])
def test_a_request_without_a_valid_key_is_told_nothing_but_that(door: Door, path: str, method: str) -> None:
    wrong = {
        "none": door.ask(path, method=method),
        "unknown": door.ask(path, "ark_unknown", method),
        "empty": door.ask(path, "", method),
        "expired": door.ask(path, "ark_expired", method),
        "digest": door.ask(path, sha256(b"ark_admin").hexdigest(), method),
        "no bearer": door.ask(path, method=method, authorization="Basic ark_score"),
        "odd": door.ask(path, "\xff\x00", method),
        "another header": door.ask(path, method=method, **{"x-api-key": "ark_unknown"}),
        "in the query": asyncio.run(door.world.call(method, path, headers={"cookie": "ark_score"})),
    }
    if ROUTES[path] is OPEN:
        assert all(answer.status != 401 for answer in wrong.values())
        return
    answers = [(answer.status, answer.headers, answer.body) for answer in wrong.values()]
    assert answers == [answers[0]] * len(answers)
    assert (wrong["none"].status, wrong["none"].headers["www-authenticate"]) == (401, "Bearer")
    assert wrong["none"].json()["type"] == "/docs#problem-unauthorized"
    assert not (path.strip("/") and path.encode() in wrong["none"].body)


@pytest.mark.parametrize("path", [path for path, need in ROUTES.items() if need in SCOPES])
@pytest.mark.parametrize("name", ["score", "features", "admin"])
def test_a_key_opens_what_its_scope_names_and_nothing_else(door: Door, path: str, name: str) -> None:
    scope = {"features": "features:read"}.get(name, name)
    answer = door.ask(path, f"ark_{name}")
    assert (answer.status != 403) == (ROUTES[path] == scope)
    assert answer.status != 401
    if answer.status == 403:
        assert answer.json()["detail"] == f"the key or token does not have the scope {ROUTES[path]!r}"


@pytest.mark.parametrize("headers", [{"authorization": "bearer  ark_score "}, {"x-api-key": " ark_score"}])
def test_a_key_comes_as_a_bearer_or_in_a_header_of_its_own(door: Door, headers: dict[str, str]) -> None:
    assert asyncio.run(door.world.score(SCORING, headers)).status == 200
    both = {**headers, "authorization": "Basic eDp5", "x-api-key": "ark_score"}
    assert asyncio.run(door.world.score(SCORING, both)).status == 200


def test_a_refused_request_is_not_read(door: Door) -> None:
    begun = [{"type": "http.request", "body": b"{" * 100, "more_body": True}]
    answer = asyncio.run(door.world.exchange("POST", "/v1/score", [], {}))
    assert answer.status == 401
    assert asyncio.run(door.world.exchange("POST", "/v1/score", begun, {})).status == 401
    assert door.world.features.reads == []
