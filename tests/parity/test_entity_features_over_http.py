"""`GET /v1/features/{entity}/{key}` against reads of feature services, over the real registry and a real Redis."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from materialize.online import FeatureStatus, open_reader
from models import ModelStore
from serving import ScoringApp, ScoringService
from serving.clock import Clock
from serving.entity_features import EntityFeaturesApi
from tests.parity.test_online_equals_offline import END_MS, SERVICES, actors_of, read_all
from tests.serving.fakes import MemoryPublisher
from tests.support.listening import listening
from tests.support.world import World

LATER_MS = END_MS + 59 * 60_000


@pytest.fixture(scope="module")
def url(served: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where our application answers, its clock at LATER_MS."""
    reader = open_reader(served.redis_url, served.repo_path, served.registry_path, timeout_s=10)
    clock = Clock(now_ms=lambda: LATER_MS, monotonic_ns=time.perf_counter_ns)
    models = ModelStore(tmp_path_factory.mktemp("models"))
    app = ScoringApp(
        ScoringService(reader, models, MemoryPublisher(), clock, secrets.token_bytes),
        clock,
        body_bytes_max=1 << 20,
        shut_down=reader.close,
        entities=EntityFeaturesApi(reader, clock.now_ms),
    )
    with listening(app) as found:
        yield found


def read(url: str, entity: str, key: str, **query: str) -> dict[str, Any]:
    answer = requests.get(f"{url}/v1/features/{entity}/{quote(key, safe='')}", params=query, timeout=10)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("service", SERVICES)
def test_a_stored_feature_is_what_a_feature_service_reads(served: World, url: str, service: str) -> None:
    actors = actors_of(served, service, 8)
    plan, vectors = read_all(served, service, actors, LATER_MS)
    compared = 0
    for actor, vector in zip(actors, vectors, strict=True):
        for join_key, value in actor.items():
            entity = join_key.removesuffix("_id")
            if entity not in ("ip", "device", "creator", "advertiser"):
                continue
            for told in read(url, entity, str(value))["features"]:
                if told["feature"] not in plan.features:
                    continue
                place = plan.features.index(told["feature"])
                assert told["status"] == FeatureStatus(vector.statuses[place]).name
                assert told["age_ms"] == (None if vector.ages_ms[place] < 0 else vector.ages_ms[place])
                if told["status"] == "PRESENT" and told["type"] in ("DOUBLE", "INT64"):
                    assert told["value"] == vector.values[place]
                    compared += 1
    assert compared > 100


def test_all_views_of_the_entity_are_there_and_no_other(url: str) -> None:
    views = {told["feature"].partition(":")[0] for told in read(url, "ip", "nobody")["features"]}
    assert {"ip_ad_stats", "ip_profile"} <= views
    assert not any(view.startswith(("device", "creator", "advertiser", "click_ratios")) for view in views)


@pytest.mark.parametrize("key", ["2001:db8::1", "a/b", "zoë ?&#", "%2F"])
def test_a_key_comes_as_it_was_meant(url: str, key: str) -> None:
    told = read(url, "ip", key, features="ip_ad_stats:ip_clicks_24h")
    assert told["key"] == key
    assert not told["is_known"]


def test_an_entity_that_is_not_in_the_registry_is_not_found(url: str) -> None:
    answer = requests.get(f"{url}/v1/features/seller/7", timeout=10)
    assert (answer.status_code, answer.json()["type"]) == (404, "/docs#problem-unknown-entity")
