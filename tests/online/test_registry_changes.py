"""A reader follows the registry: plans are compiled anew beside the old ones, and only when something has changed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import redis
from feast import FeatureService, FeatureStore, types

from materialize.online import BatchRow, FeatureReaderSync, FeatureStatus, RowWriter, encode_batch_row
from materialize.online._keys import KeyEncoder
from tests.support.small_store import file_source, ip, profiles, small_store, view_over
from tests.support.views import NOW_MS


def apply_with_ttl(store: FeatureStore, directory: Path, ttl: timedelta) -> None:
    """The service `one` over the view `profile`, whose rows live so long."""
    view = view_over(file_source(directory, "source", profiles([])), {"score": types.Float64}, ttl=ttl)
    store.apply([ip, view, FeatureService(name="one", features=[view])])


def test_a_reader_reads_by_what_was_applied_last(tmp_path: Path, redis_url: str, redis_namespace: str) -> None:
    store = small_store(tmp_path, redis_namespace, redis_url, [])
    apply_with_ttl(store, tmp_path, timedelta(0))
    client = redis.Redis.from_url(redis_url)
    reader = FeatureReaderSync(client, FeatureStore(config=store.config))
    plan = reader.plan("one")
    view = plan.rows[0].view
    key = KeyEncoder(redis_namespace, view.name, view.join_keys).key(["a"])
    RowWriter(client).write_sealed_rows(view, [key], [encode_batch_row(view, BatchRow(NOW_MS, 0, (2.5,)))])

    later_ms = NOW_MS + 3_600_000
    assert reader.read(plan, {"ip": "a"}, later_ms).values.tolist() == [2.5]
    assert not reader.refresh()
    assert reader.plan("one") is plan

    apply_with_ttl(store, tmp_path, timedelta(minutes=1))
    assert reader.refresh()
    changed = reader.plan("one")
    assert reader.read(changed, {"ip": "a"}, later_ms).statuses.tolist() == [FeatureStatus.OUTSIDE_MAX_AGE]
    assert reader.read(plan, {"ip": "a"}, later_ms).values.tolist() == [2.5]
    assert not reader.refresh()
    reader.close()
