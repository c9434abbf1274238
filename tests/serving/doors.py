"""A server that asks for keys, for the tests of who may ask it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from serving.access import SCOPES, Gate, Guard, Limit, WatchedFile, known_keys
from serving.access.guard import Tokens
from serving.asgi import ScoringApp
from serving.clock import Clock
from tests.serving.fakes import BODY_BYTES_MAX, KEYS, NOW_MS, SERVICE, Answer, World

SCORING = {"model": SERVICE, "entities": KEYS}
LIMIT = Limit(1_000, 1_000)


@dataclass
class Times:
    """A clock that stands until it is moved."""

    now_ms: int = NOW_MS
    monotonic_ns: int = 0

    def clock(self) -> Clock:
        return Clock(lambda: self.now_ms, lambda: self.monotonic_ns)


@dataclass
class Door:
    """A server that lets in the keys of a file."""

    world: World
    keys: Path
    guard: Guard
    times: Times

    def ask(self, path: str, credential: str | None = None, method: str = "GET", **headers: str) -> Answer:
        given = {} if credential is None else {"authorization": f"Bearer {credential}"}
        return asyncio.run(self.world.call(method, path, headers={**given, **headers}))

    def score(self, credential: str, headers: Mapping[str, str] | None = None) -> Answer:
        return asyncio.run(self.world.score(SCORING, {"authorization": f"Bearer {credential}", **(headers or {})}))

    def notes(self) -> list[str]:
        notes: list[str] = self.ask("/readyz").json()["notes"]
        return notes


def entry(key: str, *scopes: str, **more: Any) -> dict[str, Any]:
    """What a file of keys says of `ark_<name>`."""
    return {"name": key.removeprefix("ark_"), "sha256": sha256(key.encode()).hexdigest(), "scopes": scopes, **more}


def write_keys(path: Path, *entries: dict[str, Any]) -> None:
    """Put a file of keys in the place of the one that is there, as a careful editor does."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode({"keys": entries}))
    draft.replace(path)


def open_door(world: World, keys: Path, tokens: Tokens | None = None) -> Door:
    """The server with one key for each scope, and one that has expired."""
    write_keys(
        keys,
        entry("ark_score", "score"),
        entry("ark_features", "features:read"),
        entry("ark_admin", "admin"),
        entry("ark_expired", *SCOPES, expires="2020-01-01T00:00:00Z"),
    )
    times = Times()
    guard = Guard(times.clock(), WatchedFile(keys, partial(known_keys, default=LIMIT)), tokens)
    world.app = app_behind(world, guard)
    return Door(world, keys, guard, times)


def app_behind(world: World, gate: Gate) -> ScoringApp:
    """The application of a world, with this gate."""
    ticks = itertools.count(0, 250_000)

    async def shut_down() -> None:
        pass

    clock = Clock(lambda: NOW_MS, lambda: next(ticks))
    return ScoringApp(world.service, clock, body_bytes_max=BODY_BYTES_MAX, shut_down=shut_down, gate=gate)
