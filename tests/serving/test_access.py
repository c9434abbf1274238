"""Who may ask what: keys, scopes, rotation, limits, and what is answered to everybody else."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from materialize.online import OnlineStoreUnavailableError
from serving.access import (
    ANY_KEY,
    OPEN,
    SCOPES,
    LoopbackGate,
    follow,
    need_of,
    open_gate,
    require_access_beyond_loopback,
)
from serving.errors import SettingsError, UnauthorizedError
from serving.openapi import openapi_document
from serving.settings import Settings
from tests.serving.doors import SCORING, Door, Times, entry, open_door, write_keys
from tests.serving.fakes import Answer, World, loaded_world

ROUTES = {
    "/v1/score": "score",
    "/v1/score:batch": "score",
    "/v1/explain": "score",
    "/v1/events": "score",
    "/v2/models/{model}/infer": "score",
    "/v2/models/{model}/versions/{version}/infer": "score",
    "/get-online-features": "features:read",
    "/v1/features/{entity}/{key}": "features:read",
    "/v1/decisions/{id}": "features:read",
    "/metrics": "admin",
    "/v1/models": ANY_KEY,
    "/v1/events/schemas/ad_events": ANY_KEY,
    "/v2": ANY_KEY,
    "/v2/models/{model}": ANY_KEY,
    "/v2/models/{model}/ready": ANY_KEY,
    "/v2/models/{model}/versions/{version}": ANY_KEY,
    "/v2/models/{model}/versions/{version}/ready": ANY_KEY,
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


@pytest.fixture
def door(published: Path, tmp_path: Path) -> Door:
    return open_door(loaded_world(published), tmp_path / "keys.json")


@pytest.fixture(scope="module")
def shared_door(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Door:
    """For tests that leave it as it is."""
    return open_door(loaded_world(published), tmp_path_factory.mktemp("keys") / "keys.json")


def test_the_table_says_what_each_path_needs(world: World) -> None:
    assert {path: need_of(path) for path in ROUTES} == ROUTES
    assert world.app.paths.keys() <= {*ROUTES, "/v1/events/schemas/account_events"}, "a new route belongs in the table"


def told_by(answer: Answer) -> str:
    """What was wrong: of problem details, or in the Open Inference Protocol's own form."""
    body: dict[str, str] = answer.json()
    return body["detail"] if "detail" in body else body["error"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "BREW"])
def test_a_request_without_a_valid_key_is_told_nothing_but_that(shared_door: Door, path: str, method: str) -> None:
    wrong = {
        "none": shared_door.ask(path, method=method),
        "unknown": shared_door.ask(path, "ark_unknown", method),
        "empty": shared_door.ask(path, "", method),
        "expired": shared_door.ask(path, "ark_expired", method),
        "digest": shared_door.ask(path, sha256(b"ark_admin").hexdigest(), method),
        "no bearer": shared_door.ask(path, method=method, authorization="Basic ark_score"),
        "odd": shared_door.ask(path, "\xff\x00", method),
        "another header": shared_door.ask(path, method=method, **{"x-api-key": "ark_unknown"}),
        "a cookie": shared_door.ask(path, method=method, cookie="ark_score"),
        "odd, and long": shared_door.ask(path, ".".join(["e" * 20_000] * 3), method),
    }
    if ROUTES[path] is OPEN:
        assert all(answer.status != 401 for answer in wrong.values())
        return
    answers = [(answer.status, answer.headers, answer.body) for answer in wrong.values()]
    assert answers == [answers[0]] * len(answers)
    assert (wrong["none"].status, wrong["none"].headers["www-authenticate"]) == (401, "Bearer")
    assert told_by(wrong["none"]) == str(UnauthorizedError())
    assert not (path.strip("/") and path.encode() in wrong["none"].body)


@pytest.mark.parametrize("path", [path for path, need in ROUTES.items() if need in SCOPES])
@pytest.mark.parametrize("name", ["score", "features", "admin"])
def test_a_key_opens_what_its_scope_names_and_nothing_else(shared_door: Door, path: str, name: str) -> None:
    scope = {"features": "features:read"}.get(name, name)
    answer = shared_door.ask(path, f"ark_{name}")
    assert (answer.status != 403) == (ROUTES[path] == scope)
    assert answer.status != 401
    if answer.status == 403:
        assert told_by(answer) == f"the key or token does not have the scope {ROUTES[path]!r}"


@pytest.mark.parametrize("headers", [{"authorization": "bearer  ark_score "}, {"x-api-key": " ark_score"}])
def test_a_key_comes_as_a_bearer_or_in_a_header_of_its_own(shared_door: Door, headers: dict[str, str]) -> None:
    assert asyncio.run(shared_door.world.score(SCORING, headers)).status == 200
    both = {**headers, "authorization": "Basic eDp5", "x-api-key": "ark_score"}
    assert asyncio.run(shared_door.world.score(SCORING, both)).status == 200


def test_a_refused_request_is_not_read(door: Door) -> None:
    assert asyncio.run(door.world.exchange("POST", "/v1/score", [])).status == 401


def test_a_valid_key_is_told_what_is_not_there(shared_door: Door) -> None:
    assert shared_door.ask("/nowhere", "ark_admin").status == 404
    assert shared_door.ask("/v1/models", "ark_admin", "DELETE").status == 405


def test_every_wrong_key_is_looked_up_once_by_its_digest(door: Door) -> None:
    looked_up: list[bytes] = []

    class Counting(dict[bytes, Any]):
        def get(self, digest: bytes, default: Any = None) -> Any:
            looked_up.append(digest)
            return super().get(digest, default)

    door.guard._known = Counting(door.guard._known)
    wrong = ["ark_scorf", "ark_score ark_score", "x", "", "ark_expired", "a.b.c"]
    for key in wrong:
        assert door.score(key).status == 401
    assert looked_up == [sha256(key.encode()).digest() for key in wrong]


def test_a_file_whose_key_is_nothing_lets_nobody_in(door: Door) -> None:
    write_keys(door.keys, entry("", *SCOPES) | {"name": "nothing"})
    door.guard.refresh()
    assert {door.score("").status, door.ask("/v1/models").status} == {401}


def test_keys_are_rotated_while_the_server_runs(door: Door) -> None:
    write_keys(door.keys, entry("ark_score", "score"), entry("ark_next", "score"))
    assert (door.score("ark_score").status, door.score("ark_next").status) == (200, 401)
    assert door.guard.refresh()
    assert (door.score("ark_score").status, door.score("ark_next").status) == (200, 200)
    write_keys(door.keys, entry("ark_next", "score"))
    assert door.guard.refresh()
    assert (door.score("ark_score").status, door.score("ark_next").status) == (401, 200)
    assert not door.guard.refresh()


def test_a_key_expires_when_it_says(door: Door) -> None:
    write_keys(door.keys, entry("ark_brief", "score", expires="2026-11-18T11:06:41Z"))
    door.guard.refresh()
    found = []
    for door.times.now_ms in (1_795_000_000_999, 1_795_000_001_000):
        found.append(door.score("ark_brief").status)
    assert found == [200, 401]


WRONG_FILES = {
    "half": b'{"keys": [',
    "no JSON": b"keys:\n- name: x",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no scope": b'{"keys": [{"name": "x", "sha256": "%b", "scopes": []}]}' % (b"0" * 64),
    "an unknown scope": b'{"keys": [{"name": "x", "sha256": "%b", "scopes": ["root"]}]}' % (b"0" * 64),
    "a key as it is": b'{"keys": [{"name": "x", "sha256": "ark_swordfish", "scopes": ["score"]}]}',
    "an unknown field": b'{"keys": [{"name": "x", "sha256": "%b", "scopes": ["score"], "sopes": 1}]}' % (b"0" * 64),
    "no zone": b'{"keys": [{"name": "x", "sha256": "%b", "scopes": ["score"], "expires": "2030-01-01T00:00:00"}]}'
    % (b"0" * 64),
    "no rate": b'{"keys": [{"name": "x", "sha256": "%b", "scopes": ["score"], "rate": 0}]}' % (b"0" * 64),
    "twice the same": b'{"keys": [%b, %b]}'
    % ((b'{"name": "x", "sha256": "%b", "scopes": ["score"]}' % (b"0" * 64),) * 2),
}


@pytest.mark.parametrize("wrong", WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_refused_and_the_old_keys_stay(door: Door, wrong: bytes) -> None:
    door.keys.write_bytes(wrong)
    assert not door.guard.refresh()
    assert door.score("ark_score").status == 200
    [note] = door.notes()
    assert note.startswith("the new file of API keys is refused, the old one counts: ")
    assert "swordfish" not in note
    assert str(door.keys.parent) not in note
    write_keys(door.keys, entry("ark_next", "score"))
    assert door.guard.refresh()
    assert (door.notes(), door.score("ark_next").status, door.score("ark_score").status) == ([], 200, 401)


def test_a_file_that_goes_away_leaves_its_keys_and_a_note(door: Door) -> None:
    door.keys.rename(door.keys.with_suffix(".away"))
    assert not door.guard.refresh()
    assert door.score("ark_score").status == 200
    assert "cannot be read" in door.notes()[0]
    door.keys.with_suffix(".away").rename(door.keys)
    door.guard.refresh()
    assert door.notes() == []


def test_the_file_is_followed_in_the_background(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def until(status: int) -> None:
        while (await door.world.score(SCORING, {"x-api-key": "ark_next"})).status != status:
            await asyncio.sleep(0.005)

    async def until_told(what: str, times: int) -> None:
        while caplog.text.count(what) < times:  # after they count: they are read in a thread
            await asyncio.sleep(0.005)

    async def scene() -> None:
        following = asyncio.create_task(follow(door.guard, every_s=0.001))
        write_keys(door.keys, entry("ark_next", "score"))
        await until(200)
        door.keys.write_bytes(b"{")
        await until_told("is refused, the old one counts", 1)
        assert door.guard.notes()
        write_keys(door.keys)
        await until(401)
        await until_told("keys have changed", 2)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    asyncio.run(asyncio.wait_for(scene(), 20))
    assert caplog.text.count("keys have changed") == 2
    assert caplog.text.count("is refused, the old one counts") == 1


def test_a_client_that_asks_too_often_is_told_when_to_come_back(door: Door) -> None:
    write_keys(door.keys, entry("ark_a", "score", rate=0.5, burst=2), entry("ark_b", "score"))
    door.guard.refresh()
    found = [door.score("ark_a") for _ in range(3)]
    assert [answer.status for answer in found] == [200, 200, 429]
    assert found[2].headers["retry-after"] == "2"
    assert found[2].json()["type"] == "/docs#problem-too-many-requests"
    assert found[2].json()["detail"] == "'a' may send 0.5 requests a second, and 2 at once; try again in 2 s"
    assert door.score("ark_b").status == 200
    door.times.monotonic_ns += 2_000_000_000
    assert [door.score("ark_a").status for _ in range(2)] == [200, 429]


def test_keys_of_one_client_share_its_limit(door: Door) -> None:
    limit = {"name": "a", "rate": 1, "burst": 1}
    write_keys(door.keys, entry("ark_old", "score") | limit, entry("ark_new", "score") | limit)
    door.guard.refresh()
    assert [door.score(key).status for key in ("ark_old", "ark_new")] == [200, 429]


def test_what_is_open_is_not_limited(door: Door) -> None:
    write_keys(door.keys, entry("ark_a", "score", rate=1, burst=1))
    door.guard.refresh()
    assert [door.ask("/healthz", "ark_a").status for _ in range(5)] == [200] * 5


def test_no_key_is_in_any_log(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    write_keys(door.keys, entry("ark_swordfish", "score", rate=1, burst=3))
    door.guard.refresh()
    for key in ("ark_swordfish-2", "eyswordfish.a.b"):
        assert door.score(key).status == 401
    for failure in (None, OnlineStoreUnavailableError("away"), RuntimeError("odd")):
        door.world.features.failure = failure  # type: ignore[assignment]
        door.score("ark_swordfish")
    assert door.score("ark_swordfish").status == 429
    assert door.ask("/metrics", "ark_swordfish").status == 429
    door.keys.write_bytes(b'{"keys": "ark_swordfish"}')
    asyncio.run(follow_once(door))
    assert "nobody foresaw" in caplog.text
    assert "refused" in caplog.text
    assert "swordfish" not in caplog.text


async def follow_once(door: Door) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(follow(door.guard, every_s=0.001), 0.2)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.8.8.8", "", None])
@pytest.mark.parametrize("peer", [("127.0.0.1", 5), ("::1", 5), None])
def test_without_keys_this_machine_may_ask_everything(host: str | None, peer: Any) -> None:
    client = LoopbackGate().admit(asked(host, peer), "/metrics")
    assert (client.name, client.scopes, client.limit) == ("local", frozenset(SCOPES), None)


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("risk.example", ("127.0.0.1", 5)),
        ("127.0.0.1.example:80", None),
        ("localhost.example", None),
        ("10.0.0.5:8000", ("127.0.0.1", 5)),
        ("0.0.0.0:8000", None),
        ("[fe80::1]:8000", None),
        ("@", None),
        ("127.0.0.1", ("203.0.113.9", 0)),
        (None, ("10.0.0.5", 5)),
        ("localhost", ("odd", 5)),
    ],
)
def test_without_keys_others_are_let_in_nowhere_but_where_all_are(host: str | None, peer: Any) -> None:
    with pytest.raises(UnauthorizedError):
        LoopbackGate().admit(asked(host, peer), "/v1/score")
    LoopbackGate().admit(asked(host, peer), "/healthz")


def asked(host: str | None, peer: tuple[str, int] | None) -> dict[str, Any]:
    return {"client": peer, "headers": [] if host is None else [(b"host", host.encode())]}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "risk.example", ""])
def test_a_server_for_others_does_not_start_without_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ACTOR_RISK_ACCESS_KEYS"):
        require_access_beyond_loopback(Settings.from_environment({}), host)
    for name in ("ACTOR_RISK_ACCESS_KEYS", "ACTOR_RISK_JWKS"):
        require_access_beyond_loopback(Settings.from_environment({name: str(tmp_path)}), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", None])
def test_a_server_for_this_machine_starts_without_keys(host: str | None) -> None:
    settings = Settings.from_environment({})
    require_access_beyond_loopback(settings, host)
    assert isinstance(open_gate(settings, Times().clock()), LoopbackGate)


@pytest.mark.parametrize("content", [None, b"{"])
def test_a_server_does_not_start_with_a_file_of_keys_that_is_wrong(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_bytes(content)
    settings = Settings.from_environment({"ACTOR_RISK_ACCESS_KEYS": str(path)})
    with pytest.raises(SettingsError, match=re.escape(f"ACTOR_RISK_ACCESS_KEYS={path}: it ")):
        open_gate(settings, Times().clock())


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    document = openapi_document(with_feast=True, with_events=True)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_the_document_says_of_each_route_who_may_ask() -> None:
    for path, operation in operations():
        need, answers = need_of(path), operation["responses"].keys() & {"401", "403", "429"}
        if need is OPEN:
            assert (operation["security"], answers) == ([], set())
            continue
        assert operation["security"] == [{"bearer": [need] if need else []}, {"key": [need] if need else []}]
        assert answers == ({"401", "403", "429"} if need else {"401", "429"})


def test_the_document_says_how_keys_are_sent() -> None:
    schemes = openapi_document()["components"]["securitySchemes"]
    assert schemes["bearer"].items() >= {"type": "http", "scheme": "bearer"}.items()
    assert schemes["key"].items() >= {"type": "apiKey", "in": "header", "name": "x-api-key"}.items()
