"""Packed rows in Redis, compiled read plans, and the Feast OnlineStore plug-in."""

from materialize.online._batch_rows import (
    BatchRow,
    FieldValue,
    decode_batch_row,
    encode_batch_row,
    value_from_proto,
    value_to_proto,
)
from materialize.online._errors import (
    OnlineStoreError,
    OnlineStoreUnavailableError,
    RowRefusedError,
    UnknownServiceError,
    WriteConflictError,
)
from materialize.online._keys import KeyEncoder, view_prefix
from materialize.online._plan import ReadPlan, compile_plan
from materialize.online._reader import FeatureReader, open_reader, read_plan, topic_of
from materialize.online._stream_rows import StreamRow, decode_stream_row, encode_stream_row
from materialize.online._vector import FeatureVector, assemble
from materialize.online._view_reader import FeatureStatus, ReadCounts, ViewReader, ViewValues, view_reader
from materialize.online._writer import RowWriter, WriteCounts, unavailable_if_redis_fails

__all__ = [
    "BatchRow",
    "FeatureReader",
    "FeatureStatus",
    "FeatureVector",
    "FieldValue",
    "KeyEncoder",
    "OnlineStoreError",
    "OnlineStoreUnavailableError",
    "ReadCounts",
    "ReadPlan",
    "RowRefusedError",
    "RowWriter",
    "StreamRow",
    "UnknownServiceError",
    "ViewReader",
    "ViewValues",
    "WriteConflictError",
    "WriteCounts",
    "assemble",
    "compile_plan",
    "decode_batch_row",
    "decode_stream_row",
    "encode_batch_row",
    "encode_stream_row",
    "open_reader",
    "read_plan",
    "topic_of",
    "unavailable_if_redis_fails",
    "value_from_proto",
    "value_to_proto",
    "view_prefix",
    "view_reader",
]
