"""What stands between Ray Serve and the application: the guard of header bytes, and the user_config."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.http_util import parse_disconnect_disabled_header, parse_request_timeout_header

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


def test_ray_serve_watches_no_short_request_and_every_other() -> None:
    sent = [(b"x-request-timeout-seconds", b"2"), (b"x-request-disconnect-disabled", b"?0")]
    short, stream = seen_behind(
        *(
            {"type": "http", "method": "POST", "path": path, "headers": sent}
            for path in ("/v1/score", "/v1/score:batch")
        )
    )
    headers = dict(short["headers"])
    assert parse_disconnect_disabled_header(headers)
    assert parse_request_timeout_header(headers, 10.0) is None
    assert stream["headers"] == sent


def test_a_score_beyond_capacity_is_refused_before_ray_serve_and_said_as_anywhere(published: Path) -> None:
    world, door = loaded_world(published), Door()
    world.app.stand_at(door)
    assert not door.sheds()
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


def test_the_application_sees_the_header_fields_that_were_sent(world: World) -> None:
    headers = {"content-type": "application/json", "x-request-timeout-seconds": "no number"}
    body = b'{"model": "ad_click_risk", "entities": {"ip": "203.0.113.9", "device_id": "dev-1"}}'
    plain = replace(world, app=edged(world.app))
    assert asyncio.run(plain.call("POST", "/v1/score", body, headers)).status == 422
    del headers["x-request-timeout-seconds"]
    assert asyncio.run(plain.call("POST", "/v1/score", body, headers)).status == 200


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
