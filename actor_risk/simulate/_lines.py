"""Events as the JSON records that a log carries."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pyarrow as pa

from actor_risk.simulate._errors import UnknownTopicError
from materialize.events import TOPICS

_ROWS_AT_ONCE = 4_096


def json_lines(table: pa.Table, topic: str) -> Iterator[bytes]:
    """Each event of `table` as one JSON record of `topic`, in the table's order, without a line break.

    The records hold the fields of the topic's schema, event_time as integer milliseconds; other columns, such as
    `created`, stay behind. `materialize.events.decode_event` accepts each of them.
    Raises UnknownTopicError at once, before the first record is asked for.
    """
    if topic not in TOPICS:
        raise UnknownTopicError(f"no topic {topic!r}; the topics are {sorted(TOPICS)}")
    fields = [name for name in TOPICS[topic].__struct_fields__ if name in table.column_names]
    return _records(table.select(fields))


def _records(table: pa.Table) -> Iterator[bytes]:
    encoder = msgspec.json.Encoder()
    time = table.column_names.index("event_time")
    as_ms = table.set_column(time, "event_time", table.column("event_time").cast(pa.int64()))
    for batch in as_ms.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from map(encoder.encode, batch.to_pylist())
