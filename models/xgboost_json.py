"""Read XGBoost's own JSON format into plain trees in double precision that decide as XGBoost does in float32.

XGBoost rounds a value to float32 and goes left when that is below the threshold, a float32 too. Rounding never changes
the order of two numbers, so there is one largest double that is rounded to something below the threshold: a split at it
decides every value alike, without a rounding in the graph.

A set of categories holds those that go *right*; what is not in it, also a category that training never saw, goes left.
Format: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models._operators import Members
from models.errors import UnsupportedModelError
from models.trees import Ensemble, Tree, TreeBuilder

_BEYOND_FLOAT32 = 2.0**128
"""Where the float32 after the largest one would be: what is half-way there or more is rounded to infinity."""


def read_xgboost(content: bytes, leaf_rows: Sequence[NDArray[np.int64]] = ()) -> Ensemble:
    """The trees of `Booster.save_raw("json")`, leaf values and constant in log-odds.

    leaf_rows: for each tree, training rows by the number of the node, as `predict(pred_leaf=True)` counts; or nothing.
    Raises UnsupportedModelError for anything but `binary:logistic` by `gbtree` with one output.
    """
    learner = _learner(content)
    parameters = learner["learner_model_param"]
    booster = learner["gradient_booster"]
    if learner["objective"]["name"] != "binary:logistic" or booster["name"] != "gbtree":
        raise UnsupportedModelError(
            f"objective {learner['objective']['name']!r} by {booster['name']!r} is not exported: train with "
            "objective='binary:logistic' and booster='gbtree'"
        )
    trees = booster["model"]["trees"]
    if any(tree["tree_param"]["size_leaf_vector"] not in ("0", "1") for tree in trees):
        raise UnsupportedModelError("leaves of several outputs are not exported: train with one target")
    rows: Sequence[NDArray[np.int64] | None] = leaf_rows or [None] * len(trees)
    return Ensemble(
        int(parameters["num_feature"]),
        tuple(_read_tree(tree, counts) for tree, counts in zip(trees, rows, strict=True)),
        base_margin(content),
    )


def base_margin(content: bytes) -> float:
    """The log-odds that every row starts from, computed in float32 as XGBoost does."""
    given = _learner(content)["learner_model_param"]["base_score"]
    score = np.float32(str(given).strip("[]"))
    if not 0 < score < 1:
        raise UnsupportedModelError(f"base_score {given} is no probability: leave it out, XGBoost estimates it")
    return float(-np.log(np.float32(1.0) / score - np.float32(1.0)))


def at_most(threshold: np.float32) -> float:
    """The largest double that float32 rounds to a number below `threshold`, which is above −∞: halves go to even."""
    below = np.nextafter(threshold, np.float32(-np.inf))
    low = float(below) if np.isfinite(below) else -_BEYOND_FLOAT32
    high = float(threshold) if np.isfinite(threshold) else _BEYOND_FLOAT32
    middle = (low + high) / 2.0
    half_goes_below = int(np.array(below).view(np.uint32)) % 2 == 0
    return middle if half_goes_below else float(np.nextafter(middle, -np.inf))


def _learner(content: bytes) -> dict[str, Any]:
    learner: dict[str, Any] = msgspec.json.decode(content)["learner"]
    return learner


def _read_tree(given: dict[str, Any], leaf_rows: NDArray[np.int64] | None) -> Tree:
    left, right = given["left_children"], given["right_children"]
    values = np.array(given["split_conditions"], np.float32)
    sets = _categories(given)
    builder = TreeBuilder()
    waiting = [(0, builder.reserve())]
    while waiting:
        source, node = waiting.pop()
        if left[source] < 0:
            builder.set_leaf(node, float(values[source]), _count(leaf_rows, source))
            continue
        below, above = builder.reserve(), builder.reserve()
        feature, missing_left = given["split_indices"][source], bool(given["default_left"][source])
        if given["split_type"][source]:
            builder.set_members(node, feature, sets[source], not missing_left, above, below)
        elif values[source] == -np.inf:  # nothing is below: only missing values may go left
            builder.set_split(node, feature, np.inf, not missing_left, above, below)
        else:
            builder.set_split(node, feature, at_most(values[source]), missing_left, below, above)
        waiting += [(left[source], below), (right[source], above)]
    return builder.build()


def _categories(given: dict[str, Any]) -> dict[int, Members]:
    """The categories that go right, by node."""
    parts = zip(given["categories_nodes"], given["categories_segments"], given["categories_sizes"], strict=True)
    return {
        node: Members(tuple(map(float, sorted(given["categories"][start : start + size]))), True)
        for node, start, size in parts
    }


def _count(leaf_rows: NDArray[np.int64] | None, node: int) -> float | None:
    if leaf_rows is None:
        return None
    return float(leaf_rows[node]) if node < leaf_rows.size else 0.0
