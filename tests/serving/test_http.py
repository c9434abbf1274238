"""The HTTP around the score: routes and methods, health, metrics, the ends of a connection and of the server."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from materialize.events import TOPICS
from materialize.online import OnlineStoreUnavailableError
from serving.decision import ModelList, Readiness
from tests.serving.fakes import CHAMPION, FEATURES, KEYS, SERVICE, World, click, publish_model

SCHEMA_PATHS = tuple(f"/v1/events/schemas/{topic}" for topic in TOPICS)
GET_PATHS = ("/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", *SCHEMA_PATHS)


@pytest.mark.parametrize("path", GET_PATHS)
def test_head_answers_as_get_does_but_without_a_body(world: World, path: str) -> None:
    got, headed = (asyncio.run(world.call(method, path)) for method in ("GET", "HEAD"))
    assert got.status == headed.status == 200
    assert int(got.headers["content-length"]) == len(got.body) > 0
    assert headed.headers["content-type"] == got.headers["content-type"]
    assert (headed.body, int(headed.headers["content-length"]) > 0) == (b"", True)


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [("/v1/score", method, "POST, OPTIONS") for method in ("GET", "HEAD", "PUT", "DELETE", "BREW")]
    + [(path, "POST", "GET, HEAD, OPTIONS") for path in GET_PATHS],
)
def test_a_wrong_method_is_a_405_that_lists_the_right_ones(
    shared_world: World, path: str, method: str, allow: str
) -> None:
    answer = asyncio.run(shared_world.call(method, path))
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert asyncio.run(shared_world.call("OPTIONS", path)).headers["allow"] == allow


@pytest.mark.parametrize("path", ["/", "", "/v1", "/v1/score/", "/V1/SCORE", "/v1//score", "/healthz%00", "/../docs"])
def test_an_unknown_path_is_a_404(shared_world: World, path: str) -> None:
    answer = asyncio.run(shared_world.call("GET", path))
    assert (answer.status, answer.json()["type"]) == (404, "/docs#problem-unknown-path")


def test_a_server_below_a_prefix_answers_there(world: World) -> None:
    request = [{"type": "http.request", "body": b"", "more_body": False}]
    answer = asyncio.run(world.exchange("GET", "/risk/healthz", request, root_path="/risk"))
    assert answer.json() == {"status": "ok"}


def test_a_client_that_goes_away_halfway_gets_no_answer_and_is_counted(world: World) -> None:
    begun = [{"type": "http.request", "body": b'{"model"', "more_body": True}, {"type": "http.disconnect"}]
    assert asyncio.run(world.exchange("POST", "/v1/score", begun)).status == 0
    assert world.features.reads == []
    assert metrics(world)["actor_risk_requests_total", ("/v1/score", "499")] == 1


def test_a_body_in_many_parts_is_one_body(world: World) -> None:
    body = msgspec.json.encode({"model": SERVICE, "entities": KEYS})
    answer = asyncio.run(world.call("POST", "/v1/score", body, part_bytes=1))
    assert answer.decision().actor == KEYS


def test_answers_that_must_be_fresh_are_not_cached(world: World) -> None:
    answers = [asyncio.run(world.score({"model": SERVICE, "entities": KEYS}))]
    answers += [asyncio.run(world.call("GET", path)) for path in ("/healthz", "/readyz", "/metrics")]
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}


def test_an_unforeseen_failure_is_a_500_that_tells_nothing_of_our_insides(world: World, caplog: Any) -> None:
    world.features.failure = RuntimeError("the password is swordfish")  # type: ignore[assignment]
    answer = asyncio.run(world.score({"model": SERVICE, "entities": KEYS}))
    assert answer.status == 500
    assert b"swordfish" not in answer.body
    assert "builtins.RuntimeError" in caplog.text
    assert "raise self.failure" in caplog.text
    assert "swordfish" not in caplog.text, "a message may quote the request"


def test_a_server_without_models_lives_but_is_not_ready(empty_world: World) -> None:
    assert asyncio.run(empty_world.call("GET", "/healthz")).status == 200
    answer = asyncio.run(empty_world.call("GET", "/readyz"))
    readiness = msgspec.json.decode(answer.body, type=Readiness)
    assert (answer.status, readiness.ready, readiness.reasons) == (503, False, ["no model is loaded"])


def test_readiness_comes_and_goes_with_redis(world: World) -> None:
    ready = asyncio.run(world.call("GET", "/readyz"))
    world.features.failure = OnlineStoreUnavailableError("Redis did not answer")
    away = asyncio.run(world.call("GET", "/readyz"))
    world.features.failure = None
    back = asyncio.run(world.call("GET", "/readyz"))
    assert [answer.status for answer in (ready, away, back)] == [200, 503, 200]
    assert "Redis did not answer" in away.json()["reasons"][0]


def test_readiness_shows_the_notes_of_the_host(world: World) -> None:
    assert asyncio.run(world.call("GET", "/readyz")).json()["notes"] == ["a note"]


def test_the_models_are_listed_with_what_they_need(world: World) -> None:
    answer = asyncio.run(world.call("GET", "/v1/models"))
    [card] = msgspec.json.decode(answer.body, type=ModelList).models
    assert (card.name, card.alias, card.version) == (SERVICE, "champion", world.store.resolve(SERVICE, "champion"))
    assert (card.entities, card.feature_count) == (["ip", "device_id"], len(FEATURES))
    assert (card.thresholds.review, card.thresholds.block) == (0.4, 0.8)


def metrics(world: World) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, label values in the order of the labels' names) → value."""
    page = asyncio.run(world.call("GET", "/metrics")).body.decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_the_metrics_count_requests_verdicts_statuses_and_stages(world: World) -> None:
    known = asyncio.run(world.score({"model": SERVICE, "event": click()})).decision()
    asyncio.run(world.score({"model": SERVICE, "entities": {**KEYS, "ip": "198.51.100.1"}}))
    asyncio.run(world.score(b"{"))
    asyncio.run(world.call("GET", "/nowhere"))
    found, version = metrics(world), known.model.version
    assert found["actor_risk_requests_total", ("/v1/score", "200")] == 2
    assert found["actor_risk_requests_total", ("/v1/score", "400")] == 1
    assert found["actor_risk_requests_total", ("other", "404")] == 1
    assert found["actor_risk_verdicts_total", ("live", SERVICE, known.verdict, version)] >= 1
    assert found["actor_risk_unknown_actors_total", ("live", SERVICE, version)] == 1
    assert found["actor_risk_features_read_total", ("live", SERVICE, "not_found", version)] == len(FEATURES) - 1
    assert found["actor_risk_event_publish_failures_total", ()] == 0
    assert found["actor_risk_stage_seconds_count", ("live", SERVICE, "total", version)] == 2
    assert found["actor_risk_stage_seconds_bucket", ("0.0003", "live", SERVICE, "parse", version)] == 2
    assert found["actor_risk_stage_seconds_bucket", ("0.0002", "live", SERVICE, "parse", version)] == 0
    assert found["actor_risk_stage_seconds_bucket", ("+Inf", "live", SERVICE, "total", version)] == 2
    total_s = found["actor_risk_stage_seconds_sum", ("live", SERVICE, "total", version)]
    assert total_s == pytest.approx(2 * 8 * 0.00025)


def test_two_servers_in_one_process_count_apart(world: World, empty_world: World) -> None:
    asyncio.run(world.call("GET", "/healthz"))
    assert metrics(world)["actor_risk_requests_total", ("/healthz", "200")] == 1
    assert ("actor_risk_requests_total", ("/healthz", "200")) not in metrics(empty_world)


def test_the_metrics_show_only_the_models_that_are_served(empty_world: World) -> None:
    versions = []
    for seed in (1, 2):
        versions.append(publish_model(empty_world.store, seed=seed))
        asyncio.run(empty_world.service.load(CHAMPION))
        shown = [labels for name, labels in metrics(empty_world) if name == "actor_risk_model_info"]
        assert [labels[-1] for labels in shown] == [versions[-1]]


def test_openmetrics_is_given_to_a_scraper_that_asks_for_it(world: World) -> None:
    accept = {"accept": "application/openmetrics-text;version=1.0.0"}
    answer = asyncio.run(world.call("GET", "/metrics", headers=accept))
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_the_lifespan_closes_what_was_opened_once(world: World) -> None:
    assert asyncio.run(events_of(world, "lifespan", ["lifespan.startup", "lifespan.shutdown"])) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert world.shut_downs == [None]


def test_a_websocket_is_refused(world: World) -> None:
    assert asyncio.run(events_of(world, "websocket", ["websocket.connect"])) == ["websocket.close"]


async def events_of(world: World, kind: str, received: list[str]) -> list[str]:
    sent: list[str] = []
    waiting = iter(received)

    async def receive() -> Any:
        return {"type": next(waiting)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await world.app({"type": kind, "path": "/v1/score", "headers": []}, receive, send)
    return sent
