"""Packed rows in Redis, compiled read plans, and the Feast OnlineStore plug-in."""

from materialize.online._batch_columns import NUMERIC_KINDS, encode_batch_columns
from materialize.online._batch_rows import (
    BatchRow,
    FieldValue,
    decode_batch_row,
    encode_batch_row,
    value_from_proto,
    value_to_proto,
)
from materialize.online._connect import (
    RedisSettings,
    connect,
    connect_async,
    redis_settings,
    unavailable_if_redis_fails,
)
from materialize.online._errors import (
    ConnectionSettingsError,
    OnlineStoreError,
    OnlineStoreRefusedError,
    OnlineStoreUnavailableError,
    RowRefusedError,
    UnknownFeatureError,
    UnknownServiceError,
    WriteConflictError,
)
from materialize.online._feature_matrix import FeatureMatrix, FeatureVector, Lookup, assemble, lookup
from materialize.online._folding import EventsByRow, FoldedRows, HistoryByRow, RowFolder, events_by_row, history_by_row
from materialize.online._keys import KeyEncoder, view_prefix
from materialize.online._plan import ReadPlan, compile_plan
from materialize.online._plans import EntityFeatures, read_plan
from materialize.online._reader import FeatureReader, FeatureReaderSync, open_reader, open_reader_sync
from materialize.online._scored_events import topic_of
from materialize.online._short_lived import ShortLived
from materialize.online._stream_rows import StreamRow, decode_stream_row, encode_stream_row
from materialize.online._values import FeatureStatus, Met, ReadCounts
from materialize.online._view_reader import ViewReader, ViewValues, view_reader
from materialize.online._writer import FoldOutcome, Progress, RowWriter, WriteCounts

__all__ = [
    "NUMERIC_KINDS",
    "BatchRow",
    "ConnectionSettingsError",
    "EntityFeatures",
    "EventsByRow",
    "FeatureMatrix",
    "FeatureReader",
    "FeatureReaderSync",
    "FeatureStatus",
    "FeatureVector",
    "FieldValue",
    "FoldOutcome",
    "FoldedRows",
    "HistoryByRow",
    "KeyEncoder",
    "Lookup",
    "Met",
    "OnlineStoreError",
    "OnlineStoreRefusedError",
    "OnlineStoreUnavailableError",
    "Progress",
    "ReadCounts",
    "ReadPlan",
    "RedisSettings",
    "RowFolder",
    "RowRefusedError",
    "RowWriter",
    "ShortLived",
    "StreamRow",
    "UnknownFeatureError",
    "UnknownServiceError",
    "ViewReader",
    "ViewValues",
    "WriteConflictError",
    "WriteCounts",
    "assemble",
    "compile_plan",
    "connect",
    "connect_async",
    "decode_batch_row",
    "decode_stream_row",
    "encode_batch_columns",
    "encode_batch_row",
    "encode_stream_row",
    "events_by_row",
    "history_by_row",
    "lookup",
    "open_reader",
    "open_reader_sync",
    "read_plan",
    "redis_settings",
    "topic_of",
    "unavailable_if_redis_fails",
    "value_from_proto",
    "value_to_proto",
    "view_prefix",
    "view_reader",
]
