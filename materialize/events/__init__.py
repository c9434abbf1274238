"""Events at the edge: one schema per topic, validation with reasons, and events as columns."""

from materialize.events._columns import Columns, columns_from_events, columns_from_table
from materialize.events._decode import (
    DEFAULT_SKEW_MS,
    Event,
    InvalidEventError,
    decode_event,
    event_time_ms,
    json_schema,
    partition_key,
)
from materialize.events._schemas import (
    ACCOUNT_EVENTS,
    AD_EVENTS,
    TOPICS,
    AccountEvent,
    AdEvent,
)

__all__ = [
    "ACCOUNT_EVENTS",
    "AD_EVENTS",
    "DEFAULT_SKEW_MS",
    "TOPICS",
    "AccountEvent",
    "AdEvent",
    "Columns",
    "Event",
    "InvalidEventError",
    "columns_from_events",
    "columns_from_table",
    "decode_event",
    "event_time_ms",
    "json_schema",
    "partition_key",
]
