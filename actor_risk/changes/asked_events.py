"""Events that features are asked for: whose entities, and what a request of them brings.

An entity's key is a column of the event, or one that the view's own transformation makes of it, as it is when rows are
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FileSource

from materialize.definitions import EVENT_ID, DefinitionError, StreamView, View
from materialize.events import Columns
from materialize.offline import EventColumns

Ints = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Objects = np.ndarray[Any, np.dtype[np.object_]]


@dataclass(frozen=True)
class StoredView:
    """A view and where the sample has its history or its table."""

    view: View
    source: FileSource

    @property
    def is_stream(self) -> bool:
        """Whether it is computed of events."""
        return isinstance(self.view, StreamView)


@dataclass(frozen=True)
class AskedEvents:
    """Some events of one topic, by their source's column names. views: the stream views that read the topic."""

    source: FileSource
    table: pa.Table
    views: tuple[StreamView, ...]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def topic(self) -> str:
        """What the topic is called."""
        return str(self.source.name)

    @cached_property
    def columns(self) -> EventColumns:
        """As transformations see them."""
        return EventColumns(self.table, frozenset(self.table.column_names))

    @cached_property
    def times(self) -> Ints:
        """When they happened, milliseconds."""
        return np.asarray(self.columns[self.source.timestamp_field], np.int64)

    @cached_property
    def identities(self) -> list[str]:
        """Their identities as text."""
        return [str(value) for value in self.table.column(EVENT_ID).to_pylist()]

    @cached_property
    def _derived(self) -> dict[str, Columns]:
        """View → what its transformation makes of the events, of those that do not fail."""
        found: dict[str, Columns] = {}
        for view in self.views:
            try:
                found[view.name] = view.derived(self.columns, len(self))
            except DefinitionError:  # told when the view's values are computed
                found[view.name] = {}
        return found

    def keys(self, view: View, names: Sequence[str]) -> list[Objects] | None:
        """For each join key of a view, called so, the value of each event; None if the events have no such column."""
        own = self._derived.get(view.name, {})
        found = [self._key(name, own) for name in names]
        return None if any(column is None for column in found) else [column for column in found if column is not None]

    def field(self, name: str) -> list[Any] | None:
        """The value of each event for a field of requests, as a request has it; None without such a column."""
        if name not in self.table.column_names:
            return None
        if pa.types.is_timestamp(self.table.schema.field(name).type):
            return list(self.times.tolist()) if name == self.source.timestamp_field else None
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def take(self, rows: Ints) -> AskedEvents:
        """Some of the events."""
        return AskedEvents(self.source, self.table.take(pa.array(rows)), self.views)

    def _key(self, name: str, own: Columns) -> Objects | None:
        others = [derived for view, derived in self._derived.items() if name in derived and derived is not own]
        if name in own:
            return _objects(own[name])
        if name in self.table.column_names:
            return _objects(self.columns[name])
        return _objects(others[0][name]) if others else None


def have_keys(keys: Sequence[Objects], count: int) -> Mask:
    """Which of so many events have a value for each key."""
    there = np.ones(count, dtype=bool)
    for column in keys:
        there &= ~pd.isna(column)
    return there


def _objects(column: np.ndarray[Any, Any]) -> Objects:
    found: Objects = column.astype(object)
    found[pd.isna(column)] = None
    return found
