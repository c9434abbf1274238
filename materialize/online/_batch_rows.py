"""The bytes of a batch row, one row at a time; `_batch_layout` says where everything is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.message import DecodeError

from materialize.definitions import BatchView, FeatureField
from materialize.online._batch_layout import CREATED_FLAG, BatchLayout, Sections, batch_layout, integer_flags
from materialize.online._compiled import DOUBLE, FLOAT, SPAN, TIMESTAMP
from materialize.online._errors import RowRefusedError
from materialize.online._header import BATCH_ROW, PREFIX_SIZE, refused, seal, unseal

_FLOATS = {"DOUBLE": "double_val", "FLOAT": "float_val"}
_INTS = {"INT64": "int64_val", "INT32": "int32_val", "BOOL": "bool_val", "UNIX_TIMESTAMP": "unix_timestamp_val"}
_RAW = {"STRING": "string_val", "BYTES": "bytes_val"}
_TIME = struct.Struct("<q")
_SPAN = struct.Struct("<II")
_WIDE_FORMATS = {DOUBLE: "d", TIMESTAMP: "q", SPAN: "Q"}
_INTEGER_FORMATS = {1: "b", 2: "h", 4: "i", 8: "q"}

FieldValue = float | int | bool | str | bytes | ValueProto | None
"""A stored value: Python's own for scalars, Feast's message for lists and the rest, None for null."""


@dataclass(frozen=True)
class BatchRow:
    """A row as it is stored; `values` in the order of the view's fields. created_ms: 0 where the source has none."""

    event_time_ms: int
    created_ms: int
    values: tuple[FieldValue, ...]


def layout_of(view: BatchView) -> BatchLayout:
    """Where the view's rows have their fields."""
    return batch_layout([field.kind for field in view.fields])


def encode_batch_row(view: BatchView, row: BatchRow) -> bytes:
    """The bytes of a row. Raises OverflowError for a FLOAT or an integer beyond what its type holds."""
    layout, values = layout_of(view), row.values
    tails = [b"" if values[place] is None else tail_of(values[place]) for place in layout.spans]
    integers = [int(values[place] or 0) for place in layout.integers]
    flags = integer_flags(min(integers, default=0), max(integers, default=0)) | (CREATED_FLAG if row.created_ms else 0)
    at = layout.sections(flags)
    body = bytearray(at.section - PREFIX_SIZE)
    times = (row.event_time_ms, row.created_ms) if row.created_ms else (row.event_time_ms,)
    wide = "".join(_WIDE_FORMATS[layout.classes[place]] for place in layout.wide)
    floats = [0.0 if values[place] is None else values[place] for place in layout.floats]
    bitmap = sum(1 << place for place, value in enumerate(values) if value is not None)
    for begin, formats, numbers in (
        (PREFIX_SIZE, "q" * len(times), times),
        (at.wide, wide, _wide_slots(layout, values, tails)),
        (at.integers, _INTEGER_FORMATS[at.integer_size] * len(integers), integers),
        (at.floats, "f" * len(floats), floats),
        (at.bitmap, f"{(len(values) + 7) // 8}s", (bitmap.to_bytes((len(values) + 7) // 8, "little"),)),
    ):
        struct.pack_into("<" + formats, body, begin - PREFIX_SIZE, *numbers)
    return seal(BATCH_ROW | flags << 4, view.fingerprint, bytes(body) + b"".join(tails))


def decode_batch_row(view: BatchView, data: bytes) -> BatchRow:
    """The row that the bytes hold. Raises RowRefusedError for bytes that are no row of this view."""
    flags = unseal(data, BATCH_ROW, view.fingerprint)
    layout = layout_of(view)
    at = layout.sections(flags)
    if len(data) < at.section:
        raise refused("bad_shape")
    (event_time_ms,) = _TIME.unpack_from(data, PREFIX_SIZE)
    created_ms = _TIME.unpack_from(data, PREFIX_SIZE + 8)[0] if flags & CREATED_FLAG else 0
    values = tuple(field_value(view, layout, data, at, place) for place in range(len(view.fields)))
    return BatchRow(event_time_ms, created_ms, values)


def field_value(view: BatchView, layout: BatchLayout, data: bytes, at: Sections, place: int) -> FieldValue:
    """One field of a row whose header has been checked. Raises RowRefusedError."""
    if not data[at.bitmap + place // 8] >> place % 8 & 1:
        return None
    held, index = layout.classes[place], layout.indexes[place]
    if held == DOUBLE:
        return float(struct.unpack_from("<d", data, at.wide + 8 * index)[0])
    if held == FLOAT:
        return float(struct.unpack_from("<f", data, at.floats + 4 * index)[0])
    if held == TIMESTAMP:
        return int(_TIME.unpack_from(data, at.wide + 8 * index)[0])
    if held == SPAN:
        return _tail(view.fields[place], data, at.section, at.wide + 8 * index)
    begin = at.integers + at.integer_size * index
    number = int.from_bytes(data[begin : begin + at.integer_size], "little", signed=True)
    return bool(number) if view.fields[place].kind == "BOOL" else number


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


def tail_of(value: FieldValue) -> bytes:
    """What the section holds of a value that is no number."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    assert isinstance(value, ValueProto)
    serialised: bytes = value.SerializeToString(deterministic=True)
    return serialised


def _wide_slots(layout: BatchLayout, values: Sequence[FieldValue], tails: Sequence[bytes]) -> list[FieldValue]:
    """The wide slots in order; those of tails say where in the section each is."""
    slots: list[FieldValue] = []
    waiting, length = iter(tails), 0
    for place in layout.wide:
        if layout.classes[place] != SPAN:
            slots.append(0 if values[place] is None else values[place])
            continue
        tail = next(waiting)
        slots.append(0 if values[place] is None else length | len(tail) << 32)
        length += len(tail)
    return slots


def _tail(field: FeatureField, data: bytes, section_at: int, slot_at: int) -> FieldValue:
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
