"""The bytes of a batch row: a null bitmap, one slot of 8 bytes for each field, and a section for what is longer.

header (56 bytes)
bitmap     one bit for each field, least significant first, 1 where there is a value; padded to 8 bytes
slots      fields × 8 bytes: float64, int64, or { offset uint32, length uint32 } into the section
section    strings in UTF-8, bytes as they are, every other Feast type as its serialised Value message
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.message import DecodeError

from materialize.definitions import BatchView, FeatureField
from materialize.online._errors import RowRefusedError
from materialize.online._header import BATCH_ROW, HEADER_SIZE, Header, seal, unseal

_FLOATS = {"DOUBLE": "double_val", "FLOAT": "float_val"}
_INTS = {"INT64": "int64_val", "INT32": "int32_val", "BOOL": "bool_val", "UNIX_TIMESTAMP": "unix_timestamp_val"}
_RAW = {"STRING": "string_val", "BYTES": "bytes_val"}
_FLOAT = struct.Struct("<d")
_INT = struct.Struct("<q")
_SPAN = struct.Struct("<II")

FieldValue = float | int | bool | str | bytes | ValueProto | None
"""A stored value: Python's own for scalars, Feast's message for lists and the rest, None for null."""


@dataclass(frozen=True)
class BatchRow:
    """A row as it is stored; `values` in the order of the view's fields."""

    event_time_ms: int
    created_ms: int
    values: tuple[FieldValue, ...]


def encode_batch_row(view: BatchView, row: BatchRow) -> bytes:
    """The bytes of a row."""
    bitmap = 0
    slots: list[bytes] = []
    section: list[bytes] = []
    length = 0
    for position, (field, value) in enumerate(zip(view.fields, row.values, strict=True)):
        if value is None:
            slots.append(bytes(8))
            continue
        bitmap |= 1 << position
        slot, tail = _pack(field, value, length)
        slots.append(slot)
        section.append(tail)
        length += len(tail)
    body = b"".join([bitmap.to_bytes(bitmap_size(view), "little"), *slots, *section])
    return seal(Header(BATCH_ROW, view.fingerprint, 0, row.event_time_ms, row.created_ms, 0, len(view.fields)), body)


def decode_batch_row(view: BatchView, data: bytes) -> BatchRow:
    """The row that the bytes hold. Raises RowRefusedError for bytes that are no row of this view."""
    header = unseal(data, BATCH_ROW, view.fingerprint)
    slots_at = HEADER_SIZE + bitmap_size(view)
    section_at = slots_at + 8 * len(view.fields)
    if header.items != len(view.fields) or len(data) < section_at:
        raise RowRefusedError("bad_shape", "the row has other fields than its view")
    bitmap = int.from_bytes(data[HEADER_SIZE:slots_at], "little")
    values = tuple(
        _unpack(field, data, slots_at + 8 * position, section_at) if bitmap >> position & 1 else None
        for position, field in enumerate(view.fields)
    )
    return BatchRow(header.event_time_ms, header.second_time_ms, values)


def value_from_proto(field: FeatureField, proto: ValueProto) -> FieldValue:
    """The stored form of a Feast value; a null of any kind is None."""
    which = proto.WhichOneof("val")
    if which is None or which == "null_val":
        return None
    name = _FLOATS.get(field.kind) or _INTS.get(field.kind) or _RAW.get(field.kind)
    if name is None:
        return proto
    if which != name:
        raise ValueError(f"field {field.name!r} is {field.kind}, but the value is a {which}")
    value: FieldValue = getattr(proto, which)
    return value


def value_to_proto(field: FeatureField, value: FieldValue) -> ValueProto:
    """The Feast message of a stored value."""
    if value is None:
        return ValueProto()
    if isinstance(value, ValueProto):
        return value
    name = _FLOATS.get(field.kind) or _INTS.get(field.kind) or _RAW[field.kind]
    proto = ValueProto()
    setattr(proto, name, value)
    return proto


def _pack(field: FeatureField, value: FieldValue, length: int) -> tuple[bytes, bytes]:
    if field.kind in _FLOATS:
        return _FLOAT.pack(value), b""
    if field.kind in _INTS:
        return _INT.pack(value), b""
    tail = tail_of(value)
    return _SPAN.pack(length, len(tail)), tail


def tail_of(value: FieldValue) -> bytes:
    """What the section holds of a value that is longer than a slot."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    assert isinstance(value, ValueProto)
    serialised: bytes = value.SerializeToString(deterministic=True)
    return serialised


def _unpack(field: FeatureField, data: bytes, slot_at: int, section_at: int) -> FieldValue:
    if field.kind in _FLOATS:
        return float(_FLOAT.unpack_from(data, slot_at)[0])
    if field.kind in _INTS:
        number = int(_INT.unpack_from(data, slot_at)[0])
        return bool(number) if field.kind == "BOOL" else number
    begin, length = _SPAN.unpack_from(data, slot_at)
    if section_at + begin + length > len(data):
        raise RowRefusedError("bad_shape", f"field {field.name!r} lies beyond the row's end")
    tail = data[section_at + begin : section_at + begin + length]
    if field.kind == "BYTES":
        return tail
    try:
        return tail.decode() if field.kind == "STRING" else ValueProto.FromString(tail)
    except (UnicodeDecodeError, DecodeError) as error:
        raise RowRefusedError("bad_value", f"field {field.name!r} is no {field.kind}: {error}") from error


def bitmap_size(view: BatchView) -> int:
    """Bytes of the view's null bitmap."""
    return (len(view.fields) + 63) // 64 * 8
