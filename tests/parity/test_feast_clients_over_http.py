"""Feast's own client, its `remote` online store pointed at our server, against Feast reading through our plug-in."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from feast import FeatureStore, RepoConfig
from feast.feature_server_utils import convert_response_to_dict
from feast.permissions.client.http_auth_requests_wrapper import HttpSessionManager
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from materialize.online import FeatureReader, open_reader, open_reader_sync
from models import ModelStore
from serving import ScoringApp, ScoringService
from serving.clock import Clock
from serving.feast_api import FeastApi
from tests.parity.test_online_equals_offline import END_MS, SERVICES, Actor, actors_of, read_all
from tests.serving.fakes import MemoryPublisher
from tests.support.listening import listening
from tests.support.world import World

LATER_MS = END_MS + 59 * 60_000


@pytest.fixture(scope="module")
def url(served: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where our application answers, its clock at LATER_MS."""
    reader = open_reader(served.redis_url, served.repo_path, served.registry_path, timeout_s=10)
    app = application(reader, tmp_path_factory.mktemp("models"))
    try:
        with listening(app) as found:
            yield found
    finally:
        HttpSessionManager.close_session()


def application(reader: FeatureReader, models: Path) -> ScoringApp:
    ticks = itertools.count()
    clock = Clock(now_ms=lambda: LATER_MS, monotonic_ns=lambda: next(ticks))
    return ScoringApp(
        ScoringService(reader, ModelStore(models), MemoryPublisher(), clock, secrets.token_bytes),
        clock,
        body_bytes_max=1 << 20,
        shut_down=reader.close,
        feast=FeastApi(reader),
    )


@pytest.fixture
def ours(served: World) -> Iterator[FeatureStore]:
    """Feast on our plug-in, its clock at LATER_MS."""
    online_store = served.store._get_provider().online_store
    real = online_store.now_ms
    online_store.now_ms = lambda: LATER_MS
    yield served.store
    online_store.now_ms = real


@pytest.fixture
def remote(served: World, url: str) -> FeatureStore:
    """Feast as a user of ours has it: the same registry, and nothing else than our address."""
    described = yaml.safe_load((served.repo_path / "feature_store.yaml").read_text())
    described |= {"registry": str(served.registry_path), "online_store": {"type": "remote", "path": url}}
    config = RepoConfig(**described)
    config.repo_path = served.repo_path
    return FeatureStore(config=config)


def columns(actors: list[Actor]) -> dict[str, list[Any]]:
    return {name: [actor[name] for actor in actors] for name in actors[0]}


def by_name(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


@pytest.mark.parametrize("service", SERVICES)
def test_feasts_remote_store_gives_what_feast_on_our_plugin_gives(
    served: World, ours: FeatureStore, remote: FeatureStore, service: str
) -> None:
    actors = actors_of(served, service, 40)
    asked = ours.get_feature_service(service)
    expected = ours.get_online_features(asked, actors).to_dict()
    found = remote.get_online_features(asked, actors).to_dict()
    assert found == expected
    assert sum(value is not None for column in found.values() for value in column) > 500


REFS = [
    "click_ratios:same_country",
    "ip_ad_stats:ip_clicks_24h",
    "creator_profile:creator_country",
    "ip_ad_stats:ip_devices_1h",
]


@pytest.mark.parametrize("full_feature_names", [False, True])
def test_a_list_of_features_is_read_as_a_service_is(
    served: World, ours: FeatureStore, remote: FeatureStore, full_feature_names: bool
) -> None:
    actors = actors_of(served, "ad_click_risk", 20)
    # Feast 0.67 itself loses a Python-mode on-demand feature when it is asked for its full name.
    refs = REFS[1:] if full_feature_names else REFS
    expected = ours.get_online_features(refs, actors, full_feature_names).to_dict()
    assert remote.get_online_features(refs, actors, full_feature_names).to_dict() == expected


@pytest.mark.parametrize("service", SERVICES)
def test_the_answer_is_that_of_feasts_own_server_with_statuses_and_times(
    served: World, ours: FeatureStore, url: str, service: str
) -> None:
    actors = actors_of(served, service, 25)
    expected = convert_response_to_dict(ours.get_online_features(ours.get_feature_service(service), actors).proto)
    body = {"feature_service": service, "entities": columns(actors)}
    answer = requests.post(f"{url}/get-online-features", json=body, timeout=10)
    assert answer.status_code == 200
    assert by_name(answer.json()) == by_name(expected)


def test_feasts_own_read_of_one_view_works_through_the_remote_store(
    served: World, ours: FeatureStore, remote: FeatureStore
) -> None:
    view = ours.get_feature_view("ip_profile")
    store = remote._get_provider().online_store
    ips = [actor["ip"] for actor in actors_of(served, "ad_click_risk", 10)]
    keys = [EntityKey(join_keys=["ip"], entity_values=[Value(string_val=ip)]) for ip in ips]
    names = [field.name for field in view.features]
    found = store.online_read(remote.config, view, keys, names)
    plugin = ours._get_provider().online_store
    for (_, values), (_, wanted) in zip(found, plugin.online_read(ours.config, view, keys, names), strict=True):
        assert values == (wanted or {name: Value() for name in names})


def test_what_feasts_client_cannot_have_is_told_to_its_user(remote: FeatureStore, url: str) -> None:
    with pytest.raises(RuntimeError, match="no feature view 'nothing'"):
        remote.get_online_features(["nothing:f"], [{"ip": "1.2.3.4"}])
    with pytest.raises(RuntimeError, match="missing: one value per entity"):
        remote.get_online_features(["ip_ad_stats:ip_clicks_24h"], [{"device_id": "d"}])
    assert requests.get(f"{url}/health", timeout=10).status_code == 200
    refused = requests.post(f"{url}/write-to-online-store", json={}, timeout=10)
    assert refused.status_code == 404
    assert "only reads" in refused.json()["detail"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_sync_reader_gives_the_matrix_of_single_reads(served: World, service: str) -> None:
    actors = actors_of(served, service, 30)
    plan, vectors = read_all(served, service, actors, LATER_MS)
    reader = open_reader_sync(served.redis_url, served.repo_path, served.registry_path, timeout_s=10)
    matrix = reader.read_many(reader.plan(service), actors, LATER_MS, actors)
    reader.close()
    assert matrix.plan.features == plan.features
    for i, vector in enumerate(vectors):
        np.testing.assert_array_equal(matrix.values[i], vector.values)
        assert matrix.statuses[i].tolist() == vector.statuses.tolist()
        assert matrix.ages_ms[i].tolist() == vector.ages_ms.tolist()


def test_features_come_in_the_order_that_they_are_asked_for(served: World) -> None:
    async def read() -> None:
        reader = open_reader(served.redis_url, served.repo_path, served.registry_path, timeout_s=10)
        plan = reader.plan_for(REFS)
        assert plan.features == tuple(REFS)
        assert reader.plan_for(list(REFS)) is plan
        (actor, *_) = actors_of(served, "ad_click_risk", 5)
        matrix = await reader.read_many(plan, [actor], LATER_MS, [actor])
        alone = await reader.read(plan, actor, LATER_MS, request=actor)
        np.testing.assert_array_equal(matrix.values[0], alone.values)
        await reader.close()

    asyncio.run(read())
