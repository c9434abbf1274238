"""The readers' one round trip is another on a Redis Cluster, and gives the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64

from materialize.online import FeatureReader, FeatureReaderSync, FeatureStatus, RedisSettings, connect, connect_async
from tests.support.cluster import cluster
from tests.support.small_store import at, file_source, ip, profiles, small_store, view_over
from tests.support.views import NOW_MS

FEATURES = ["profile:age"]
IPS = [f"ip-{i}" for i in range(20)]


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis Cluster of one master, which has all slots."""
    with cluster(tmp_path_factory.mktemp("cluster"), primaries=1) as made:
        yield made.url


@pytest.mark.parametrize("is_cluster", [True, False])
def test_many_rows_are_read_from_a_cluster_as_from_one_server(
    cluster_url: str, redis_url: str, redis_namespace: str, tmp_path: Path, is_cluster: bool
) -> None:
    url = cluster_url if is_cluster else redis_url
    source = file_source(tmp_path, "profiles", profiles([], age=pa.float64()))
    store = small_store(tmp_path, redis_namespace, url, [ip, view_over(source, {"age": Float64})])
    rows = [
        (
            EntityKey(join_keys=["ip"], entity_values=[Value(string_val=name)]),
            {"age": Value(double_val=i)},
            at(NOW_MS),
            None,
        )
        for i, name in enumerate(IPS)
    ]
    settings = RedisSettings(url, cluster=is_cluster)
    store.config.online_store.cluster = is_cluster
    store._get_provider().online_store.online_write_batch(store.config, store.get_feature_view("profile"), rows, None)
    entities = [{"ip": name} for name in [*IPS, "nobody", IPS[3]]]
    sync = FeatureReaderSync(connect(settings), store)
    matrix = sync.read_many(sync.plan_for(FEATURES), entities, NOW_MS)
    sync.close()
    assert matrix.column(0) == [*map(float, range(20)), None, 3.0]
    assert matrix.statuses[20, 0] == FeatureStatus.NOT_FOUND

    async def read() -> None:
        reader = FeatureReader(connect_async(settings), store)
        plan = reader.plan_for(FEATURES)
        again = await reader.read_many(plan, entities, NOW_MS)
        alone = await reader.read(plan, entities[5], NOW_MS)
        await reader.close()
        assert again.column(0) == matrix.column(0)
        assert alone.values.tolist() == [5.0]

    asyncio.run(read())
