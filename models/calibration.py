"""From what a model adds up to the probability that it means, fitted on rows that the trees did not see.

`Platt`  logistic(slope · margin + intercept). Slope and intercept go into the trees' leaves, so the served margin is
         the calibrated one: log-odds, and base value and attributions are those of it.
`Steps`  isotonic regression: the probability is a step function of the margin. It is no logistic of anything that
         features add up to, so the margin stays as the trees have it, and with it base value and attributions; the
         output space says `raw_margin`. Rows of one step share one score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats
from models.errors import TrainingError

_DIGITS = 12
"""Fitted numbers keep so many significant digits: the last ones depend on the order in which a machine adds up."""
_ROWS_MIN, _CLASS_MIN = 100, 10
_NEWTON_STEPS_MAX = 100
_SMALL = 1e-12


class Calibration(Protocol):
    """Log-odds float64[N] before calibration to the served margin and score, float64[N] each."""

    def apply(self, margin: Floats) -> tuple[Floats, Floats]: ...

    def told(self) -> str:
        """What it does, for people."""
        ...


@dataclass(frozen=True, slots=True)
class _Uncalibrated:
    def apply(self, margin: Floats) -> tuple[Floats, Floats]:
        return margin, _logistic(margin)

    def told(self) -> str:
        return "as fitted by log loss, no later calibration"


NO_CALIBRATION = _Uncalibrated()


@dataclass(frozen=True, slots=True)
class Platt:
    """`slope` is above 0: the order of scores stays."""

    slope: float
    intercept: float

    def apply(self, margin: Floats) -> tuple[Floats, Floats]:
        scaled = self.slope * margin + self.intercept
        return scaled, _logistic(scaled)

    def told(self) -> str:
        return f"Platt: {self.slope:.4g} · margin {self.intercept:+.4g}, inside the trees"


@dataclass(frozen=True, slots=True)
class Steps:
    """`scores[i]` for margins up to and with `ends[i]`, the last score for all above. Both ascend; one end fewer."""

    ends: tuple[float, ...]
    scores: tuple[float, ...]

    def apply(self, margin: Floats) -> tuple[Floats, Floats]:
        return margin, np.array(self.scores)[np.searchsorted(self.ends, margin, side="left")]

    def told(self) -> str:
        return f"isotonic: {len(self.scores)} steps behind the margin"


def fit_calibration(kind: str, margin: Floats, labels: NDArray[np.int8]) -> Calibration:
    """The calibration of a kind ("none", "platt", "isotonic") for log-odds float64[n] and labels int8[n] of 0 and 1.

    Raises TrainingError for too few rows, and when higher margins do not mean more positive labels.
    """
    if kind == "none":
        return NO_CALIBRATION
    positives = int(labels.sum())
    if labels.size < _ROWS_MIN or min(positives, labels.size - positives) < _CLASS_MIN:
        raise TrainingError(
            f"calibration needs at least {_ROWS_MIN} rows and {_CLASS_MIN} of each class in the tune span, which has "
            f"{labels.size} rows, {positives} positive: raise tune_share, or set calibration to none"
        )
    return _platt(margin, labels) if kind == "platt" else _isotonic(margin, labels)


def _platt(margin: Floats, labels: NDArray[np.int8]) -> Platt:
    """By Newton's method, on targets drawn in from 0 and 1 (Platt, "Probabilistic outputs for support vector machines",
    1999): (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2)."""
    positives = int(labels.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (labels.size - positives + 2)
    target = np.where(labels == 1, high, low)
    slope, intercept = 1.0, 0.0
    for _ in range(_NEWTON_STEPS_MAX):
        down = _newton_step(margin, target, slope, intercept)
        size, loss = 1.0, _loss(margin, target, slope, intercept)
        while size > _SMALL and not _loss(margin, target, slope - size * down[0], intercept - size * down[1]) <= loss:
            size /= 2.0
        slope, intercept = slope - size * down[0], intercept - size * down[1]
        if size * (abs(down[0]) + abs(down[1])) < _SMALL:
            break
    if not (slope > _SMALL and np.isfinite(slope) and np.isfinite(intercept)):
        raise TrainingError(
            "in the tune span higher margins do not mean more positives, so there is nothing to calibrate: the model "
            "has not learned anything that lasts; look at its report with calibration none"
        )
    return Platt(_rounded(slope), _rounded(intercept))


def _newton_step(margin: Floats, target: Floats, slope: float, intercept: float) -> tuple[float, float]:
    score = _logistic(slope * margin + intercept)
    gap, weight = score - target, score * (1.0 - score)
    g0, g1 = float(np.sum(gap * margin)), float(np.sum(gap))
    h00, h01, h11 = float(np.sum(weight * margin * margin)), float(np.sum(weight * margin)), float(np.sum(weight))
    spread = h00 * h11 - h01 * h01
    if not spread > _SMALL * h00 * h11:  # all margins alike: only the intercept can be found
        return 0.0, g1 / max(h11, _SMALL)
    return (h11 * g0 - h01 * g1) / spread, (h00 * g1 - h01 * g0) / spread


def _loss(margin: Floats, target: Floats, slope: float, intercept: float) -> float:
    z = slope * margin + intercept
    return float(np.sum(np.logaddexp(0.0, z) - target * z))


def _isotonic(margin: Floats, labels: NDArray[np.int8]) -> Steps:
    """Pools neighbours until their rates ascend; a step ends half-way between its last margin and the next one's first.

    No step says 0 or 1: n rows without a positive are no proof, and count like 1 / (n + 2), n being all rows.
    """
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(margin, kind="stable")
    ranked = margin[order]
    bound = 1.0 / (labels.size + 2)
    fitted = IsotonicRegression(y_min=bound, y_max=1.0 - bound).fit(ranked, labels[order]).predict(ranked)
    fitted = np.array([_rounded(value) for value in fitted])
    last = np.flatnonzero(fitted[1:] > fitted[:-1])
    ends = np.minimum((ranked[last] + ranked[last + 1]) / 2.0, np.nextafter(ranked[last + 1], -np.inf))
    return Steps(tuple(map(float, ends)), tuple(map(float, fitted[np.append(last, fitted.size - 1)])))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _logistic(margin: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-margin)), np.float64)
