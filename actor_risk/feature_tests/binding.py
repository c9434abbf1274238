"""A case held against the repository: every name is known, events and rows are whole, it is said of whom they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actor_risk.audit.definition import EXACT_FUNCTIONS, FLOAT32_TOLERANCE
from actor_risk.feature_tests.cases import Case, Fields, Moment, Row
from actor_risk.feature_tests.errors import CaseError, meant
from actor_risk.feature_tests.expected import SUMS_TOLERANCE, Expected, expected
from actor_risk.feature_tests.nodes import Node
from actor_risk.feature_tests.repo import RepoUnderTest
from actor_risk.feature_tests.topics import CREATED, TIME_KIND, TIME_NAMES, default_word, event_of, time_of
from materialize.definitions import BatchView, DefinitionError, StreamView
from materialize.events import TOPICS, Event, columns_from_events
from materialize.offline import ARROW_TYPES
from materialize.online import ReadPlan

Keys = dict[str, Any]

_CONVERTED = {"STRING": str, "INT64": int, "INT32": int}


@dataclass(frozen=True)
class BoundMoment:
    """What is expected as of one time of whom."""

    line: int
    as_of_ms: int
    expected: Mapping[str, Expected]
    entity: Keys
    request: Keys


@dataclass(frozen=True)
class BoundCase:
    """A case that can be run. events: topic → events as they arrive. profiles: batch view → table of its source's rows,
    called as the view calls them. tolerances: feature → how far its two forms may differ."""

    case: Case
    plan: ReadPlan
    events: Mapping[str, tuple[Event, ...]]
    profiles: Mapping[str, pa.Table]
    moments: tuple[BoundMoment, ...]
    tolerances: Mapping[str, float]


def bind(case: Case, repo: RepoUnderTest) -> BoundCase:
    """The case with the repository's definitions. Raises CaseError for what the repository does not have."""
    plan = _plan(case, repo)
    events = _events(case, plan)
    keys = _keys_in(plan, events)
    batch = {row.view.name: row.view for row in plan.rows if isinstance(row.view, BatchView)}
    given = _profiles_given(case, batch)
    moments = [_moment(case, repo, plan, moment, keys, given) for moment in case.moments]
    profiles = {name: _table(case, repo, view, given.get(name, ()), moments[0].entity) for name, view in batch.items()}
    return BoundCase(case, plan, events, profiles, tuple(moments), _tolerances(plan))


def _plan(case: Case, repo: RepoUnderTest) -> ReadPlan:
    name, kind = case.subject.text, "service" if case.is_service else "view"
    known = repo.services if case.is_service else repo.views
    if name not in known:
        raise case.wrong(case.subject.line, f"the repository has no {kind} {name!r}: {meant(name, known)}")
    try:
        return repo.plan(name, is_service=case.is_service)
    except DefinitionError as error:
        raise case.wrong(case.subject.line, str(error)) from error


def _events(case: Case, plan: ReadPlan) -> dict[str, tuple[Event, ...]]:
    topics = list(dict.fromkeys(row.view.topic for row in plan.rows if isinstance(row.view, StreamView)))
    unknown = [topic for topic in topics if topic not in TOPICS]
    if unknown:
        raise case.wrong(
            case.subject.line,
            f"no schema for the events of {', '.join(unknown)}: the stream takes {', '.join(sorted(TOPICS))}; a new "
            "topic is a struct in materialize/events",
        )
    found: dict[str, tuple[Event, ...]] = dict.fromkeys(topics, ())
    for given, rows in case.events.items():
        if not rows:
            continue
        topic = given or (topics[0] if len(topics) == 1 else "")
        if not topic and topics:
            raise case.wrong(rows[0].line, f"say whose events these are: `events: {{{topics[0]}: […]}}`; {_of(topics)}")
        if topic not in topics:
            raise case.wrong(rows[0].line, f"{case.subject.text!r} reads no events {topic!r}: {meant(topic, topics)}")
        found[topic] = tuple(event_of(case, topic, row, number) for number, row in enumerate(rows, 1))
    return found


def _of(topics: list[str]) -> str:
    return f"the topics are {', '.join(topics)}"


def _keys_in(plan: ReadPlan, events: Mapping[str, tuple[Event, ...]]) -> dict[str, set[Any]]:
    """For each join key the values that events have, as the views see them."""
    found: dict[str, set[Any]] = {key.name: set() for key in plan.join_keys}
    for row in plan.rows:
        if not isinstance(row.view, StreamView) or not events[row.view.topic]:
            continue
        try:
            seen = row.view.events(columns_from_events(events[row.view.topic]))
        except Exception:  # the author's code; it is told when the case runs
            continue
        for name, column in zip(row.key_names, seen.keys, strict=True):
            found[name].update(column.tolist())
    return found


def _profiles_given(case: Case, batch: Mapping[str, BatchView]) -> dict[str, tuple[Row, ...]]:
    found = {}
    for given, rows in case.profiles.items():
        name = given or (next(iter(batch)) if len(batch) == 1 else "")
        if name not in batch and rows:
            told = f"{case.subject.text!r} reads no profile view {given!r}" if given else "say whose rows these are"
            raise case.wrong(rows[0].line, f"{told}: {meant(given, batch)}")
        found[name] = rows
    return found


def _moment(
    case: Case,
    repo: RepoUnderTest,
    plan: ReadPlan,
    moment: Moment,
    keys: Mapping[str, set[Any]],
    profiles: Mapping[str, tuple[Row, ...]],
) -> BoundMoment:
    kinds = repo.features(case.subject.text, is_service=case.is_service)
    wanted = {}
    for name, node in moment.features.items():
        if name not in kinds:
            what = f"{'service' if case.is_service else 'view'} {case.subject.text!r}"
            raise case.wrong(node.line, f"{what} has no feature {name!r}: {meant(name, kinds)}")
        try:
            wanted[name] = expected(node, kinds[name])
        except ValueError as error:
            raise case.wrong(node.line, f"{name}: {error}") from None
    entity = _entity(case, plan, moment, keys, profiles)
    return BoundMoment(moment.line, moment.as_of_ms, wanted, entity, _request(case, plan, moment))


def _entity(
    case: Case,
    plan: ReadPlan,
    moment: Moment,
    keys: Mapping[str, set[Any]],
    profiles: Mapping[str, tuple[Row, ...]],
) -> Keys:
    """Who is asked for: as the test says, or the only one that its events and rows are of."""
    known = {key.name: key.kind for key in plan.join_keys}
    _check_known(case, moment.entity, known, "join key")
    rows = [row for of_view in profiles.values() for row in of_view]
    found: Keys = {}
    for name, kind in known.items():
        named = {_typed(case, row.fields[name], kind) for row in rows if name in row.fields}
        candidates = keys[name] or named
        if name in moment.entity:
            found[name] = _typed(case, moment.entity[name], kind)
            if found[name] is None:
                raise case.wrong(moment.entity[name].line, f"nobody is asked for without {name}: null is no key")
        elif len(candidates) > 1:
            there = ", ".join(sorted(map(str, candidates)))
            how = f"say which {name} is asked for, with `entity: {{{name}: …}}`"
            raise case.wrong(moment.line, f"{how}: there are {there}")
        else:
            found[name] = next(iter(candidates)) if candidates else default_word(name) if kind == "STRING" else 1
    return found


def _request(case: Case, plan: ReadPlan, moment: Moment) -> Keys:
    kinds = {field.name: field.kind for field in plan.request_fields}
    _check_known(case, moment.request, kinds, "request value")
    given = moment.request
    return {name: _typed(case, given[name], kind) if name in given else None for name, kind in kinds.items()}


def _check_known(case: Case, given: Fields, known: Mapping[str, str], what: str) -> None:
    for name, node in given.items():
        if name not in known:
            raise case.wrong(node.line, f"{case.subject.text!r} takes no {what} {name!r}: {meant(name, known)}")


def _typed(case: Case, node: Node, kind: str) -> Any:
    if node.value is None:
        return None
    try:
        if kind == "STRING":
            return node.text
        return _CONVERTED.get(kind, float)(node.value) if kind != "BOOL" else bool(node.value)
    except (TypeError, ValueError):
        raise case.wrong(node.line, f"{node.text!r} is no {kind}") from None


def _table(case: Case, repo: RepoUnderTest, view: BatchView, rows: tuple[Row, ...], entity: Keys) -> pa.Table:
    source = repo.source(view.name)
    kinds = {key.name: key.kind for key in view.join_keys} | {field.name: field.kind for field in view.fields}
    columns: dict[str, list[Any]] = {name: [] for name in kinds}
    times: list[int] = []
    created: list[int] = []
    for row in rows:
        given = {source.field_mapping.get(name, name): node for name, node in row.fields.items()}
        time = next((given.pop(name) for name in TIME_NAMES if name in given), None)
        if time is None:
            raise case.wrong(row.line, "the row has no `time`: write {time: -1d, …}")
        made = given.pop(CREATED, time)
        for name, node in given.items():
            if name not in kinds:
                raise case.wrong(node.line, f"view {view.name!r} has no column {name!r}: {meant(name, kinds)}")
        for name, kind in kinds.items():
            columns[name].append(_typed(case, given[name], kind) if name in given else entity.get(name))
        times.append(time_of(case, time))
        created.append(time_of(case, made))
    try:
        arrays = {name: pa.array(values, ARROW_TYPES.get(kinds[name])) for name, values in columns.items()}
    except (pa.ArrowException, TypeError) as error:
        raise CaseError(case.file, rows[0].line, f"view {view.name!r}: {error}") from error
    arrays[source.timestamp_field] = pa.array(times, pa.int64()).cast(TIME_KIND)
    if source.created_timestamp_column:
        arrays[source.created_timestamp_column] = pa.array(created, pa.int64()).cast(TIME_KIND)
    return pa.table(arrays)


def _tolerances(plan: ReadPlan) -> dict[str, float]:
    """By which features may differ between two ways of adding: not at all, unless they are sums or made of such."""
    exact = {field.name for row in plan.rows if isinstance(row.view, BatchView) for field in row.view.fields}
    for row in plan.rows:
        if isinstance(row.view, StreamView):
            exact |= {spec.feature for spec in row.view.spec.aggregations if spec.function in EXACT_FUNCTIONS}
    found = {}
    for ref, kind in zip(plan.features, plan.kinds, strict=True):
        name = ref.partition(":")[2]
        found[name] = 0.0 if name in exact else FLOAT32_TOLERANCE if kind == "FLOAT" else SUMS_TOLERANCE
    return found
