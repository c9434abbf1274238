"""Events into the log: tables and single events, each with the key that chooses its partition."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pyarrow as pa

from actor_risk.simulate import json_lines
from materialize.events import TOPICS, partition_key
from materialize.stream import EventLog

FLUSH_EVERY = 2_000
FLUSH_TIMEOUT_MS = 30_000


def publish_table(log: EventLog, topic: str, table: pa.Table, progress: Callable[[int], None]) -> int:
    """Publish every event of the table, in its order, and return how many. `progress` is told how many are sent.

    Raises ProduceError when some are not acknowledged.
    """
    decoder = msgspec.json.Decoder(TOPICS[topic])
    producer = log.producer()
    sent = 0
    try:
        for line in json_lines(table, topic):
            producer.send(topic, partition_key(decoder.decode(line)), line)
            sent += 1
            if sent % FLUSH_EVERY == 0:
                producer.flush(FLUSH_TIMEOUT_MS)
                progress(sent)
        producer.flush(FLUSH_TIMEOUT_MS)
        progress(sent)
    finally:
        producer.close()
    return sent
