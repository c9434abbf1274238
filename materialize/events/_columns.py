"""Events as columns: what a view's transformation receives, the same from a log, a request or Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from materialize.events._decode import Event, event_time_ms
from materialize.kernel import hash_strings, hash_value

Hashes = np.ndarray[Any, np.dtype[np.uint64]]

Columns = dict[str, np.ndarray[Any, Any]]
"""Column name → array of one length. Numbers are float64 with NaN for null (integers that float64 cannot tell apart
are objects), strings are objects with None for null, times are int64 milliseconds UTC."""


SAMPLE = 4_096
REPEATS_BELOW = 0.95
"""Strings are made once for each word if among the first SAMPLE less than this share are different."""


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


def hashes_from_table(table: pa.Table, names: Iterable[str]) -> dict[str, Hashes]:
    """The hash of each value, uint64[n], 0 for null, for those of the columns that are strings.

    They are what `hash_values` gives of the same column of `columns_from_table`, without an object for each value.
    """
    wanted = {name: table.column(name) for name in names if name in table.column_names}
    return {name: _hashes(column) for name, column in wanted.items() if _is_string(column.type)}


def _hashes(column: pa.ChunkedArray) -> Hashes:
    parts = [hash_binary(chunk) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def hash_binary(strings: pa.Array) -> Hashes:
    """The hash of each string, uint64[n], as `hash_value` gives it; 0 for null. strings: text or binary, or coded."""
    if pa.types.is_dictionary(strings.type):
        words = np.append(hash_binary(strings.dictionary), np.uint64(0))
        return np.asarray(words[_codes(strings)])
    _, offsets, data = strings.buffers()
    if not len(strings) or data is None:
        return np.where(strings.is_valid().to_numpy(zero_copy_only=False), hash_value(""), 0).astype(np.uint64)
    kind = np.dtype(
        np.int64 if pa.types.is_large_string(strings.type) or pa.types.is_large_binary(strings.type) else np.int32
    )
    begins = np.frombuffer(offsets, kind, len(strings) + 1, strings.offset * kind.itemsize)
    hashes = hash_strings(np.frombuffer(data, np.uint8), begins)
    if strings.null_count:
        hashes[strings.is_null().to_numpy(zero_copy_only=False)] = 0
    return hashes


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _column(name: str, column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    if pa.types.is_dictionary(column.type) and _is_string(column.type):
        return _words(column)
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
    if _is_string(kind) and _repeats(column):
        return _words(column)
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether values come again so often that one object for each word is made faster than one for each row."""
    seen = column.slice(0, SAMPLE)
    return bool(pc.count_distinct(seen, mode="all").as_py() < REPEATS_BELOW * len(seen))


def _words(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """The values, equal ones as one object."""
    places, words = places_of_words(column)
    return np.asarray(np.append(words.to_numpy(zero_copy_only=False), [None]).astype(object)[places])


def places_of_words(column: pa.ChunkedArray) -> tuple[np.ndarray[Any, np.dtype[np.int64]], pa.Array]:
    """The place of each value among the different ones, int64[n], -1 for null; and these."""
    coded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if not coded.num_chunks:
        return np.empty(0, np.int64), pa.array([], coded.type.value_type)
    return np.concatenate([_codes(chunk) for chunk in coded.chunks]), coded.chunk(0).dictionary


def _codes(coded: pa.DictionaryArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The place of each value in the dictionary, int64[n], -1 for null: of what is appended to it."""
    return np.asarray(coded.indices.cast(pa.int64()).fill_null(-1).to_numpy())


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
