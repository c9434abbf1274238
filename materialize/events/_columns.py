"""Events as columns: what a view's transformation receives, the same from a log, a request or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from materialize.events._decode import Event, event_time_ms

Columns = dict[str, np.ndarray[Any, Any]]
"""Column name → array of one length. Numbers are float64 with NaN for null (integers that float64 cannot tell apart
are objects), strings are objects with None for null, times are int64 milliseconds UTC."""


def columns_from_events(events: Sequence[Event]) -> Columns:
    """The columns of events that share one schema.

    Raises ValueError when there is no event, since nothing then says which columns there are.
    """
    if not events:
        raise ValueError("no events: their schema is not known")
    columns: Columns = {"event_time": np.fromiter((event_time_ms(e) for e in events), np.int64, len(events))}
    numeric = _numeric_fields(type(events[0]))
    for name in events[0].__struct_fields__:
        if name == "event_time":
            continue
        values = [getattr(event, name) for event in events]
        columns[name] = _numbers(values) if name in numeric else _objects(values)
    return columns


def columns_from_table(table: pa.Table) -> Columns:
    """The columns of an Arrow table: timestamps to milliseconds, numbers to float64, everything else to objects.

    Raises ValueError for a timestamp without zone.
    """
    return {name: _column(name, table.column(name)) for name in table.column_names}


def _column(name: str, column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # as numpy its nulls would become the last word
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            raise ValueError(f"column {name!r} is a timestamp without a zone: write it as timestamp[ms, UTC]")
        return np.asarray(column.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64()).to_numpy())
    if pa.types.is_integer(kind) and not _fits_float64(column):
        return _objects(column.to_pylist())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


@lru_cache
def _numeric_fields(struct: type[Event]) -> frozenset[str]:
    """The fields whose values are numbers, null aside."""
    described = msgspec.inspect.type_info(struct)
    assert isinstance(described, msgspec.inspect.StructType)
    return frozenset(field.name for field in described.fields if _is_number(field.type))


def _fits_float64(column: pa.ChunkedArray) -> bool:
    """Whether float64 tells all of these integers apart: not identifiers of 64 bits."""
    span = pc.min_max(column).as_py()
    return span["min"] is None or (span["min"] >= -(2**53) and span["max"] <= 2**53)


def _is_number(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return all(isinstance(part, msgspec.inspect.NoneType) or _is_number(part) for part in kind.types)
    return isinstance(kind, (msgspec.inspect.IntType, msgspec.inspect.FloatType))


def _numbers(values: list[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _objects(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out
