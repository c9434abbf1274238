"""Events into the log: tables and single events, each with the key that chooses its partition."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from actor_risk.simulate import json_lines
from materialize.stream import EventLog

KEY_COLUMNS = {"ad_events": "ip", "account_events": "actor_id"}
"""The column whose value is an event's partition key: as `materialize.events.partition_key` has it."""

FLUSH_EVERY = 2_000
FLUSH_TIMEOUT_MS = 30_000


def publish_table(log: EventLog, topic: str, table: pa.Table, progress: Callable[[int], None]) -> int:
    """Publish every event of the table, in its order, and return how many. `progress` is told how many are sent.

    Raises ProduceError when some are not acknowledged.
    """
    keys = table.column(KEY_COLUMNS[topic]).to_pylist()
    producer = log.producer()
    sent = 0
    try:
        for key, line in zip(keys, json_lines(table, topic), strict=True):
            producer.send(topic, key.encode(), line)
            sent += 1
            if sent % FLUSH_EVERY == 0:
                producer.flush(FLUSH_TIMEOUT_MS)
                progress(sent)
        producer.flush(FLUSH_TIMEOUT_MS)
        progress(sent)
    finally:
        producer.close()
    return sent
