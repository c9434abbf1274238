"""Both clients against the real application, and against a server that refuses, hangs up or keeps silent."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from actor_risk.client import (
    AsyncClient,
    Client,
    ConnectionFailedError,
    DeadlineError,
    Decision,
    Problem,
    ProblemError,
    UnexpectedAnswerError,
    question,
)
from materialize.events import AdEvent
from models import ModelStore
from serving.event_results import EventsProblem
from serving.examples import example_decision, example_events_answer, example_unconfirmed
from tests.client.scripted import HANG_UP, SILENCE, Awaited, Called, answer, scripted
from tests.serving.fakes import IP_FEATURES, KEYS, SERVICE, World, click, loaded_world, publish_model
from tests.support.listening import listening, posted

Made = Callable[..., Any]
DECISION = answer(200, msgspec.json.encode(example_decision()))


def problem(status: int, word: str = "too-many-requests", **headers: str) -> bytes:
    told = Problem(type=f"/docs#problem-{word}", title="No", status=status, detail="not now", field="entities.ip")
    return answer(status, msgspec.json.encode(told), **headers)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("models")
    publish_model(ModelStore(root))
    return loaded_world(root)


@pytest.fixture(scope="module")
def url(served: World) -> Iterator[str]:
    with listening(served.app) as found:
        yield found


@pytest.fixture(params=[Called, Awaited])
def make(request: pytest.FixtureRequest) -> Iterator[Made]:
    """Makes clients of one kind, and closes them."""
    made = []

    def make(url: str, **options: Any) -> Any:
        made.append(request.param(url, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make: Made, url: str) -> Any:
    return make(url)


def test_a_decision_comes_as_the_server_made_it(client: Any, url: str) -> None:
    found = client.score(SERVICE, KEYS, explain="full", trace_id="mine")
    assert isinstance(found, Decision)
    assert (found.trace_id, found.actor, found.model.name) == ("mine", KEYS, SERVICE)
    raw = posted(f"{url}/v1/score", {"model": SERVICE, "entities": KEYS, "explain": "full"})
    alone = msgspec.json.decode(raw, type=Decision)
    assert (found.score, found.reasons, found.features) == (alone.score, alone.reasons, alone.features)


def test_an_event_may_be_a_mapping_or_a_struct(client: Any, served: World) -> None:
    for event in (click(event_id="one"), msgspec.convert(click(event_id="two"), AdEvent)):
        found = client.score(SERVICE, event=event, request={"attempts": 3}, event_topic="ad_events")
        assert found.actor == {"ip": "203.0.113.9", "device_id": "dev-1"}
        assert served.features.reads[-1].request["attempts"] == 3
    assert len(served.publisher.published) >= 2


def test_an_explanation_has_every_feature_and_publishes_nothing(client: Any, served: World) -> None:
    published = len(served.publisher.published)
    assert len(client.explain(SERVICE, event=click()).features) == 8
    assert len(served.publisher.published) == published


def test_a_batch_has_an_answer_in_each_place(client: Any) -> None:
    asked = [question(KEYS), question({"ip": "nobody"}), question(event=click(), trace_id="t")]
    found = client.score_batch(SERVICE, asked, explain="none")
    assert [type(one) for one in found] == [Decision, Problem, Decision]
    assert found[1].field == "entities.device_id"
    assert found[2].trace_id == "t"


def test_a_stream_has_the_same_for_any_number(client: Any) -> None:
    asked = (question({**KEYS, "ip": f"ip-{n}"}) for n in range(1_203))
    found = client.score_stream(SERVICE, asked, explain="none")
    assert [one.actor["ip"] for one in found] == [f"ip-{n}" for n in range(1_203)]
    assert client.score_stream(SERVICE, []) == []


def test_a_stream_may_be_left_in_the_middle(url: str) -> None:
    asked = [question({**KEYS, "ip": f"ip-{n}"}) for n in range(200)]
    with Client(url) as called:
        stream = called.score_stream(SERVICE, asked)
        assert next(stream)
        stream.close()
        assert called.score(SERVICE, KEYS)

    async def leave() -> None:
        async with AsyncClient(url) as awaited:
            async for _ in awaited.score_stream(SERVICE, asked):
                break
            assert await awaited.score(SERVICE, KEYS)

    asyncio.run(leave())


def test_the_rest_of_the_api(client: Any) -> None:
    assert [card.name for card in client.models()] == [SERVICE]
    assert client.ready().ready
    stored = client.features("ip", "203.0.113.9", features=IP_FEATURES[:1])
    assert [feature.value for feature in stored.features] == [40.0]
    assert len(client.features("ip", "a/b ?&", service=SERVICE).features) == len(IP_FEATURES)
    answer = client.publish_events([click(event_id=uuid4().hex), click(event_id=...)], "ad_events")
    assert [result.status for result in answer.results] == ["accepted", "rejected"]


def test_a_refusal_is_an_error_with_the_problems_fields(client: Any) -> None:
    with pytest.raises(ProblemError, match="no model 'unheard' is served here") as refused:
        client.score("unheard", KEYS)
    assert (refused.value.status, refused.value.kind, refused.value.field) == (404, "unknown-model", "model")
    with pytest.raises(ProblemError) as refused:
        client.decision("019a1f3e/x")
    assert refused.value.kind == "unknown-decision"
    with pytest.raises(ProblemError) as refused:
        client.features("seller", 7)
    assert refused.value.kind == "unknown-entity"
    with pytest.raises(ProblemError) as refused:
        client.score_stream("unheard", [question(KEYS)])
    assert refused.value.kind == "unknown-model"


def test_a_server_that_is_not_ready_is_no_error(make: Made) -> None:
    body = b'{"ready": false, "reasons": ["no model is loaded"], "notes": []}'
    with scripted(answer(503, body, retry_after="0")) as server:
        assert make(server.url).ready().reasons == ["no model is loaded"]


def test_a_key_goes_with_every_request_and_the_server_is_told_the_deadline(make: Made) -> None:
    with scripted(DECISION) as server:
        client = make(f"{server.url}/prefix/", api_key="ark_secret", timeout_s=5)
        client.score(SERVICE, KEYS)
        client.score(SERVICE, KEYS, idempotency_key="mine", timeout_s=0.5)
        client.decision("1")
    first, second, third = server.asked
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer ark_secret"}
    assert [asked.path for asked in server.asked] == ["/prefix/v1/score"] * 2 + ["/prefix/v1/decisions/1"]
    assert 4 < float(first.headers["x-request-timeout-seconds"]) <= 5
    assert 0 < float(second.headers["x-request-timeout-seconds"]) <= 0.5
    assert "x-request-timeout-seconds" not in third.headers
    assert len(first.headers["idempotency-key"]) == 32
    assert second.headers["idempotency-key"] == "mine"


def test_connections_are_kept(make: Made) -> None:
    with scripted(DECISION) as server:
        client = make(server.url)
        for _ in range(5):
            client.score(SERVICE, KEYS)
    assert {asked.connection for asked in server.asked} == {1}


@pytest.mark.parametrize("status", [409, 429, 503])
def test_who_is_told_when_to_come_back_does_so_with_the_same_request(make: Made, status: int) -> None:
    with scripted(problem(status, retry_after="0"), problem(status, retry_after="0"), DECISION) as server:
        assert make(server.url).score(SERVICE, KEYS).decision_id == example_decision().decision_id
    assert len(server.asked) == 3
    assert len({(asked.body, asked.headers["idempotency-key"]) for asked in server.asked}) == 1


def test_after_so_many_retries_the_refusal_is_the_answer(make: Made) -> None:
    with scripted(problem(429, retry_after="0")) as server:
        with pytest.raises(ProblemError) as refused:
            make(server.url).score(SERVICE, KEYS)
        assert refused.value.retry_after_s == 0
        assert len(server.asked) == 3
        with pytest.raises(ProblemError):
            make(server.url, retries=0).score(SERVICE, KEYS)
        assert len(server.asked) == 4
        assert "idempotency-key" not in server.asked[-1].headers


def test_an_answer_that_would_come_too_late_is_not_waited_for(make: Made) -> None:
    with scripted(problem(503, retry_after="5")) as server:
        began = time.monotonic()
        with pytest.raises(ProblemError):
            make(server.url).score(SERVICE, KEYS, timeout_s=1)
        assert time.monotonic() - began < 0.9
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
def test_other_refusals_are_final(make: Made, status: int) -> None:
    with scripted(problem(status)) as server, pytest.raises(ProblemError):
        make(server.url).score(SERVICE, KEYS)
    assert len(server.asked) == 1


def test_a_broken_connection_is_tried_again_where_asking_twice_does_no_harm(make: Made) -> None:
    with scripted(HANG_UP, DECISION) as server:
        assert make(server.url).score(SERVICE, KEYS)
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1
    with scripted(HANG_UP, DECISION) as server:
        assert make(server.url).decision("1")
    unconfirmed = answer(200, msgspec.json.encode(example_events_answer()))
    with scripted(HANG_UP, unconfirmed) as server:
        assert make(server.url).publish_events([click()]).accepted == 2
    for ask in (
        lambda client: client.score_batch(SERVICE, [question(KEYS)]),
        lambda client: client.score_stream(SERVICE, [question(KEYS)]),
    ):
        with scripted(HANG_UP, DECISION) as server, pytest.raises(ConnectionFailedError):
            ask(make(server.url))
        assert len(server.asked) == 1
    with scripted(HANG_UP, DECISION) as server, pytest.raises(ConnectionFailedError):
        make(server.url, retries=0).score(SERVICE, KEYS)


def test_a_connection_that_the_server_has_closed_meanwhile_costs_nothing(make: Made) -> None:
    with scripted(answer(200, msgspec.json.encode(example_decision()), connection="close"), DECISION) as server:
        client = make(server.url, retries=0)
        client.score(SERVICE, KEYS)
        client.score(SERVICE, KEYS)
    assert [asked.connection for asked in server.asked] == [1, 2]


def test_nobody_there_is_told_as_such(make: Made) -> None:
    with scripted(DECISION) as server:
        gone = server.url
    with pytest.raises(ConnectionFailedError, match="no answer"):
        make(gone).score(SERVICE, KEYS)


def test_silence_ends_with_the_deadline(make: Made) -> None:
    with scripted(SILENCE) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineError, match=r"within 0\.2 s"):
            make(server.url).score(SERVICE, KEYS, timeout_s=0.2)
        assert 0.15 < time.monotonic() - began < 2
        assert len(server.asked) == 1


def test_half_an_answer_is_an_error(make: Made) -> None:
    with scripted(answer(200, DECISION)[:-100]) as server, pytest.raises((ConnectionFailedError, DeadlineError)):
        make(server.url, timeout_s=0.3).score(SERVICE, KEYS)
    line = msgspec.json.encode(example_decision()) + b"\n"
    with scripted(answer(200, line)) as server:
        client = make(server.url)
        with pytest.raises(ConnectionFailedError, match="ended before"):
            client.score_stream(SERVICE, [question(KEYS)] * 2)


@pytest.mark.parametrize("said", [answer(502, b"<html>Bad Gateway</html>"), answer(200, b"hello"), answer(200, b"[]")])
def test_an_answer_of_somebody_else_is_told_as_such(make: Made, said: bytes) -> None:
    with scripted(said) as server, pytest.raises(UnexpectedAnswerError):
        make(server.url).score(SERVICE, KEYS)


def test_events_that_were_not_acknowledged_are_named(make: Made) -> None:
    told = EventsProblem(
        type="/docs#problem-events-unconfirmed", title="No", status=503, detail="", results=example_unconfirmed()
    )
    with scripted(answer(503, msgspec.json.encode(told))) as server, pytest.raises(ProblemError) as refused:
        make(server.url).publish_events([click(), click()])
    assert [result.status for result in refused.value.results] == ["accepted", "unconfirmed"]


@pytest.mark.parametrize("odd", ["ftp://host", "host:8000", "http://", ""])
def test_a_url_of_nobody_is_refused(odd: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="no URL of a server"):
            kind(odd)


def test_threads_may_share_a_client(url: str) -> None:
    with Client(url) as client, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: client.score(SERVICE, {**KEYS, "ip": f"ip-{n}"}, explain="none"), range(80)))
    assert [one.actor["ip"] for one in found] == [f"ip-{n}" for n in range(80)]


def test_tasks_may_share_a_client(url: str) -> None:
    async def ask() -> list[Decision]:
        async with AsyncClient(url) as client:
            return await asyncio.gather(*(client.score(SERVICE, {**KEYS, "ip": f"ip-{n}"}) for n in range(80)))

    assert [one.actor["ip"] for one in asyncio.run(ask())] == [f"ip-{n}" for n in range(80)]


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in found if not name.startswith("_")}

    called, awaited = methods(Client), methods(AsyncClient)
    awaited["close"] = awaited.pop("aclose")
    assert called == awaited
