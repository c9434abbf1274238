"""LightGBM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats
from models.lightgbm_text import read_lightgbm
from models.settings import TrainSettings
from models.trainers import Fitted, Progress
from models.trees import Ensemble


@dataclass(frozen=True, slots=True)
class FittedLightGBM:
    """A booster of the objective `binary`."""

    booster: Any

    @property
    def library(self) -> tuple[str, str]:
        return "lightgbm", str(lightgbm.__version__)

    def margin(self, rows: Floats) -> Floats:
        return np.asarray(self.booster.predict(rows, raw_score=True), np.float64)

    def score(self, rows: Floats) -> Floats:
        return np.asarray(self.booster.predict(rows), np.float64)

    def trees(self) -> Ensemble:
        return read_lightgbm(self.booster.model_to_string())


class _LightGBM:
    def fit(
        self,
        matrix: Floats,
        labels: NDArray[np.int8],
        weights: Floats | None,
        settings: TrainSettings,
        categorical: tuple[int, ...],
        progress: Progress | None,
    ) -> Fitted:
        callbacks = [] if progress is None else [lambda step: progress(step.iteration + 1, settings.trees)]
        of_data = {"verbosity": -1, "max_bin": settings.bins}
        data = lightgbm.Dataset(matrix, labels, weight=weights, categorical_feature=list(categorical), params=of_data)
        booster = lightgbm.train(_parameters(settings), data, num_boost_round=settings.trees, callbacks=callbacks)
        return FittedLightGBM(booster)


def _parameters(settings: TrainSettings) -> dict[str, Any]:
    return {
        "objective": "binary",
        "num_leaves": settings.leaves,
        "max_depth": settings.depth,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.leaf_rows_min,
        "lambda_l1": settings.l1,
        "lambda_l2": settings.l2,
        "min_gain_to_split": settings.split_gain_min,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": int(settings.row_share < 1),
        "max_bin": settings.bins,
        "seed": settings.seed,
        "num_threads": settings.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


TRAINER = _LightGBM()
