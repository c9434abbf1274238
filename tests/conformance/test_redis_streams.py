"""What the event log on Redis Streams promises beyond the common protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from actor_risk.local import Valkey, wait_until
from materialize.stream._redis_consumer import LAG_EXACT_MAX
from materialize.stream._redis_layout import SEQUENCE_BITS, entry_id_of, offset_of
from materialize.stream.errors import (
    CommitRejectedError,
    InvalidOffsetError,
    LogUnavailableError,
    ProduceError,
    RecordsLostError,
)
from materialize.stream.log import EventLog, EventLogConsumer, RedisLogSettings, TopicPartition, next_offsets
from materialize.stream.redis_streams import RedisStreams

TOPIC = "events"
GROUP = "group"
LEASE_MS = 60_000
SHORT_LEASE_MS = 500
DEADLINE_S = 20.0

entry_ids = st.tuples(st.integers(0, 2**43 - 1), st.integers(0, 2**SEQUENCE_BITS - 1))


@given(entry_ids, entry_ids)
def test_offsets_are_in_the_order_of_entry_ids_and_go_back_to_them(a: tuple[int, int], b: tuple[int, int]) -> None:
    first, second = (offset_of(b"%d-%d" % entry_id) for entry_id in (a, b))
    assert (first < second) == (a < b)
    assert entry_id_of(first) == f"{a[0]}-{a[1]}"
    assert 0 <= first < 2**63


@pytest.mark.parametrize("entry_id", [b"1-1048576", b"8796093022208-0", b"", b"5", b"a-b"])
def test_an_entry_id_that_is_no_offset_is_refused(entry_id: bytes) -> None:
    with pytest.raises(InvalidOffsetError):
        offset_of(entry_id)


@pytest.fixture
def settings(redis_url: str, redis_namespace: str) -> RedisLogSettings:
    return RedisLogSettings(url=redis_url, prefix=redis_namespace, partitions=2, lease_ms=LEASE_MS)


@pytest.fixture
def log(settings: RedisLogSettings) -> Iterator[RedisStreams]:
    with closing(RedisStreams(settings)) as opened:
        opened.ensure_topics([TOPIC])
        yield opened


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@dataclass
class Clock:
    """A clock that stands still until told."""

    now_ms: int = 0

    def __call__(self) -> int:
        return self.now_ms


def append(log: EventLog, count: int) -> None:
    with closing(log.producer()) as producer:
        for i in range(count):
            producer.send(TOPIC, b"one key", b"%d" % i)


def poll_until_owner(consumer: EventLogConsumer, partitions: int) -> None:
    def poll() -> bool:
        assert consumer.poll(10, 20) == []
        return len(consumer.assignment()) == partitions

    wait_until(poll, DEADLINE_S, f"the consumer owns {partitions} partitions", interval_s=0)


def test_a_consumer_that_sleeps_longer_than_its_lease_can_neither_read_nor_commit(
    log: RedisStreams, settings: RedisLogSettings
) -> None:
    append(log, 10)
    clock = Clock()
    with closing(RedisStreams(replace(settings, lease_ms=SHORT_LEASE_MS), clock)) as slow_log:
        sleeper = slow_log.consumer([TOPIC], GROUP)
        taken = sleeper.poll(10, 0)
        assert len(taken) == 5
        with closing(log.consumer([TOPIC], GROUP)) as heir:
            seen = []

            def heir_has_read_all() -> bool:
                seen.extend(heir.poll(100, 50))
                return len(seen) == 10

            wait_until(heir_has_read_all, DEADLINE_S, "the heir has read all", interval_s=0)
            with pytest.raises(CommitRejectedError):
                sleeper.commit(next_offsets(taken))
            heir.commit(next_offsets(seen))
            clock.now_ms += 10 * SHORT_LEASE_MS
            assert sleeper.poll(100, 0) == []
            assert taken[0].topic_partition not in sleeper.assignment()
        sleeper.close()


def test_a_partition_is_handed_over_only_after_what_was_polled_is_committed(settings: RedisLogSettings) -> None:
    clock = Clock()
    with closing(RedisStreams(settings, clock)) as log, closing(RedisStreams(settings)) as other_log:
        log.ensure_topics([TOPIC])
        append(log, 10)
        first, second = log.consumer([TOPIC], GROUP), other_log.consumer([TOPIC], GROUP)
        records = first.poll(20, 0)
        assert len(records) == 10

        def is_shared() -> bool:
            assert first.poll(10, 0) == second.poll(10, 20) == []
            clock.now_ms += LEASE_MS // 3 + 1  # time to renew
            return len(first.assignment()) == len(second.assignment()) == 1

        assert second.poll(10, 0) == []
        clock.now_ms += LEASE_MS // 3 + 1
        assert first.poll(10, 0) == second.poll(10, 200) == []
        assert records[0].topic_partition not in second.assignment()
        first.commit(next_offsets(records))
        wait_until(is_shared, DEADLINE_S, "the partitions are shared", interval_s=0)
        assert not first.assignment() & second.assignment()


def test_a_group_that_retention_overtook_is_told_and_goes_on_at_the_first_record_left(
    log: RedisStreams, settings: RedisLogSettings, client: redis.Redis
) -> None:
    append(log, 10)
    with closing(log.consumer([TOPIC], GROUP)) as consumer:
        records = consumer.poll(4, 1_000)
        while len(records) < 4:
            records += consumer.poll(1, 100)
        consumer.commit(next_offsets(records))
        partition = records[0].topic_partition
        client.xtrim(f"{settings.prefix}:log:{{{TOPIC}:{partition.partition}}}", maxlen=3, approximate=False)
        with pytest.raises(RecordsLostError, match="backfill") as lost:
            consumer.poll(100, 0)
        assert lost.value.expected_offset == records[-1].offset + 1
        assert [int(r.value) for r in consumer.poll(100, 1_000)] == [7, 8, 9]


def test_a_stream_keeps_about_as_many_records_as_retention_says(redis_url: str, redis_namespace: str) -> None:
    settings = RedisLogSettings(url=redis_url, prefix=redis_namespace, partitions=1, retention_records=500)
    with closing(RedisStreams(settings)) as log:
        log.ensure_topics([TOPIC])
        append(log, 3_000)
        assert 500 <= log.size(TOPIC) <= 700


def test_a_lag_beyond_the_exact_count_is_estimated_within_the_length_of_the_stream(
    log: RedisStreams, settings: RedisLogSettings, client: redis.Redis
) -> None:
    with closing(log.consumer([TOPIC], GROUP)) as consumer:
        poll_until_owner(consumer, 2)
        partition = TopicPartition(TOPIC, 0)
        stream = f"{settings.prefix}:log:{{{TOPIC}:0}}"
        pipeline = client.pipeline(transaction=False)
        for ms in range(1, 30_001):
            pipeline.xadd(stream, {"key": b"", "value": b""}, id=f"{ms}-0")
        pipeline.execute()
        consumer.commit({partition: offset_of(b"5000-0") + 1})
        assert LAG_EXACT_MAX <= consumer.lag()[partition] <= 30_000
        assert consumer.lag()[partition] == pytest.approx(25_000, rel=0.01)


def test_an_entry_that_somebody_wrote_without_a_value_is_an_empty_record(
    log: RedisStreams, settings: RedisLogSettings, client: redis.Redis
) -> None:
    client.xadd(f"{settings.prefix}:log:{{{TOPIC}:0}}", {"something": "else"})
    with closing(log.consumer([TOPIC], GROUP)) as consumer:
        (record,) = consumer.poll(10, 1_000)
    assert (record.key, record.value) == (None, b"")


def test_deleting_a_topic_leaves_no_key_of_it_and_no_other_topic_touched(
    log: RedisStreams, redis_namespace: str, client: redis.Redis
) -> None:
    log.ensure_topics([f"{TOPIC}.more"])
    with closing(log.producer()) as producer:
        producer.send(f"{TOPIC}.more", b"k", b"v")
    append(log, 3)
    with closing(log.consumer([TOPIC], GROUP)) as consumer:
        consumer.commit(next_offsets(consumer.poll(10, 1_000)))
    log.delete_topics([TOPIC])
    assert not list(client.scan_iter(match=f"{redis_namespace}:log:{{{TOPIC}[:}}]*"))
    assert log.size(f"{TOPIC}.more") == 1


def test_when_the_server_is_gone_flush_and_poll_say_so_and_work_again_when_it_is_back(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey", append_only=True) as server:
        settings = RedisLogSettings(url=server.url, partitions=2, lease_ms=LEASE_MS, timeout_ms=500)
        with closing(RedisStreams(settings)) as log:
            log.ensure_topics([TOPIC])
            producer, consumer = log.producer(), log.consumer([TOPIC], GROUP)
            producer.send(TOPIC, b"k", b"v")
            producer.flush(1_000)
            server.stop()
            for _ in range(3):
                producer.send(TOPIC, b"k", b"v")
            with pytest.raises(ProduceError) as failed:
                producer.flush(1_000)
            assert failed.value.count == 3
            with pytest.raises(LogUnavailableError):
                consumer.poll(10, 100)
            consumer.close()
