"""Quality of scores against labels, and thresholds that keep a stated precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from models._arrays import Floats
from models.manifest import Metrics, OperatingPoint, Thresholds

Labels = NDArray[np.int8]

NEVER = 1.0
"""Threshold of a promise that the data does not keep: no score below certainty is flagged."""


def threshold_for_precision(labels: Labels, scores: Floats, precision: float, flagged_min: int) -> float:
    """The lowest score `t` for which flagging every row with score >= t is right in at least `precision` of the cases
    and flags at least `flagged_min` rows; NEVER when there is none.

    labels int8[n] of 0 and 1, scores float64[n].
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    flagged = np.arange(1, scores.size + 1)
    right = np.cumsum(labels[order], dtype=np.int64)
    is_cut = np.append(ranked[1:] != ranked[:-1], True)
    kept = np.flatnonzero(is_cut & (flagged >= flagged_min) & (right >= precision * flagged))
    return float(ranked[kept[-1]]) if kept.size else NEVER


def threshold_for_capacity(scores: Floats, flagged_max: float, below: float = np.inf) -> float:
    """The lowest score `t` for which at most `flagged_max` rows have t <= score < `below`; `below` (at most NEVER) when
    there is none. Rows of one score are flagged together or not at all.

    scores float64[n].
    """
    ranked = np.sort(scores[scores < below])[::-1]
    is_cut = np.append(ranked[1:] != ranked[:-1], True)[: ranked.size]
    kept = np.flatnonzero(is_cut & (np.arange(1, ranked.size + 1) <= flagged_max))
    return float(ranked[kept[-1]]) if kept.size else min(below, NEVER)


def operating_point(labels: Labels, scores: Floats, threshold: float) -> OperatingPoint:
    """Precision and recall of flagging every score >= threshold. There must be a positive label."""
    flagged = scores >= threshold
    count, right = int(flagged.sum()), int(labels[flagged].sum())
    return OperatingPoint(
        threshold=threshold,
        flagged=count,
        precision=right / count if count else None,
        recall=right / int(labels.sum()),
    )


def measure(labels: Labels, scores: Floats, thresholds: Thresholds) -> Metrics:
    """Every metric of scores float64[n] against labels int8[n], which hold both classes.

    PR AUC is average precision, without interpolation.
    """
    return Metrics(
        rows=int(labels.size),
        positives=int(labels.sum()),
        base_rate=float(labels.mean()),
        mean_score=float(scores.mean()),
        roc_auc=float(roc_auc_score(labels, scores)),
        pr_auc=float(average_precision_score(labels, scores)),
        log_loss=float(log_loss(labels, scores, labels=[0, 1])),
        review=operating_point(labels, scores, thresholds.review),
        block=operating_point(labels, scores, thresholds.block),
    )
