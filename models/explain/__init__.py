"""How a margin splits into one share per feature: base value + attributions = margin."""

from __future__ import annotations

import onnx

from models._arrays import Floats
from models.explain._protocol import LOG_ODDS, Explainer, Explanation
from models.explain._trees import InterventionalTrees
from models.trees import read_trees

__all__ = ["LOG_ODDS", "Explainer", "Explanation", "InterventionalTrees", "explainer_of"]


def explainer_of(model: onnx.ModelProto, background: Floats, reference: str) -> Explainer:
    """The exact explainer of a graph, against the background sample float64[B, F].

    Raises UnsupportedModelError when the margin is not a sum of trees.
    """
    return InterventionalTrees.of(read_trees(model), background, reference)
