"""A feature repository as plain data: what one version of it defines, compared by meaning and never by text.

It is made in a process of its own, which imports the repository, and crosses to the command as JSON.
"""

from __future__ import annotations

from typing import Literal

import msgspec

UNREADABLE = frozenset(("AR001", "AR002", "AR003", "AR004", "AR006"))
"""Codes of problems for which it may be that nothing of a repository is known."""


class Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every definition has. `place` is `file:line` below the repository, "" where it is not known."""

    name: str
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}
    place: str = ""


class EntityDefinition(Named, frozen=True, kw_only=True):
    """An entity. `key` is its join key, `key_kind` the Feast value type of it, such as `STRING`."""

    key: str
    key_kind: str


class SourceDefinition(Named, frozen=True, kw_only=True):
    """A source. `columns`: name → type as the source declares them, empty where it declares none.

    kind: `stream` (a topic with its history), `table` (a batch source) or `request` (what comes with a request).
    mapped: stored column → the name it is used by. topic: "" unless it is a stream. path: of the history or table.
    """

    kind: Literal["stream", "table", "request"]
    columns: dict[str, str] = {}
    mapped: dict[str, str] = {}
    timestamp_field: str = ""
    created_field: str = ""
    topic: str = ""
    path: str = ""


class WindowDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a windowed feature is computed. Milliseconds.

    hop_ms: the hop in force. declared_hop_ms: the slide interval as it is written, None where there is none; it is in
    force only if it divides the window.
    """

    column: str
    function: str
    length_ms: int
    hop_ms: int
    declared_hop_ms: int | None = None


class FeatureDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A feature of a view. kind: its Feast value type, such as `DOUBLE`. window: None unless it is windowed."""

    name: str
    kind: str
    description: str = ""
    tags: dict[str, str] = {}
    window: WindowDefinition | None = None


class ViewDefinition(Named, frozen=True, kw_only=True):
    """A view. kind: `stream` (windowed), `batch` or `on_demand`.

    keys: join key → Feast value type. source: name of its source, "" for an on-demand view. code: canonical form of its
    function, which comments, layout, decorators and docstrings do not change; "" without one. code_text: as it is
    written. inputs: `view:feature` that an on-demand view reads; requests: fields of requests that it reads.
    fingerprint: of its rows, hexadecimal. row_bytes_max: what one row can take. An on-demand view has neither.
    columns: the columns of its events that the aggregations of a stream view read.
    """

    kind: Literal["stream", "batch", "on_demand"]
    entities: tuple[str, ...] = ()
    keys: dict[str, str] = {}
    source: str = ""
    timestamp_field: str = ""
    ttl_ms: int = 0
    features: tuple[FeatureDefinition, ...] = ()
    code: str = ""
    code_text: str = ""
    inputs: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    fingerprint: str = ""
    row_bytes_max: int = 0
    columns: tuple[str, ...] = ()

    def feature(self, name: str) -> FeatureDefinition | None:
        """The feature of that name."""
        return next((feature for feature in self.features if feature.name == name), None)


class ServiceDefinition(Named, frozen=True, kw_only=True):
    """A feature service. features: `view:feature` in order; reads: the views whose rows one request reads.

    called: the name that a view has in `features`, where that is another than its own → its own.
    """

    features: tuple[str, ...]
    fingerprint: str
    reads: tuple[str, ...] = ()
    called: dict[str, str] = {}


class Problem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a repository, or one definition in it, cannot be used. code: one of `findings.CODES`."""

    code: str
    message: str
    place: str = ""
    subject: str = ""


class RepoDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of the repository. printed: what its modules wrote while they were imported, shortened."""

    project: str = ""
    entities: tuple[EntityDefinition, ...] = ()
    sources: tuple[SourceDefinition, ...] = ()
    views: tuple[ViewDefinition, ...] = ()
    services: tuple[ServiceDefinition, ...] = ()
    problems: tuple[Problem, ...] = ()
    printed: str = ""

    @property
    def is_unreadable(self) -> bool:
        """Whether nothing is known of it, since it cannot be imported or applied: what it lacks would look removed."""
        is_empty = not (self.entities or self.sources or self.views or self.services)
        return is_empty and any(problem.code in UNREADABLE for problem in self.problems)

    def view(self, name: str) -> ViewDefinition | None:
        """The view of that name."""
        return next((view for view in self.views if view.name == name), None)

    def source(self, name: str) -> SourceDefinition | None:
        """The source of that name."""
        return next((source for source in self.sources if source.name == name), None)


class ServedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version in the model store that some alias or rollout names. features: `view:feature` in its order."""

    model: str
    version: str
    aliases: tuple[str, ...]
    service: str
    service_fingerprint: str
    features: tuple[str, ...]
