"""The worker counts every event once, puts aside what is none, and a replay changes nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import pairwise
from threading import Event as ThreadEvent
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from actor_risk.local import DeadlineError, wait_until
from actor_risk.simulate import json_lines
from materialize.definitions import JoinKey, StreamView
from materialize.events import DEFAULT_SKEW_MS
from materialize.kernel import KEEP_SLACK_MS
from materialize.online import (
    EventsByRow,
    FoldOutcome,
    KeyEncoder,
    OnlineStoreError,
    OnlineStoreUnavailableError,
    RowFolder,
    RowWriter,
    decode_stream_row,
    encode_stream_row,
)
from materialize.stream import EventLogSettings, KafkaLogSettings, RedisLogSettings, TopicPartition, UnknownTopicError
from materialize.stream.worker import StreamWorker, WorkerSettings
from tests.support.rows import assert_rows_hold_exactly
from tests.support.streaming import Bench, open_bench, run_until
from tests.support.views import SPEC, stream_view
from tests.support.world import SETTINGS, TOPICS, World, publish, publish_table

NOW_MS = SETTINGS.end_ms
DEADLINE_S = 30.0


@pytest.fixture(params=["redis", pytest.param("kafka", marks=pytest.mark.kafka)])
def bench(request: pytest.FixtureRequest, redis_url: str, redis_namespace: str) -> Iterator[Bench]:
    """A log of either kind without records, and no rows."""
    settings: EventLogSettings = RedisLogSettings(url=redis_url, prefix=redis_namespace, lease_ms=1_500)
    if request.param == "kafka":
        settings = KafkaLogSettings(
            bootstrap_servers=request.getfixturevalue("kafka_bootstrap"), session_timeout_ms=6_000
        )
    with open_bench(settings, redis_url, redis_namespace) as opened:
        yield opened


@pytest.fixture
def views(world: World, bench: Bench) -> Iterator[list[StreamView]]:
    """The repository's stream views, over new topics: on a broker that has them already, they are somebody's."""
    for topic in TOPICS:
        with suppress(UnknownTopicError):
            bench.log.size(topic)
            pytest.skip(f"the topic {topic!r} exists on this broker, and is left alone")
    bench.log.ensure_topics(TOPICS)
    yield world.views()
    bench.log.delete_topics([*TOPICS, *(f"{topic}.dead-letters" for topic in TOPICS)])


def group() -> str:
    return f"group-{uuid.uuid4().hex}"


def live_tables(world: World) -> dict[str, pa.Table]:
    return {topic: getattr(world.live, topic) for topic in TOPICS}


def click_line(event_id: str, time_ms: int, **changed: Any) -> bytes:
    fields = {
        "event_id": event_id,
        "event_time": time_ms,
        "event_type": "click",
        "advertiser_id": "a",
        "creator_id": "c",
        "ip": "i",
        "device_id": "d",
        "amount_usd": 1.0,
    }
    return json.dumps({**fields, **changed}).encode()


def table_of(lines: Sequence[bytes]) -> pa.Table:
    rows = [json.loads(line) for line in lines]
    table = pa.Table.from_pylist([{"ms_since_impression": None, **row} for row in rows])
    times = table.column("event_time").cast(pa.timestamp("ms", "UTC"))
    kept = table.set_column(table.column_names.index("event_time"), "event_time", times)
    place = kept.column_names.index("ms_since_impression")
    return kept.set_column(place, "ms_since_impression", kept.column("ms_since_impression").cast(pa.int64()))


def test_every_event_is_in_the_rows_once_and_a_replay_from_zero_changes_nothing(
    world: World, bench: Bench, views: list[StreamView]
) -> None:
    tables = live_tables(world)
    records = sum(table.num_rows for table in tables.values())
    for topic, table in tables.items():
        publish_table(bench.log, topic, table)
    with bench.worker(views, lambda: NOW_MS, group()) as worker:
        run_until(worker, lambda: worker.counts.records == records)
        assert not worker.counts.dead_letters
    ad_views = [view for view in views if view.topic == "ad_events"]
    assert assert_rows_hold_exactly(bench.client, bench.project, views, tables, NOW_MS) > 500
    assert worker.counts.folded >= len(ad_views) * tables["ad_events"].num_rows
    before = all_rows(bench, views)
    with bench.worker(views, lambda: NOW_MS, group()) as again:
        run_until(again, lambda: again.counts.records == records)
        assert again.counts.folded == 0
        assert again.counts.replayed == worker.counts.folded
    assert all_rows(bench, views) == before


def all_rows(bench: Bench, views: Sequence[StreamView]) -> dict[bytes, bytes]:
    keys = [key for view in views for key in bench.client.scan_iter(f"{bench.project}:{view.name}:*", count=5_000)]
    return dict(zip(keys, bench.client.mget(keys), strict=True)) if keys else {}


def test_records_that_are_no_events_go_to_the_dead_letters_and_the_others_count(
    bench: Bench, views: list[StreamView]
) -> None:
    good = [click_line(f"good-{i}", NOW_MS - i * 1_000) for i in range(6)]
    bad = {
        "malformed": [b"", b"{", b"\xff\xfe", b'{"a" 1}', click_line("x", NOW_MS) + b" and more"],
        "invalid": [
            b"[]",
            b"null",
            b"[" * 5_000,
            click_line("", NOW_MS),
            click_line("x", NOW_MS // 1000),
            click_line("x", NOW_MS, event_type="teleport"),
            click_line("x", NOW_MS, ip=None),
            click_line("x", NOW_MS, ip="i" * 300),
            click_line("x", NOW_MS, amount_usd=-1),
            click_line("x", NOW_MS, amount_usd="1"),
            click_line("x", NOW_MS, schema_version=2),
        ],
        "from_the_future": [click_line("x", NOW_MS + DEFAULT_SKEW_MS + 1)],
    }
    mixed = [line for pair in zip(good, [*bad["malformed"], bad["invalid"][0]], strict=True) for line in pair]
    lines = [*mixed, *bad["invalid"][1:], *bad["from_the_future"], click_line("skewed", NOW_MS + DEFAULT_SKEW_MS)]
    publish(bench.log, "ad_events", lines, ["one-key"] * len(lines))
    with bench.worker(views, lambda: NOW_MS, group()) as worker:
        run_until(worker, lambda: worker.counts.records == len(lines))
        assert dict(worker.counts.dead_letters) == {reason: len(records) for reason, records in bad.items()}
    letters = bench.dead_letters.list("ad_events")
    assert sorted((letter.reason, letter.value) for letter in letters) == sorted(
        (reason, record) for reason, records in bad.items() for record in records
    )
    assert all(letter.detail and letter.topic == "ad_events" and letter.at_ms == NOW_MS for letter in letters)
    counted = [*good, click_line("skewed", NOW_MS + DEFAULT_SKEW_MS)]
    ad_views = [view for view in views if view.topic == "ad_events"]
    tables = {"ad_events": table_of(counted)}
    assert assert_rows_hold_exactly(bench.client, bench.project, ad_views, tables, NOW_MS + DEFAULT_SKEW_MS) == 4


def test_an_event_that_a_transformation_chokes_on_is_put_aside_and_the_others_count(
    bench: Bench, views: list[StreamView]
) -> None:
    def chokes(columns: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        if "poison" in columns["os"]:
            raise ValueError("poison")
        return {"click": np.ones(len(columns["os"]))}

    view = replace(next(view for view in views if view.name == "ip_ad_stats"), transform=only_clicks(chokes))
    lines = [click_line(f"{i}", NOW_MS - i, os="poison" if i == 3 else "ios") for i in range(7)]
    publish(bench.log, "ad_events", lines, ["k"] * len(lines))
    with bench.worker([view], lambda: NOW_MS, group()) as worker:
        run_until(worker, lambda: worker.counts.records == len(lines))
        assert dict(worker.counts.dead_letters) == {"transformation_failed": 1}
        assert worker.counts.folded == 6
    [letter] = bench.dead_letters.list("ad_events")
    assert "poison" in letter.detail
    assert letter.value == lines[3]


def only_clicks(transform: Any) -> Any:
    """`ip_ad_stats` aggregates more columns than a test's transformation gives."""

    def with_the_rest(columns: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        nothing = np.full(len(columns["os"]), np.nan)
        return {"impression": nothing, "conversion": nothing, "fast_click": nothing, **transform(columns)}

    return with_the_rest


ODD_TRANSFORMATIONS = {
    "another length": lambda columns: {"click": np.ones(len(columns["os"]) + 1)},
    "a number": lambda _: {"click": 1.0},
    "no dict": lambda columns: np.ones(len(columns["os"])),
    "words to sum": lambda columns: {"click": np.full(len(columns["os"]), "many")},
    "writes into its input": lambda columns: columns["amount_usd"].fill(0.0),
}


@pytest.mark.parametrize("odd", sorted(ODD_TRANSFORMATIONS))
def test_a_transformation_that_gives_nonsense_fails_its_events_and_never_the_worker(
    redis_url: str, redis_namespace: str, odd: str
) -> None:
    wordy = replace(SPEC, aggregations=tuple(replace(s, column="click") for s in SPEC.aggregations))
    view = replace(stream_view(wordy), transform=ODD_TRANSFORMATIONS[odd])
    fine = stream_view(replace(SPEC, name="fine", aggregations=tuple(a_over_amounts(SPEC))))
    with open_bench(RedisLogSettings(url=redis_url, prefix=redis_namespace), redis_url, redis_namespace) as opened:
        opened.log.ensure_topics(["ad_events"])
        publish(opened.log, "ad_events", [click_line(f"{i}", NOW_MS) for i in range(3)], ["k"] * 3)
        with opened.worker([view, fine], lambda: NOW_MS) as worker:
            run_until(worker, lambda: worker.counts.records == 3)
            assert dict(worker.counts.dead_letters) == {"transformation_failed": 3}
            assert worker.counts.folded == 3


def a_over_amounts(spec: Any) -> list[Any]:
    return [replace(s, column="amount_usd") for s in spec.aggregations if s.function == "sum"]


def test_events_without_a_views_key_are_counted_and_left_out(
    world: World, bench: Bench, views: list[StreamView]
) -> None:
    creators = world.live.account_events.filter(
        pc.equal(world.live.account_events.column("actor_type"), "creator")
    ).slice(0, 50)
    publish_table(bench.log, "account_events", creators)
    with bench.worker(views, lambda: NOW_MS, group()) as worker:
        run_until(worker, lambda: worker.counts.records == creators.num_rows)
        assert worker.counts.without_key == creators.num_rows
    assert not list(bench.client.scan_iter(f"{bench.project}:advertiser_account_stats:*"))


def test_events_late_and_in_any_order_count_where_they_belong(
    world: World, bench: Bench, views: list[StreamView]
) -> None:
    table = world.live.ad_events.slice(0, 800)
    shuffled = table.take(np.random.default_rng(3).permutation(table.num_rows))
    publish(bench.log, "ad_events", json_lines(shuffled, "ad_events"), shuffled.column("ip").to_pylist())
    ad_views = [view for view in views if view.topic == "ad_events"]
    with bench.worker(ad_views, lambda: NOW_MS, group()) as worker:
        run_until(worker, lambda: worker.counts.records == table.num_rows)
        assert worker.counts.too_late == 0
    assert_rows_hold_exactly(bench.client, bench.project, ad_views, {"ad_events": table}, NOW_MS)


def test_an_event_too_old_for_any_window_is_put_aside(bench: Bench, views: list[StreamView]) -> None:
    ad_views = [view for view in views if view.topic == "ad_events"]
    reach_ms = max(max(view.spec.reach_ms, view.ttl_ms) for view in ad_views) + KEEP_SLACK_MS
    lines = [
        click_line("new", NOW_MS),
        click_line("old", NOW_MS - reach_ms),
        click_line("ancient", NOW_MS - reach_ms - 1),
    ]
    publish(bench.log, "ad_events", lines, ["k"] * len(lines))
    with bench.worker(ad_views, lambda: NOW_MS, group()) as worker:
        run_until(worker, lambda: worker.counts.records == len(lines))
        assert worker.counts.dead_letters == {"too_late": 1}
    (letter,) = bench.dead_letters.list("ad_events")
    assert (letter.reason, letter.value) == ("too_late", lines[2])
    tables = {"ad_events": table_of(lines[:1])}
    assert_rows_hold_exactly(bench.client, bench.project, ad_views, tables, NOW_MS)


def test_what_is_read_long_after_it_came_was_on_time(bench: Bench, views: list[StreamView]) -> None:
    """A worker that was away for a month, or begins at the first record, puts nothing aside for its age."""
    ad_views = [view for view in views if view.topic == "ad_events"]
    publish(bench.log, "ad_events", [click_line("e", int(time.time() * 1000))], ["k"])
    with bench.worker(ad_views, lambda: int(time.time() * 1000) + 30 * 86_400_000, group()) as worker:
        run_until(worker, lambda: worker.counts.records == 1)
        assert not worker.counts.dead_letters


def test_two_workers_of_one_group_share_the_work_and_count_every_event_once(
    world: World, bench: Bench, views: list[StreamView]
) -> None:
    tables = live_tables(world)
    records = sum(table.num_rows for table in tables.values())
    name, stop = group(), ThreadEvent()
    counts = [0, 0]

    def work(number: int) -> None:
        with open_again(bench) as own, own.worker(views, lambda: NOW_MS, name) as worker:

            def note(_: object) -> None:
                counts[number] = worker.counts.records

            worker.run(stop, note)

    threads = [Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for topic, table in tables.items():
            publish_table(bench.log, topic, table)
        wait_until(lambda: sum(counts) >= records, DEADLINE_S, "as many records are folded as there are")
        with suppress(DeadlineError):  # some came twice, to either worker, while partitions moved: the rows tell
            wait_until(lambda: rows_hold_exactly(bench, views, tables), DEADLINE_S, "all are folded", interval_s=0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert_rows_hold_exactly(bench.client, bench.project, views, tables, NOW_MS)


def rows_hold_exactly(bench: Bench, views: list[StreamView], tables: dict[str, pa.Table]) -> bool:
    try:
        assert_rows_hold_exactly(bench.client, bench.project, views, tables, NOW_MS)
    except AssertionError:
        return False
    return True


def open_again(bench: Bench) -> Any:
    """Another log and client on the same servers: a worker's own connections."""
    settings = bench.log._settings  # type: ignore[attr-defined]
    kwargs = bench.client.connection_pool.connection_kwargs
    return open_bench(settings, f"redis://{kwargs['host']}:{kwargs['port']}/{kwargs.get('db', 0)}", bench.project)


def test_a_batch_that_could_not_be_finished_is_taken_again_by_the_same_worker(
    redis_url: str, redis_namespace: str, world: World
) -> None:
    ad_views = [view for view in world.views() if view.topic == "ad_events"]
    with open_bench(RedisLogSettings(url=redis_url, prefix=redis_namespace), redis_url, redis_namespace) as opened:
        opened.log.ensure_topics(["ad_events"])
        lines = [click_line(f"{i}", NOW_MS - i) for i in range(5)]
        publish(opened.log, "ad_events", lines, ["k"] * 5)
        with opened.worker(ad_views, lambda: NOW_MS) as worker:
            assert_unfinished(worker, opened, next(view for view in ad_views if view.name == "device_ad_stats"))
            run_until(worker, lambda: worker.counts.folded >= 4 * 5)
        assert_rows_hold_exactly(opened.client, redis_namespace, ad_views, {"ad_events": table_of(lines)}, NOW_MS)


def assert_unfinished(worker: StreamWorker, bench: Bench, view: StreamView) -> None:
    """Runs into a row that cannot be read, as in an outage in the middle of a batch, and clears it away."""
    key = KeyEncoder(bench.project, view.name, (JoinKey("device_id", "STRING"),)).key(["d"])
    bench.client.hset(key, "not", "a string")
    with pytest.raises(OnlineStoreError):
        run_until(worker, lambda: False)
    bench.client.delete(key)


def test_the_group_has_committed_what_it_counted(bench: Bench, views: list[StreamView]) -> None:
    lines = [click_line(f"{i}", NOW_MS) for i in range(20)]
    publish(bench.log, "ad_events", lines, [f"k{i}" for i in range(20)])
    with bench.worker(views, lambda: NOW_MS, name := group()) as worker:
        run_until(worker, lambda: worker.counts.records == 20)
    topics = ["ad_events"]
    consumer = bench.log.consumer(topics, name)
    try:
        wait_until(lambda: not consumer.poll(10, 50) and len(consumer.assignment()) > 0, DEADLINE_S, "it is assigned")
        assert {p.topic for p in consumer.assignment()} == {"ad_events"}
        assert set(consumer.lag().values()) == {0}
        assert all(isinstance(p, TopicPartition) for p in consumer.lag())
    finally:
        consumer.close()


def test_a_log_that_was_made_anew_is_no_replay(redis_url: str, redis_namespace: str, world: World) -> None:
    ad_views = [view for view in world.views() if view.topic == "ad_events"]
    lines = [click_line(f"{i}", NOW_MS - i) for i in range(10)]
    with open_bench(RedisLogSettings(url=redis_url, prefix=redis_namespace), redis_url, redis_namespace) as opened:
        for part in (lines[:6], lines[6:]):
            opened.log.ensure_topics(["ad_events"])
            publish(opened.log, "ad_events", part, ["k"] * len(part))
            with opened.worker(ad_views, lambda: NOW_MS) as worker:
                run_until(worker, lambda part=part, worker=worker: worker.counts.records >= len(part))
                assert worker.counts.replayed == 0
            opened.log.delete_topics(["ad_events"])
            raise_applied_offsets(opened, ad_views)
        assert_rows_hold_exactly(opened.client, redis_namespace, ad_views, {"ad_events": table_of(lines)}, NOW_MS)


def raise_applied_offsets(bench: Bench, views: list[StreamView]) -> None:
    """Make the rows' offsets as large as those of a log that was far ahead."""
    for view in views:
        for key in bench.client.scan_iter(f"{bench.project}:{view.name}:*"):
            stored = decode_stream_row(view.spec, bench.client.get(key))
            far = replace(stored, applied=dict.fromkeys(stored.applied, 2**62))
            bench.client.set(key, encode_stream_row(view.spec, far))


def test_a_batch_that_is_tried_twice_leaves_each_dead_letter_once(
    redis_url: str, redis_namespace: str, world: World
) -> None:
    ad_views = [view for view in world.views() if view.topic == "ad_events"]
    with open_bench(RedisLogSettings(url=redis_url, prefix=redis_namespace), redis_url, redis_namespace) as opened:
        opened.log.ensure_topics(["ad_events"])
        publish(opened.log, "ad_events", [b"{", click_line("good", NOW_MS), b"[]"], ["k"] * 3)
        with opened.worker(ad_views, lambda: NOW_MS) as worker:
            assert_unfinished(worker, opened, next(view for view in ad_views if view.name == "device_ad_stats"))
            run_until(worker, lambda: worker.counts.folded >= 4)
            assert sum(worker.counts.dead_letters.values()) == 2
        assert opened.dead_letters.count("ad_events") == 2


def test_what_is_taken_at_once_is_bounded_in_records_and_in_bytes(bench: Bench, views: list[StreamView]) -> None:
    lines = [click_line(f"{i}", NOW_MS - i) for i in range(20)]
    publish(bench.log, "ad_events", lines, ["k"] * 20)
    settings = WorkerSettings(batch_records_max=15, batch_bytes_max=4 * len(lines[0]))
    taken: list[int] = []
    with bench.worker(views, lambda: NOW_MS, group(), settings) as worker:
        run_until(worker, lambda: bool(taken.append(worker.counts.records)) or worker.counts.records == 20)
    sizes = [after - before for before, after in pairwise(taken)]
    assert 1 <= max(sizes) <= 4


def test_an_event_larger_than_a_batch_may_be_is_a_batch_of_its_own(bench: Bench, views: list[StreamView]) -> None:
    publish(bench.log, "ad_events", [click_line(f"{i}", NOW_MS - i) for i in range(3)], ["k"] * 3)
    with bench.worker(views, lambda: NOW_MS, group(), WorkerSettings(batch_bytes_max=1)) as worker:
        run_until(worker, lambda: worker.counts.records == 3)


class WriterInAnOutage(RowWriter):
    """Writes nothing until it is over."""

    is_over = False

    def fold_events(self, view: StreamView, folder: RowFolder, events: EventsByRow) -> FoldOutcome:
        if not self.is_over:
            raise OnlineStoreUnavailableError("the server is away")
        return super().fold_events(view, folder, events)


def test_a_worker_that_cannot_write_reads_nothing_more_and_says_why(bench: Bench, views: list[StreamView]) -> None:
    ad_views = [view for view in views if view.topic == "ad_events"]
    lines = [click_line(f"{i}", NOW_MS - i) for i in range(100)]
    publish(bench.log, "ad_events", lines, ["k"] * 100)
    settings = WorkerSettings(batch_records_max=10, retry_first_s=0.01, retry_max_s=0.01, keep_alive_every_s=0.01)
    writer, stop = WriterInAnOutage(bench.client), ThreadEvent()
    with closing(bench.log.consumer(["ad_events"], group())) as consumer:
        letters = bench.dead_letters
        worker = StreamWorker(bench.project, ad_views, consumer, writer, letters, lambda: NOW_MS, settings)
        thread = Thread(target=worker.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: worker.counts.retries >= 5, DEADLINE_S, "it tries again")
            assert (worker.state, worker.trouble, worker.counts.records) == ("retrying", "the server is away", 0)
            writer.is_over = True
            wait_until(lambda: worker.counts.records == 100, DEADLINE_S, "it goes on by itself")
            wait_until(lambda: (worker.state, worker.trouble) == ("idle", ""), DEADLINE_S, "all is well again")
        finally:
            stop.set()
            thread.join()
    assert_rows_hold_exactly(bench.client, bench.project, ad_views, {"ad_events": table_of(lines)}, NOW_MS)


def test_a_worker_measures_its_batches_how_fresh_they_are_and_how_far_it_is_behind(
    bench: Bench, views: list[StreamView]
) -> None:
    publish(bench.log, "ad_events", [click_line(f"{i}", NOW_MS - 10_000) for i in range(200)], ["k"] * 200)
    settings = WorkerSettings(lag_every_s=0)
    with bench.worker(views, lambda: NOW_MS, group(), settings) as worker:
        stop = ThreadEvent()
        worker.run(stop, lambda counts: stop.set() if counts.records == 200 else None)
    measures = worker.measures
    batches = sum(measures.batch_s.counts)
    assert sum(measures.batch_records.counts) == batches
    assert measures.batch_records.total == 200
    assert sum(measures.since_event_s.counts) == sum(measures.since_log_s.counts) == 200
    assert measures.since_event_s.total == pytest.approx(200 * 10.0)
    assert measures.event_time_ahead_s == pytest.approx(-10.0)
    assert all(sum(measures.stage_s[stage].counts) >= batches for stage in ("poll", "decode", "fold", "commit"))
    assert set(measures.lag.values()) == {0}
