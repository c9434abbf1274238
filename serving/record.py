"""The decision record, put together from what was read, scored and explained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
from serving.ports import Floats

TOP_REASONS = 5
FEATURES_OF_A_REASON = 3

_STATUS_NAMES: dict[int, Status] = {
    FeatureStatus.PRESENT: "PRESENT",
    FeatureStatus.NULL_VALUE: "NULL_VALUE",
    FeatureStatus.NOT_FOUND: "NOT_FOUND",
    FeatureStatus.OUTSIDE_MAX_AGE: "OUTSIDE_MAX_AGE",
}


@dataclass(frozen=True, slots=True)
class Readings:
    """What was read for one model, in its order: values float64[F] (NaN: none), statuses uint8[F], ages_ms int64[F]."""

    features: Sequence[ServedFeature]
    values: Floats
    statuses: NDArray[np.uint8]
    ages_ms: NDArray[np.int64]

    def value(self, place: int) -> float | None:
        """The value as JSON can say it: None for a missing or an infinite one."""
        value = float(self.values[place])
        return value if math.isfinite(value) else None

    def age_ms(self, place: int) -> int | None:
        """Milliseconds, None where no event time is known."""
        age_ms = int(self.ages_ms[place])
        return None if age_ms < 0 else age_ms

    def status(self, place: int) -> Status:
        """The status by its name."""
        return _STATUS_NAMES[int(self.statuses[place])]


@dataclass(frozen=True, slots=True)
class Explained:
    """The explanation's part of a record: base_value + attributions of reasons + attributions_rest = margin."""

    reasons: list[Reason]
    features: list[FeatureReading] | None
    base_value: float | None
    attributions_rest: float | None
    output_space: str | None
    reference: str | None
    sampled_orders: int | None


UNEXPLAINED = Explained([], None, None, None, None, None, None)


def explained(explanation: Explanation, readings: Readings, index: ReasonIndex, *, full: bool) -> Explained:
    """The record's part for the first row of an explanation; `full` lists every feature beside the reasons."""
    attributions = explanation.attributions[0]
    errors = None if explanation.standard_errors is None else explanation.standard_errors[0]
    found = index.strongest(attributions, TOP_REASONS, FEATURES_OF_A_REASON)
    return Explained(
        reasons=[_reason(share, readings, attributions, errors) for share in found.strongest],
        features=_all_readings(readings, attributions, errors, index.families) if full else None,
        base_value=float(explanation.base_value),
        attributions_rest=found.rest,
        output_space=explanation.output_space,
        reference=explanation.reference,
        sampled_orders=None if explanation.pairs is None else 2 * int(explanation.pairs[0]),
    )


def verdict(score: float, thresholds: Thresholds) -> Verdict:
    """What to do about a score, which has the thresholds' unit."""
    if score >= thresholds.block:
        return "block"
    return "review" if score >= thresholds.review else "allow"


def _reason(share: Share, readings: Readings, attributions: Floats, errors: Floats | None) -> Reason:
    """A reason, described by its strongest feature too. `errors` float64[F] are those of estimates."""
    listed = [_reason_feature(place, readings, attributions, errors) for place in share.places]
    first = listed[0]
    return Reason(
        code=share.meaning.code,
        family=share.meaning.family,
        description=share.meaning.analyst,
        actor_text=share.meaning.actor,
        attribution=share.attribution,
        standard_error=None if errors is None else float(errors[share.members].sum()),
        feature=first.feature,
        value=first.value,
        age_ms=first.age_ms,
        status=first.status,
        features=listed,
        features_rest=share.rest,
    )


def _reason_feature(place: int, readings: Readings, attributions: Floats, errors: Floats | None) -> ReasonFeature:
    return ReasonFeature(
        feature=readings.features[place].ref,
        description=readings.features[place].description,
        value=readings.value(place),
        age_ms=readings.age_ms(place),
        status=readings.status(place),
        attribution=float(attributions[place]),
        standard_error=None if errors is None else float(errors[place]),
    )


def _all_readings(
    readings: Readings, attributions: Floats, errors: Floats | None, families: Sequence[str]
) -> list[FeatureReading]:
    """Every feature, in the model's order."""
    return [
        FeatureReading(
            feature=feature.ref,
            family=families[place],
            value=readings.value(place),
            age_ms=readings.age_ms(place),
            status=readings.status(place),
            attribution=float(attributions[place]),
            standard_error=None if errors is None else float(errors[place]),
        )
        for place, feature in enumerate(readings.features)
    ]


def status_counts(readings: Readings) -> StatusCounts:
    """How many features have which status."""
    counts = np.bincount(readings.statuses, minlength=len(_STATUS_NAMES) + 1)
    return StatusCounts(
        present=int(counts[FeatureStatus.PRESENT]),
        null_value=int(counts[FeatureStatus.NULL_VALUE]),
        not_found=int(counts[FeatureStatus.NOT_FOUND]),
        outside_max_age=int(counts[FeatureStatus.OUTSIDE_MAX_AGE]),
    )


def absent_features(readings: Readings) -> list[AbsentFeature]:
    """The features without a value."""
    places = np.flatnonzero(readings.statuses != FeatureStatus.PRESENT)
    return [AbsentFeature(readings.features[place].ref, readings.status(place)) for place in places.tolist()]


def degradations(counts: ReadCounts) -> list[Degradation]:
    """What went wrong while the features were read."""
    flags: dict[Degradation, bool] = {
        "rows_refused": bool(counts.rows_refused),
        "on_demand_failed": counts.on_demand_failed > 0,
        "event_not_merged": counts.event_failed > 0,
        "windows_inexact": counts.inexact > 0,
    }
    return [flag for flag, happened in flags.items() if happened]
