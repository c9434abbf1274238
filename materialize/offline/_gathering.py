"""Events of one source, gathered for the views that read it: one pass over the files, and of each event only what the
views fold, if anybody asks for its entity.

What would take more memory than is allowed is put aside on disk, in shards of entities, and computed shard by shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from materialize.definitions import EVENT_ID, StreamView
from materialize.events import Columns, hash_binary
from materialize.kernel import EventBlock, hash_values
from materialize.offline._columns import (
    Column,
    EventColumns,
    Identities,
    Ints,
    as_array,
    identities,
    known_from,
    milliseconds,
    names_in,
)
from materialize.offline._entities import Entities
from materialize.offline._errors import HistoryError
from materialize.offline._history import History

Records = np.ndarray[Any, np.dtype[np.void]]
"""Events as one view folds them, one record each: entity, time, identity, from when known, values, hashes."""

_WHOLE = ("entity", "time", "known", "identity")


@dataclass(frozen=True)
class Asked:
    """A stream view and what is asked of it: the entities, and the span of event time that its windows cover."""

    view: StreamView
    entities: Entities
    from_ms: int
    last_ms: int

    @property
    def kind(self) -> np.dtype[np.void]:
        """What one record has."""
        spec = self.view.spec
        parts = [("entity", "i8"), ("time", "i8"), ("identity", "u8"), ("known", "i8")]
        shaped = [("values", "f8", (len(spec.value_columns),)), ("hashes", "u8", (len(spec.distinct_columns),))]
        return np.dtype([*parts, *shaped])


class Shards:
    """The records of one view: in memory as one shard, or in so many files of `folder`, each with a share of the
    entities."""

    def __init__(self, kind: np.dtype[np.void], count: int, folder: Path | None) -> None:
        self.count = count
        self._kind = kind
        self._parts: list[Records] = []
        self._files = [folder / f"{shard}" for shard in range(count)] if folder is not None else []
        if folder is not None:
            folder.mkdir()
        for file in self._files:
            file.touch()

    def add(self, records: Records) -> None:
        """Further records."""
        if not self._files:
            self._parts.append(records)
            return
        shards = records["entity"] % self.count
        for shard in np.unique(shards).tolist():
            with self._files[shard].open("ab") as file:
                records[shards == shard].tofile(file)

    def take(self, shard: int) -> Records:
        """The records of a shard, which are gone then."""
        if self._files:
            found = np.fromfile(self._files[shard], self._kind)
            self._files[shard].unlink()
            return found
        parts, self._parts = self._parts, []
        return np.concatenate(parts) if parts else np.empty(0, self._kind)


def gather(
    history: History,
    asked: Sequence[Asked],
    created: str | None,
    shards: Sequence[Shards],
    columns: Sequence[str] | None = None,
) -> None:
    """Add the events of history to the shards of each view.

    created: the column of when an event became known. columns: those to read; by default those that views fold or that
    the code of their transformations names. Raises HistoryError for history that cannot be read or lacks a column,
    DefinitionError for a transformation that fails, ColumnNotReadError for one that looks at a column that is not read.
    """
    read = columns_to_read(history, [one.view for one in asked], created) if columns is None else columns
    for batch in history.batches(read):
        events = _Batch(history, batch)
        for one, own in zip(asked, shards, strict=True):
            own.add(_records(one, events, created))


def columns_to_read(history: History, views: Sequence[StreamView], created: str | None = None) -> list[str]:
    """Those that the views fold, or that the code of their transformations names, and `created`."""
    wanted: set[str | None] = {EVENT_ID, created}
    for view in views:
        wanted |= {*(key.name for key in view.join_keys), *view.spec.value_columns, *view.spec.distinct_columns}
        if view.transform is not None:
            named = names_in(view.transform)
            wanted |= set(history.names if named is None else named)
    return [name for name in history.names if name in wanted]


class _Batch:
    """Some events of history; what several views need of them is made once."""

    def __init__(self, history: History, batch: pa.RecordBatch) -> None:
        self.where = f"source {history.source.name!r}"
        self.arrow = batch
        self.columns = EventColumns(batch, frozenset(history.names))
        self.times = milliseconds(batch.column(history.source.timestamp_field))

    @cached_property
    def identities(self) -> Identities:
        column = self.arrow.column(EVENT_ID)
        if column.null_count:
            raise HistoryError(
                f"{self.where} has {column.null_count} events without {EVENT_ID!r}: it is how one event is known again"
            )
        return identities(column)


def _records(asked: Asked, batch: _Batch, created: str | None) -> Records:
    view = asked.view
    events = _ViewColumns(view, view.derived(batch.columns, batch.arrow.num_rows), batch)
    entities = asked.entities.numbers([events.arrow(key.name) for key in view.join_keys], batch.where, len(batch.times))
    times = events.times()
    rows = np.flatnonzero((entities >= 0) & (times >= asked.from_ms) & (times <= asked.last_ms))
    records = np.empty(len(rows), asked.kind)
    records["entity"], records["time"] = entities[rows], times[rows]
    records["identity"] = events.identities()[rows]
    records["known"] = (times if created is None else known_from(batch.arrow.column(created), times))[rows]
    for place, name in enumerate(view.spec.value_columns):
        records["values"][:, place] = view.spec.numbers(name, events.numpy(name)[rows])
    for place, name in enumerate(view.spec.distinct_columns):
        records["hashes"][:, place] = events.hashes(name)[rows]
    return records


class _ViewColumns:
    """The columns of a batch as a view has them: those that its transformation made, or else those of history."""

    def __init__(self, view: StreamView, derived: Columns, batch: _Batch) -> None:
        self._view, self._derived, self._batch = view, derived, batch

    def arrow(self, name: str) -> pa.Array:
        if name in self._derived:
            return as_array(self._derived[name])
        self._check(name)
        return self._batch.arrow.column(name)

    def numpy(self, name: str) -> Column:
        if name in self._derived:
            return self._derived[name]
        self._check(name)
        return self._batch.columns[name]

    def times(self) -> Ints:
        found = self._derived.get(self._view.timestamp_field)
        return self._batch.times if found is None else np.asarray(found, np.int64)

    def identities(self) -> Identities:
        if EVENT_ID in self._derived:
            return hash_values(self._derived[EVENT_ID])
        self._check(EVENT_ID)
        return self._batch.identities

    def hashes(self, name: str) -> Identities:
        """As rows have them."""
        column = self.arrow(name)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        return hash_binary(column) if is_text else hash_values(self.numpy(name))

    def _check(self, name: str) -> None:
        if name not in self._batch.arrow.schema.names:
            raise HistoryError(f"view {self._view.name!r} needs {name!r}, which its events do not have")


def block_of(records: Records) -> tuple[Ints, EventBlock, Ints]:
    """Entities, events, and from when each is known, as the kernel takes them."""
    entities, times, known, ids = (np.ascontiguousarray(records[name]) for name in _WHOLE)
    return entities, EventBlock(times, ids, records["values"], records["hashes"]), known
