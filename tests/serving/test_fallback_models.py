"""The model that answers where a policy falls back: from the request alone, loaded and proven as all others are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from materialize.definitions import JoinKey, RequestField
from materialize.online import OnlineStoreUnavailableError, ReadPlan
from serving.clock import NS_PER_MS
from serving.decision import Decision
from serving.errors import ModelLoadError
from serving.policy import Canary, Policy
from tests.serving.doors import Times
from tests.serving.fakes import (
    KEYS,
    ON_DEMAND,
    SERVICE,
    Answer,
    MemoryLog,
    World,
    build_world,
    click,
    plan,
    publish_model,
)
from tests.serving.test_http import metrics

BODY = {"model": SERVICE, "entities": KEYS}
CHEAP = "from_the_request"
AWAY = OnlineStoreUnavailableError("away")
DEADLINE = "x-request-timeout-seconds"
FALLS_BACK: dict[str, Any] = {"store_away": "fallback", "late": "fallback", "fallback_model": "cheap"}


@dataclass
class Place:
    """A server whose store has a champion, a challenger and a cheap model, which reads what comes with the request."""

    world: World
    log: MemoryLog
    versions: dict[str, str]
    times: Times

    def play(self, **policy: Any) -> None:
        asyncio.run(self.world.service.load({SERVICE: Policy(**{"champion": "champion", **policy})}))

    def ask(self, body: Any = BODY, **headers: str) -> Answer:
        return asyncio.run(self.world.score(body, headers))

    def decision(self, body: Any = BODY, **headers: str) -> Decision:
        return self.ask(body, **headers).decision()

    def cheap_score(self, value: float) -> float:
        """What the cheap model gives for what the request says."""
        model = self.world.store.load(SERVICE, "cheap")
        return float(model.score(model.vector(np.array([[value]]))).score[0])

    def cards(self) -> list[tuple[str, str, float]]:
        found = asyncio.run(self.world.call("GET", "/v1/models")).json()["models"]
        return [(card["version"], card["mode"], card["share"]) for card in found]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    log, times = MemoryLog(), Times()
    world = build_world(tmp_path, log, times.clock())
    versions = {
        alias: publish_model(world.store, seed=n, alias=alias) for n, alias in enumerate(("challenger", "champion"))
    }
    versions["cheap"] = publish_model(world.store, refs=[ON_DEMAND], seed=5, alias="cheap", reads=CHEAP)
    world.features.others[CHEAP] = cheap_plan()
    world.features.values[KEYS["ip"]] = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]
    return Place(world, log, versions, times)


def cheap_plan(*join_keys: JoinKey, kind: str = "DOUBLE") -> ReadPlan:
    fields = [RequestField("ms_since_impression", kind), RequestField("os", "INT64")]
    return plan(features=[ON_DEMAND], join_keys=join_keys, service=CHEAP, request_fields=fields)


def test_without_the_store_the_fallback_model_answers_from_the_request(place: Place) -> None:
    place.play(**FALLS_BACK, fallback_score=0.3, shadows=["challenger"])
    assert place.decision().model.version == place.versions["champion"]
    place.world.features.failure = AWAY
    place.log.entries.clear()
    answer = place.decision({"model": SERVICE, "event": click(ms_since_impression=7)})
    assert (answer.model.version, answer.service.name) == (place.versions["cheap"], CHEAP)
    assert answer.degraded == ["explanation_skipped", "fallback_model"]
    assert (answer.mode, answer.actor, answer.actor_known) == ("live", KEYS, False)
    assert (answer.score, answer.feature_statuses.present) == (place.cheap_score(7.0), 1)
    assert place.decision(BODY | {"explain": "none"}).degraded == ["fallback_model"]
    first = place.log.entries[0]
    assert (first.decision.decision_id, first.decision.model, first.values) == (answer.decision_id, answer.model, [7.0])
    assert first.request == {"ms_since_impression": 7.0, "os": None}


def test_a_request_says_to_the_fallback_model_what_it_says_to_the_champion(place: Place) -> None:
    place.play(**FALLS_BACK)
    place.world.features.failure = AWAY
    answers = [place.decision(BODY | {"request": {"ms_since_impression": value}}) for value in (3, 44)]
    assert [answer.score for answer in answers] == [place.cheap_score(3.0), place.cheap_score(44.0)]


def test_what_an_event_carries_in_another_type_is_null_to_the_fallback_model(place: Place) -> None:
    """The champion does not read that field, so nothing is wrong with the request."""
    place.play(**FALLS_BACK)
    place.world.features.failure = AWAY
    answer = place.ask({"model": SERVICE, "event": click(os="android")})
    assert answer.status == 200
    assert place.log.entries[-1].request["os"] is None


def test_the_fallback_model_answers_batches_and_canaries_as_well(place: Place) -> None:
    place.play(**FALLS_BACK, canary=Canary("challenger", 1.0))
    place.world.features.failure = AWAY
    body = {"model": SERVICE, "requests": [{"entities": KEYS}] * 3}
    answers = asyncio.run(place.world.post("/v1/score:batch", body)).json()["decisions"]
    assert [(answer["mode"], answer["model"]["version"]) for answer in answers] == [
        ("canary", place.versions["cheap"])
    ] * 3


def test_answers_of_the_fallback_model_are_counted_as_its_own(place: Place) -> None:
    place.play(**FALLS_BACK)
    place.world.features.failure = AWAY
    for _ in range(3):
        place.decision()
    found, cheap = metrics(place.world), place.versions["cheap"]
    assert found["actor_risk_degraded_total", ("live", SERVICE, "fallback_model", cheap)] == 3
    assert found["actor_risk_score_count", ("live", SERVICE, cheap)] == 0
    assert sum(n for (name, labels), n in found.items() if name == "actor_risk_verdicts_total" and cheap in labels) == 3


def test_the_card_of_a_fallback_model_says_what_it_is(place: Place) -> None:
    place.play(**FALLS_BACK, canary=Canary("challenger", 0.25))
    champion, challenger, cheap = (place.versions[alias] for alias in ("champion", "challenger", "cheap"))
    assert place.cards() == [(champion, "live", 0.75), (challenger, "canary", 0.25), (cheap, "fallback", 0.0)]


def test_while_the_model_is_off_no_model_answers(place: Place) -> None:
    place.play(**FALLS_BACK, is_on=False)
    assert place.ask().json()["type"] == "/docs#problem-model-off"
    place.play(**FALLS_BACK, is_on=False, fallback_score=0.9)
    assert (place.decision().score, place.decision().degraded[-1]) == (0.9, "fallback_score")


def slow_store(times: Times, until_ms: float) -> Callable[[], Any]:
    """It does not answer, and meanwhile the stopwatch goes on to there."""

    async def answering() -> None:
        times.monotonic_ns = max(times.monotonic_ns, int(until_ms * NS_PER_MS))
        await asyncio.sleep(5)

    return answering


@pytest.mark.parametrize(
    ("policy", "champion_ms", "cheap_ms", "last"),
    [
        ({"fallback_model": "cheap", "fallback_score": 0.3}, 1.0, 0.1, "features_defaulted"),
        ({"fallback_model": "cheap", "fallback_score": 0.3}, 5.0, 0.1, "fallback_model"),
        ({"fallback_model": "cheap", "fallback_score": 0.3}, 5.0, 3.0, "fallback_score"),
        ({"fallback_model": "cheap"}, 5.0, 3.0, "fallback_model"),
        ({"fallback_score": 0.3}, 5.0, 3.0, "fallback_score"),
        ({}, 5.0, 3.0, "features_defaulted"),
        ({"fallback_model": "cheap", "late": "fallback"}, 1.0, 0.1, "fallback_model"),
    ],
)
def test_a_deadline_is_kept_by_going_down_the_order_as_far_as_there_is_no_time(
    place: Place, policy: dict[str, Any], champion_ms: float, cheap_ms: float, last: str
) -> None:
    """The store leaves 2 ms; how long models take without it is known from the warm-up."""
    features, times = place.world.features, place.times
    took = {SERVICE: champion_ms, CHEAP: cheap_ms}

    def takes(plan: ReadPlan) -> None:
        times.monotonic_ns += int(took[plan.service] * NS_PER_MS)

    features.unreading = takes
    place.play(**policy)
    asyncio.run(place.world.service.warm_up())
    features.answering = slow_store(times, times.monotonic_ns / NS_PER_MS + 98)
    answer = place.decision(**{DEADLINE: "0.1"})
    assert answer.degraded == ["explanation_skipped", last]
    expected = place.versions["cheap" if last == "fallback_model" else "champion"]
    assert answer.model.version == expected


def test_a_fallback_model_that_is_broken_replaces_no_good_one(place: Place, tmp_path: Path) -> None:
    place.play(**FALLS_BACK)
    before = place.cards()
    broken = publish_model(place.world.store, refs=[ON_DEMAND], seed=9, alias="broken", reads=CHEAP)
    golden = tmp_path / SERVICE / broken / "golden.parquet"
    golden.write_bytes(golden.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match="broken"):
        place.play(**{**FALLS_BACK, "fallback_model": "broken"})
    assert place.cards() == before
    place.world.features.failure = AWAY
    assert place.decision().model.version == place.versions["cheap"]


@pytest.mark.parametrize(
    ("needed", "told"),
    [
        (cheap_plan(JoinKey("campaign", "STRING")), r"needs campaign \(STRING\)"),
        (cheap_plan(JoinKey("ip", "INT64")), r"needs ip \(INT64\)"),
        (cheap_plan(kind="STRING"), r"needs ms_since_impression \(STRING\)"),
    ],
)
def test_a_fallback_model_that_needs_more_than_requests_say_is_refused(
    place: Place, needed: ReadPlan, told: str
) -> None:
    place.world.features.others[CHEAP] = needed
    with pytest.raises(ModelLoadError, match=told):
        place.play(**FALLS_BACK)
    assert place.cards() == []


def test_a_fallback_model_may_know_some_of_the_keys(place: Place) -> None:
    place.world.features.others[CHEAP] = cheap_plan(JoinKey("ip", "STRING"))
    place.play(**FALLS_BACK)
    place.world.features.failure = AWAY
    assert place.decision().actor == KEYS


def test_what_is_served_goes_on_by_a_changed_registry(place: Place) -> None:
    place.play(**FALLS_BACK)
    assert asyncio.run(place.world.service.follow_registry())
    place.world.features.failure = AWAY
    assert place.decision().model.version == place.versions["cheap"]
