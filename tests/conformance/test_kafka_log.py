"""What the event log on Kafka promises beyond the common protocol."""

from __future__ import annotations

import uuid
from contextlib import closing

import kafka
import pytest

from actor_risk.local import wait_until
from materialize.stream.errors import RecordsLostError
from materialize.stream.kafka_log import KafkaLog
from materialize.stream.log import EventLogConsumer, KafkaLogSettings, Record, next_offsets

pytestmark = pytest.mark.kafka

DEADLINE_S = 60.0


def read(consumer: EventLogConsumer, count: int) -> list[Record]:
    records: list[Record] = []

    def poll() -> bool:
        records.extend(consumer.poll(100, 200))
        return len(records) >= count

    wait_until(poll, DEADLINE_S, f"{count} records have been read", interval_s=0)
    return records


def test_a_group_that_retention_overtook_is_told_and_then_gets_what_is_left(kafka_bootstrap: str) -> None:
    log = KafkaLog(KafkaLogSettings(bootstrap_servers=kafka_bootstrap, partitions=1, session_timeout_ms=6_000))
    topic, group = f"events-{uuid.uuid4().hex}", f"group-{uuid.uuid4().hex}"
    log.ensure_topics([topic])
    try:
        with closing(log.producer()) as producer:
            for i in range(10):
                producer.send(topic, b"k", b"%d" % i)
        with closing(log.consumer([topic], group)) as consumer:
            consumer.commit(next_offsets(read(consumer, 10)[:4]))
        with closing(kafka.KafkaAdminClient(bootstrap_servers=kafka_bootstrap)) as admin:
            admin.delete_records({kafka.TopicPartition(topic, 0): 7})
        with closing(log.consumer([topic], group)) as consumer:
            with pytest.raises(RecordsLostError, match="backfill") as lost:
                read(consumer, 3)
            assert (lost.value.expected_offset, lost.value.resume_offset) == (4, 7)
            assert [int(r.value) for r in consumer.poll(100, 0)] == [7, 8, 9]
    finally:
        log.delete_topics([topic])
