"""What a version costs: bytes in Redis, work of a backfill, and what a request reads."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from feast import FeatureService
from hypothesis import given
from hypothesis import strategies as st

from actor_risk.changes.costing import costs, to_fill, untold_costs
from actor_risk.changes.described import ServiceDefinition
from actor_risk.changes.redis_memory import entry_bytes, table_bytes
from actor_risk.changes.sampling import in_sample
from actor_risk.changes.values import Costs, ServiceCost, ViewCost
from actor_risk.changes.weighing import weigh
from materialize.backfill import backfill_view
from materialize.definitions import compile_view
from materialize.online import RowWriter, connect, redis_settings
from tests.changes.small_sample import (
    EVENTS,
    HOUR_MS,
    IPS,
    START_MS,
    definition,
    described,
    failing,
    over_mean,
    ratios,
    store_of,
    stream_view,
    table_view,
    write_sample,
)

STREAM = described("ip_stats", "clicks_1h", "events_24h", "paid_24h", "countries_24h", fingerprint="a", row_bytes_max=9)
TABLE = described("ip_profile", "age_days", "city", kind="batch", fingerprint="b")
SERVICE = ServiceDefinition(
    name="click_risk",
    features=("ip_stats:clicks_1h", "ip_profile:age_days"),
    fingerprint="c",
    reads=("ip_stats", "ip_profile"),
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    streams, table = stream_view(), table_view()
    on_demand = ratios(streams, over_mean)
    service = FeatureService(name="click_risk", features=[streams, table, on_demand])
    return store_of(tmp_path_factory.mktemp("store"), streams, table, on_demand, service)


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory, sample: Path, store: Any) -> Path:
    """What the usual version's process says."""
    folder = tmp_path_factory.mktemp("weighed")
    weigh(store, sample, folder)
    return folder


def told(folder: Path) -> Costs:
    """The costs of the usual version, old and new."""
    repo = definition(STREAM, TABLE)
    repo = type(repo)(project=repo.project, views=repo.views, services=(SERVICE,))
    return costs(folder, folder, repo, repo)


def view(found: Costs, name: str) -> ViewCost:
    return next(cost for cost in found.new_views if cost.view == name)


def test_bytes_per_actor_are_what_a_backfill_then_takes(
    weighed: Path, sample: Path, store: Any, redis_url: str, redis_namespace: str
) -> None:
    found = told(weighed)
    settings = redis_settings(store)
    with closing(connect(type(settings)(redis_url))) as client:
        for feast_view in (store.get_stream_feature_view("ip_stats"), store.get_feature_view("ip_profile")):
            source = in_sample(feast_view, sample)
            assert source is not None
            compiled = compile_view(feast_view)
            end_ms = START_MS + 49 * HOUR_MS
            done = backfill_view(
                compiled, source, redis_namespace, None, RowWriter(client), START_MS, end_ms, lambda *_: None
            )
            keys = list(client.scan_iter(f"{redis_namespace}:{compiled.name}:*", count=5_000))
            assert done.rows == len(keys) == view(found, compiled.name).actors
            real = sum(client.memory_usage(key) for key in keys) / len(keys)
            assert view(found, compiled.name).bytes_per_actor == pytest.approx(real, rel=0.2)


def test_a_backfills_work_is_counted(weighed: Path) -> None:
    found = told(weighed)
    streams, table = view(found, "ip_stats"), view(found, "ip_profile")
    assert 0.4 * EVENTS < streams.backfill_events <= EVENTS
    assert streams.backfill_rows == streams.actors <= IPS
    assert (table.backfill_events, table.backfill_rows) == (IPS, IPS)
    assert streams.tiles_per_row > 1
    assert streams.bytes_max == 9
    for cost in (streams, table):
        assert cost.backfill_seconds is not None
        assert 0 < cost.backfill_seconds < 60


def test_a_request_reads_each_row_once_and_its_time_is_measured(weighed: Path) -> None:
    (service,) = told(weighed).new_services
    assert (service.reads, service.features) == (2, 2)
    assert service.bytes_per_request > 500
    assert 45 < service.latency_us < 1_000_000


def test_more_windows_take_more_bytes(tmp_path: Path, weighed: Path, sample: Path) -> None:
    more = stream_view(
        aggregations=(
            ("clicks_1h", "click", "count", 1),
            ("countries_1h", "country", "count_distinct", 1),
            ("paid_24h", "amount_usd", "sum", 24),
            ("paid_48h", "amount_usd", "sum", 48),
            ("countries_24h", "country", "count_distinct", 24),
        )
    )
    weigh(store_of(tmp_path / "store", more), sample, tmp_path / "out")
    repo = definition(STREAM)
    found = costs(weighed, tmp_path / "out", repo, repo)
    (old,), (new,) = found.old_views, found.new_views
    assert new.bytes_per_actor > old.bytes_per_actor


def test_what_fails_or_is_not_in_the_sample_is_told(tmp_path: Path, sample: Path) -> None:
    nowhere = stream_view(name="nowhere", topic="nothing")
    weigh(store_of(tmp_path / "store", stream_view(failing), nowhere), sample, tmp_path / "out")
    reasons = " ".join(untold_costs(tmp_path / "out"))
    assert "ip_stats" in reasons
    assert "nowhere" in reasons


def test_a_version_that_says_nothing_has_the_bounds_alone(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert view(found, "ip_stats") == ViewCost(view="ip_stats", bytes_max=9)
    assert found.new_services == (ServiceCost(service="click_risk", reads=2, features=2),)


def test_only_what_has_other_rows_is_filled() -> None:
    old = definition(STREAM, TABLE)
    changed = described("ip_stats", "clicks_1h", fingerprint="z")
    added = described("added", "x", fingerprint="n")
    on_demand = described("ratios", "y", kind="on_demand")
    assert to_fill(old, old) == ()
    assert to_fill(old, definition(changed, TABLE, added, on_demand)) == ("added", "ip_stats")
    assert costs(Path("none"), Path("none"), old, definition(changed)).backfill == (
        "actor-risk backfill --view ip_stats",
    )


@pytest.mark.parametrize("expires", [True, False])
@pytest.mark.parametrize("value_bytes", [80, 200, 255, 256, 1_000, 5_000, 65_000, 66_000, 200_000])
def test_memory_is_what_the_server_says(redis_url: str, redis_namespace: str, value_bytes: int, expires: bool) -> None:
    key = redis_namespace.encode() + b"k" * 20
    with redis.Redis.from_url(redis_url) as client:
        client.set(key, b"v" * value_bytes, px=1_000_000 if expires else None)
        said = client.memory_usage(key)
    assert entry_bytes(len(key), value_bytes, expires=expires) == pytest.approx(said, rel=0.2, abs=32)


@given(st.integers(1, 300), st.integers(0, 200_000), st.integers(1, 5_000))
def test_more_bytes_never_take_less(key: int, value: int, more: int) -> None:
    assert entry_bytes(key, value + more) >= entry_bytes(key, value) >= key + value
    assert entry_bytes(key, value) >= entry_bytes(key, value, expires=False)
    assert table_bytes(expires=True) > table_bytes(expires=False)
