"""An audit: the logged decisions of a time span, part by part, computed again and compared.

1. Read decisions of the log, and set apart those that cannot be compared at all, counted by reason.
2. Of each service, `PART` at a time: compute again, with the scored event where history does not have it.
3. What differs is computed once more without what came to be known too late; what is then equal is `late`.
4. Count, feature by feature.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from feast import FeatureStore
from numpy.typing import NDArray

from actor_risk.audit.compare import Values, equal_values
from actor_risk.audit.decisions import Layout, LoggedDecision, ReadLines, log_files, read_decisions
from actor_risk.audit.definition import AuditedFeature, AuditedService, audited_service
from actor_risk.audit.recompute import Recomputer
from actor_risk.audit.report import AuditReport, SourceEnd, verdict_of
from actor_risk.audit.tally import Tally, outcomes_of
from actor_risk.errors import ActorRiskError
from materialize.offline import history_end_ms

PART = 5_000
"""As many decisions of a service are in memory at a time."""

LAG_STEPS = (0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the lag that are tried: an event that the log had taken may not have reached the row yet."""

DEGRADED = (
    "rows_refused",
    "event_not_merged",
    "windows_inexact",
    "on_demand_failed",
    "features_partial",
    "features_defaulted",
    "fallback_model",
    "fallback_score",
)
"""Flags of decisions whose features were not read as they should be."""

OTHER_DEFINITION = "other_definition"
UNKNOWN_SERVICE = "unknown_service"
BEYOND_HISTORY = "beyond_history"
ON_DEMAND_FAILED = "on_demand_failed_offline"
NO_COMPARISON = "kind_without_comparison"

Mask = NDArray[np.bool_]
Progress = Callable[[int, int], None]
"""Told (bytes of the log read so far, bytes in all)."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What to audit: decisions of from_ms ≤ as-of time < to_ms, milliseconds UTC, of `services` (all for none).

    tolerance: of sums, relative, absolute below 1. mismatch_rate_max: share of a feature's comparisons that may differ.
    lag_ms: how long an event may be on its way from the log to a row; None: nothing is looked at as late.
    history_until_ms: up to when history is complete; None: each source up to its newest event.
    """

    log: Path
    from_ms: int
    to_ms: int
    services: tuple[str, ...] = ()
    tolerance: float = 1e-9
    mismatch_rate_max: float = 0.0
    lag_ms: int | None = 2_000
    history_until_ms: int | None = None


def audit(store: FeatureStore, settings: AuditSettings, progress: Progress) -> AuditReport:
    """Compare what was served with what history says. Raises ActorRiskError, HistoryError."""
    if settings.from_ms >= settings.to_ms:
        raise ActorRiskError("the time span is empty: --from must be before --to")
    files = log_files(settings.log, settings.from_ms, settings.to_ms)
    total, done, lines = sum(path.stat().st_size for path in files), 0, ReadLines()

    def read(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    run = _Audit(store, settings)
    for logged, layout in read_decisions(files, settings.from_ms, settings.to_ms, lines, read):
        run.take(logged, layout)
    return run.report(lines)


class _Audit:
    """One audit under way."""

    def __init__(self, store: FeatureStore, settings: AuditSettings) -> None:
        self._store, self._settings = store, settings
        self._services: dict[str, _Service | None] = {}
        self._set_apart: Counter[str] = Counter()
        self._waiting: dict[str, list[LoggedDecision]] = defaultdict(list)

    def take(self, logged: LoggedDecision, layout: Layout) -> None:
        """Take one decision into account."""
        name = logged.decision.service.name
        if self._settings.services and name not in self._settings.services:
            return
        service = self._service(name)
        reason = _reason_against(service, logged, layout)
        if service is None or reason is not None:
            self._set_apart[reason or UNKNOWN_SERVICE] += 1
            return
        self._waiting[name].append(logged)
        if len(self._waiting[name]) >= PART:
            service.compare(self._waiting.pop(name))

    def report(self, lines: ReadLines) -> AuditReport:
        """What was found, what still waits included."""
        found = [service for service in self._services.values() if service is not None]
        for service in found:
            waiting = self._waiting.pop(service.name, [])
            if waiting:
                service.compare(waiting)
        features = [tally.report() for service in found for tally in service.tallies]
        compared = sum(service.decisions for service in found)
        ends = {name: end_ms for service in found for name, end_ms in service.ends_ms.items()}
        settings = self._settings
        return AuditReport(
            log=str(settings.log),
            from_ms=settings.from_ms,
            to_ms=settings.to_ms,
            tolerance=settings.tolerance,
            mismatch_rate_max=settings.mismatch_rate_max,
            decisions=compared + self._set_apart.total(),
            compared_decisions=compared,
            own_events=sum(service.own_events for service in found),
            set_apart=dict(sorted(self._set_apart.items())),
            cut_off_lines=lines.cut_off,
            unreadable_lines=lines.unreadable,
            sources=[SourceEnd(name, end_ms) for name, end_ms in sorted(ends.items())],
            features=features,
            verdict=verdict_of(features, settings.mismatch_rate_max),
        )

    def _service(self, name: str) -> _Service | None:
        if name not in self._services:
            known = audited_service(self._store, name, self._settings.tolerance)
            self._services[name] = None if known is None else _Service(self._store, known, self._settings)
        return self._services[name]


def _reason_against(service: _Service | None, logged: LoggedDecision, layout: Layout) -> str | None:
    """Why a decision cannot be compared at all; None when it can."""
    if service is None:
        return UNKNOWN_SERVICE
    if not service.has(layout):
        return OTHER_DEFINITION
    return next((flag for flag in DEGRADED if flag in logged.decision.degraded), None)


class _Service:
    """The audit of one service. ends_ms: name of a topic's history → up to when it is complete."""

    def __init__(self, store: FeatureStore, service: AuditedService, settings: AuditSettings) -> None:
        self._service, self._settings = service, settings
        self._recomputer = Recomputer(store, service)
        self.name = service.definition.name
        self.tallies = [Tally(self.name, feature) for feature in service.features]
        self.decisions = self.own_events = 0
        self._ends_by_topic = {
            topic: settings.history_until_ms or history_end_ms(source, store.config.repo_path)
            for topic, source in service.sources.items()
        }
        self.ends_ms = {source.name: self._ends_by_topic[topic] for topic, source in service.sources.items()}

    def has(self, layout: Layout) -> bool:
        """Whether the decision was made with the features that the registry has now."""
        refs = tuple(feature.ref for feature in self._service.features)
        return layout.fingerprint == self._service.definition.fingerprint and layout.features == refs

    def compare(self, decisions: Sequence[LoggedDecision]) -> None:
        """Compute these decisions again, compare, count."""
        online = self._recomputer.served(decisions)
        with_event = self._recomputer.not_in_history(decisions)
        found = self._recomputer.recomputed(decisions, with_event)
        compared = self._compared(decisions, found.failed)
        same = equal_values(online, found.values, self._service.features)
        late = self._late(decisions, online, compared & ~same)
        outcomes = outcomes_of(online, found.values, same, late, compared)
        for place, tally in enumerate(self.tallies):
            tally.add(decisions, online, found.values, outcomes[:, place], place)
        self.decisions += len(decisions)
        self.own_events += int(with_event.sum())

    def _compared(self, decisions: Sequence[LoggedDecision], failed: Mask) -> Mask:
        """bool[n, F]: what can be compared; what cannot is counted, with the reason."""
        as_of_ms = np.array([logged.decision.as_of_ms for logged in decisions])
        compared = np.ones((len(decisions), len(self.tallies)), dtype=bool)
        for place, (feature, tally) in enumerate(zip(self._service.features, self.tallies, strict=True)):
            if not feature.is_comparable:
                tally.skip(NO_COMPARISON, len(decisions))
                compared[:, place] = False
                continue
            beyond = self._beyond_history(feature, as_of_ms)
            broken = failed & ~beyond if feature.on_demand else np.zeros_like(failed)
            tally.skip(BEYOND_HISTORY, int(beyond.sum()))
            tally.skip(ON_DEMAND_FAILED, int(broken.sum()))
            compared[:, place] = ~beyond & ~broken
        return compared

    def _beyond_history(self, feature: AuditedFeature, as_of_ms: NDArray[np.int64]) -> Mask:
        """bool[n]: which times are later than some history that the feature rests on."""
        ends = [self._ends_by_topic[topic] for topic in feature.topics]
        if None in ends:
            return np.ones(len(as_of_ms), dtype=bool)
        first = min((end_ms for end_ms in ends if end_ms is not None), default=None)
        return np.zeros(len(as_of_ms), dtype=bool) if first is None else as_of_ms > first

    def _late(self, decisions: Sequence[LoggedDecision], online: Values, differing: Mask) -> Mask:
        """bool[n, F]: which differences vanish when what the log took too late for the decision is left out."""
        late = np.zeros_like(differing)
        rows = np.flatnonzero(differing.any(axis=1)).tolist()
        if self._settings.lag_ms is None or not rows:
            return late
        some = [decisions[row] for row in rows]
        read_ms = np.array([logged.read_ms for logged in some])
        known_ms = np.concatenate([read_ms - round(step * self._settings.lag_ms) for step in LAG_STEPS])
        found = self._recomputer.recomputed_as_known(some * len(LAG_STEPS), known_ms)
        served = _rows(online, rows * len(LAG_STEPS))
        same = equal_values(served, found.values, self._service.features) & ~found.failed[:, np.newaxis]
        late[rows] = same.reshape(len(LAG_STEPS), len(rows), -1).any(axis=0) & differing[rows]
        return late


def _rows(values: Values, rows: list[int]) -> Values:
    """The values of these decisions, of some of them more than once."""
    of_row: dict[int, list[tuple[int, object]]] = defaultdict(list)
    for (row, feature), value in values.others.items():
        of_row[row].append((feature, value))
    others = {(place, feature): value for place, row in enumerate(rows) for feature, value in of_row.get(row, ())}
    return Values(values.numbers[rows], values.there[rows], others)
