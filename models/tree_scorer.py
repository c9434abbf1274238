"""Scores of trees by our own loop, where it is proven to give what ONNX Runtime gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from models._arrays import Floats, as_matrix
from models._forest import Forest, forest_of, logistic
from models._operators import read_nodes
from models._wiring import Wiring
from models.admission import read_graph
from models.explain._core import is_sum_of_trees, trees_of
from models.graph import PROBABILITY, VALUE, GraphFacts, facts_of
from models.scorer import Scorer, Scores
from models.trees import FEATURES, MARGIN, SCORE

_PROBES = 256
_SCORE_TOLERANCE = 1e-12
"""ONNX Runtime's Sigmoid is right to 1e-13, and not the same alone and in a batch."""


class TreeScorer:
    """Margins of trees, bit for bit those of ONNX Runtime, and the scores that follow from them."""

    def __init__(self, forest: Forest, link: Callable[[Floats], Floats]) -> None:
        """`link`: margins float64[N] to scores float64[N]."""
        self._forest, self._link = forest, link

    def score(self, matrix: Floats) -> Scores:
        """As `Scorer.score`."""
        margins = self._forest.margins(as_matrix(matrix, self._forest.width))
        return Scores(margins, self._link(margins))


def serving_scorer(content: bytes, rows: Floats) -> Scorer | TreeScorer:
    """What a bundle of this graph is served by, of which `rows` are the background. Raises as `Scorer` does."""
    graph = read_graph(content)
    return fastest_scorer(graph, facts_of(graph), Scorer(content), rows)


def fastest_scorer(model: onnx.ModelProto, facts: GraphFacts, runtime: Scorer, rows: Floats) -> Scorer | TreeScorer:
    """A scorer of our own for a graph in the served form, if that is trees of the features themselves and ours gives
    the same as `runtime` does: margins bit for bit, scores to 1e-12. Else `runtime`.

    Compared are some of `rows` float64[B, F], as they are and with a threshold in the place of a value. Without rows
    there is no proof, so `runtime`.
    """
    forest, link = _forest(model, facts), _link(model, facts)
    if forest is None or link is None or not len(rows):
        return runtime
    ours, probes = TreeScorer(forest, link), _probes(forest, rows)
    found, wanted = ours.score(probes), runtime.score(probes)
    same = np.array_equal(found.margin, wanted.margin)
    near = np.allclose(found.score, wanted.score, rtol=0.0, atol=_SCORE_TOLERANCE)
    return ours if same and near else runtime


def _forest(model: onnx.ModelProto, facts: GraphFacts) -> Forest | None:
    """The trees whose sum is the margin as it is."""
    trees = trees_of(model)
    if trees is None or trees.prepared != FEATURES or (trees.factor, trees.offset) != (1.0, 0.0):
        return None
    nodes, single = read_nodes(trees.operator), facts.input_type == "float"
    return forest_of(nodes, facts.width, facts.target, single=single, single_answer=facts.is_single)


def _link(model: onnx.ModelProto, facts: GraphFacts) -> Callable[[Floats], Floats] | None:
    """From the margin to the score: nothing, σ, or trees of the margin."""
    if facts.output_space in (PROBABILITY, VALUE):
        return lambda margins: margins
    wiring = Wiring(model.graph)
    node = wiring.maker(wiring.unchanged(SCORE))
    if node is None or wiring.unchanged(str(node.input[0])) != wiring.unchanged(MARGIN):
        return None
    if node.op_type == "Sigmoid":
        return logistic
    steps = forest_of(read_nodes(node), 1) if is_sum_of_trees(node) else None
    return None if steps is None else lambda margins: steps.margins(margins.reshape(-1, 1))


def _probes(forest: Forest, rows: Floats) -> Floats:
    random = np.random.default_rng(0)
    real = rows[random.integers(0, len(rows), 2 * _PROBES)]
    features, thresholds = forest.edges(_PROBES, random)
    real[np.arange(features.size), features] = thresholds
    return real
