"""A lineage as a tree for people, as JSON for programs, as Mermaid for pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from actor_risk.lineage.graph import Edge, Node
from actor_risk.lineage.trace import Lineage

_SHOWN_AS = {"decisions": "decision log", "derived": "made column", "reason": "reason code"}
_SHAPES = {"source": ("[(", ")]"), "model": ("[[", "]]"), "feature": ("(", ")"), "decisions": ("[(", ")]")}
_ESCAPED = {"&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "`": "#96;", "\n": " "}


def as_text(lineage: Lineage) -> str:
    """Two trees: what it is made from, and what reads it. What stands in a tree already is not drawn out again."""
    lines = [_told(node) for node in lineage.starts]
    if lineage.before:
        lines += ["made from", *_tree(lineage, lineage.before_edges, against=True)]
    if lineage.after:
        lines += ["read by", *_tree(lineage, lineage.after_edges, against=False)]
    return "\n".join(lines)


def as_json(lineage: Lineage) -> bytes:
    """`starts`: ids; `nodes`: id, kind, name, about; `edges`: from, to, how."""
    nodes, edges = _all_nodes(lineage), _all_edges(lineage)
    built = {
        "starts": [node.id for node in lineage.starts],
        "nodes": [msgspec.to_builtins(node) for node in nodes],
        "edges": [{"from": edge.start, "to": edge.end, "how": edge.how} for edge in edges],
    }
    return msgspec.json.format(msgspec.json.encode(built), indent=2)


def as_mermaid(lineage: Lineage) -> str:
    """A Mermaid flowchart; ids are numbers, and whatever a name has in it is escaped."""
    ids = {node.id: f"n{number}" for number, node in enumerate(_all_nodes(lineage))}
    lines = ["flowchart LR"]
    for node in _all_nodes(lineage):
        left, right = _SHAPES.get(node.kind, ("[", "]"))
        label = "<br/>".join(_escaped(text) for text in (_kind(node), _called(node)) if text)
        lines.append(f'    {ids[node.id]}{left}"{label}"{right}')
    lines += [f'    {ids[edge.start]} -->|"{_escaped(edge.how)}"| {ids[edge.end]}' for edge in _all_edges(lineage)]
    lines += [f"    style {ids[node.id]} stroke-width:3px" for node in lineage.starts]
    return "\n".join(lines)


def _all_nodes(lineage: Lineage) -> list[Node]:
    """Before, itself, after; each once."""
    nodes = [*reversed(lineage.before), *lineage.starts, *lineage.after]
    return list({node.id: node for node in nodes}.values())


def _all_edges(lineage: Lineage) -> list[Edge]:
    return list(dict.fromkeys([*lineage.before_edges, *lineage.after_edges]))


def _tree(lineage: Lineage, edges: Iterable[Edge], *, against: bool) -> Iterator[str]:
    nodes = {node.id: node for node in _all_nodes(lineage)}
    below: dict[str, list[str]] = {}
    for edge in edges:
        start, end = (edge.end, edge.start) if against else (edge.start, edge.end)
        below.setdefault(start, []).append(end)
    roots = {node.id for node in lineage.starts}
    if against:  # what a view is made from is what its features are made from
        roots |= {one for node in lineage.starts if node.kind == "view" for one in _features(lineage, node)}
    first = list(dict.fromkeys(one for root in roots for one in below.get(root, ()) if one not in roots))
    yield from _branches(sorted(first), below, nodes, "", set())


def _features(lineage: Lineage, view: Node) -> Iterator[str]:
    return (node.id for node in lineage.before if node.kind == "feature" and node.name.startswith(f"{view.name}:"))


def _branches(
    ids: list[str], below: dict[str, list[str]], nodes: dict[str, Node], indent: str, drawn: set[str]
) -> Iterator[str]:
    for place, one in enumerate(ids):
        is_last = place == len(ids) - 1
        further = below.get(one, [])
        corner = "└─" if is_last else "├─"
        if one in drawn:
            yield f"{indent}{corner} {_short(nodes[one])}{' … as above' if further else ''}"
        else:
            drawn.add(one)
            yield f"{indent}{corner} {_told(nodes[one])}"
            yield from _branches(further, below, nodes, indent + ("   " if is_last else "│  "), drawn)


def _told(node: Node) -> str:
    about = f"  ({node.about})" if node.about and node.about != _called(node) else ""
    return f"{_short(node)}{about}"


def _short(node: Node) -> str:
    return f"{_kind(node)} {_called(node)}".rstrip()


def _called(node: Node) -> str:
    """An aggregation and a reason are called by what they are: the feature, or the model, is beside them."""
    if node.kind == "decisions":
        return ""
    return node.about if node.kind in ("aggregation", "reason") else node.name


def _kind(node: Node) -> str:
    return _SHOWN_AS.get(node.kind, node.kind)


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(sign, sign) for sign in text)
