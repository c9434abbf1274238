"""Counting the comparisons of one feature, in bounded memory: counts, the worst examples, points for a picture."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actor_risk.audit.compare import Values, differences, relative_differences
from actor_risk.audit.decisions import LoggedDecision
from actor_risk.audit.definition import AuditedFeature
from actor_risk.audit.report import Example, FeatureReport, Outcome, Point
from materialize.online import FeatureStatus

EXAMPLES_MAX = 5
DIFFERING_POINTS_MAX = 300
EQUAL_POINTS_MAX = 120
DRAWN_MAX = 1e300
"""The difference of two values of this size is still a number."""

Mask = NDArray[np.bool_]
Outcomes = NDArray[np.object_]
"""An `Outcome` for each comparison, None where nothing was compared."""


def outcomes_of(online: Values, offline: Values, same: Mask, late: Mask, compared: Mask) -> Outcomes:
    """object[n, F]: what each comparison found. Masks are bool[n, F]; `late` are among those that are not the same."""
    found = np.full(same.shape, "mismatched", dtype=object)
    found[online.there & ~offline.there] = "only_online"
    found[~online.there & offline.there] = "only_offline"
    found[late] = "late"
    found[same] = "equal"
    found[~compared] = None
    return found


class Tally:
    """The comparisons of one feature."""

    def __init__(self, service: str, feature: AuditedFeature) -> None:
        self._service, self._feature = service, feature
        self._outcomes: Counter[str] = Counter()
        self._not_compared: Counter[str] = Counter()
        self._worst: float | None = None
        self._relative_sum, self._relative_count = 0.0, 0
        self._examples: list[tuple[float, int, Example]] = []
        self._differing: _Sample = _Sample(DIFFERING_POINTS_MAX)
        self._equal: _Sample = _Sample(EQUAL_POINTS_MAX)
        self._seen = 0

    def skip(self, reason: str, count: int) -> None:
        """Count what was not compared."""
        if count:
            self._not_compared[reason] += count

    def add(
        self,
        decisions: Sequence[LoggedDecision],
        online: Values,
        offline: Values,
        outcomes: NDArray[np.object_],
        place: int,
    ) -> None:
        """Count the comparisons of n decisions for the feature at `place`. outcomes: object[n], for this feature."""
        rows = np.flatnonzero(outcomes != None)  # noqa: E711  (elementwise)
        self._outcomes.update(outcomes[rows].tolist())
        column = (slice(None), slice(place, place + 1))
        one, other = _column(online, column), _column(offline, column)
        apart, relative = differences(one, other)[rows, 0], relative_differences(one, other)[rows, 0]
        if not np.isnan(apart).all():
            worst = float(np.nanmax(apart))
            self._worst = worst if self._worst is None else max(self._worst, worst)
        self._relative_sum += float(np.nansum(relative))
        self._relative_count += int((~np.isnan(relative)).sum())
        for row, size in zip(rows.tolist(), apart.tolist(), strict=True):
            outcome: Outcome = outcomes[row]
            served = Point(decisions[row].decision.as_of_ms, *_numbers(online, offline, row, place), outcome)
            (self._equal if outcome == "equal" else self._differing).add(served)
            if outcome not in ("equal", "late"):
                self._note(size, _example(decisions[row], online, offline, row, place, outcome))

    def report(self) -> FeatureReport:
        """What was counted so far."""
        count = self._outcomes
        return FeatureReport(
            service=self._service,
            feature=self._feature.ref,
            tolerance=self._feature.tolerance,
            compared=count.total(),
            equal=count["equal"],
            late=count["late"],
            mismatched=count["mismatched"],
            only_online=count["only_online"],
            only_offline=count["only_offline"],
            worst=self._worst,
            smape=self._relative_sum / self._relative_count if self._relative_count else None,
            not_compared=dict(sorted(self._not_compared.items())),
            examples=[example for *_, example in sorted(self._examples, key=lambda kept: kept[:2], reverse=True)],
            points=sorted([*self._equal.kept, *self._differing.kept], key=lambda point: point.as_of_ms),
        )

    def _note(self, size: float, example: Example) -> None:
        """Keep the examples of the largest differences, a missing value counting as the largest; then the first."""
        self._seen += 1
        kept = (float("inf") if np.isnan(size) else size, -self._seen, example)
        if len(self._examples) < EXAMPLES_MAX:
            heapq.heappush(self._examples, kept)
        else:
            heapq.heappushpop(self._examples, kept)


class _Sample:
    """An even sample of points, of at most so many."""

    def __init__(self, count_max: int) -> None:
        self.kept: list[Point] = []
        self._count_max, self._seen, self._random = count_max, 0, random.Random(5)

    def add(self, point: Point) -> None:
        """Keep the point, in the place of another once there are too many, or not at all."""
        self._seen += 1
        if len(self.kept) < self._count_max:
            self.kept.append(point)
        else:
            place = self._random.randrange(self._seen)
            if place < self._count_max:
                self.kept[place] = point


def _column(values: Values, column: Any) -> Values:
    return Values(values.numbers[column], values.there[column], {})


def _numbers(online: Values, offline: Values, row: int, place: int) -> tuple[float | None, float | None]:
    found = []
    for side in (online, offline):
        value = float(side.numbers[row, place])
        found.append(value if side.there[row, place] and abs(value) < DRAWN_MAX else None)
    return found[0], found[1]


def _example(
    logged: LoggedDecision, online: Values, offline: Values, row: int, place: int, outcome: Outcome
) -> Example:
    age_ms = logged.ages_ms[place]
    return Example(
        decision_id=logged.decision.decision_id,
        as_of_ms=logged.decision.as_of_ms,
        entities=logged.decision.actor,
        model_version=f"{logged.decision.model.name} {logged.decision.model.version}",
        outcome=outcome,
        online=online.value(row, place),
        offline=offline.value(row, place),
        status=FeatureStatus(logged.statuses[place]).name,
        age_ms=None if age_ms < 0 else age_ms,
    )
