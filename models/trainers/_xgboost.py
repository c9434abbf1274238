"""XGBoost. It reads and adds up in float32, which is undone where it hides what its trees say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from models._arrays import Floats
from models.settings import TrainSettings
from models.trainers import Fitted, Progress
from models.trees import Ensemble
from models.xgboost_json import base_margin, read_xgboost

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class FittedXGBoost:
    """A booster of the objective `binary:logistic`. leaf_rows: fitting rows in each node, one array for each tree."""

    booster: Any
    content: bytes
    types: tuple[str, ...]
    leaf_rows: tuple[NDArray[np.int64], ...]

    @property
    def library(self) -> tuple[str, str]:
        return "xgboost", str(xgboost.__version__)

    def margin(self, rows: Floats) -> Floats:
        """XGBoost adds leaves up in float32, which alone moves a margin by some 1e-6. Asked for one tree at a time, on
        top of a margin of 0, it answers each leaf as it is."""
        data = _matrix(rows, self.types, base_margin=np.zeros(len(rows), np.float32))
        total = np.full(len(rows), base_margin(self.content))
        for tree in range(self.booster.num_boosted_rounds()):
            total += self.booster.predict(data, output_margin=True, iteration_range=(tree, tree + 1))
        return total

    def score(self, rows: Floats) -> Floats:
        return np.asarray(self.booster.predict(_matrix(rows, self.types)), np.float64)

    def trees(self) -> Ensemble:
        return read_xgboost(self.content, self.leaf_rows)


class _XGBoost:
    def fit(
        self,
        matrix: Floats,
        labels: NDArray[np.int8],
        weights: Floats | None,
        settings: TrainSettings,
        categorical: tuple[int, ...],
        progress: Progress | None,
    ) -> Fitted:
        types = tuple("c" if column in categorical else "q" for column in range(matrix.shape[1]))
        data = _matrix(matrix, types, label=labels, weight=weights)
        callbacks = [] if progress is None else [_Told(progress, settings.trees)]
        parameters = _parameters(settings, labels, weights)
        booster = xgboost.train(parameters, data, num_boost_round=settings.trees, callbacks=callbacks)
        leaves = np.asarray(booster.predict(data, pred_leaf=True), np.int64).reshape(len(matrix), -1)
        rows = tuple(np.bincount(leaves[:, tree]) for tree in range(leaves.shape[1]))
        return FittedXGBoost(booster, bytes(booster.save_raw("json")), types, rows)


class _Told(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Hands on how far training is."""

    def __init__(self, progress: Progress, trees: int) -> None:
        super().__init__()
        self._progress, self._trees = progress, trees

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
        self._progress(epoch + 1, self._trees)
        return False


def _matrix(rows: Floats, types: tuple[str, ...], **more: Any) -> Any:
    """XGBoost refuses infinity and what float32 takes for it, where the graph sees a value above every threshold: the
    largest float32 stands for both."""
    capped = np.clip(rows, -_FLOAT32_MAX, _FLOAT32_MAX)  # NaN passes
    return xgboost.DMatrix(
        capped, missing=np.nan, feature_types=list(types), enable_categorical="c" in types, nthread=1, **more
    )


def _parameters(settings: TrainSettings, labels: NDArray[np.int8], weights: Floats | None) -> dict[str, Any]:
    rate = float(np.average(labels, weights=weights))
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_leaves": settings.leaves,
        "max_depth": settings.depth,
        "learning_rate": settings.learning_rate,
        # XGBoost bounds a leaf's sum of p (1 - p), which at the base rate is so much for so many rows.
        "min_child_weight": settings.leaf_rows_min * rate * (1.0 - rate),
        "reg_alpha": settings.l1,
        "reg_lambda": settings.l2,
        "gamma": settings.split_gain_min,
        "colsample_bytree": settings.feature_share,
        "subsample": settings.row_share,
        "max_bin": settings.bins,
        "seed": settings.seed,
        "nthread": settings.threads,
        "verbosity": 1,
    }


TRAINER = _XGBoost()
