"""Rows that bring out where two forms of one model differ."""

from __future__ import annotations

import numpy as np
import onnx

from models._arrays import Floats
from models.explain import trees_behind
from models.graph import GraphFacts
from models.trees import LEAF, Ensemble

REAL_ROWS_MAX = 2_000
EDGES_MAX = 2_000
_HOLES_SHARE = 0.3


def probes_of(model: onnx.ModelProto, facts: GraphFacts, rows: Floats, *, seed: int = 0) -> dict[str, Floats]:
    """By name: real rows, the same with holes, corners of the number line, and, of trees that read the features
    themselves, each threshold with its two neighbours in the graph's precision. float64[M, F] each.

    `rows` is float64[N, F] with N ≥ 1.
    """
    random = np.random.default_rng(seed)
    real = rows[np.sort(random.permutation(len(rows))[:REAL_ROWS_MAX])]
    corners = [[np.nan], [0.0], [-0.0], [np.inf], [-np.inf]]
    found = {
        "real rows": real,
        "rows with holes": np.where(random.random(real.shape) < _HOLES_SHARE, np.nan, real),
        "corners": np.repeat(corners, rows.shape[1], axis=1),
    }
    ensemble = trees_behind(model)
    edges = None if ensemble is None else _edges(ensemble, facts, real, random)
    return found if edges is None else found | {"threshold edges": edges}


def example_rows(model: onnx.ModelProto, facts: GraphFacts, count: int, *, seed: int = 0) -> Floats:
    """Rows for a model of which nobody gave any: float64[count, F], around its thresholds, else standard normal."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, facts.width))
    ensemble = trees_behind(model)
    for feature, threshold in () if ensemble is None else _splits(ensemble).tolist():
        chosen = random.random(count) < 0.2
        rows[chosen, int(feature)] = threshold + random.normal(scale=max(abs(threshold), 1.0) / 4, size=chosen.sum())
    return rows


def _edges(ensemble: Ensemble, facts: GraphFacts, real: Floats, random: np.random.Generator) -> Floats | None:
    splits = _splits(ensemble)
    splits = splits[np.sort(random.permutation(len(splits))[:EDGES_MAX])]
    if not len(splits):
        return None
    single = np.float32 if facts.input_type == "float" else np.float64
    at = splits[:, 1].astype(single)
    values = np.concatenate([at, np.nextafter(at, single(-np.inf)), np.nextafter(at, single(np.inf))])
    edges = real[random.integers(0, len(real), values.size)].copy()
    edges[np.arange(values.size), np.tile(splits[:, 0].astype(np.int64), 3)] = values
    return edges


def _splits(ensemble: Ensemble) -> Floats:
    """Distinct (feature, threshold), float64[K, 2]."""
    parts = [np.column_stack([tree.feature, tree.threshold])[tree.feature != LEAF] for tree in ensemble.trees]
    return np.unique(np.concatenate(parts), axis=0)
