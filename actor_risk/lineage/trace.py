"""From a name that a person writes to the part of the graph before and after it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

import msgspec

from actor_risk.errors import ActorRiskError
from actor_risk.lineage.graph import Edge, Graph, Node

_NEAREST = 5
_ON_ONE_CHAIN = {"service", "model"}
"""Kinds that may share a name, and are both meant by it."""


class UnknownNameError(ActorRiskError):
    """A name that nothing has, or several things do."""


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """starts: what was asked about. before: what it is made from, nearest first; after: what reads it."""

    starts: tuple[Node, ...]
    before: tuple[Node, ...] = ()
    before_edges: tuple[Edge, ...] = ()
    after: tuple[Node, ...] = ()
    after_edges: tuple[Edge, ...] = ()


def lineage_of(graph: Graph, name: str, *, up: bool = True, down: bool = True) -> Lineage:
    """What a name is made from (`up`) and what reads it (`down`). Raises UnknownNameError."""
    starts = _starts(graph, name)
    before = _reached(graph, _with_features(graph, starts), against=True) if up else {}
    after = _reached(graph, starts, against=False) if down else {}
    return Lineage(
        starts=tuple(graph.nodes[one] for one in starts),
        before=_nodes(graph, before, starts),
        before_edges=_edges(graph, {*before, *starts}) if up else (),
        after=_nodes(graph, after, starts),
        after_edges=_edges(graph, {*after, *starts}) if down else (),
    )


def _starts(graph: Graph, name: str) -> list[str]:
    if name in graph.nodes:
        return [name]
    found = [node for node in graph.nodes.values() if name in _called(node)]
    kinds = {node.kind for node in found}
    if len(found) > 1 and not kinds <= _ON_ONE_CHAIN:
        told = ", ".join(node.id for node in found)
        raise UnknownNameError(f"{name!r} names several things: write one of {told}")
    if not found:
        raise UnknownNameError(f"nothing is named {name!r}{_nearest(graph, name)}")
    return [node.id for node in found]


def _called(node: Node) -> set[str]:
    """The names by which a person may ask for a node. That of an aggregation is its feature's."""
    if node.kind == "aggregation":
        return set()
    names = {node.name}
    if node.kind == "feature":
        names.add(node.name.partition(":")[2])
    if node.kind == "model":
        model = node.name.partition("@")[0]
        names |= {model, *(f"{model}@{alias}" for alias in node.about.split(", "))}
    if node.kind == "reason":
        names.add(node.about)
    return names


def _nearest(graph: Graph, name: str) -> str:
    known = sorted({called for node in graph.nodes.values() for called in _called(node)})
    near = difflib.get_close_matches(name, known, _NEAREST, cutoff=0.5)
    return f": is it {', '.join(near)}?" if near else ""


def _with_features(graph: Graph, starts: list[str]) -> list[str]:
    """A view is made from what its features are made from."""
    views = {one for one in starts if graph.nodes[one].kind == "view"}
    return [*starts, *(edge.end for edge in graph.edges if edge.start in views and edge.how == "has")]


def _reached(graph: Graph, starts: Iterable[str], *, against: bool) -> dict[str, None]:
    """All that is reached, nearest first: along what is read, and what it is within.

    Down from a service or a model that is all that is in it. Up from a model it is its service, of which the model need
    not read all: so that is shown, and not gone on from.
    """
    within = _walk(starts, _neighbours((edge for edge in graph.edges if edge.within), against=against))
    flows = _neighbours((edge for edge in graph.edges if not edge.within), against=against)
    return {**within, **_walk(starts if against else within, flows)}


def _walk(starts: Iterable[str], neighbours: Mapping[str, list[str]]) -> dict[str, None]:
    found = dict.fromkeys(starts)
    waiting = list(found)
    for one in waiting:
        for other in neighbours.get(one, ()):
            if other not in found:
                found[other] = None
                waiting.append(other)
    return found


def _neighbours(edges: Iterable[Edge], *, against: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for edge in edges:
        start, end = (edge.end, edge.start) if against else (edge.start, edge.end)
        found.setdefault(start, []).append(end)
    return found


def _nodes(graph: Graph, found: Iterable[str], starts: Collection[str]) -> tuple[Node, ...]:
    return tuple(graph.nodes[one] for one in found if one not in starts)


def _edges(graph: Graph, kept: Collection[str]) -> tuple[Edge, ...]:
    return tuple(edge for edge in graph.edges if not edge.direct and edge.start in kept and edge.end in kept)
