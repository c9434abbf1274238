"""Batch rows from columns: many rows laid out at once, the hot form of `encode_batch_row`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from materialize.definitions import BatchView, FeatureField
from materialize.online._batch_rows import bitmap_size, tail_of
from materialize.online._header import BATCH_ROW, CHECKED_FROM, HEADER_SIZE, Header, seal

Ints = np.ndarray[Any, np.dtype[np.int64]]

FLOATS = ("DOUBLE", "FLOAT")
SCALARS = ("INT64", "INT32", "BOOL", "UNIX_TIMESTAMP")
NUMERIC_KINDS = (*FLOATS, "INT64", "INT32", "BOOL")
"""The kinds whose columns may be given as Arrow arrays."""

_CHECKSUM = slice(4, 8)
_EVENT_TIME = slice(24, 32)
_CREATED = slice(32, 40)


Column = Any
"""A field's values: a `pa.Array` for numbers, a sequence of `FieldValue` (as rows hold them) for everything else."""


def encode_batch_columns(view: BatchView, columns: Sequence[Column], times: Ints, created: Ints) -> list[bytes]:
    """The rows whose fields' values are `columns`, in the order of the view's fields.

    times, created: int64[n], milliseconds. Raises ValueError for a column whose values are none of its field's type.
    """
    count = len(times)
    slots = np.zeros((count, len(view.fields)), np.int64)
    there = np.zeros((count, len(view.fields)), bool)
    tails: list[list[bytes]] = []
    lengths = np.zeros(count, np.int64)
    for place, (field, column) in enumerate(zip(view.fields, columns, strict=True)):
        if isinstance(column, pa.Array):
            there[:, place] = np.asarray(column.is_valid())
            slots[:, place] = _numbers(field, column)
            continue
        there[:, place] = [value is not None for value in column]
        if field.kind in SCALARS:
            slots[:, place] = [0 if value is None else value for value in column]
            continue
        parts = [b"" if value is None else tail_of(value) for value in column]
        sizes = np.fromiter(map(len, parts), np.int64, count)
        slots[:, place] = np.where(there[:, place], lengths | sizes << 32, 0)
        lengths += sizes
        tails.append(parts)
    return _sealed(view, slots, there, times, created, [b"".join(parts) for parts in zip(*tails, strict=True)])


def _sealed(
    view: BatchView,
    slots: Ints,
    there: np.ndarray[Any, np.dtype[np.bool_]],
    times: Ints,
    created: Ints,
    tails: Sequence[bytes],
) -> list[bytes]:
    count, fields = slots.shape
    slots_at = HEADER_SIZE + bitmap_size(view)
    size = slots_at + 8 * fields
    rows = np.zeros((count, size), np.uint8)
    template = seal(Header(BATCH_ROW, view.fingerprint, 0, 0, 0, 0, fields), b"")
    rows[:, :HEADER_SIZE] = np.frombuffer(template, np.uint8)
    rows[:, _EVENT_TIME] = _bytes_of(times)
    rows[:, _CREATED] = _bytes_of(created)
    bits = np.packbits(there, axis=1, bitorder="little")
    rows[:, HEADER_SIZE : HEADER_SIZE + bits.shape[1]] = bits
    rows[:, slots_at:] = slots.view(np.uint8).reshape(count, 8 * fields)
    data = rows.tobytes()
    unchecked = [data[begin : begin + size] for begin in range(0, len(data), size)]
    if tails:
        unchecked = [row + tail for row, tail in zip(unchecked, tails, strict=True)]
    return [
        row[: _CHECKSUM.start] + checksum + row[_CHECKSUM.stop :]
        for row, checksum in zip(unchecked, _checksums(unchecked), strict=True)
    ]


def _checksums(rows: Sequence[bytes]) -> Iterator[bytes]:
    for row in rows:
        yield zlib.crc32(memoryview(row)[CHECKED_FROM:]).to_bytes(4, "little")


def _numbers(field: FeatureField, column: pa.Array) -> Ints:
    """The slots of a column of numbers, 0 for null."""
    try:
        if field.kind in FLOATS:
            kind = pa.float64() if field.kind == "DOUBLE" else pa.float32()
            filled = column.cast(kind).fill_null(0.0).cast(pa.float64())
            return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.float64).view(np.int64)
        kind = {"INT64": pa.int64(), "INT32": pa.int32(), "BOOL": pa.bool_()}[field.kind]
        filled = column.cast(kind).fill_null(False if field.kind == "BOOL" else 0)
        return np.asarray(filled.to_numpy(zero_copy_only=False)).astype(np.int64)
    except pa.ArrowInvalid as error:
        raise ValueError(f"field {field.name!r} is {field.kind}: {error}") from error


def _bytes_of(numbers: Ints) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.ascontiguousarray(numbers, dtype=np.int64).view(np.uint8).reshape(len(numbers), 8)
