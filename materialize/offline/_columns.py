"""Columns of history as arrays; a batch of events as a transformation sees it, each column made when looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from materialize.events import columns_from_table, hash_binary
from materialize.offline._errors import HistoryError

Column = np.ndarray[Any, Any]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Identities = np.ndarray[Any, np.dtype[np.uint64]]

_TO_MS = {"s": (1_000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}


class ColumnNotReadError(BaseException):
    """A transformation looked at a column that was not read. No Exception: it must get past the transformation."""


class EventColumns(dict[str, Column]):
    """The columns of events, read-only, made from Arrow at the first look.

    all_names: every column that history has. Looking at one that `events` lack raises ColumnNotReadError.
    """

    def __init__(self, events: pa.RecordBatch | pa.Table, all_names: frozenset[str]) -> None:
        super().__init__()
        self._events = events
        self._names = all_names

    def __missing__(self, name: str) -> Column:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._events.schema.names:
            raise ColumnNotReadError(name)
        column = columns_from_table(pa.table({name: self._events.column(name)}))[name]
        column.flags.writeable = False
        self[name] = column
        return column

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def get(self, name: str, default: Any = None) -> Any:
        """As a dict has it."""
        try:
            return self[name]
        except KeyError:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def keys(self) -> Any:
        """As a dict has it: every column of history, made now."""
        return self._whole().keys()

    def values(self) -> Any:
        """As a dict has it: every column of history, made now."""
        return self._whole().values()

    def items(self) -> Any:
        """As a dict has it: every column of history, made now."""
        return self._whole().items()

    def copy(self) -> dict[str, Column]:
        """A plain dict of every column of history."""
        return self._whole()

    def __or__(self, other: Any) -> Any:
        return self._whole() | other

    def _whole(self) -> dict[str, Column]:
        return {name: self[name] for name in sorted(self._names)}


def names_in(function: Callable[..., Any]) -> frozenset[str] | None:
    """The strings in a function's code: among them, as a rule, the columns that it looks at. None if it has no code."""
    if not isinstance(function, FunctionType):
        return None
    return frozenset(_strings(function.__code__))


def _strings(code: CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _strings(constant)
        elif isinstance(constant, (tuple, frozenset)):
            yield from (one for one in constant if isinstance(one, str))
        elif isinstance(constant, str):
            yield constant


def milliseconds(column: pa.Array) -> Ints:
    """The millisecond in which each time lies, int64[n]. Raises HistoryError for a time without a zone or null."""
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise HistoryError(f"a time is {column.type}: write it as timestamp[ms, UTC]")
    if column.null_count:
        raise HistoryError(f"{column.null_count} times are null")
    up, down = _TO_MS[column.type.unit]
    return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False)) * up // down


def known_from(created: pa.Array, times: Ints) -> Ints:
    """When each event became known, int64[n], ms; one without a created time is known from its own time on."""
    if not created.null_count:
        return milliseconds(created)
    there = pc.is_valid(created).to_numpy(zero_copy_only=False)
    known = times.copy()
    known[there] = milliseconds(created.drop_null())
    return known


def identities(column: pa.Array) -> Identities:
    """A number for each identity, uint64[n], that tells the identities of one history apart."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)).astype(np.uint64)
    return hash_binary(column.cast(pa.large_binary()))


def as_array(column: Column) -> pa.Array:
    """A column that a transformation made, as Arrow has it; NaN and None are null."""
    if column.dtype == object and pd.isna(column).all():
        return pa.nulls(len(column))
    return pa.array(column, from_pandas=True)
