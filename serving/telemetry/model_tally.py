"""What one version of a model has read and answered.

Decisions are only put aside; they are counted together, some dozen at once or when somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from materialize.online import FeatureMatrix
from serving.decision import Decision, Mode
from serving.drift import ScoreReference, ScoreWindow
from serving.telemetry.counting import Buckets
from serving.telemetry.feature_reads import FeatureReads

STAGES = ("parse", "wait", "features", "score", "explain", "publish", "total")
STAGE_BOUNDS_MS = (
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 50.0, 100.0, 250.0, 500.0, 1000.0,
)  # fmt: skip
"""A whole answer takes about a millisecond: most of the resolution lies around that."""
SCORE_BOUNDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0,
)  # fmt: skip
"""Of scores from 0 to 1, finer at both ends: most actors are honest, and thresholds are high."""
ROUND_BOUNDS = (1, 2, 4, 8, 16, 32)
ASIDE_MAX = 64

_NOT_THE_MODELS = frozenset({"features_partial", "features_defaulted", "fallback_model", "fallback_score"})
"""Scores that say nothing of how a model does with features that were read."""


class AnswerTally:
    """The answers in one mode."""

    def __init__(self, score_bounds: tuple[float, ...], reference: ScoreReference) -> None:
        self.stages = tuple(Buckets(STAGE_BOUNDS_MS) for _ in STAGES)
        self.present = self.null_value = self.not_found = self.outside_max_age = 0
        self.verdicts = {"allow": 0, "review": 0, "block": 0}
        self.unknown_actors = 0
        self.degraded: dict[str, int] = {}
        self.scores = Buckets(score_bounds)
        self.window = ScoreWindow(reference)

    def add(self, decision: Decision) -> None:
        """Count what one decision says."""
        took, statuses = decision.latency_ms, decision.feature_statuses
        parse, wait, features, score, explain, publish, total = self.stages
        parse.add(took.parse)
        wait.add(took.wait)
        features.add(took.features)
        score.add(took.score)
        explain.add(took.explain)
        publish.add(took.publish)
        total.add(took.total)
        self.present += statuses.present
        self.null_value += statuses.null_value
        self.not_found += statuses.not_found
        self.outside_max_age += statuses.outside_max_age
        self.verdicts[decision.verdict] += 1
        if not decision.actor_known:
            self.unknown_actors += 1
        if decision.degraded:
            for reason in decision.degraded:
                self.degraded[reason] = self.degraded.get(reason, 0) + 1
            if not _NOT_THE_MODELS.isdisjoint(decision.degraded):
                return
        self.scores.add(decision.score)
        self.window.add(decision.score)


class ModelTally:
    """One version of a model, in whatever modes it answers."""

    def __init__(self, refs: Sequence[str], score_bounds: tuple[float, ...], reference: ScoreReference) -> None:
        """`refs`: the model's features in its order, `view:feature` each."""
        self.reference = reference
        self.reads = FeatureReads(refs)
        self.rounds = Buckets(ROUND_BOUNDS)
        self._modes: dict[Mode, AnswerTally] = {}
        self._aside: list[Decision] = []
        self._score_bounds = score_bounds

    def read(self, matrix: FeatureMatrix, columns: NDArray[np.int64]) -> None:
        """Count what was read for one round; the model's features are these columns of it."""
        self.rounds.add(len(matrix.values))
        self.reads.add(matrix, columns)

    def decided(self, decision: Decision) -> None:
        """Count one decision of this version. It must not change from now on."""
        self._aside.append(decision)
        if len(self._aside) >= ASIDE_MAX:
            self._count()

    @property
    def modes(self) -> Mapping[Mode, AnswerTally]:
        """Its answers in each mode that there were any in."""
        self._count()
        return self._modes

    def _count(self) -> None:
        aside, self._aside = self._aside, []
        for decision in aside:
            mode = self._modes.get(decision.mode)
            if mode is None:
                mode = self._modes[decision.mode] = AnswerTally(self._score_bounds, self.reference)
            mode.add(decision)
