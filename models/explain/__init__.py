"""How a margin splits into one share per feature: base value + attributions = margin."""

from __future__ import annotations

from models.explain._choice import LINEAR, PATH_TREES, SAMPLING, TREES, Chosen, explainer_of, is_exact, trees_behind
from models.explain._file import decode_tables, encode_tables, map_tables
from models.explain._linear import LinearExplainer
from models.explain._prepared import Prepared
from models.explain._protocol import LOG_ODDS, Explainer, Explanation
from models.explain._sampling import SamplingExplainer
from models.explain._trees import InterventionalTrees, PathDependentTrees, TreeTables

__all__ = [
    "LINEAR",
    "LOG_ODDS",
    "PATH_TREES",
    "SAMPLING",
    "TREES",
    "Chosen",
    "Explainer",
    "Explanation",
    "InterventionalTrees",
    "LinearExplainer",
    "PathDependentTrees",
    "Prepared",
    "SamplingExplainer",
    "TreeTables",
    "decode_tables",
    "encode_tables",
    "explainer_of",
    "is_exact",
    "map_tables",
    "trees_behind",
]
