"""The cases of a file as they are written; nothing is held against the feature repository yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from actor_risk.feature_tests.errors import CaseError, meant
from actor_risk.feature_tests.moments import DEFAULT_NOW, moment_ms
from actor_risk.feature_tests.nodes import Node, read_nodes

SUFFIXES = (".yaml", ".yml", ".py")

_SHARED = ("view", "service", "now", "defaults", "entity", "request")
_FILE_KEYS = (*_SHARED, "cases")
_CASE_KEYS = (*_SHARED, "name", "events", "profiles", "expect")
_OF_MOMENT = ("entity", "request")

Fields = Mapping[str, Node]
NOTHING: Fields = {}


@dataclass(frozen=True)
class Row:
    """An event, or a row of a profile: the columns that the test names."""

    line: int
    fields: Fields


@dataclass(frozen=True)
class Moment:
    """What is expected as of one time. features: name → what is expected."""

    line: int
    as_of_ms: int
    features: Fields
    entity: Fields
    request: Fields


@dataclass(frozen=True)
class Case:
    """One test. subject: the name of a view, or of a feature service. events: topic → events in the order in which they
    arrive; "" for the only topic. profiles: batch view → rows."""

    file: Path
    line: int
    name: str
    subject: Node
    is_service: bool
    now_ms: int
    defaults: Fields
    events: Mapping[str, tuple[Row, ...]]
    profiles: Mapping[str, tuple[Row, ...]]
    moments: tuple[Moment, ...]

    def wrong(self, line: int, what: str) -> CaseError:
        """An error in this case's file."""
        return CaseError(self.file, line, what)


def files_of(paths: Iterable[Path]) -> list[Path]:
    """The files of tests at these paths, folders with all that is below them, in order of their names."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and not p.name.startswith((".", "_")))
        found += inside if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def read_cases(file: Path) -> list[Case]:
    """The cases of a file. Raises CaseError for what is no case."""
    return _File(file).cases()


class _File:
    """Reads one file; its errors name it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def cases(self) -> list[Case]:
        root = read_nodes(self._file)
        top = self._mapping(root, "a file of tests", _FILE_KEYS)
        cases = top.get("cases")
        if cases is None or not isinstance(cases.value, list) or not cases.value:
            line = root.line if cases is None else cases.line
            raise self._wrong(line, "write a list of cases: `cases:`, and below it `- name: …` for each")
        shared = {key: node for key, node in top.items() if key != "cases"}
        return [self._case(node, shared) for node in cases.value]

    def _case(self, node: Node, shared: Fields) -> Case:
        own = self._mapping(node, "a case", _CASE_KEYS)
        name = own.get("name")
        if name is None or not name.text.strip():
            raise self._wrong(node.line, "a case needs a `name`: say in one sentence what it shows")
        subject, is_service = self._subject(node, own, shared)
        now_ms = self._now(own.get("now") or shared.get("now"))
        both = {
            key: {**self._fields(shared.get(key), key), **self._fields(own.get(key), key)}
            for key in ("entity", "request")
        }
        return Case(
            file=self._file,
            line=node.line,
            name=name.text.strip(),
            subject=subject,
            is_service=is_service,
            now_ms=now_ms,
            defaults={
                **self._fields(shared.get("defaults"), "defaults"),
                **self._fields(own.get("defaults"), "defaults"),
            },
            events=self._events(own.get("events")),
            profiles=self._profiles(own.get("profiles")),
            moments=self._moments(node, own.get("expect"), now_ms, both["entity"], both["request"]),
        )

    def _subject(self, node: Node, own: Fields, shared: Fields) -> tuple[Node, bool]:
        for given in (own, shared):
            if "view" in given and "service" in given:
                raise self._wrong(given["service"].line, "name a `view` or a `service`, not both")
            for word in ("view", "service"):
                if word in given:
                    return given[word], word == "service"
        raise self._wrong(node.line, "the case names no `view` and no `service`: say which one is tested")

    def _now(self, node: Node | None) -> int:
        if node is None:
            return moment_ms(DEFAULT_NOW, 0)
        return self._time(node.text, node.line, moment_ms(DEFAULT_NOW, 0))

    def _events(self, node: Node | None) -> dict[str, tuple[Row, ...]]:
        if node is None or node.value is None:
            return {}
        if isinstance(node.value, dict):
            return {topic: self._rows(rows, "events") for topic, rows in node.value.items()}
        return {"": self._rows(node, "events")}

    def _profiles(self, node: Node | None) -> dict[str, tuple[Row, ...]]:
        if node is None or node.value is None:
            return {}
        if not isinstance(node.value, dict):
            return {"": self._rows(node, "profiles")}
        return {view: self._rows(rows, "profiles") for view, rows in node.value.items()}

    def _rows(self, node: Node, what: str) -> tuple[Row, ...]:
        if node.value is None:
            return ()
        if not isinstance(node.value, list):
            raise self._wrong(node.line, f"`{what}` is a list: `- {{time: -5m, …}}` for each row")
        return tuple(Row(one.line, self._mapping(one, f"one of `{what}`", None)) for one in node.value)

    def _moments(
        self, case: Node, node: Node | None, now_ms: int, entity: Fields, request: Fields
    ) -> tuple[Moment, ...]:
        how = "write as-of times and what is expected then: `expect:`, and below it `0: {feature: 1}`"
        if node is None or not node.value:
            raise self._wrong(case.line if node is None else node.line, f"the case expects nothing: {how}")
        if not isinstance(node.value, dict):
            raise self._wrong(node.line, f"`expect` is a mapping: {how}")
        return tuple(
            self._moment(text, one, self._time(text, one.line, now_ms), entity, request)
            for text, one in node.value.items()
        )

    def _moment(self, text: str, node: Node, as_of_ms: int, entity: Fields, request: Fields) -> Moment:
        fields = self._mapping(node, f"what is expected as of {text}", None)
        features = {name: one for name, one in fields.items() if name not in _OF_MOMENT}
        if not features:
            raise self._wrong(node.line, f"nothing is expected as of {text}: write {{feature: value}}")
        return Moment(
            node.line,
            as_of_ms,
            features,
            {**entity, **self._fields(fields.get("entity"), "entity")},
            {**request, **self._fields(fields.get("request"), "request")},
        )

    def _fields(self, node: Node | None, what: str) -> Fields:
        return NOTHING if node is None or node.value is None else self._mapping(node, f"`{what}`", None)

    def _mapping(self, node: Node, what: str, known: tuple[str, ...] | None) -> dict[str, Node]:
        if not isinstance(node.value, dict):
            raise self._wrong(node.line, f"{what} is a mapping, names with values: {{name: value, …}}")
        for key, one in node.value.items():
            if known is not None and key not in known:
                raise self._wrong(one.line, f"{what} has no {key!r}: {meant(key, known)}")
        return dict(node.value)

    def _time(self, text: str, line: int, now_ms: int) -> int:
        try:
            return moment_ms(text, now_ms)
        except ValueError as error:
            raise self._wrong(line, str(error)) from None

    def _wrong(self, line: int, what: str) -> CaseError:
        return CaseError(self._file, line, what)
