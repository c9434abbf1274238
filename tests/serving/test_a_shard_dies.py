"""A server over a real Redis Cluster, one of whose shards is killed: who needs it is answered by the policy."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureView, Field, ValueType
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64

from materialize.online import FeatureReader, ReadPlan, RedisSettings, connect_async, lookup
from models import ModelStore
from models.rollouts import Rollouts
from serving.asgi import ScoringApp
from serving.bootstrap import system_clock
from serving.breaker import FAILURES_MAX
from serving.decision import Decision
from serving.entity_features import EntityFeaturesApi
from serving.feast_api import FeastApi
from serving.policy import Policy
from serving.rollouts import RolloutFollower
from serving.scoring import ScoringService
from tests.serving.fakes import BODY_BYTES_MAX, Answer, MemoryFeatures, MemoryPublisher, World, publish_model
from tests.support.cluster import Cluster, cluster
from tests.support.small_store import at, file_source, ip, profiles, small_store

RISK = "risk"
NAMES = [f"n{i}" for i in range(12)]
DEAD = 1
TIMEOUT_S = 1.0
JSON = {"content-type": "application/json"}
device = Entity(name="device", join_keys=["device_id"], value_type=ValueType.STRING)


class Risk:
    """Rows of IPs and devices in a cluster, and a server of a model that reads both."""

    def __init__(self, nodes: Cluster, directory: Path) -> None:
        self.nodes = nodes
        source = file_source(directory, "all", profiles([], device_id=pa.string(), age=pa.float64(), old=pa.float64()))
        views = [
            FeatureView(name=name, entities=[entity], schema=[Field(name=field, dtype=Float64)], source=source)
            for name, entity, field in (("ips", ip, "age"), ("devices", device, "old"))
        ]
        service = FeatureService(name=RISK, features=views)
        self._store = small_store(directory, "shards", nodes.url, [ip, device, *views, service])
        self._store.config.online_store.cluster = True
        for view, key, field in (("ips", "ip", "age"), ("devices", "device_id", "old")):
            rows = [
                (
                    EntityKey(join_keys=[key], entity_values=[Value(string_val=name)]),
                    {field: Value(double_val=4.0 * n)},
                    at(system_clock().now_ms()),
                    None,
                )
                for n, name in enumerate(NAMES)
            ]
            online = self._store._get_provider().online_store
            online.online_write_batch(self._store.config, self._store.get_feature_view(view), rows, None)
        self._models = directory / "models"

    def world(self) -> tuple[World, FeatureReader]:
        """A server of its own event loop."""
        settings = RedisSettings(self.nodes.url, cluster=True, socket_timeout=TIMEOUT_S)
        reader, models, clock = (
            FeatureReader(connect_async(settings), self._store),
            ModelStore(self._models),
            system_clock(),
        )
        plan = reader.plan(RISK)
        publish_model(models, refs=plan.features, fingerprint=plan.fingerprint, service=RISK)
        publisher = MemoryPublisher()
        service = ScoringService(reader, models, publisher, clock, secrets.token_bytes)

        async def shut_down() -> None:
            pass

        entities = EntityFeaturesApi(reader, clock.now_ms)
        app = ScoringApp(
            service,
            clock,
            body_bytes_max=BODY_BYTES_MAX,
            shut_down=shut_down,
            feast=FeastApi(reader),
            entities=entities,
        )
        rollouts = RolloutFollower(service, Rollouts(self._models), clock)
        return World(MemoryFeatures(), publisher, models, service, rollouts, app, []), reader

    def is_here(self, plan: ReadPlan, name: str) -> tuple[bool, bool]:
        """Whether the rows of the IP and of the device of that name lie on living shards."""
        first, second = (self.nodes.primary_of(key) != DEAD for key in lookup(plan, [asked(name)]).keys)
        return first, second


def asked(name: str, other: str | None = None) -> dict[str, Any]:
    return {"ip": name, "device_id": other or name}


def shares_of(decision: Decision) -> list[tuple[str, float | None, float]]:
    return [(reason.code, reason.value, reason.attribution) for reason in decision.reasons]


@pytest.fixture(scope="module")
def risk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Risk]:
    directory = tmp_path_factory.mktemp("risk")
    with cluster(directory / "cluster") as nodes:
        yield Risk(nodes, directory)


def test_who_needs_nothing_of_a_dead_shard_is_answered_as_before_and_the_others_by_policy(risk: Risk) -> None:
    async def run() -> None:
        world, reader = risk.world()
        plan = reader.plan(RISK)

        async def play(**policy: Any) -> None:
            await world.service.load({RISK: Policy(champion="champion", **policy)})

        async def ask() -> dict[tuple[str, str], Answer]:
            pairs = [(a, b) for a in NAMES for b in NAMES]
            bodies = [{"model": RISK, "entities": asked(*pair)} for pair in pairs]
            found = []
            for begin in range(0, len(bodies), 12):
                found += await asyncio.gather(*map(world.score, bodies[begin : begin + 12]))
            return dict(zip(pairs, found, strict=True))

        await play(store_away="default")
        before = {pair: answer.decision() for pair, answer in (await ask()).items()}
        assert {tuple(answer.degraded) for answer in before.values()} == {()}
        await asyncio.to_thread(risk.nodes.kill, DEAD)
        here = {(a, b): (risk.is_here(plan, a)[0], risk.is_here(plan, b)[1]) for a in NAMES for b in NAMES}
        assert set(here.values()) == {(True, True), (True, False), (False, True), (False, False)}

        for pair, answer in (await ask()).items():
            found, there = answer.decision(), sum(here[pair])
            assert found.degraded == {0: ["features_defaulted"], 1: ["features_partial"], 2: []}[there]
            assert (found.feature_statuses.present, found.actor_known) == (there, there > 0)
            if there == 2:
                assert (found.score, shares_of(found)) == (before[pair].score, shares_of(before[pair]))

        for policy, needs_it in (
            ({"store_away": "refuse"}, 503),
            ({"store_away": "fallback", "fallback_score": 0.02}, 200),
        ):
            await play(**policy)
            for _ in range(FAILURES_MAX):
                for pair, answer in (await ask()).items():
                    if all(here[pair]):
                        assert answer.decision().score == before[pair].score
                        continue
                    assert answer.status == needs_it
                    if needs_it == 200:
                        assert answer.decision().degraded == ["explanation_skipped", "fallback_score"]

        for name in NAMES:
            stored = await world.call("GET", f"/v1/features/ip/{name}")
            assert stored.status == (200 if risk.is_here(plan, name)[0] else 503), stored.body
        features = {"features": ["ips:age"], "entities": {"ip": NAMES}}
        assert (await world.call("POST", "/get-online-features", json.dumps(features).encode(), JSON)).status == 503

        ready = await world.call("GET", "/readyz")
        assert ready.status == 200
        assert f"a shard of the online store does not answer: {risk.nodes.addresses[DEAD]}" in ready.json()["notes"][0]
        assert world.service.state().breaker_is_open is False
        await reader.close()

    asyncio.run(run())
