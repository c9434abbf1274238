"""Decisions' features computed again: Feast's `get_historical_features` of their service, as of their times.

What a decision knew beyond history goes with it: the event that was scored, where history does not have it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore
from numpy.typing import NDArray

from actor_risk.audit.compare import Values, as_logged, exceeds_float
from actor_risk.audit.decisions import LoggedDecision
from actor_risk.audit.definition import WORD_KINDS, AuditedService
from actor_risk.errors import ActorRiskError
from materialize.definitions import EVENT_ID
from materialize.events import TOPICS, columns_from_events, event_time_ms
from materialize.offline import Knowledge, OwnEvents, read_history
from materialize.offline.feast_store import EVENT_TIMESTAMP, PointInTimeJob
from materialize.online import NUMERIC_KINDS, FeatureStatus

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Recomputed:
    """The values of n decisions; failed: bool[n], whether an on-demand function failed for one."""

    values: Values
    failed: Mask


class Recomputer:
    """Computes the decisions of one service again, some at a time."""

    def __init__(self, store: FeatureStore, service: AuditedService) -> None:
        self._store = store
        self._service = service

    def served(self, decisions: Sequence[LoggedDecision]) -> Values:
        """What was served, as the log has it."""
        features = self._service.features
        numbers = np.array([decision.values for decision in decisions], dtype=np.float64).reshape(-1, len(features))
        there = np.array([decision.statuses for decision in decisions]).reshape(numbers.shape) == FeatureStatus.PRESENT
        others: dict[tuple[int, int], Any] = {}
        places = {feature.ref: place for place, feature in enumerate(features)}
        for row, decision in enumerate(decisions):
            for ref, value in decision.others.items():
                place = places[ref]
                if features[place].kind in NUMERIC_KINDS and not exceeds_float(value):
                    numbers[row, place] = float(value)
                else:
                    others[row, place] = value
        numbers[~there] = np.nan
        return Values(numbers, there, others)

    def not_in_history(self, decisions: Sequence[LoggedDecision]) -> Mask:
        """bool[n]: whether the scored event is missing in the history of its topic. Raises HistoryError."""
        missing = np.zeros(len(decisions), dtype=bool)
        for topic, rows in self._rows_by_topic(decisions).items():
            events = [_event(decisions[row]) for row in rows]
            times = [event_time_ms(event) for event in events]
            known = self._known_ids(topic, min(times), max(times), [event.event_id for event in events])
            missing[rows] = [event.event_id not in known for event in events]
        return missing

    def recomputed(self, decisions: Sequence[LoggedDecision], with_event: Mask) -> Recomputed:
        """The features as history has them; the scored event is added for the decisions that `with_event` marks."""
        plain, own = np.flatnonzero(~with_event).tolist(), np.flatnonzero(with_event).tolist()
        parts = []
        if plain:
            parts.append((plain, self._run(self._job([decisions[row] for row in plain]))))
        if own:
            mine = [decisions[row] for row in own]
            parts.append((own, self._run(self._job(mine).knowing(Knowledge(self._own_events(mine))))))
        return _joined(parts, len(decisions), len(self._service.features))

    def recomputed_as_known(self, decisions: Sequence[LoggedDecision], known_ms: Ints) -> Recomputed:
        """The same, each decision with its scored event and without what was created after its time in known_ms."""
        return self._run(self._job(decisions).knowing(Knowledge(self._own_events(decisions), known_ms)))

    def _rows_by_topic(self, decisions: Sequence[LoggedDecision]) -> dict[str, list[int]]:
        """The decisions with an event of a topic that the service reads."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, decision in enumerate(decisions):
            if decision.event is not None and decision.event.topic in self._service.sources:
                rows[decision.event.topic].append(row)
        return rows

    def _own_events(self, decisions: Sequence[LoggedDecision]) -> Mapping[str, OwnEvents]:
        return {
            topic: OwnEvents(np.array(rows, np.int64), columns_from_events([_event(decisions[row]) for row in rows]))
            for topic, rows in self._rows_by_topic(decisions).items()
        }

    def _known_ids(self, topic: str, first_ms: int, last_ms: int, wanted: list[str]) -> set[str]:
        source = self._service.sources[topic]
        table = read_history(source, self._store.config.repo_path, first_ms, last_ms + 1, [EVENT_ID])
        column = table.column(EVENT_ID)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        there = column.filter(pc.is_in(column, value_set=pa.array(wanted, column.type)))
        return set(there.to_pylist())

    def _job(self, decisions: Sequence[LoggedDecision]) -> PointInTimeJob:
        service = self._store.get_feature_service(self._service.definition.name)
        job = self._store.get_historical_features(self._frame(decisions), service)
        if not isinstance(job, PointInTimeJob):
            raise ActorRiskError(
                "feature_store.yaml names another offline store than materialize.offline.feast_store."
                "WindowedParquetOfflineStore: an audit needs the one that shares the kernel with serving"
            )
        return job

    def _frame(self, decisions: Sequence[LoggedDecision]) -> pd.DataFrame:
        """The entity dataframe: join keys, request-time values, as-of times."""
        definition = self._service.definition
        keys = dict.fromkeys(name for view in definition.views for name in view.key_names)
        fields = dict.fromkeys(field.name for view in definition.on_demand for field in view.requests)
        columns: dict[str, pd.Series[Any]] = {}
        for name in keys:
            columns[name] = pd.Series([decision.decision.actor[name] for decision in decisions], dtype=object)
        for name in fields:
            columns[name] = pd.Series([decision.request.get(name) for decision in decisions], dtype=object)
        frame = pd.DataFrame(columns)
        times = np.array([decision.decision.as_of_ms for decision in decisions], "datetime64[ms]")
        frame[EVENT_TIMESTAMP] = pd.Series(times).dt.tz_localize("UTC")
        return frame

    def _run(self, job: PointInTimeJob) -> Recomputed:
        stored = job.stored()
        failed = np.zeros(stored.num_rows, dtype=bool)
        return Recomputed(self._values(with_on_demand(job, stored, failed)), failed)

    def _values(self, tables: list[pa.Table]) -> Values:
        length, features = sum(table.num_rows for table in tables), self._service.features
        numbers = np.full((length, len(features)), np.nan)
        there = np.zeros((length, len(features)), dtype=bool)
        others: dict[tuple[int, int], Any] = {}
        begin = 0
        for table in tables:
            rows = slice(begin, begin + table.num_rows)
            for place, feature in enumerate(features):
                if feature.is_comparable and feature.name in table.column_names:
                    column = table.column(feature.name)
                    _take(column, feature.kind, numbers[rows, place], there[rows, place])
                    others |= {(begin + row, place): value for row, value in _others(column, feature.kind)}
            begin += table.num_rows
        return Values(numbers, there, others)


class OnDemandJob(Protocol):
    """The part of `PointInTimeJob` that runs on-demand functions."""

    def with_on_demand(self, stored: pa.Table) -> pa.Table:
        """See `PointInTimeJob.with_on_demand`."""
        ...


def with_on_demand(job: OnDemandJob, stored: pa.Table, failed: Mask) -> list[pa.Table]:
    """The rows of `stored`, in tables, with their on-demand features; without them where a function fails.

    Where one fails, halves are tried, down to the row at fault, which is marked in `failed`, bool[rows].
    """
    try:
        return [job.with_on_demand(stored)]
    except Exception:  # the feature author's code, which may fail in any way on odd values
        if stored.num_rows <= 1:
            failed[:] = True
            return [stored]
        half = stored.num_rows // 2
        left = with_on_demand(job, stored.slice(0, half), failed[:half])
        return left + with_on_demand(job, stored.slice(half), failed[half:])


def _take(column: pa.ChunkedArray, kind: str, numbers: NDArray[np.float64], there: Mask) -> None:
    """Fill in a column: its numbers, and where there is a value. NaN is none, as it is online."""
    there[:] = column.is_valid().to_numpy()
    if kind in NUMERIC_KINDS:
        numbers[:] = column.cast(pa.float64(), safe=False).to_numpy()
        there &= ~np.isnan(numbers)


def _others(column: pa.ChunkedArray, kind: str) -> list[tuple[int, Any]]:
    """The values of a column that a float64 does not say, with their rows."""
    if kind in WORD_KINDS:
        return [(row, as_logged(value)) for row, value in enumerate(column.to_pylist()) if value is not None]
    if not pa.types.is_integer(column.type):
        return []
    return [(row, value) for row, value in enumerate(column.to_pylist()) if exceeds_float(value)]


def _event(decision: LoggedDecision) -> Any:
    assert decision.event is not None
    return msgspec.json.decode(decision.event.content, type=TOPICS[decision.event.topic])


def _joined(parts: list[tuple[list[int], Recomputed]], length: int, features: int) -> Recomputed:
    """Parts of the decisions, put back in their order."""
    numbers, there = np.full((length, features), np.nan), np.zeros((length, features), dtype=bool)
    failed = np.zeros(length, dtype=bool)
    others: dict[tuple[int, int], Any] = {}
    for rows, part in parts:
        numbers[rows], there[rows], failed[rows] = part.values.numbers, part.values.there, part.failed
        others |= {(rows[row], place): value for (row, place), value in part.values.others.items()}
    return Recomputed(Values(numbers, there, others), failed)
