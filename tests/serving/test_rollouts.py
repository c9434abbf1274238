"""Servers answer by the rollouts of the model store: within a moment, and after every restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from materialize.online import OnlineStoreUnavailableError
from models import BundleCorruptError, ModelStore, StoreUnavailableError
from models.bundle import Bundle
from models.rollouts import Rollout, Rollouts
from serving.app import apply_user_config
from serving.errors import ModelLoadError
from serving.policy import Policy
from serving.rollouts import BACK_MAX, RETRY_MS
from tests.serving.doors import Times
from tests.serving.fakes import KEYS, SERVICE, World, build_world, publish_model

OTHER = "advertiser_risk"
BODY = {"model": SERVICE, "entities": KEYS}


class Store(ModelStore):
    """A store that counts what is loaded from it, and may be away."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.loads: list[str] = []
        self.failure: Exception | None = None

    def load(self, model: str, alias_or_version: str = "champion") -> Bundle:
        self.loads.append(f"{model}@{alias_or_version}")
        if self.failure is not None:
            raise self.failure
        return super().load(model, alias_or_version)


class Scene:
    """A model store with some versions and rollouts, and servers that begin when they are told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.times = Times()
        self.rollouts = Rollouts(root)
        store = ModelStore(root)
        self.versions = [publish_model(store, seed=seed) for seed in (1, 2, 3)]

    def set(self, champion: str | None, **more: Any) -> int:
        """The next rollout: this champion, or what is configured."""
        newest = self.rollouts.newest(SERVICE)
        number = 1 if newest is None else newest.number + 1
        policy = None if champion is None else {"champion": champion, **more}
        self.rollouts.add(SERVICE, Rollout(number=number, at_ms=1, by="tests", policy=policy))
        return number

    def server(self, user_config: Any = None) -> World:
        """A server that has begun with this user_config."""
        world = build_world(self.root, clock=self.times.clock())
        asyncio.run(apply_user_config(world.rollouts, user_config or {"models": {SERVICE: self.versions[0]}}))
        return world


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def follow(world: World) -> list[str]:
    return asyncio.run(world.rollouts.follow())


def cards(world: World) -> list[tuple[str, str, float, int]]:
    found = asyncio.run(world.call("GET", "/v1/models")).json()["models"]
    return [(card["version"], card["mode"], card["share"], card["rollout"]) for card in found]


def notes(world: World) -> list[str]:
    found: list[str] = asyncio.run(world.call("GET", "/readyz")).json()["notes"]
    return [note for note in found if note != "a note"]


def test_without_rollouts_a_server_answers_as_it_is_configured(scene: Scene) -> None:
    world = scene.server()
    assert follow(world) == []
    assert cards(world) == [(scene.versions[0], "live", 1.0, 0)]


def test_a_rollout_is_taken_over_and_a_server_that_begins_later_has_it_from_its_start(scene: Scene) -> None:
    world = scene.server()
    first, second, third = scene.versions
    number = scene.set(second, canary={"model": third, "share": 0.25}, shadows=[first])
    assert follow(world) == [SERVICE]
    assert follow(world) == []
    expected = [(second, "live", 0.75, number), (third, "canary", 0.25, number), (first, "shadow", 0.0, number)]
    assert cards(world) == expected
    assert cards(scene.server()) == expected
    assert notes(world) == []


def test_an_entry_without_a_policy_goes_back_to_what_is_configured(scene: Scene) -> None:
    world = scene.server()
    scene.set(scene.versions[1])
    follow(world)
    number = scene.set(None)
    follow(world)
    assert cards(world) == cards(scene.server()) == [(scene.versions[0], "live", 1.0, number)]


def test_a_new_user_config_does_not_undo_a_rollout(scene: Scene) -> None:
    world = scene.server()
    number = scene.set(scene.versions[1], is_on=False)
    follow(world)
    asyncio.run(apply_user_config(world.rollouts, {"models": {SERVICE: scene.versions[2]}}))
    assert cards(world) == [(scene.versions[1], "live", 0.0, number)]
    scene.set(None)
    follow(world)
    assert cards(world)[0][:3] == (scene.versions[2], "live", 1.0)


def test_a_server_may_be_told_not_to_look_at_rollouts(scene: Scene) -> None:
    scene.set(scene.versions[1])
    world = scene.server({"models": {SERVICE: scene.versions[0]}, "rollouts": "off"})
    assert follow(world) == []
    assert cards(world) == [(scene.versions[0], "live", 1.0, 0)]


def test_a_fallback_model_is_rolled_out_as_all_others_are(scene: Scene) -> None:
    world = scene.server()
    first, second, third = scene.versions
    number = scene.set(second, fallback_model=third, store_away="fallback")
    assert follow(world) == [SERVICE]
    expected = [(second, "live", 1.0, number), (third, "fallback", 0.0, number)]
    assert cards(world) == cards(scene.server()) == expected
    world.features.failure = OnlineStoreUnavailableError("away")
    assert asyncio.run(world.score(BODY)).decision().model.version == third
    scene.set(None)
    follow(world)
    assert [card[0] for card in cards(world)] == [first]
    assert asyncio.run(world.score(BODY)).status == 503


@pytest.mark.parametrize(
    "policy",
    [
        {"canary": {"model": "0" * 16, "share": 0.1}},
        {"fallback_model": "0" * 16},
        {"store_away": "fallback"},
        {"colour": "blue"},
        {"late": "x"},
    ],
)
def test_a_rollout_that_cannot_be_served_is_told_and_what_was_served_stays(scene: Scene, policy: Any) -> None:
    good = scene.set(scene.versions[1])
    running = scene.server()
    bad = scene.set(scene.versions[2], **policy)
    assert follow(running) == []
    begun = scene.server()
    for world in (running, begun):
        assert cards(world) == [(scene.versions[1], "live", 1.0, good)]
        assert asyncio.run(world.score(BODY)).status == 200
        [note] = notes(world)
        assert note.startswith(f"rollout {bad} of {SERVICE} is refused, an earlier one stays: ")
    better = scene.set(scene.versions[2])
    for world in (running, begun):
        assert follow(world) == [SERVICE]
        assert cards(world) == [(scene.versions[2], "live", 1.0, better)]
        assert notes(world) == []


def test_a_new_server_goes_back_only_so_far_and_then_answers_as_it_is_configured(scene: Scene) -> None:
    for _ in range(BACK_MAX):
        scene.set("0" * 16)
    world = scene.server()
    assert cards(world) == [(scene.versions[0], "live", 1.0, 0)]
    assert notes(world)[0].startswith(f"rollout {BACK_MAX} of")


def test_what_could_not_be_served_is_tried_again_after_a_while(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    store = Store(tmp_path)
    world = world_over(scene, store)
    scene.set(scene.versions[1])
    store.failure = StoreUnavailableError("away")
    before = len(store.loads)
    assert [follow(world) for _ in range(5)] == [[]] * 5
    assert len(store.loads) == before + 1
    store.failure = None
    assert follow(world) == []
    scene.times.monotonic_ns += int(RETRY_MS * 1_000_000)
    assert follow(world) == [SERVICE]
    assert notes(world) == []


def world_over(scene: Scene, store: ModelStore) -> World:
    """A server over a store of its own."""
    world = build_world(scene.root, clock=scene.times.clock(), store=store)
    asyncio.run(world.rollouts.load({SERVICE: scene.versions[0]}))
    return world


def test_a_change_loads_only_what_is_new_and_going_back_loads_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    store = Store(tmp_path)
    world = world_over(scene, store)
    first, second, _ = scene.versions
    scene.set(first, canary={"model": second, "share": 0.1})
    follow(world)
    assert store.loads == [f"{SERVICE}@{first}", f"{SERVICE}@{second}"]
    store.failure = BundleCorruptError("whatever is there now")
    for policy in ({"canary": {"model": second, "share": 0.9}}, {"is_on": False}, {"is_on": True}):
        scene.set(first, **policy)
        assert follow(world) == [SERVICE]
    scene.set(second)
    assert follow(world) == []  # it was served three changes ago for the last time
    assert len(store.loads) == 3


def test_one_model_that_is_broken_does_not_stand_in_the_way_of_another(scene: Scene) -> None:
    other = publish_model(ModelStore(scene.root), service=OTHER, reads=SERVICE)
    world = scene.server({"models": {SERVICE: scene.versions[0], OTHER: other}})
    scene.set("0" * 16)
    switched = Rollout(number=1, at_ms=1, by="tests", policy={"champion": other, "is_on": False})
    Rollouts(scene.root).add(OTHER, switched)
    assert follow(world) == [OTHER]
    assert asyncio.run(world.score({**BODY, "model": OTHER})).status == 503
    assert asyncio.run(world.score(BODY)).status == 200


def test_rollouts_that_cannot_be_read_leave_everything_as_it_is_and_no_new_server_begins(scene: Scene) -> None:
    """One that began all the same might serve what somebody has switched off."""
    scene.set(scene.versions[1])
    world = scene.server()
    scene.set(scene.versions[2])
    path = scene.root / SERVICE / "rollouts" / "00000002.json"
    content = path.read_bytes()
    path.write_bytes(b"{")
    assert follow(world) == []
    assert "the rollouts cannot be read" in notes(world)[0]
    with pytest.raises(ModelLoadError, match="rollouts cannot be read"):
        scene.server()
    path.write_bytes(content)
    assert follow(world) == [SERVICE]
    assert notes(world) == []


def test_answers_go_on_while_a_rollout_is_loaded(scene: Scene) -> None:
    world = scene.server()
    versions: list[str] = []

    async def run() -> Sequence[int]:
        found = []
        for n in range(6):
            scene.set(scene.versions[n % 3], canary={"model": scene.versions[(n + 1) % 3], "share": 0.5})
            taking = asyncio.create_task(world.rollouts.follow())
            while not taking.done():
                answer = await world.score(BODY)
                found.append(answer.status)
                versions.append(answer.decision().model.version)
                await asyncio.sleep(0)
        return found

    assert set(asyncio.run(run())) == {200}
    assert set(versions) == set(scene.versions)


def test_a_policy_of_the_configuration_counts_until_there_is_a_rollout(scene: Scene) -> None:
    world = build_world(scene.root, clock=scene.times.clock())
    asyncio.run(world.rollouts.load({SERVICE: Policy(champion="champion", is_on=False)}))
    assert asyncio.run(world.score(BODY)).status == 503
    scene.set(scene.versions[0])
    follow(world)
    assert asyncio.run(world.score(BODY)).status == 200
