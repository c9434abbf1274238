"""The graph of one registry: what is made from what, from columns of sources to the decision log.

    source ─► column ─► column of a function ─► aggregation ─► feature ─► on-demand feature ─► service ─► model version
                 └───────── key, time ───────────► view ───────►┘                                             │
                                     entity ──────►┘                         decision log ◄── reason code ◄───┘

The id of a node is `kind:name`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from actor_risk.changes.described import FeatureDefinition, RepoDefinition, SourceDefinition, ViewDefinition
from actor_risk.changes.reads import Reads, reads_of
from actor_risk.changes.wording import length

NodeKind = Literal[
    "source",
    "column",
    "derived",
    "aggregation",
    "entity",
    "view",
    "feature",
    "service",
    "model",
    "reason",
    "decisions",
]
DECISIONS = "decisions"
REQUEST = "request"
"""The source of fields of requests that no source declares."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One thing. name: as people write it. about: what else is known of it, in words."""

    id: str
    kind: NodeKind
    name: str
    about: str = ""


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """`end` is made from `start`, or reads it. how: in a word or two.

    within: from a service to its models and from a model to its reasons, which do not read all that the other reads:
    such an edge is shown, and not followed. direct: what is followed instead, from a feature, and not shown.
    """

    start: str
    end: str
    how: str
    within: bool = False
    direct: bool = False


class ReadingModel(msgspec.Struct, frozen=True, kw_only=True):
    """A version that some alias or rollout names. reasons: `view:feature` → the code that tells of it."""

    model: str
    version: str
    aliases: tuple[str, ...]
    service: str
    reasons: dict[str, str]

    @property
    def name(self) -> str:
        """`model@version`."""
        return f"{self.model}@{self.version}"


class Graph(msgspec.Struct, frozen=True):
    """All of it. nodes: by their ids."""

    nodes: dict[str, Node]
    edges: tuple[Edge, ...]


def graph_of(repo: RepoDefinition, models: Sequence[ReadingModel] = ()) -> Graph:
    """The graph of what a registry, or a repository, defines, with the models that read it."""
    draft = _Draft(repo)
    for source in repo.sources:
        draft.source(source)
    for entity in repo.entities:
        draft.node("entity", entity.name, _about(f"join key {entity.key}, {entity.key_kind}", entity.description))
    for view in repo.views:
        draft.view(view)
    for view in repo.views:
        draft.made_from(view)
    for service in repo.services:
        draft.node("service", service.name, _about(service.description))
        for ref in service.features:
            draft.edge(f"feature:{_stored_ref(ref, service.called)}", f"service:{service.name}", "in")
    draft.node("decisions", DECISIONS, "score, verdict, reasons, features")
    for model in models:
        draft.model(model)
    return Graph(draft.nodes, tuple(draft.edges))


class _Draft:
    """Collects nodes and edges."""

    def __init__(self, repo: RepoDefinition) -> None:
        self._repo = repo
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []

    def node(self, kind: NodeKind, name: str, about: str = "") -> str:
        """The id of a node, which is added if it is not there."""
        found = DECISIONS if kind == "decisions" else f"{kind}:{name}"
        self.nodes.setdefault(found, Node(id=found, kind=kind, name=name, about=about))
        return found

    def edge(self, start: str, end: str, how: str, *, within: bool = False, direct: bool = False) -> None:
        """Add an edge, once, between nodes that are there."""
        edge = Edge(start=start, end=end, how=how, within=within, direct=direct)
        if start in self.nodes and end in self.nodes and edge not in self.edges:
            self.edges.append(edge)

    def source(self, source: SourceDefinition) -> None:
        """A source with the columns that it declares."""
        places = {"stream": f"topic {source.topic}, history {source.path}", "table": f"table {source.path}"}
        self.node("source", source.name, _about(places.get(source.kind, "comes with a request"), source.description))
        for column, kind in source.columns.items():
            self.column(source.name, column, kind)

    def column(self, source: str, name: str, kind: str = "") -> str:
        """A column of a source."""
        found = self.node("column", f"{source}.{name}", kind)
        self.edge(f"source:{source}", found, "has")
        return found

    def view(self, view: ViewDefinition) -> None:
        """A view with its features."""
        there = self.node("view", view.name, _about(f"{view.kind.replace('_', '-')} view", view.description))
        for feature in view.features:
            self.node("feature", f"{view.name}:{feature.name}", _about(feature.kind, feature.description))
            self.edge(there, f"feature:{view.name}:{feature.name}", "has")

    def made_from(self, view: ViewDefinition) -> None:
        """What the view and its features are made from, where all views and features are there."""
        there = f"view:{view.name}"
        for entity in view.entities:
            self.edge(f"entity:{entity}", there, "keys")
        inputs = _Inputs(self, self._repo, view)
        for key in view.keys if view.source else ():
            for column in inputs.of(key):
                self.edge(column, there, "key of")
        if view.source and view.timestamp_field:
            for column in inputs.of(view.timestamp_field):
                self.edge(column, there, "event time of")
        for feature in view.features:
            self._feature(view, feature, inputs)

    def _feature(self, view: ViewDefinition, feature: FeatureDefinition, inputs: _Inputs) -> None:
        there = f"feature:{view.name}:{feature.name}"
        if feature.window is None:
            for made_from in inputs.of(feature.name):
                self.edge(made_from, there, "computed into" if view.kind == "on_demand" else "stored as")
            return
        window = feature.window
        name = f"{window.function}({window.column})"
        about = f"{name} over {length(window.length_ms)}, hop {length(window.hop_ms)}"
        aggregation = self.node("aggregation", f"{view.name}:{feature.name}", about)
        for made_from in inputs.of(window.column):
            self.edge(made_from, aggregation, "aggregated by")
        self.edge(aggregation, there, "gives")

    def model(self, model: ReadingModel) -> None:
        """A model version, the features that it reads and the reasons that tell of them."""
        aliases = ", ".join(model.aliases)
        there = self.node("model", model.name, aliases)
        self.edge(f"service:{model.service}", there, "read by", within=True)
        service = next((one for one in self._repo.services if one.name == model.service), None)
        for called, code in model.reasons.items():
            ref = called if service is None else _stored_ref(called, service.called)
            reason = self.node("reason", f"{model.name}:{code}", code)
            self.edge(there, reason, "explained by", within=True)
            self.edge(f"feature:{ref}", there, "read by", direct=True)
            self.edge(f"feature:{ref}", reason, "told by", direct=True)
            self.edge(reason, DECISIONS, "in")


class _Inputs:
    """What the columns of one view are made from: ids of nodes, added where they are not there yet."""

    def __init__(self, draft: _Draft, repo: RepoDefinition, view: ViewDefinition) -> None:
        self._draft = draft
        self._view = view
        self._source = repo.source(view.source)
        self._requests = {
            column: source.name for source in repo.sources if source.kind == "request" for column in source.columns
        }
        self._features = {ref.partition(":")[2]: ref for ref in view.inputs}
        self._features |= {ref.replace(":", "__"): ref for ref in view.inputs}
        self._reads = self._read()

    def of(self, name: str) -> list[str]:
        """The nodes that a column of the view's function, or of its source where it has none, stands for."""
        made_from = None if self._reads is None else self._reads.of(name)
        if self._view.kind == "on_demand":
            return sorted(self._input(one) for one in made_from or ())
        if made_from is None:
            return [self._stored(name)]
        derived = self._draft.node("derived", f"{self._view.name}.{name}", f"made by {self._view.name}()")
        for one in sorted(made_from):
            self._draft.edge(self._stored(one), derived, "read by function")
        return [derived]

    def _read(self) -> Reads | None:
        if self._view.kind == "on_demand":
            reads = reads_of(self._view.code_text, [*_bare(self._view.inputs), *self._view.requests])
            return Reads(reads.made, is_whole=False, mentioned=reads.mentioned)
        if not self._view.code_text:
            return None
        return reads_of(self._view.code_text, () if self._source is None else _used_names(self._source))

    def _input(self, name: str) -> str:
        if name in self._features:
            ref = self._features[name]
            return self._draft.node("feature", ref)
        source = self._requests.get(name, REQUEST)
        if source == REQUEST:
            self._draft.node("source", REQUEST, "comes with a request")
        return self._draft.column(source, name)

    def _stored(self, name: str) -> str:
        """The column as the source stores it."""
        if self._source is None:
            return self._draft.column(self._view.source, name)
        stored = next((old for old, new in self._source.mapped.items() if new == name), name)
        return self._draft.column(self._source.name, stored)


def _stored_ref(ref: str, called: Mapping[str, str]) -> str:
    """A feature by the name of its view, where a service calls the view otherwise."""
    view, _, name = ref.partition(":")
    return f"{called.get(view, view)}:{name}"


def _bare(refs: Sequence[str]) -> Iterator[str]:
    return (ref.partition(":")[2] for ref in refs)


def _used_names(source: SourceDefinition) -> list[str]:
    return [source.mapped.get(column, column) for column in source.columns]


def _about(*parts: str) -> str:
    return ": ".join(part for part in parts if part)
