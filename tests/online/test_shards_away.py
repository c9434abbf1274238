"""One shard of a Redis Cluster is gone: what lies on the others is read as usual, and nobody waits for it for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import redis.asyncio
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64

from materialize.online import (
    FeatureMatrix,
    FeatureReader,
    FeatureStatus,
    OnlineStoreUnavailableError,
    ReadPlan,
    RedisSettings,
    connect_async,
    lookup,
)
from tests.support.cluster import Cluster, cluster
from tests.support.small_store import at, file_source, ip, profiles, small_store, view_over
from tests.support.views import NOW_MS

IPS = [f"ip-{i}" for i in range(40)]
ENTITIES = [{"ip": name} for name in IPS]
TIMEOUT_S = 1.0
SOON_S = 60.0
READS = 40
"""So many reads would take far longer than SOON_S if each waited for its time-out."""


class Rows:
    """A row of each IP in a cluster, and readers of them."""

    def __init__(self, nodes: Cluster, directory: Path, project: str) -> None:
        self.nodes = nodes
        source = file_source(directory, "profiles", profiles([], age=pa.float64()))
        self._store = small_store(directory, project, nodes.url, [ip, view_over(source, {"age": Float64})])
        self._store.config.online_store.cluster = True
        rows = [
            (
                EntityKey(join_keys=["ip"], entity_values=[Value(string_val=name)]),
                {"age": Value(double_val=i)},
                at(NOW_MS),
                None,
            )
            for i, name in enumerate(IPS)
        ]
        online = self._store._get_provider().online_store
        online.online_write_batch(self._store.config, self._store.get_feature_view("profile"), rows, None)

    def reader(self, timeout_s: float = TIMEOUT_S) -> FeatureReader:
        nodes = [server.address for server in self.nodes.servers]
        settings = RedisSettings(self.nodes.url, cluster=True, startup_nodes=nodes, socket_timeout=timeout_s)
        return FeatureReader(connect_async(settings), self._store)

    def places(self, plan: ReadPlan, node: int) -> list[int]:
        """Whose rows a primary has."""
        keys = lookup(plan, ENTITIES).keys
        return [n for n, key in enumerate(keys) if self.nodes.primary_of(key) == node]


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    with cluster(tmp_path / "cluster") as nodes:
        yield Rows(nodes, tmp_path, "shards")


def plan_of(reader: FeatureReader) -> ReadPlan:
    return reader.plan_for(["profile:age"])


async def read(reader: FeatureReader) -> FeatureMatrix:
    return await reader.read_many(plan_of(reader), ENTITIES, NOW_MS, in_part=True)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_S):
        while not await condition():
            await asyncio.sleep(0.02)


async def is_whole(reader: FeatureReader) -> bool:
    matrix = await read(reader)
    return not matrix.met.unread and matrix.column(0) == [*map(float, range(len(IPS)))]


async def check_that_only_its_rows_are_unread(rows: Rows, reader: FeatureReader, node: int) -> None:
    """At once, however often they are asked for."""
    gone = rows.places(plan_of(reader), node)
    here = [entity for n, entity in enumerate(ENTITIES) if n not in gone]
    assert 0 < len(gone) < len(IPS)
    async with asyncio.timeout(SOON_S):
        for _ in range(READS):
            matrix = await read(reader)
            assert dict(matrix.met.unread) == dict.fromkeys(gone, 1)
            assert [matrix.column(0)[n] for n in range(len(IPS)) if n not in gone] == [
                float(n) for n in range(len(IPS)) if n not in gone
            ]
            assert set(matrix.statuses[gone, 0]) == {FeatureStatus.NOT_FOUND}
            with pytest.raises(OnlineStoreUnavailableError, match="a part of the online store does not answer"):
                await reader.read(plan_of(reader), ENTITIES[gone[0]], NOW_MS)
            alone = await reader.read_many(plan_of(reader), here, NOW_MS)
            assert len(alone.column(0)) == len(here)
            await reader.ping()
    [away] = reader.shards_away()
    assert away.startswith(rows.nodes.addresses[node])


def test_what_is_kept_for_a_while_on_a_shard_that_is_away_fails_at_once(rows: Rows) -> None:
    async def run() -> None:
        reader = rows.reader()
        kept = reader.short_lived("kept:")
        names = [str(n) for n in range(30)]
        gone = [name for name in names if rows.nodes.primary_of(f"kept:{name}".encode()) == 1]
        assert [await kept.take(name, b"ours", 60_000) for name in names] == [None] * len(names)
        rows.nodes.stop(1)
        assert not await is_whole(reader)
        async with asyncio.timeout(SOON_S):
            for name in names:
                for _ in range(READS if name in gone else 1):
                    try:
                        assert await kept.take(name, b"others", 60_000) == b"ours"
                    except OnlineStoreUnavailableError:
                        assert name in gone
        await reader.close()

    asyncio.run(run())


def test_a_shard_that_is_killed_takes_only_its_own_rows_along_and_comes_back(rows: Rows) -> None:
    async def run() -> None:
        reader = rows.reader()
        assert await is_whole(reader)
        rows.nodes.kill(1)
        await check_that_only_its_rows_are_unread(rows, reader, 1)
        await asyncio.to_thread(rows.nodes.start, 1)  # at another port
        await until(lambda: is_whole(reader))
        assert reader.shards_away() == []
        await reader.close()

    asyncio.run(run())


def test_a_shard_that_hangs_costs_one_time_out_and_comes_back(rows: Rows) -> None:
    async def run() -> None:
        reader = rows.reader()
        assert await is_whole(reader)
        rows.nodes.stop(2)
        await check_that_only_its_rows_are_unread(rows, reader, 2)
        rows.nodes.go_on(2)
        await until(lambda: is_whole(reader))
        assert reader.shards_away() == []
        await reader.close()

    asyncio.run(run())


@pytest.mark.parametrize("signal", ["kill", "stop"])
def test_a_reader_that_begins_while_a_shard_is_gone_reads_the_others(rows: Rows, signal: str) -> None:
    """Also when the first node of its settings is the one."""

    async def run() -> None:
        if signal == "kill":
            rows.nodes.kill(0)
        else:
            rows.nodes.stop(0)
        reader = rows.reader()
        await check_that_only_its_rows_are_unread(rows, reader, 0)
        await reader.close()

    asyncio.run(run())


def test_a_cluster_that_is_gone_altogether_is_unavailable(rows: Rows) -> None:
    async def run() -> None:
        reader = rows.reader()
        assert await is_whole(reader)
        for node in range(3):
            rows.nodes.kill(node)
        assert len((await read(reader)).met.unread) == len(IPS)
        with pytest.raises(OnlineStoreUnavailableError):
            await reader.ping()
        assert len(reader.shards_away()) == 3
        await reader.close()
        begun = rows.reader()
        with pytest.raises(OnlineStoreUnavailableError):
            await read(begun)
        await begun.close()

    asyncio.run(run())


def test_a_connection_that_was_dropped_is_made_anew_and_nobody_is_away(rows: Rows) -> None:
    async def run() -> None:
        reader = rows.reader(timeout_s=10)
        for _ in range(5):
            assert await is_whole(reader)
            for node in range(3):
                rows.nodes.ask(node, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await is_whole(reader)
        assert reader.shards_away() == []
        await reader.close()

    asyncio.run(run())


def test_a_shard_that_answers_with_errors_is_away_until_it_does_not(rows: Rows) -> None:
    async def run() -> None:
        reader = rows.reader(timeout_s=10)
        assert await is_whole(reader)
        rows.nodes.ask(1, "ACL", "SETUSER", "default", "-mget")
        await check_that_only_its_rows_are_unread(rows, reader, 1)
        assert "NOPERM" in reader.shards_away()[0]
        rows.nodes.ask(1, "ACL", "SETUSER", "default", "+mget")
        await until(lambda: is_whole(reader))
        await reader.close()

    asyncio.run(run())


def test_rows_are_read_while_their_slot_moves_and_afterwards(rows: Rows) -> None:
    async def run() -> None:
        reader = rows.reader(timeout_s=10)
        assert await is_whole(reader)
        key = lookup(plan_of(reader), [ENTITIES[3]]).keys[0]
        begin = rows.nodes.primary_of(key)
        end = (begin + 1) % 3
        slot = rows.nodes.ask(begin, "CLUSTER KEYSLOT", key)
        ids = [rows.nodes.id_of(node) for node in range(3)]
        rows.nodes.ask(end, "CLUSTER SETSLOT", slot, "IMPORTING", ids[begin])
        rows.nodes.ask(begin, "CLUSTER SETSLOT", slot, "MIGRATING", ids[end])
        assert await is_whole(reader)
        port = rows.nodes.servers[end].record.port
        rows.nodes.ask(begin, "MIGRATE", "127.0.0.1", port, key, 0, 10_000)
        assert await is_whole(reader)
        for node in (end, begin, 3 - begin - end):
            rows.nodes.ask(node, "CLUSTER SETSLOT", slot, "NODE", ids[end])
        assert await is_whole(reader)
        assert await is_whole(reader)
        assert reader.shards_away() == []
        await reader.close()

    asyncio.run(run())


def test_a_replica_that_takes_over_is_read_from(tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster", replicas=1) as nodes:
        rows = Rows(nodes, tmp_path, "shards")
        nodes.ask(0, "WAIT", 1, 10_000)

        async def run() -> None:
            reader = rows.reader()
            assert await is_whole(reader)
            nodes.kill(0)
            assert (await read(reader)).met.unread
            await until(lambda: is_whole(reader))
            assert reader.shards_away() == []
            await reader.close()

        asyncio.run(run())


def test_one_server_has_no_shards(redis_url: str, redis_namespace: str, tmp_path: Path) -> None:
    store = small_store(tmp_path, redis_namespace, redis_url, [ip])

    async def run() -> None:
        reader = FeatureReader(redis.asyncio.Redis.from_url(redis_url), store)
        await reader.ping()
        assert reader.shards_away() == []
        await reader.close()

    asyncio.run(run())
