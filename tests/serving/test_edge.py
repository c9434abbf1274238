"""What stands between Ray Serve and the application: the edge, and the user_config."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.common import DeploymentID, RequestMetadata

from materialize.online import OnlineStoreUnavailableError
from serving.app import DEPLOYMENT, MAX_ONGOING_REQUESTS, MAX_QUEUED_REQUESTS, app, apply_user_config
from serving.capacity import UNDER_WAY_MAX
from serving.edge import Door, middlewares
from serving.errors import ModelLoadError, TooManyRequestsError
from serving.problems import KINDS
from tests.serving.fakes import CHAMPION, KEYS, SERVICE, Answer, World, build_world, loaded_world, publish_model

SCORING = {"model": SERVICE, "entities": KEYS}
CONFIG = Path(__file__).parents[2] / "ray_config.yaml"


def edged(inner: Any) -> Any:
    """An application behind what Ray Serve wraps around its own."""
    [middleware] = middlewares()
    return middleware.cls(inner, *middleware.args, **middleware.kwargs)


def seen_behind(*scopes: dict[str, Any]) -> list[dict[str, Any]]:
    """What of these scopes reaches Ray Serve."""
    seen: list[dict[str, Any]] = []

    async def inner(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope)

    async def nothing(*_: Any) -> Any:
        return None

    for scope in scopes:
        asyncio.run(edged(inner)(scope, nothing, nothing))
    return seen


def test_header_fields_that_are_no_text_do_not_reach_ray_serve() -> None:
    good = (b"x-request-id", b"a-1")
    plain, odd = ({"type": "http", "headers": [good, *more]} for more in ([], [(b"x-request-id", b"\xff\xfe")]))
    assert [scope.get("headers") for scope in seen_behind(plain, odd, {"type": "lifespan"})] == [[good], [good], None]


class RayReplica:
    """What of Ray's replica the edge uses: its request handling and its counts. The endpoint's tests have Ray's own."""

    def __init__(self) -> None:
        self._metrics_manager = self
        self._deployment_id = DeploymentID("scoring", "actor-risk")
        self.handled: list[str] = []
        self.under_way = 0
        self.told: list[dict[str, Any]] = []

    async def handle(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.handled.append(scope["path"])

    def inc_num_ongoing_requests(self, request: RequestMetadata) -> None:
        self.under_way += 1 if request.is_http_request else 0

    def dec_num_ongoing_requests(self, request: RequestMetadata) -> None:
        self.under_way -= 1 if request.is_http_request else 0

    def record_request_metrics(self, **told: Any) -> None:
        self.told.append(told)

    def record_ingress_request_metrics(self, **told: Any) -> None:
        self.told.append(told)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Door:
    door = Door()
    monkeypatch.setattr("serving.edge.DOOR", door)
    return door


def at_edge(world: World, replica: RayReplica) -> World:
    """An application that is served in this event loop, behind what stands before Ray's handling."""
    return replace(world, app=edged(replica.handle))


async def ask(world: World, path: str, body: dict[str, Any]) -> Answer:
    return await world.call("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})


async def told(replica: RayReplica, count: int) -> None:
    """Return when Ray has been told of so many answers, each by two calls."""
    async with asyncio.timeout(10):
        while len(replica.told) < 2 * count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", ["/v1/score", "/v1/explain"])
def test_a_short_request_is_answered_before_ray_which_counts_it(world: World, opened: Door, path: str) -> None:
    replica, seen = RayReplica(), []

    async def look() -> None:
        seen.append(replica.under_way)

    world.features.answering = look

    async def scene() -> list[Answer]:
        opened.open(world.app.answer, asyncio.get_running_loop())
        edge = at_edge(world, replica)
        answers = [await ask(edge, path, body) for body in (SCORING, {"model": SERVICE})]
        await told(replica, 2)
        return answers

    answered, wrong = asyncio.run(scene())
    assert (answered.status, wrong.status) == (200, 422)
    assert replica.handled == []
    assert seen == [1]
    assert replica.under_way == 0
    _, good, _, bad = replica.told
    assert (good["route"], good["method"], good["status_code"], good["is_error"]) == (path, "POST", "200", False)
    assert (bad["status_code"], bad["is_error"], bad["app_name"]) == ("422", True, "actor-risk")


def test_ray_is_told_of_each_of_many_answers_once(world: World, opened: Door) -> None:
    replica, count = RayReplica(), 150

    async def scene() -> None:
        opened.open(world.app.answer, asyncio.get_running_loop())
        edge = at_edge(world, replica)
        for _ in range(count):
            await ask(edge, "/v1/score", SCORING)
        await told(replica, count)

    asyncio.run(scene())
    assert len(replica.told) == 2 * count
    assert {one["status_code"] for one in replica.told[1::2]} == {"200"}
    assert all(one["latency_ms"] > 0 for one in replica.told)


def test_all_else_is_handled_by_ray(world: World, opened: Door) -> None:
    replica, elsewhere = RayReplica(), asyncio.new_event_loop()

    async def scene() -> None:
        edge = at_edge(world, replica)
        await ask(edge, "/v1/score", SCORING)  # before there is an application
        opened.open(world.app.answer, elsewhere)  # Ray may run it in a thread of its own
        await ask(edge, "/v1/score", SCORING)
        opened.open(world.app.answer, asyncio.get_running_loop())
        await ask(edge, "/v1/score:batch", SCORING)
        await edged(replica.handle)({"type": "websocket", "path": "/v1/score", "headers": []}, None, None)

    asyncio.run(scene())
    elsewhere.close()
    assert replica.handled == ["/v1/score", "/v1/score", "/v1/score:batch", "/v1/score"]
    assert replica.told == []


def test_a_score_beyond_capacity_is_refused_before_ray_serve_and_said_as_anywhere(published: Path) -> None:
    world, door = loaded_world(published), Door()
    world.app.stand_at(door)
    assert not door.sheds()
    assert door.capacity() == UNDER_WAY_MAX
    release = asyncio.Event()

    async def held() -> None:
        await release.wait()

    world.features.answering = held

    async def scene() -> tuple[bool, list[Answer]]:
        under_way = [asyncio.create_task(world.score(SCORING)) for _ in range(UNDER_WAY_MAX)]
        while world.service.state().under_way < UNDER_WAY_MAX:
            await asyncio.sleep(0)
        shed, refused = door.sheds(), await world.score(SCORING)
        release.set()
        return shed, [refused, *await asyncio.gather(*under_way)]

    shed, (refused, *answered) = asyncio.run(scene())
    assert shed
    assert not door.sheds()
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert (door.refusal.status, door.refusal.body) == (429, refused.body)
    assert dict(door.refusal.headers)["retry-after"] == "1"
    assert {answer.status for answer in answered} == {200}
    assert world.service.state().refused == 2


@pytest.mark.parametrize(("told", "count"), [("40", 40), ("0", 0), ("-5", 0), ("4e1", 0), ("", 0), ("9" * 10, 0)])
def test_scores_that_were_refused_on_the_way_are_counted_where_they_are_told(
    world: World, opened: Door, told: str, count: int
) -> None:
    world.app.stand_at(opened)
    headers = {"content-type": "application/json", "x-refused": told}

    async def scene() -> Answer:
        opened.open(world.app.answer, asyncio.get_running_loop())
        return await at_edge(world, RayReplica()).call("POST", "/v1/score", json.dumps(SCORING).encode(), headers)

    assert asyncio.run(scene()).status == 200
    assert world.service.state().refused == count
    page = asyncio.run(world.call("GET", "/metrics")).body.decode()
    for series in ('requests_total{route="/v1/score",status="429"}', 'problems_total{problem="too-many-requests"}'):
        assert sum(map(float, re.findall(rf"^actor_risk_{re.escape(series)} (\S+)$", page, re.MULTILINE))) == count


def test_a_user_config_names_the_models_to_serve(world: World) -> None:
    asyncio.run(apply_user_config(world.rollouts, {"models": CHAMPION}))
    assert [card.name for card in world.service.cards()] == [SERVICE]


@pytest.mark.parametrize(
    "wrong", [None, {}, {"models": []}, {"models": {SERVICE: 5}}, {"models": {}, "x": 1}, {"models": {"x": "champion"}}]
)
def test_a_wrong_user_config_fails_a_new_replica_but_leaves_a_serving_one_as_it_is(
    world: World, empty_world: World, wrong: object
) -> None:
    before = world.service.cards()
    asyncio.run(apply_user_config(world.rollouts, wrong))
    assert world.service.cards() == before
    with pytest.raises(ModelLoadError):
        asyncio.run(apply_user_config(empty_world.rollouts, wrong))


def test_a_new_server_may_wait_for_its_models(tmp_path: Path) -> None:
    empty_world = build_world(tmp_path)

    async def scene() -> None:
        config = {"models": CHAMPION, "wait_for_models_s": 60}
        waiting = await apply_user_config(empty_world.rollouts, config)
        assert waiting is not None
        assert not (await empty_world.service.readiness()).ready
        publish_model(empty_world.store)
        await asyncio.wait_for(waiting, 30)
        assert (await empty_world.service.readiness()).ready

    asyncio.run(scene())


def test_the_config_file_is_about_the_deployment_that_the_application_has() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    [application] = config["applications"]
    [deployment] = application["deployments"]
    assert application["import_path"] == "serving.app:app"
    assert app._bound_deployment.name == deployment["name"] == DEPLOYMENT
    assert deployment["max_ongoing_requests"] == MAX_ONGOING_REQUESTS
    assert deployment["max_queued_requests"] == MAX_QUEUED_REQUESTS
    assert config["http_options"]["host"] == "127.0.0.1"


def test_what_is_too_much_is_refused_by_the_replica_before_ray_and_by_both_with_429() -> None:
    """So that probes and scrapes get through to a replica that refuses scores."""
    [deployment] = yaml.safe_load(CONFIG.read_text())["applications"][0]["deployments"]
    assert deployment["backpressure_config"]["status_code"] == KINDS[TooManyRequestsError].status == 429
    assert deployment["max_ongoing_requests"] > 2 * UNDER_WAY_MAX


def test_the_first_answer_finds_everything_warm(world: World) -> None:
    """What is compiled, mapped or connected at its first use was used before the replica is ready."""
    asyncio.run(world.service.warm_up())
    assert [read.entities for read in world.features.reads] == [{"ip": "", "device_id": ""}] * 3
    assert world.publisher.published == []


def test_without_the_store_a_replica_begins_all_the_same(world: World) -> None:
    world.features.failure = OnlineStoreUnavailableError("away")
    asyncio.run(world.service.warm_up())
    assert asyncio.run(world.call("GET", "/readyz")).status == 503
