"""The gradient-boosted trees that benchmarks score and explain."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

TREES, DEPTH, LEAVES = 300, 6, 64


def train_gbdt(
    rows: np.ndarray[Any, np.dtype[np.float64]], labels: np.ndarray[Any, np.dtype[np.float64]]
) -> lightgbm.Booster:
    """A LightGBM classifier of that size on rows float64[N, F] with labels float64[N] of 0 and 1; always the same."""
    settings = {
        "objective": "binary",
        "num_leaves": LEAVES,
        "max_depth": DEPTH,
        "min_data_in_leaf": 5,
        "learning_rate": 0.05,
        "feature_fraction": 0.5,
        "seed": 3,
        "num_threads": 1,
        "verbosity": -1,
    }
    return lightgbm.train(settings, lightgbm.Dataset(rows, labels), TREES)
