"""The compiled definitions: frozen, without Feast objects, ready for the fast paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from materialize.definitions._errors import DefinitionError
from materialize.events import Columns
from materialize.kernel import EventBlock, ViewSpec, hash_values
from materialize.personal import told, words_of

Objects = np.ndarray[Any, np.dtype[np.object_]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

EVENT_ID = "event_id"
"""The column that identifies an event, in every topic."""


@dataclass(frozen=True)
class JoinKey:
    """One part of an entity key: its column, and its Feast value type (`STRING`, `INT64`, `INT32`, `BYTES`, …)."""

    name: str
    kind: str


@dataclass(frozen=True)
class FeatureField:
    """A stored feature: its name, its Feast value type (`DOUBLE`, `INT64`, `STRING`, …), and what it says."""

    name: str
    kind: str
    description: str = ""


@dataclass(frozen=True)
class ViewEvents:
    """Events as one stream view sees them. `keys`: for each join key, object[n]; `skipped`: rows without a key."""

    keys: tuple[Objects, ...]
    block: EventBlock
    skipped: int
    rows: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class StreamView:
    """A view of windowed aggregations over the events of one topic. `fields` go in the order of the aggregations."""

    name: str
    join_keys: tuple[JoinKey, ...]
    fields: tuple[FeatureField, ...]
    spec: ViewSpec
    topic: str
    timestamp_field: str
    ttl_ms: int
    transform: Callable[[Columns], Columns] | None

    @property
    def fingerprint(self) -> int:
        """64 bits that change with the meaning of a stored row."""
        return self.spec.fingerprint

    def events(
        self, columns: Columns, identities: Hashes | None = None, hashed: Mapping[str, Hashes] | None = None
    ) -> ViewEvents:
        """The view's events: transformed, those without an entity key left out and counted.

        identities: `identities_of(columns)`, from whoever asks several views about the same events. hashed: column →
        the hashes of its values, uint64[n], from whoever has them already. What the transformation replaces is hashed
        anew. Raises DefinitionError when the transformation fails or gives columns of another length.
        """
        derived: Columns = {}
        if self.transform is not None:
            shared = {name: _read_only(column) for name, column in columns.items()}
            derived = self.derived(shared, len(columns[self.timestamp_field]))
        return self.seen(columns, derived, identities, hashed)

    def seen(
        self,
        given: Mapping[str, np.ndarray[Any, Any]],
        derived: Columns,
        identities: Hashes | None = None,
        hashed: Mapping[str, Hashes] | None = None,
    ) -> ViewEvents:
        """As `events`, of columns whose transformation has given `derived`. Looks only at what it needs of `given`."""
        needed = (*(key.name for key in self.join_keys), self.timestamp_field, EVENT_ID)
        missing = [name for name in needed if name not in derived and name not in given]
        if missing:
            raise DefinitionError(f"view {self.name!r}: its events have no column {', '.join(missing)}")

        def column(name: str) -> np.ndarray[Any, Any]:
            return derived[name] if name in derived else given[name]

        there = np.logical_and.reduce([_not_null(column(key.name)) for key in self.join_keys])
        rows = np.flatnonzero(there)
        if identities is None or EVENT_ID in derived:
            identities = hash_values(column(EVENT_ID))
        known = {name: one[rows] for name, one in (hashed or {}).items() if name not in derived}
        used = {name: column(name)[rows] for name in self._used_columns(known) if name in derived or name in given}
        return ViewEvents(
            tuple(column(key.name)[rows] for key in self.join_keys),
            self.spec.block(column(self.timestamp_field)[rows], identities[rows], used, known),
            len(there) - len(rows),
            rows,
        )

    def _used_columns(self, hashed: Mapping[str, Hashes]) -> tuple[str, ...]:
        return (*self.spec.value_columns, *(name for name in self.spec.distinct_columns if name not in hashed))

    def derived(self, columns: Columns, length: int) -> Columns:
        """The columns that the view's transformation makes of those of `length` events; none without one.

        Raises DefinitionError when the transformation fails or gives columns of another length.
        """
        if self.transform is None:
            return {}
        try:
            derived = self.transform(columns)
        except Exception as error:
            said = told(error, words_of(self.transform))
            raise DefinitionError(f"view {self.name!r}: its transformation failed: {said}") from error
        if not isinstance(derived, dict):
            gave = type(derived).__name__
            raise DefinitionError(f"view {self.name!r}: its transformation gave a {gave} and no dict of columns")
        odd = [name for name, column in derived.items() if np.shape(column) != (length,)]
        if odd:
            raise DefinitionError(
                f"view {self.name!r}: its transformation gave another number of rows for {', '.join(odd)}; "
                "return an array of one value per event, and a null key for the events that do not concern the view"
            )
        return {name: np.asarray(column) for name, column in derived.items()}


@dataclass(frozen=True)
class BatchView:
    """A view whose newest row per entity is served as it is."""

    name: str
    join_keys: tuple[JoinKey, ...]
    fields: tuple[FeatureField, ...]
    fingerprint: int
    ttl_ms: int


View = StreamView | BatchView


@dataclass(frozen=True)
class RequestField:
    """A value that comes with the request: its name and Feast value type."""

    name: str
    kind: str


@dataclass(frozen=True)
class OnDemandView:
    """A Python-mode on-demand view: `function` takes and gives a dict of lists, or of values when `singleton`.

    inputs: (view name, feature name) of the stored features that it may read.
    """

    name: str
    function: Callable[[dict[str, Any]], dict[str, Any]]
    singleton: bool
    inputs: tuple[tuple[str, str], ...]
    requests: tuple[RequestField, ...]
    fields: tuple[FeatureField, ...]

    @cached_property
    def words(self) -> frozenset[str]:
        """The fields that are no numbers."""
        return frozenset(field.name for field in self.fields if field.kind in ("STRING", "BYTES"))


@dataclass(frozen=True)
class ServiceView:
    """A view that a service reads: the features needed of it, and how it and its join keys are called there."""

    view: View
    features: tuple[str, ...]
    key_names: tuple[str, ...]
    called: str


@dataclass(frozen=True)
class ReasonFamily:
    """One reason that the service's tags name: its code, its texts for analysts and for the actor."""

    name: str
    code: str
    analyst: str
    actor: str


@dataclass(frozen=True)
class ServiceDefinition:
    """A feature service: the views to read, the on-demand functions to run, and the features to give, in order.

    features: (view name, field). fingerprint: hex, changes with the meaning or order of what the service gives.
    families: for each feature the name of its reason, or "". Wording is no meaning: it changes no fingerprint.
    """

    name: str
    views: tuple[ServiceView, ...]
    on_demand: tuple[OnDemandView, ...]
    features: tuple[tuple[str, FeatureField], ...]
    fingerprint: str
    reasons: tuple[ReasonFamily, ...] = ()
    families: tuple[str, ...] = ()


def identities_of(columns: Columns) -> Hashes:
    """The hash of each event's identity, uint64[n]."""
    return hash_values(columns[EVENT_ID])


def _read_only(column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same column; the views of a topic share it, and a transformation that writes into it must fail."""
    shared = column.view()
    shared.flags.writeable = False
    return shared


_NONE = np.array(None, dtype=object)


def _not_null(column: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if column.dtype == object:
        return np.asarray((column != _NONE) & (column == column))
    if np.issubdtype(column.dtype, np.floating):
        return np.asarray(~np.isnan(column))
    return np.ones(len(column), dtype=bool)
