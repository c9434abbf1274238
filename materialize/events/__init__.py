"""Events at the edge: one schema per topic, validation with reasons, and events as columns."""

from materialize.events._columns import (
    Columns,
    columns_from_events,
    columns_from_table,
    hash_binary,
    hashes_from_table,
    places_of_words,
)
from materialize.events._decode import (
    DEFAULT_SKEW_MS,
    Event,
    EventDecoder,
    InvalidEventError,
    JsonEventDecoder,
    Reason,
    decode_event,
    event_time_ms,
    partition_key,
)
from materialize.events._documents import avro_schema, json_schema, schema_documents, schema_version
from materialize.events._errors import EventFormatError
from materialize.events._formats import EventFormats, open_formats
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
    "EventDecoder",
    "EventFormatError",
    "EventFormats",
    "InvalidEventError",
    "JsonEventDecoder",
    "Reason",
    "avro_schema",
    "columns_from_events",
    "columns_from_table",
    "decode_event",
    "event_time_ms",
    "hash_binary",
    "hashes_from_table",
    "json_schema",
    "open_formats",
    "partition_key",
    "places_of_words",
    "schema_documents",
    "schema_version",
]
