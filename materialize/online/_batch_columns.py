"""Batch rows from columns: many rows laid out at once, the hot form of `encode_batch_row`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from materialize.definitions import BatchView, FeatureField
from materialize.online._batch_layout import CREATED_FLAG, BatchLayout
from materialize.online._batch_rows import layout_of, tail_of
from materialize.online._compiled import seal_rows
from materialize.online._header import BATCH_ROW, PREFIX_SIZE, seal
from materialize.personal import told

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

SCALARS = ("INT64", "INT32", "BOOL", "UNIX_TIMESTAMP")
_ARROW_TYPES = {
    "DOUBLE": pa.float64(),
    "FLOAT": pa.float32(),
    "INT64": pa.int64(),
    "INT32": pa.int32(),
    "BOOL": pa.bool_(),
}
NUMERIC_KINDS = tuple(_ARROW_TYPES)
"""The kinds whose columns may be given as Arrow arrays."""

Column = Any
"""A field's values: a `pa.Array` for numbers, a sequence of `FieldValue` (as rows hold them) for everything else."""


def encode_batch_columns(view: BatchView, columns: Sequence[Column], times: Ints, created: Ints) -> list[bytes]:
    """The rows whose fields' values are `columns`, in the order of the view's fields.

    times, created: int64[n], milliseconds; created 0 for none. Raises ValueError for a column whose values are none of
    its field's type.
    """
    count = len(times)
    if not count:
        return []
    slots = np.zeros((len(view.fields), count), np.int64)  # of doubles and floats, their bits as float64
    there = np.zeros((count, len(view.fields)), bool)
    tails: list[list[bytes]] = []
    lengths = np.zeros(count, np.int64)
    for place, (field, column) in enumerate(zip(view.fields, columns, strict=True)):
        if isinstance(column, pa.Array):
            typed = _typed(field, column)
            there[:, place] = valid = _valid(typed)
            slots[place] = _numbers(field, typed) * valid
            continue
        there[:, place] = [value is not None for value in column]
        if field.kind in SCALARS:
            slots[place] = [0 if value is None else value for value in column]
            continue
        parts = [b"" if value is None else tail_of(value) for value in column]
        sizes = np.fromiter(map(len, parts), np.int64, count)
        slots[place] = np.where(there[:, place], lengths | sizes << 32, 0)
        lengths += sizes
        tails.append(parts)
    layout = layout_of(view)
    flags = _flags(slots[list(layout.integers)], created)
    sections = [b"".join(parts) for parts in zip(*tails, strict=True)]
    rows: list[bytes] = [b""] * count
    for found in np.unique(flags).tolist():
        chosen = np.flatnonzero(flags == found)
        bodies = _bodies(view, layout, found, slots[:, chosen], there[chosen], times[chosen], created[chosen])
        places = chosen.tolist()
        sealed = _sealed(bodies, [sections[place] for place in places] if sections else [])
        for place, row in zip(places, sealed, strict=True):
            rows[place] = row
    return rows


def _flags(integers: Ints, created: Ints) -> Ints:
    """Each row's flags: the width that its integers need, and whether it has a created time."""
    flags = np.where(created != 0, CREATED_FLAG, 0)
    if len(integers):
        least, most = integers.min(axis=0), integers.max(axis=0)
        for bits in (7, 15, 31):
            flags += (least < -(1 << bits)) | (most >= 1 << bits)
    return flags


def _bodies(
    view: BatchView, layout: BatchLayout, flags: int, slots: Ints, there: Bools, times: Ints, created: Ints
) -> Bytes:
    """The rows up to their sections, uint8[rows, size], without checksums. All have the same flags."""
    at = layout.sections(flags)
    rows = np.zeros((len(times), at.section), np.uint8)
    rows[:, :PREFIX_SIZE] = np.frombuffer(seal(BATCH_ROW | flags << 4, view.fingerprint, b""), np.uint8)
    words = rows.view(np.int64)
    words[:, PREFIX_SIZE // 8] = times
    if flags & CREATED_FLAG:
        words[:, PREFIX_SIZE // 8 + 1] = created
    words[:, at.wide // 8 : at.integers // 8] = slots[list(layout.wide)].T
    integers = slots[list(layout.integers)].T.astype(f"<i{at.integer_size}")
    rows[:, at.integers : at.integers + at.integer_size * len(layout.integers)] = _bytes_of(integers)
    floats = slots[list(layout.floats)].view(np.float64).T.astype("<f4")
    rows[:, at.floats : at.bitmap] = _bytes_of(floats)
    bits = np.packbits(there, axis=1, bitorder="little")
    rows[:, at.bitmap : at.bitmap + bits.shape[1]] = bits
    return rows


def _sealed(bodies: Bytes, sections: Sequence[bytes]) -> list[bytes]:
    """The rows with their sections and checksums."""
    count, size = bodies.shape
    begins = np.arange(count + 1, dtype=np.int64) * size
    if sections:
        tails = [section + bytes(-len(section) % 8) for section in sections]
        begins[1:] += np.cumsum([len(tail) for tail in tails])
        heads = bodies.tobytes()
        parts = [part for i, tail in enumerate(tails) for part in (heads[size * i : size * (i + 1)], tail)]
        words = np.frombuffer(b"".join(parts), np.uint64).copy()
    else:
        words = bodies.view(np.uint64).reshape(-1)
    seal_rows(words, begins >> 3)
    data, ends = words.tobytes(), begins.tolist()
    return [data[begin:end] for begin, end in pairwise(ends)]


def _typed(field: FeatureField, column: pa.Array) -> pa.Array:
    """The column in the one Arrow type of its field."""
    kind = _ARROW_TYPES[field.kind]
    try:
        return column if column.type == kind else column.cast(kind)
    except pa.ArrowInvalid as error:
        raise ValueError(f"field {field.name!r} is {field.kind}: {told(error)}") from error


def _numbers(field: FeatureField, column: pa.Array) -> Ints:
    """The slots of a column of numbers; anything for null."""
    if field.kind == "BOOL":
        return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False)).astype(np.int64)
    if field.kind == "FLOAT":
        return np.asarray(column.fill_null(0.0).cast(pa.float64()).to_numpy()).view(np.int64)
    return _values(column, np.dtype(np.int32 if field.kind == "INT32" else np.int64))


def _values(column: pa.Array, kind: np.dtype[Any]) -> Ints:
    """The values where Arrow has them: its own ways to numpy take longer than all else that is done with a column."""
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize)


def _valid(column: pa.Array) -> Bools | Literal[True]:
    """Which values are not null; True for all."""
    if not column.null_count:
        return True
    bitmap = np.frombuffer(column.buffers()[0], np.uint8)
    return np.unpackbits(bitmap, count=column.offset + len(column), bitorder="little")[column.offset :].view(bool)


def _bytes_of(numbers: np.ndarray[Any, Any]) -> Bytes:
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), -1)
