"""What the event log on Kafka promises beyond the common protocol."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import kafka
import pytest
from kafka.structs import MemberState

from actor_risk.local import wait_until
from materialize.stream.errors import CommitRejectedError, RecordsLostError
from materialize.stream.kafka_log import KafkaLog
from materialize.stream.log import EventLogConsumer, KafkaLogSettings, Record, next_offsets

pytestmark = pytest.mark.kafka

DEADLINE_S = 60.0


@pytest.fixture
def log(kafka_bootstrap: str) -> KafkaLog:
    return KafkaLog(KafkaLogSettings(bootstrap_servers=kafka_bootstrap, partitions=1, session_timeout_ms=6_000))


@pytest.fixture
def topic(log: KafkaLog) -> Iterator[str]:
    name = f"events-{uuid.uuid4().hex}"
    log.ensure_topics([name])
    yield name
    log.delete_topics([name])


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex}"


def append(log: KafkaLog, topic: str, count: int) -> None:
    with closing(log.producer()) as producer:
        for i in range(count):
            producer.send(topic, b"k", b"%d" % i)


def read(consumer: EventLogConsumer, count: int) -> list[Record]:
    records: list[Record] = []

    def poll() -> bool:
        records.extend(consumer.poll(100, 200))
        return len(records) >= count

    wait_until(poll, DEADLINE_S, f"{count} records have been read", interval_s=0)
    return records


def test_a_group_that_retention_overtook_is_told_and_then_gets_what_is_left(
    kafka_bootstrap: str, log: KafkaLog, topic: str, group: str
) -> None:
    append(log, topic, 10)
    with closing(log.consumer([topic], group)) as consumer:
        consumer.commit(next_offsets(read(consumer, 10)[:4]))
    with closing(kafka.KafkaAdminClient(bootstrap_servers=kafka_bootstrap)) as admin:
        admin.delete_records({kafka.TopicPartition(topic, 0): 7})
    with closing(log.consumer([topic], group)) as consumer:
        with pytest.raises(RecordsLostError, match="backfill") as lost:
            read(consumer, 3)
        assert (lost.value.expected_offset, lost.value.resume_offset) == (4, 7)
        assert [int(r.value) for r in consumer.poll(100, 0)] == [7, 8, 9]


def test_a_member_that_lost_its_partitions_for_a_while_does_not_step_their_commit_back(
    log: KafkaLog, topic: str, group: str
) -> None:
    """As a worker that slept past its session with a batch in hand: others had its partitions, and left again."""
    append(log, topic, 100)
    with closing(log.consumer([topic], group)) as sleeper:
        in_hand: list[Record] = []
        wait_until(lambda: bool(in_hand.extend(sleeper.poll(40, 200)) or in_hand), DEADLINE_S, "it has a batch")
        sleeper._client._coordinator.maybe_leave_group()  # type: ignore[attr-defined]  # as when its session ends
        with closing(log.consumer([topic], group)) as other:
            other.commit(next_offsets(read(other, 100)))

        def is_back() -> bool:
            sleeper.keep_alive(50)
            return bool(sleeper.assignment()) and not any(sleeper.lag().values())

        wait_until(is_back, DEADLINE_S, "the sleeper has its partition again")
        with pytest.raises(CommitRejectedError):
            sleeper.commit(next_offsets(in_hand))
        assert not sleeper.poll(100, 200)
        assert not any(sleeper.lag().values())


def test_what_is_read_may_be_committed_though_the_client_says_that_it_joins(
    log: KafkaLog, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that stands still for a while the client of Kafka may say so though it is done with it."""
    told = kafka.KafkaConsumer.group_metadata

    def joining(client: kafka.KafkaConsumer) -> Any:
        return told(client)._replace(state=MemberState.REBALANCING)

    monkeypatch.setattr(kafka.KafkaConsumer, "group_metadata", joining)
    append(log, topic, 10)
    with closing(log.consumer([topic], group)) as consumer:
        records = read(consumer, 10)
        assert {record.topic_partition for record in records} <= consumer.assignment()
        consumer.commit(next_offsets(records))


def test_a_join_that_failed_for_want_of_time_is_begun_anew(
    log: KafkaLog, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, topic, 10)
    with closing(log.consumer([topic], group)) as consumer:
        coordinator = consumer._client._coordinator
        attempt, failures = coordinator._do_join_and_sync_async, [kafka.errors.KafkaTimeoutError("too slow")]

        async def join() -> Any:
            if failures:
                await coordinator._net.sleep(0.5)  # longer than a poll
                raise failures.pop()
            return await attempt()

        monkeypatch.setattr(coordinator, "_do_join_and_sync_async", join)
        assert len(read(consumer, 10)) == 10
        assert not failures
