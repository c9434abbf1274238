"""Where a value comes from and what reads it: from the column of a source to the decision."""

from actor_risk.lineage.graph import Edge, Graph, Node, ReadingModel, graph_of
from actor_risk.lineage.show import as_json, as_mermaid, as_text
from actor_risk.lineage.trace import Lineage, UnknownNameError, lineage_of

__all__ = [
    "Edge",
    "Graph",
    "Lineage",
    "Node",
    "ReadingModel",
    "UnknownNameError",
    "as_json",
    "as_mermaid",
    "as_text",
    "graph_of",
    "lineage_of",
]
