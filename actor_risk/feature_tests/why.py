"""What a value is made of, so that whoever reads a failure sees why: events in the window, rows of the profile."""

from __future__ import annotations

from collections.abc import Mapping
from types import CodeType

import pyarrow as pa

from actor_risk.feature_tests.binding import BoundCase, BoundMoment
from actor_risk.feature_tests.moments import moment as told
from actor_risk.feature_tests.moments import span
from materialize.definitions import StreamView
from materialize.events import Event, columns_from_events, event_time_ms
from materialize.kernel import AggregationSpec
from materialize.online import ReadPlan

SHOWN_MAX = 8


def why(bound: BoundCase, moment: BoundMoment, feature: str, inputs: Mapping[str, object]) -> tuple[str, ...]:
    """Lines that say what the feature is made of as of the moment. inputs: the values of stored features then."""
    for row in bound.plan.rows:
        keys = [moment.entity[name] for name in row.key_names]
        if isinstance(row.view, StreamView):
            for spec in row.view.spec.aggregations:
                if spec.feature == feature:
                    return _window(bound, moment, row.view, spec, keys)
        elif any(field.name == feature for field in row.view.fields):
            return _profile(bound, moment, row.view.name)
    return _on_demand(bound.plan, feature, inputs)


def _window(
    bound: BoundCase, moment: BoundMoment, view: StreamView, spec: AggregationSpec, keys: list[object]
) -> tuple[str, ...]:
    tail_ms = spec.window.tail_ms(moment.as_of_ms)
    inside, outside = [], []
    for event in bound.events[view.topic]:
        time_ms = event_time_ms(event)
        value = _value(view, spec, event, keys)
        text = f"{event.event_id} at {span(time_ms - bound.case.now_ms)}"
        if value is None:
            outside.append(f"{text} (of another entity, or without one)")
        elif time_ms < tail_ms:
            outside.append(f"{text} (before the window)")
        elif time_ms > moment.as_of_ms:
            outside.append(f"{text} (after the as-of time)")
        else:
            inside.append(f"{text}: {spec.column} = {value}")
    window = f"{spec.function}({spec.column}) from {told(tail_ms)} to {told(moment.as_of_ms)}"
    found = [f"{window}: {_listed(inside) or 'no event'}"]
    return (*found, f"not in it: {_listed(outside)}") if outside else tuple(found)


def _value(view: StreamView, spec: AggregationSpec, event: Event, keys: list[object]) -> str | None:
    """What the event has in the column that is aggregated; None where it is not of the entity."""
    columns = columns_from_events([event])
    try:
        derived = view.derived(columns, 1)
        seen = view.seen(columns, derived)
    except Exception as error:  # the author's code
        return repr(error)
    if not len(seen.rows) or [column[0] for column in seen.keys] != keys:
        return None
    value = derived.get(spec.column, columns.get(spec.column, [None]))[0]
    return "null" if value is None or value != value else f"{value}"


def _profile(bound: BoundCase, moment: BoundMoment, view: str) -> tuple[str, ...]:
    table = bound.profiles[view]
    if not table.num_rows:
        return (f"{view} has no row",)
    time = next(field.name for field in table.schema if pa.types.is_timestamp(field.type))
    rows = [f"{when:%Y-%m-%d %H:%M:%S}" for when in table.column(time).to_pylist()]
    return (f"{view} has rows of {_listed(rows)}, read as of {told(moment.as_of_ms)}",)


def _on_demand(plan: ReadPlan, feature: str, inputs: Mapping[str, object]) -> tuple[str, ...]:
    for run in plan.on_demand:
        if any(field.name == feature for field in run.view.fields):
            named = _words_in(getattr(run.view.function, "__code__", None))
            used = [f"{name} = {_written(value)}" for name, value in inputs.items() if name in named]
            return (f"computed on demand by {run.view.name}, which reads {', '.join(used) or 'nothing'}",)
    return ()


def _words_in(code: CodeType | None) -> set[str]:
    """The strings in a function's code: among them the inputs that it looks at."""
    found: set[str] = set()
    for constant in () if code is None else code.co_consts:
        if isinstance(constant, str):
            found.add(constant)
        elif isinstance(constant, CodeType):
            found |= _words_in(constant)
    return found


def _written(value: object) -> str:
    return "null" if value is None else f"{value}"


def _listed(parts: list[str]) -> str:
    more = f", and {len(parts) - SHOWN_MAX} more" if len(parts) > SHOWN_MAX else ""
    return ", ".join(parts[:SHOWN_MAX]) + more
