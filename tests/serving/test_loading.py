"""Which models are served, and what is refused before it can answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from materialize.definitions import JoinKey
from serving.errors import ModelLoadError
from tests.serving.fakes import CHAMPION, FEATURES, KEYS, SERVICE, World, plan, publish_model


def version_served(world: World) -> str:
    body = {"model": SERVICE, "entities": KEYS}
    return asyncio.run(world.score(body)).decision().model.version


def test_a_new_champion_answers_after_a_load(empty_world: World) -> None:
    first = publish_model(empty_world.store, seed=1)
    asyncio.run(empty_world.service.load(CHAMPION))
    assert version_served(empty_world) == first
    second = publish_model(empty_world.store, seed=2)
    assert version_served(empty_world) == first
    asyncio.run(empty_world.service.load(CHAMPION))
    assert version_served(empty_world) == second


def test_a_version_can_be_named_instead_of_an_alias(empty_world: World) -> None:
    first = publish_model(empty_world.store, seed=1)
    publish_model(empty_world.store, seed=2)
    asyncio.run(empty_world.service.load({SERVICE: first}))
    assert version_served(empty_world) == first


def test_a_model_may_read_fewer_features_in_another_order(empty_world: World) -> None:
    refs = [FEATURES[5], FEATURES[0], FEATURES[3]]
    publish_model(empty_world.store, refs=refs)
    empty_world.features.values["203.0.113.9"] = [float(i) for i in range(len(FEATURES))]
    asyncio.run(empty_world.service.load(CHAMPION))
    body = {"model": SERVICE, "entities": KEYS, "explain": "full"}
    features = asyncio.run(empty_world.score(body)).decision().features
    assert features is not None
    assert [(reading.feature, reading.value) for reading in features] == list(zip(refs, [5.0, 0.0, 3.0], strict=True))


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        ({}, "no model to serve"),
        ({SERVICE: "unheard"}, "has no alias 'unheard'"),
        ({"unheard": "champion"}, "'unheard'"),
        ({"../../etc": "champion"}, "is no name of a model"),
    ],
)
def test_what_cannot_be_loaded_is_refused_and_the_old_models_stay(
    world: World, aliases: dict[str, str], told: str
) -> None:
    before = version_served(world)
    with pytest.raises(ModelLoadError, match=told):
        asyncio.run(world.service.load(aliases))
    assert version_served(world) == before
    notes = asyncio.run(world.call("GET", "/readyz")).json()["notes"]
    assert "the last load was refused" in notes[0]


def test_a_load_that_works_clears_the_note_of_one_that_did_not(world: World) -> None:
    with pytest.raises(ModelLoadError):
        asyncio.run(world.service.load({}))
    asyncio.run(world.service.load(CHAMPION))
    assert asyncio.run(world.call("GET", "/readyz")).json()["notes"] == ["a note"]


def test_a_model_trained_on_another_definition_is_refused(world: World) -> None:
    world.features.plan_now = plan(fingerprint="f2")
    with pytest.raises(ModelLoadError, match=r"trained on feature service 'ad_click_risk' f1.*registry has f2"):
        asyncio.run(world.service.load(CHAMPION))


def test_a_model_that_reads_a_feature_that_the_service_lacks_is_refused(world: World) -> None:
    world.features.plan_now = plan(features=FEATURES[1:])
    with pytest.raises(ModelLoadError, match=f"reads {FEATURES[0]}, which"):
        asyncio.run(world.service.load(CHAMPION))


def test_an_entity_that_json_cannot_give_is_refused(world: World) -> None:
    world.features.plan_now = plan(join_keys=[JoinKey("ip", "BYTES")])
    with pytest.raises(ModelLoadError, match="type bytes"):
        asyncio.run(world.service.load(CHAMPION))


def test_a_damaged_bundle_is_refused(empty_world: World, tmp_path: Path) -> None:
    version = publish_model(empty_world.store)
    graph = tmp_path / SERVICE / version / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelLoadError, match="changed after publishing"):
        asyncio.run(empty_world.service.load(CHAMPION))


def test_integer_join_keys_are_read_as_integers(world: World) -> None:
    world.features.plan_now = plan(join_keys=[JoinKey("ip", "STRING"), JoinKey("campaign", "INT64")])
    asyncio.run(world.service.load(CHAMPION))
    good = asyncio.run(world.score({"model": SERVICE, "entities": {"ip": "1", "campaign": 7}}))
    bad = [{"campaign": value, "ip": "1"} for value in ("7", 2**63, 1.5, True, None)]
    answers = [asyncio.run(world.score({"model": SERVICE, "entities": entities})) for entities in bad]
    assert good.decision().actor == {"ip": "1", "campaign": 7}
    assert [(answer.status, answer.json()["field"]) for answer in answers] == [(422, "entities.campaign")] * 5


def test_a_changed_registry_is_read_by_without_loading_models_again(world: World) -> None:
    before = version_served(world)
    world.features.plan_now = replace(plan(), descriptions=tuple("Said anew" for _ in FEATURES))
    assert asyncio.run(world.service.follow_registry())
    assert version_served(world) == before
    body = {"model": SERVICE, "entities": KEYS, "explain": "top"}
    asyncio.run(world.score(body))
    assert asyncio.run(world.service.readiness()).notes == []


def test_a_model_that_no_longer_fits_goes_on_as_it_was_loaded_and_says_so(world: World) -> None:
    before, plan_before = version_served(world), world.features.plan_now
    world.features.plan_now = plan("another fingerprint")
    assert asyncio.run(world.service.follow_registry())
    world.features.plan_now, refused = plan_before, asyncio.run(world.service.readiness())
    assert refused.ready
    assert "last definitions stay" in refused.notes[0]
    assert version_served(world) == before
    assert asyncio.run(world.service.follow_registry())
    assert asyncio.run(world.service.readiness()).notes == []
