"""What answers under a name: champion, canary, shadows, thresholds, and the kill switch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from materialize.definitions import JoinKey, RequestField
from serving.app import parse_user_config
from serving.decision import Decision, Thresholds
from serving.errors import ModelLoadError
from serving.policy import Canary, Policy, is_canary
from tests.serving.fakes import (
    CHAMPION,
    KEYS,
    SERVICE,
    MemoryLog,
    World,
    build_world,
    click,
    plan,
    publish_model,
)

BODY = {"model": SERVICE, "entities": KEYS}


@dataclass
class Stage:
    """A server whose store has a champion, a challenger and a shadow, and its decision log."""

    world: World
    log: MemoryLog
    versions: dict[str, str]

    def play(self, **policy: Any) -> None:
        """Serve by this policy."""
        asyncio.run(self.world.service.load({SERVICE: Policy(**{"champion": "champion", **policy})}))

    def score(self, ip: str = KEYS["ip"], **more: Any) -> Decision:
        return asyncio.run(self.world.score(body_of(ip, **more))).decision()

    def score_and_settle(self, *ips: str) -> list[Decision]:
        """The answers, after the shadows have done what they do."""

        async def run() -> list[Decision]:
            answers = [(await self.world.score(body_of(ip))).decision() for ip in ips]
            await settled()
            return answers

        return asyncio.run(run())

    def notes(self) -> list[str]:
        notes: list[str] = asyncio.run(self.world.call("GET", "/readyz")).json()["notes"]
        return notes


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    log = MemoryLog()
    world = build_world(tmp_path, log)
    versions = {
        alias: publish_model(world.store, seed=seed, alias=alias)
        for seed, alias in enumerate(("champion", "challenger", "shadow"), 1)
    }
    world.features.values[KEYS["ip"]] = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]
    return Stage(world, log, versions)


def body_of(ip: str, **more: Any) -> dict[str, Any]:
    return {**BODY, "entities": {**KEYS, "ip": ip}, **more}


async def settled() -> None:
    """What is under way has ended, but for what waits for something outside."""
    for _ in range(50):
        await asyncio.sleep(0)


def ips(count: int) -> list[str]:
    return [f"198.51.100.{n}" for n in range(count)]


def test_a_canary_answers_its_share_of_the_actors_and_says_so(stage: Stage) -> None:
    stage.play(canary=Canary("challenger", 0.3))
    answers = [stage.score(ip) for ip in ips(200)]
    assert {(answer.mode, answer.model.version) for answer in answers} == {
        ("live", stage.versions["champion"]),
        ("canary", stage.versions["challenger"]),
    }
    assert 30 <= sum(answer.mode == "canary" for answer in answers) <= 90
    logged = {entry.decision.decision_id: entry.decision.mode for entry in stage.log.entries}
    assert logged == {answer.decision_id: answer.mode for answer in answers}


def test_an_actor_stays_with_the_canary_while_its_share_grows(stage: Stage) -> None:
    chosen: set[str] = set()
    for share in (0.0, 0.1, 0.4, 1.0):
        stage.play(canary=Canary("challenger", share))
        now = {ip for ip in ips(60) if stage.score(ip).mode == "canary"}
        assert now == {ip for ip in ips(60) if stage.score(ip).mode == "canary"}
        assert chosen <= now
        chosen = now
    assert chosen == set(ips(60))


def test_shares_are_kept_over_many_actors_whatever_the_order_of_their_keys() -> None:
    actors = [{"ip": f"10.0.{n // 256}.{n % 256}", "device_id": f"d{n}"} for n in range(20_000)]
    chosen = [is_canary(0.05, SERVICE, actor) for actor in actors]
    assert 800 < sum(chosen) < 1_200
    assert chosen == [is_canary(0.05, SERVICE, dict(reversed(actor.items()))) for actor in actors]
    assert chosen != [is_canary(0.05, "advertiser_risk", actor) for actor in actors]


def test_shadows_are_logged_beside_the_answer_and_change_nothing_of_it(stage: Stage) -> None:
    stage.play()
    alone = stage.score()
    stage.play(shadows=["shadow", "challenger"])
    (answer,) = stage.score_and_settle(KEYS["ip"])
    assert (answer.mode, answer.score, answer.model) == ("live", alone.score, alone.model)
    shadows = stage.log.decisions("shadow")
    assert [shadow.model.version for shadow in shadows] == [stage.versions["shadow"], stage.versions["challenger"]]
    assert {shadow.trace_id for shadow in shadows} == {answer.trace_id}
    assert answer.score not in {shadow.score for shadow in shadows}
    assert len({entry.decision.decision_id for entry in stage.log.entries}) == 4


def test_an_event_is_published_once_however_many_models_score_it(stage: Stage) -> None:
    stage.play(canary=Canary("challenger", 1.0), shadows=["shadow"])

    async def run() -> None:
        await stage.world.score({"model": SERVICE, "event": click()})
        await settled()

    asyncio.run(run())
    assert len(stage.log.entries) == 2
    assert len(stage.world.publisher.published) == 1


def test_a_shadow_that_hangs_or_fails_is_nobodys_affair(stage: Stage) -> None:
    stage.play(shadows=["shadow"])
    held: list[int] = []

    async def run() -> list[Decision]:
        gate = asyncio.Event()

        async def shadows_hang() -> None:
            held.append(1)
            if len(held) % 2 == 0:  # a shadow reads after its answer
                await gate.wait()
                raise ZeroDivisionError

        stage.world.features.answering = shadows_hang
        first = (await stage.world.score(BODY)).decision()
        await settled()
        assert len(held) == 2
        stage.world.features.answering = None
        second = (await stage.world.score(BODY)).decision()
        gate.set()
        await settled()
        return [first, second]

    answers = asyncio.run(run())
    assert [answer.degraded for answer in answers] == [[], []]
    assert [entry.decision.mode for entry in stage.log.entries].count("live") == 2


def test_thresholds_of_the_policy_stand_instead_of_the_models(stage: Stage) -> None:
    stage.play()
    score = stage.score().score
    for review, block, verdict in ((0.0, 0.0, "block"), (0.0, 1.5, "review"), (1.5, 1.5, "allow")):
        stage.play(thresholds=Thresholds(review, block))
        answer = stage.score()
        assert (answer.verdict, answer.thresholds, answer.score) == (verdict, Thresholds(review, block), score)
    cards = asyncio.run(stage.world.call("GET", "/v1/models")).json()["models"]
    assert [card["thresholds"] for card in cards] == [{"review": 1.5, "block": 1.5}]


def test_a_model_that_is_switched_off_says_so_and_when_to_come_back(stage: Stage) -> None:
    stage.play(is_on=False)
    answer = asyncio.run(stage.world.score(BODY))
    assert (answer.status, answer.json()["type"]) == (503, "/docs#problem-model-off")
    assert answer.headers["retry-after"] == "1"
    assert stage.world.features.reads == []
    assert f"{SERVICE} is switched off" in stage.notes()
    stage.play()
    assert stage.score().mode == "live"


def test_a_model_that_is_switched_off_answers_the_fallback_score_if_there_is_one(stage: Stage) -> None:
    stage.play(is_on=False, fallback_score=0.9, thresholds=Thresholds(0.4, 0.8), shadows=["shadow"])
    answer = stage.score()
    assert (answer.score, answer.margin, answer.verdict, answer.reasons) == (0.9, 0.9, "block", [])
    assert answer.degraded == ["explanation_skipped", "fallback_score"]
    assert stage.score(explain="none").degraded == ["fallback_score"]
    assert not answer.actor_known
    assert stage.world.features.reads == []
    assert len(stage.log.decisions("live")) == 2


@pytest.mark.parametrize("policy", [{"canary": Canary("broken", 0.1)}, {"shadows": ["broken"]}])
def test_a_broken_canary_or_shadow_refuses_the_whole_load_and_the_old_ones_stay(
    stage: Stage, tmp_path: Path, policy: dict[str, Any]
) -> None:
    stage.play(shadows=["shadow"])
    before = asyncio.run(stage.world.call("GET", "/v1/models")).body
    version = publish_model(stage.world.store, seed=9, alias="broken")
    golden = tmp_path / SERVICE / version / "golden.parquet"
    golden.write_bytes(golden.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match="broken"):
        stage.play(**policy)
    assert asyncio.run(stage.world.call("GET", "/v1/models")).body == before
    assert stage.score().model.version == stage.versions["champion"]
    assert stage.notes()[0].startswith("the last load was refused: ad_click_risk@broken")


def test_a_canary_that_asks_for_other_keys_is_refused(stage: Stage) -> None:
    """Its share of the actors would be refused, though the champion could answer about them."""
    features = stage.world.features
    publish_model(stage.world.store, seed=9, alias="canary", reads="another_service")
    features.others["another_service"] = plan(join_keys=[JoinKey("creator_id", "STRING")])
    with pytest.raises(ModelLoadError, match="creator_id"):
        stage.play(canary=Canary("canary", 0.1))
    stage.play(shadows=["canary"])
    assert stage.score_and_settle(KEYS["ip"])[0].mode == "live"
    assert stage.log.decisions("shadow") == []


def test_a_canary_may_read_another_service_of_the_same_keys(stage: Stage) -> None:
    features = stage.world.features
    publish_model(stage.world.store, seed=9, alias="canary", reads="another_service")
    another = plan(service="another_service", request_fields=[RequestField("other", "DOUBLE")])
    features.others["another_service"] = another
    stage.play(canary=Canary("canary", 1.0))
    answer = stage.score()
    assert (answer.mode, answer.service.name) == ("canary", "another_service")
    assert features.reads[-1].request == {"other": None}


def test_of_two_loads_at_once_the_later_one_counts(stage: Stage) -> None:
    """However long each takes."""

    async def run() -> str:
        service = stage.world.service
        slow = {SERVICE: Policy(champion="challenger", shadows=["shadow", "champion"])}
        first = asyncio.create_task(service.load(slow))
        await asyncio.sleep(0)
        second = asyncio.create_task(service.load(CHAMPION))
        await asyncio.gather(first, second)
        return (await stage.world.score(BODY)).decision().model.version

    assert asyncio.run(run()) == stage.versions["champion"]


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"champion": ""}, "length >= 1"),
        ({"champion": "c", "canary": {"model": "d", "share": 1.5}}, "<= 1"),
        ({"champion": "c", "canary": {"model": "d"}}, "missing required field `share`"),
        ({"champion": "c", "shadow": ["d"]}, "unknown field `shadow`"),
        ({"champion": "c", "thresholds": {"review": 0.9, "block": 0.1}}, "review must not be above block"),
        ({"champion": "c", "store_away": "fallback"}, "must say fallback_score or fallback_model"),
        ({"champion": "c", "late": "fallback"}, "must say fallback_score or fallback_model"),
        ({"champion": "c", "fallback_model": ""}, "length >= 1"),
        ({"champion": "c", "late": "never"}, "Invalid enum value 'never'"),
        ({"champion": "c", "fallback_score": float("nan")}, "fallback_score"),
        ({}, "champion"),
    ],
)
def test_a_policy_that_means_nothing_is_refused_with_the_reason(policy: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelLoadError, match=told):
        parse_user_config({"models": {SERVICE: policy}})


def test_a_policy_in_the_config_file_is_read_as_it_is_documented() -> None:
    said = {
        "champion": "champion",
        "canary": {"model": "challenger", "share": 0.05},
        "shadows": ["shadow"],
        "thresholds": {"review": 0.4, "block": 0.8},
        "store_away": "default",
        "late": "default",
        "fallback_model": "request_only",
        "fallback_score": 0.02,
        "is_on": True,
    }
    policy = parse_user_config({"models": {SERVICE: said}}).models[SERVICE]
    assert isinstance(policy, Policy)
    assert msgspec.to_builtins(policy) == said
    assert policy.names == ["champion", "challenger", "shadow", "request_only"]
