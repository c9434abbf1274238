"""The decision record, put together from what was read, scored and explained."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from materialize.online import FeatureStatus, ReadCounts
from models.explain import Explanation
from models.reasons import Reason as Share
from models.reasons import ReasonIndex
from serving.decision import (
    AbsentFeature,
    Degradation,
    FeatureReading,
    Reason,
    ReasonFeature,
    Status,
    StatusCounts,
    Thresholds,
    Verdict,
)
from serving.loading import ServedFeature

TOP_REASONS = 5
FEATURES_OF_A_REASON = 3

STATUS_NAMES: dict[int, Status] = {
    FeatureStatus.PRESENT: "PRESENT",
    FeatureStatus.NULL_VALUE: "NULL_VALUE",
    FeatureStatus.NOT_FOUND: "NOT_FOUND",
    FeatureStatus.OUTSIDE_MAX_AGE: "OUTSIDE_MAX_AGE",
}


class Readings(Struct, frozen=True):
    """What was read for one model, in its order: values (NaN: none), statuses by their numbers, ages (−1: unknown)."""

    features: Sequence[ServedFeature]
    values: list[float]
    statuses: list[int]
    ages_ms: list[int]

    def told(self, place: int) -> tuple[float | None, int | None, Status]:
        """One of them: the value as JSON can say it, None for a missing or an infinite one, the age in milliseconds,
        None where no event time is known, and the status by its name."""
        value, age_ms = self.values[place], self.ages_ms[place]
        return (
            value if math.isfinite(value) else None,
            None if age_ms < 0 else age_ms,
            STATUS_NAMES[self.statuses[place]],
        )


class Explained(Struct, frozen=True):
    """The explanation's part of a record: base_value + attributions of reasons + attributions_rest = margin."""

    reasons: list[Reason]
    features: list[FeatureReading] | None
    base_value: float | None
    attributions_rest: float | None
    output_space: str | None
    reference: str | None
    sampled_orders: int | None


_PRESENT, _NULL_VALUE, _NOT_FOUND, _OUTSIDE_MAX_AGE = map(
    int, (FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE, FeatureStatus.NOT_FOUND, FeatureStatus.OUTSIDE_MAX_AGE)
)

UNEXPLAINED = Explained([], None, None, None, None, None, None)


def explained(
    explanation: Explanation, readings: Sequence[Readings], index: ReasonIndex, full: Sequence[bool]
) -> list[Explained]:
    """The record's part for each row of an explanation; `full` lists every feature beside the reasons."""
    found = index.strongest_of(explanation.attributions, TOP_REASONS, FEATURES_OF_A_REASON)
    rows = explanation.attributions.tolist()
    all_errors = [None] * len(rows) if explanation.standard_errors is None else explanation.standard_errors.tolist()
    base_value, space, reference = float(explanation.base_value), explanation.output_space, explanation.reference
    return [
        Explained(
            reasons=[_reason(share, readings[n], attributions, errors) for share in found[n].strongest],
            features=_all_readings(readings[n], attributions, errors, index.families) if full[n] else None,
            base_value=base_value,
            attributions_rest=found[n].rest,
            output_space=space,
            reference=reference,
            sampled_orders=None if explanation.pairs is None else 2 * int(explanation.pairs[n]),
        )
        for n, (attributions, errors) in enumerate(zip(rows, all_errors, strict=True))
    ]


def verdict(score: float, thresholds: Thresholds) -> Verdict:
    """What to do about a score, which has the thresholds' unit."""
    if score >= thresholds.block:
        return "block"
    return "review" if score >= thresholds.review else "allow"


def _reason(share: Share, readings: Readings, attributions: list[float], errors: list[float] | None) -> Reason:
    """A reason, described by its strongest feature too. `errors` are those of estimates."""
    listed = [_reason_feature(place, readings, attributions, errors) for place in share.places]
    first = listed[0]
    return Reason(
        code=share.meaning.code,
        family=share.meaning.family,
        description=share.meaning.analyst,
        actor_text=share.meaning.actor,
        attribution=share.attribution,
        standard_error=None if errors is None else sum(errors[place] for place in share.members.tolist()),
        feature=first.feature,
        value=first.value,
        age_ms=first.age_ms,
        status=first.status,
        features=listed,
        features_rest=share.rest,
    )


def _reason_feature(
    place: int, readings: Readings, attributions: list[float], errors: list[float] | None
) -> ReasonFeature:
    feature = readings.features[place]
    value, age_ms, status = readings.told(place)
    return ReasonFeature(
        feature=feature.ref,
        description=feature.description,
        value=value,
        age_ms=age_ms,
        status=status,
        attribution=attributions[place],
        standard_error=None if errors is None else errors[place],
    )


def _all_readings(
    readings: Readings, attributions: list[float], errors: list[float] | None, families: Sequence[str]
) -> list[FeatureReading]:
    """Every feature, in the model's order."""
    return [
        FeatureReading(
            feature=feature.ref,
            family=families[place],
            value=value,
            age_ms=age_ms,
            status=status,
            attribution=attributions[place],
            standard_error=None if errors is None else errors[place],
        )
        for place, feature in enumerate(readings.features)
        for value, age_ms, status in (readings.told(place),)
    ]


def status_counts(readings: Readings) -> StatusCounts:
    """How many features have which status."""
    count = readings.statuses.count
    present = count(_PRESENT)
    if present == len(readings.statuses):
        return StatusCounts(present=present)
    return StatusCounts(
        present=present,
        null_value=count(_NULL_VALUE),
        not_found=count(_NOT_FOUND),
        outside_max_age=count(_OUTSIDE_MAX_AGE),
    )


def absent_features(readings: Readings) -> list[AbsentFeature]:
    """The features without a value."""
    if readings.statuses.count(_PRESENT) == len(readings.statuses):
        return []
    return [
        AbsentFeature(readings.features[place].ref, STATUS_NAMES[status])
        for place, status in enumerate(readings.statuses)
        if status != _PRESENT
    ]


def degradations(counts: ReadCounts, *, explanation_skipped: bool = False) -> list[Degradation]:
    """What went wrong while the features were read, and whether there was no time to explain."""
    flags: dict[Degradation, bool] = {
        "rows_refused": bool(counts.rows_refused),
        "on_demand_failed": counts.on_demand_failed > 0,
        "event_not_merged": counts.event_failed > 0,
        "windows_inexact": counts.inexact > 0,
        "explanation_skipped": explanation_skipped,
    }
    return [flag for flag, happened in flags.items() if happened]
