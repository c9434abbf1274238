"""How a margin splits into one share per feature: base value + attributions = margin."""

from __future__ import annotations

from models.explain._choice import LINEAR, SAMPLING, TREES, Chosen, explainer_of, is_exact, trees_behind
from models.explain._linear import LinearExplainer
from models.explain._protocol import LOG_ODDS, Explainer, Explanation
from models.explain._sampling import SamplingExplainer
from models.explain._trees import InterventionalTrees

__all__ = [
    "LINEAR",
    "LOG_ODDS",
    "SAMPLING",
    "TREES",
    "Chosen",
    "Explainer",
    "Explanation",
    "InterventionalTrees",
    "LinearExplainer",
    "SamplingExplainer",
    "explainer_of",
    "is_exact",
    "trees_behind",
]
