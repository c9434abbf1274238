"""Events of tests made whole: what the log's bytes would be, what the worker decodes of them, and their history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import inspect

from actor_risk.feature_tests.cases import Case, Row
from actor_risk.feature_tests.errors import meant
from actor_risk.feature_tests.moments import moment_ms
from actor_risk.feature_tests.nodes import Node
from materialize.definitions import EVENT_ID
from materialize.events import TOPICS, Event, InvalidEventError, decode_event, event_time_ms

TIME_KIND = pa.timestamp("ms", "UTC")
TIME_NAMES = ("time", "event_time")
CREATED = "created"

_TIME, _VERSION = "event_time", "schema_version"


def default_word(column: str) -> str:
    """What a column has that must have a word, where the test names none."""
    return f"{column}-1"


def event_of(case: Case, topic: str, row: Row, number: int) -> Event:
    """The event, as the stream's worker decodes it. Raises CaseError, for one that the worker would put aside too."""
    given = {**case.defaults, **row.fields}
    time = next((given.pop(name) for name in TIME_NAMES if name in given), None)
    if time is None:
        raise case.wrong(row.line, "the event has no `time`: write {time: -5m, …}")
    kinds = _kinds(topic)
    values: dict[str, Any] = {_TIME: time_of(case, time), EVENT_ID: f"e{number}"}
    for name, node in given.items():
        if name not in kinds:
            if name in row.fields:
                raise case.wrong(node.line, f"{topic} have no column {name!r}: {meant(name, kinds)}")
            continue  # a default of another topic
        values[name] = node.text if _is_word(kinds[name]) and node.value is not None else node.value
    for name, kind in kinds.items():
        if name not in values and _is_required(topic, name):
            if isinstance(kind, inspect.LiteralType):
                words = ", ".join(map(str, kind.values))
                raise case.wrong(row.line, f"the event has no {name!r}: write one of {words}")
            values[name] = default_word(name)
    try:
        return decode_event(topic, msgspec.json.encode(values), values[_TIME])
    except InvalidEventError as error:
        line = given[error.field].line if error.field in given else row.line
        raise case.wrong(line, f"the stream would put this event aside: {error.detail}") from None


def time_of(case: Case, node: Node) -> int:
    """The time that a row has. Raises CaseError."""
    try:
        return moment_ms(node.text, case.now_ms)
    except ValueError as error:
        raise case.wrong(node.line, str(error)) from None


def history_of(topic: str, events: Sequence[Event]) -> pa.Table:
    """The events as a table of history."""
    columns: dict[str, Any] = {EVENT_ID: pa.array([event.event_id for event in events], pa.string())}
    times = pa.array([event_time_ms(event) for event in events], pa.int64()).cast(TIME_KIND)
    columns |= {_TIME: times, CREATED: times}
    for name, kind in _kinds(topic).items():
        if name not in columns:
            columns[name] = pa.array([getattr(event, name) for event in events], _arrow(kind))
    return pa.table(columns)


def literals(topic: str) -> dict[str, tuple[str, ...]]:
    """The words that a column of the topic may have, of each column that lists them."""
    return {
        name: tuple(str(value) for value in kind.values)
        for name, kind in _kinds(topic).items()
        if isinstance(kind, inspect.LiteralType)
    }


@lru_cache
def _kinds(topic: str) -> dict[str, inspect.Type]:
    described = inspect.type_info(TOPICS[topic])
    assert isinstance(described, inspect.StructType)
    return {field.name: _plain(field.type) for field in described.fields if field.name not in (_TIME, _VERSION)}


@lru_cache
def _required(topic: str) -> frozenset[str]:
    described = inspect.type_info(TOPICS[topic])
    assert isinstance(described, inspect.StructType)
    return frozenset(field.name for field in described.fields if field.required)


def _is_required(topic: str, name: str) -> bool:
    return name in _required(topic)


def _plain(kind: inspect.Type) -> inspect.Type:
    """The type of a column's values, null aside."""
    if isinstance(kind, inspect.UnionType):
        return next(_plain(one) for one in kind.types if not isinstance(one, inspect.NoneType))
    return _plain(kind.type) if isinstance(kind, inspect.Metadata) else kind


def _is_word(kind: inspect.Type) -> bool:
    return isinstance(kind, (inspect.StrType, inspect.LiteralType))


def _arrow(kind: inspect.Type) -> pa.DataType:
    if isinstance(kind, inspect.IntType):
        return pa.int64()
    return pa.float64() if isinstance(kind, inspect.FloatType) else pa.string()
