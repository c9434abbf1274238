"""A backfill owns what lies before its batch end, does it once however often it runs, and fails loudly."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis
from feast import Entity, FeatureStore, FileSource, KafkaSource, ValueType, types
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.field import Field
from feast.stream_feature_view import StreamFeatureView

from materialize.backfill import backfill_view
from materialize.definitions import StreamView, compile_view
from materialize.kernel import fold_events, read_windows
from materialize.offline import HistoryError
from materialize.online import RowWriter, StreamRow, decode_stream_row
from materialize.stream import RedisLogSettings
from tests.support.rows import assert_rows_hold_exactly
from tests.support.small_store import at, file_source, ip, profiles, small_store, view_over
from tests.support.streaming import open_bench, run_until
from tests.support.views import SPEC, block, key, stream_view
from tests.support.world import CUT_MS, HOUR_MS, SETTINGS, START_MS, TOPICS, World, publish_table

NOW_MS = SETTINGS.end_ms
EVENTS = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_time", pa.timestamp("ms", "UTC")),
        ("ip", pa.string()),
        ("amount", pa.float64()),
    ]
)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def everything(world: World) -> dict[str, pa.Table]:
    return {topic: getattr(world.everything, topic) for topic in TOPICS}


def backfill_streams(world: World, client: redis.Redis, project: str, end_ms: int) -> None:
    """The stream views of the repository, into the rows of this test."""
    for view in world.store.list_stream_feature_views():
        writer = RowWriter(client)
        compiled = compile_view(view)
        backfill_view(compiled, view.batch_source, project, world.repo_path, writer, 0, end_ms, lambda *_: None)


def stream(world: World, redis_url: str, project: str, tables: dict[str, pa.Table]) -> None:
    """The worker over these events, into the rows of this test."""
    with open_bench(RedisLogSettings(url=redis_url, prefix=project), redis_url, project) as bench:
        bench.log.ensure_topics(TOPICS)
        for topic, table in tables.items():
            publish_table(bench.log, topic, table)
        with bench.worker(world.views(), lambda: NOW_MS) as worker:
            records = sum(table.num_rows for table in tables.values())
            run_until(worker, lambda: worker.counts.records == records)


def states(client: redis.Redis, project: str, views: list[StreamView]) -> dict[bytes, tuple[Any, ...]]:
    """What every row holds, without its version."""
    out = {}
    for view in views:
        for row_key in client.scan_iter(f"{project}:{view.name}:*", count=5_000):
            row = decode_stream_row(view.spec, client.get(row_key))
            tiles = [
                (t.index.tolist(), t.states.tolist(), [s.hashes.tolist() for s in t.sets]) for t in row.state.tiles
            ]
            out[row_key] = (row.state.batch_end_ms, row.state.head.ids.tolist(), tiles, dict(row.applied))
    return out


def test_history_and_stream_together_hold_every_event_once_whichever_comes_first(
    world: World, client: redis.Redis, redis_url: str, redis_namespace: str
) -> None:
    live = {topic: getattr(world.live, topic) for topic in TOPICS}
    stream(world, redis_url, redis_namespace, live)
    backfill_streams(world, client, redis_namespace, CUT_MS)
    assert_rows_hold_exactly(client, redis_namespace, world.views(), everything(world), NOW_MS)
    backfill_streams(world, client, redis_namespace, CUT_MS + 5 * HOUR_MS + 1)
    assert_rows_hold_exactly(client, redis_namespace, world.views(), everything(world), NOW_MS)


def test_a_backfill_done_twice_or_done_late_changes_nothing(
    world: World, client: redis.Redis, redis_namespace: str
) -> None:
    views = world.views()
    backfill_streams(world, client, redis_namespace, CUT_MS)
    once = states(client, redis_namespace, views)
    backfill_streams(world, client, redis_namespace, CUT_MS)
    assert states(client, redis_namespace, views) == once
    backfill_streams(world, client, redis_namespace, CUT_MS - 3 * HOUR_MS)
    assert states(client, redis_namespace, views) == once


def test_events_that_the_stream_delivers_of_the_batchs_time_are_not_counted_twice(
    world: World, client: redis.Redis, redis_url: str, redis_namespace: str
) -> None:
    backfill_streams(world, client, redis_namespace, CUT_MS)
    overlap = {
        topic: table.filter(pc.greater_equal(table.column("event_time"), at(CUT_MS - 6 * HOUR_MS)))
        for topic, table in everything(world).items()
    }
    stream(world, redis_url, redis_namespace, overlap)
    assert_rows_hold_exactly(client, redis_namespace, world.views(), everything(world), NOW_MS)


def history_of(directory: Path, *events: tuple[str, int]) -> Any:
    rows = [{"event_id": name, "event_time": time, "ip": "a", "amount": 1.0} for name, time in events]
    return file_source(directory, "events", pa.Table.from_pylist(rows, schema=EVENTS))


def count_7d(client: redis.Redis, project: str) -> tuple[float, int]:
    view = stream_view()
    row = decode_stream_row(SPEC, client.get(key(project, view, "a")))
    place = [spec.feature for spec in SPEC.aggregations].index("count_604800000")
    return float(read_windows(SPEC, row.state, NOW_MS).values[place]), row.state.batch_end_ms


def test_a_backfill_up_to_now_leaves_the_stream_what_history_does_not_have_yet(
    tmp_path: Path, client: redis.Redis, redis_namespace: str
) -> None:
    view, writer = stream_view(), RowWriter(client)
    old_ms, new_ms = NOW_MS - 30 * HOUR_MS, NOW_MS - 2 * HOUR_MS

    def fold(stored: StreamRow) -> StreamRow:
        events = block([("old", old_ms, 1.0, "a"), ("new", new_ms, 1.0, "a")])
        return StreamRow(fold_events(SPEC, stored.state, events)[0], stored.version, {0: 1})

    writer.update_stream_rows(view, {key(redis_namespace, view, "a"): fold})
    source = history_of(tmp_path, ("old", old_ms), ("older", old_ms - 1))
    result = backfill_view(view, source, redis_namespace, tmp_path, writer, 0, NOW_MS, lambda *_: None)
    assert result.batch_end_ms is not None
    assert old_ms < result.batch_end_ms <= old_ms + view.spec.batch_step_ms
    assert count_7d(client, redis_namespace) == (3, result.batch_end_ms)


def test_an_end_within_a_tile_leaves_the_tile_to_the_stream(
    tmp_path: Path, client: redis.Redis, redis_namespace: str
) -> None:
    start = NOW_MS - 10 * HOUR_MS
    source = history_of(tmp_path, ("in", start + 1), ("out", start + HOUR_MS + 1), ("later", start + 2 * HOUR_MS))
    end_ms = start + HOUR_MS + 30 * 60_000
    result = backfill_view(
        stream_view(), source, redis_namespace, tmp_path, RowWriter(client), 0, end_ms, lambda *_: None
    )
    assert result.batch_end_ms == start + HOUR_MS
    assert count_7d(client, redis_namespace) == (1, start + HOUR_MS)


def test_progress_goes_from_little_to_all(world: World, client: redis.Redis, redis_namespace: str) -> None:
    view = world.store.get_stream_feature_view("ip_ad_stats")
    told: list[tuple[int, int]] = []
    result = backfill_view(
        compile_view(view),
        view.batch_source,
        redis_namespace,
        world.repo_path,
        RowWriter(client),
        0,
        CUT_MS,
        lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (result.rows, result.rows)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    ("wrong", "told"), [("column", "amount"), ("file", "events.parquet"), ("identity", "event_id")]
)
def test_a_stream_view_that_cannot_be_computed_raises_and_moves_no_watermark(
    tmp_path: Path, redis_url: str, redis_namespace: str, wrong: str, told: str
) -> None:
    rows = [{"event_id": "e", "event_time": NOW_MS - HOUR_MS, "ip": "a", "amount": 1.0}]
    table = pa.Table.from_pylist(rows, schema=EVENTS)
    path = tmp_path / "events.parquet"
    pq.write_table(table.drop_columns({"column": ["amount"], "identity": ["event_id"]}.get(wrong, [])), path)
    source = KafkaSource(
        name="ad_events",
        topic="ad_events",
        kafka_bootstrap_servers="",
        message_format=JsonFormat(schema_json=""),
        timestamp_field="event_time",
        batch_source=FileSource(name="history", path=str(path), timestamp_field="event_time"),
    )
    view = StreamFeatureView(
        name="spent",
        entities=[ip],
        schema=[Field(name="ip", dtype=types.String), Field(name="spent_1h", dtype=types.Float64)],
        source=source,
        aggregations=[Aggregation(column="amount", function="sum", time_window=timedelta(hours=1), name="spent_1h")],
        timestamp_field="event_time",
        mode="python",
    )
    store = small_store(tmp_path, redis_namespace, redis_url, [ip, view])
    if wrong == "file":
        path.unlink()
    with pytest.raises(ValueError, match=told):
        store.materialize(at(START_MS), at(NOW_MS), ["spent"])
    assert store.get_stream_feature_view("spent").materialization_intervals == []


def profile_store(tmp_path: Path, redis_url: str, project: str, table: pa.Table, **fields: Any) -> FeatureStore:
    source = file_source(tmp_path, "profiles", table, created_timestamp_column="created")
    return small_store(tmp_path, project, redis_url, [ip, view_over(source, fields)])


def test_a_batch_view_that_cannot_be_read_raises_and_moves_no_watermark(
    tmp_path: Path, redis_url: str, redis_namespace: str
) -> None:
    table = profiles([{"ip": "a", "event_time": NOW_MS, "score": 1.0}], score=pa.float64())
    store = profile_store(tmp_path, redis_url, redis_namespace, table, score=types.Float64)
    pq.write_table(table.set_column(3, "score", pa.array(["high"])), tmp_path / "profiles.parquet")
    with pytest.raises(HistoryError, match="score"):
        store.materialize(at(START_MS), at(NOW_MS + 1), ["profile"])
    assert store.get_feature_view("profile").materialization_intervals == []
    pq.write_table(table, tmp_path / "profiles.parquet")
    store.materialize(at(START_MS), at(NOW_MS + 1), ["profile"])
    assert store.get_feature_view("profile").materialization_intervals == [(at(START_MS), at(NOW_MS + 1))]
    assert store.get_online_features(["profile:score"], [{"ip": "a"}]).to_dict()["score"] == [1.0]


def test_the_newest_row_of_each_entity_is_served_and_rows_without_a_key_are_nobodys(
    tmp_path: Path, redis_url: str, redis_namespace: str
) -> None:
    rows = [
        {"ip": "a", "event_time": NOW_MS - 5, "created": NOW_MS - 4, "score": 1.0},
        {"ip": "a", "event_time": NOW_MS - 3, "created": NOW_MS - 1, "score": 3.0},
        {"ip": "a", "event_time": NOW_MS - 3, "created": NOW_MS - 2, "score": 2.0},
        {"ip": None, "event_time": NOW_MS - 1, "score": 9.0},
        {"ip": "b", "event_time": NOW_MS - 5, "score": None},
        {"ip": "c", "event_time": NOW_MS - 5, "score": float("nan")},
        {"ip": "late", "event_time": NOW_MS, "score": 7.0},
    ]
    table = profiles(rows, score=pa.float64())
    store = profile_store(tmp_path, redis_url, redis_namespace, table, score=types.Float64)
    store.materialize(at(START_MS), at(NOW_MS), ["profile"])
    names = ["a", "b", "c", "late", "None", "nan"]
    found = store.get_online_features(["profile:score"], [{"ip": name} for name in names]).to_dict()["score"]
    assert found == [3.0, None, None, None, None, None]


def test_every_type_that_can_be_pushed_can_be_backfilled(tmp_path: Path, redis_url: str, redis_namespace: str) -> None:
    when = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    row: dict[str, Any] = {
        "whole": 7,
        "small": 3,
        "flag": True,
        "word": "ü",
        "raw": b"\x00\xff",
        "moment": when,
        "numbers": [1.5, 2.5],
        "words": ["x", ""],
        "counted": 4.0,
    }
    kinds = {
        "whole": pa.int64(),
        "small": pa.int32(),
        "flag": pa.bool_(),
        "word": pa.string(),
        "raw": pa.binary(),
        "moment": pa.timestamp("ms", "UTC"),
        "numbers": pa.list_(pa.float64()),
        "words": pa.list_(pa.string()),
        "counted": pa.float64(),
    }
    table = profiles([{"ip": "a", "event_time": NOW_MS, **row}, {"ip": "b", "event_time": NOW_MS}], **kinds)
    store = profile_store(
        tmp_path,
        redis_url,
        redis_namespace,
        table,
        whole=types.Int64,
        small=types.Int32,
        flag=types.Bool,
        word=types.String,
        raw=types.Bytes,
        moment=types.UnixTimestamp,
        numbers=types.Array(types.Float64),
        words=types.Array(types.String),
        counted=types.Int64,
    )
    store.materialize(at(START_MS), at(NOW_MS + 1), ["profile"])
    names = [f"profile:{name}" for name in row]
    found = store.get_online_features(names, [{"ip": "a"}, {"ip": "b"}]).to_dict()
    assert {name: found[name][0] for name in row} == row
    assert {name: found[name][1] for name in row} == dict.fromkeys(row)


def test_integer_keys_of_64_bits_are_told_apart(tmp_path: Path, redis_url: str, redis_namespace: str) -> None:
    account = Entity(name="account", join_keys=["account"], value_type=ValueType.INT64)
    big = 2**60
    rows = [{"ip": "", "event_time": NOW_MS, "account": big + i, "score": float(i)} for i in range(3)]
    source = file_source(tmp_path, "profiles", profiles(rows, account=pa.int64(), score=pa.float64()))
    view = view_over(source, {"score": types.Float64}, entities=[account])
    store = small_store(tmp_path, redis_namespace, redis_url, [account, view])
    store.materialize(at(START_MS), at(NOW_MS + 1), ["profile"])
    found = store.get_online_features(["profile:score"], [{"account": big + i} for i in range(4)]).to_dict()
    assert found["score"] == [0.0, 1.0, 2.0, None]


def test_a_pushed_correction_of_a_backfilled_row_counts_where_nothing_says_when_it_was_created(
    tmp_path: Path, redis_url: str, redis_namespace: str
) -> None:
    table = profiles([{"ip": "a", "event_time": NOW_MS, "score": 1.0}], score=pa.float64()).drop_columns(["created"])
    view = view_over(file_source(tmp_path, "profiles", table), {"score": types.Float64})
    store = small_store(tmp_path, redis_namespace, redis_url, [ip, view])
    store.materialize(at(START_MS), at(NOW_MS + 1), ["profile"])
    store.write_to_online_store("profile", table.to_pandas().assign(score=2.0))
    assert store.get_online_features(["profile:score"], [{"ip": "a"}]).to_dict()["score"] == [2.0]
