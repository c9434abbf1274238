"""A home of its own: a Valkey, and the real feature repository in a registry."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace

import pytest

from actor_risk.feast_repo import apply_repo
from actor_risk.home import Home
from actor_risk.local import Valkey

FLUSH_MS = 10_000


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("home")
    with Valkey(root / "valkey") as server:
        made = replace(Home.from_environment({}), root=root, data=root / "data", given_redis_url=server.url)
        data = made.data
        data.mkdir()
        apply_repo(made.feature_repo, made.registry, made.environment())
        yield made


def publish_clicks(home: Home, name: str, count: int) -> None:
    """Publish so many clicks of now, each of another IP."""
    now_ms = time.time_ns() // 1_000_000
    with closing(home.event_log()) as log:
        log.ensure_topics(["ad_events"])
        with closing(log.producer()) as producer:
            for number in range(count):
                producer.send(
                    "ad_events", f"{name}-{number}".encode(), json.dumps(_click(name, number, now_ms)).encode()
                )
            producer.flush(FLUSH_MS)


def _click(name: str, number: int, now_ms: int) -> Mapping[str, object]:
    return {
        "event_id": f"{name}-{number}",
        "event_time": now_ms - 1_000,
        "event_type": "click",
        "advertiser_id": "a",
        "creator_id": "c",
        "ip": f"{name}-{number}",
        "device_id": f"{name}-{number}",
        "amount_usd": 1.0,
    }
