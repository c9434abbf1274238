"""What an audit found: frozen, and as JSON the file that `--json` writes."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Outcome = Literal["equal", "late", "mismatched", "only_online", "only_offline"]
"""What a comparison found. late: equal once what the log took after the decision is left out."""

Verdict = Literal["equal", "differs", "nothing_compared"]

EXIT_CODES: dict[Verdict, int] = {"equal": 0, "differs": 1, "nothing_compared": 2}


class Example(Struct, frozen=True, kw_only=True):
    """One value that differs. age_ms: of what was served, None where nothing was known."""

    decision_id: str
    as_of_ms: int
    entities: dict[str, str | int]
    model_version: str
    outcome: Outcome
    online: Any
    offline: Any
    status: str
    age_ms: int | None


class Point(Struct, frozen=True):
    """One comparison for a picture; None for no value."""

    as_of_ms: int
    online: float | None
    offline: float | None
    outcome: Outcome


class FeatureReport(Struct, frozen=True, kw_only=True):
    """What became of one feature.

    compared = equal + late + mismatched + only_online + only_offline. tolerance: relative, absolute below 1; 0: exact.
    worst: the largest difference of two values, None where there never were two. smape: mean of 2·|a−b| / (|a|+|b|)
    over the comparisons with two values, 0 to 2. not_compared: reason → how often. points: a sample of the comparisons,
    larger of those that are not equal.
    """

    service: str
    feature: str
    tolerance: float
    compared: int
    equal: int
    late: int
    mismatched: int
    only_online: int
    only_offline: int
    worst: float | None
    smape: float | None
    not_compared: dict[str, int]
    examples: list[Example]
    points: list[Point]

    @property
    def differing(self) -> int:
        """Comparisons that nothing explains."""
        return self.mismatched + self.only_online + self.only_offline

    @property
    def mismatch_rate(self) -> float:
        """Their share of the comparisons; 0 without any."""
        return self.differing / self.compared if self.compared else 0.0


class SourceEnd(Struct, frozen=True):
    """Up to when a source's history was taken to be complete, milliseconds UTC; None: it has no rows."""

    source: str
    end_ms: int | None


class AuditReport(Struct, frozen=True, kw_only=True):
    """One audit of the decisions with from_ms ≤ as-of time < to_ms.

    set_apart: reason → decisions that were not compared at all. own_events: decisions whose event history did not have,
    so that it was added for them alone.
    """

    log: str
    from_ms: int
    to_ms: int
    tolerance: float
    mismatch_rate_max: float
    decisions: int
    compared_decisions: int
    own_events: int
    set_apart: dict[str, int]
    cut_off_lines: int
    unreadable_lines: int
    sources: list[SourceEnd]
    features: list[FeatureReport]
    verdict: Verdict

    @property
    def differing_features(self) -> list[FeatureReport]:
        """The features that do not pass, or have something to show, worst first."""
        found = [feature for feature in self.features if feature.differing]
        return sorted(found, key=lambda feature: (-feature.mismatch_rate, feature.feature))

    @property
    def exit_code(self) -> int:
        """0 equal, 1 something differs, 2 nothing was compared."""
        return EXIT_CODES[self.verdict]


def verdict_of(features: list[FeatureReport], mismatch_rate_max: float) -> Verdict:
    """Whether every feature differs in at most that share of its comparisons."""
    if not any(feature.compared for feature in features):
        return "nothing_compared"
    return "differs" if any(feature.mismatch_rate > mismatch_rate_max for feature in features) else "equal"
