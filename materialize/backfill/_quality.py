"""What the tags of a view demand of its data, and what of it each span keeps.

    quality:rows_min                    a whole step has at least so many rows
    quality:null_rate_max:<column>      at most this share of a column is null, 0 to 1
    quality:distinct_min:<column>       at least so many different values
    quality:distinct_max:<column>       at most so many
    quality:min:<column>                no number is smaller
    quality:max:<column>                or larger
    quality:drift_max:<column>          its population stability index against the span before is at most this

Columns are the features of a batch view, and what a stream view's aggregations use; a windowed feature's name stands
for the column that it aggregates. Every span (a chunk of the job) must keep every limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from materialize.backfill._errors import QualityError
from materialize.backfill._profile import ColumnProfile, Profile, drift, merged, rounded
from materialize.backfill._spans import Span, moment
from materialize.definitions import StreamView, View

PREFIX = "quality:"
RULES = ("null_rate_max", "distinct_min", "distinct_max", "min", "max", "drift_max")
ROWS_MIN = "rows_min"


@dataclass(frozen=True)
class Limit:
    """One tag: `tag` as it is written, its rule, the column ('' for rows_min) and the number."""

    tag: str
    rule: str
    column: str
    bound: float


@dataclass(frozen=True)
class Looked:
    """What was found in one span. `is_whole`: the span is a whole step."""

    span: Span
    rows: int
    profile: Profile
    is_whole: bool = True


@dataclass(frozen=True)
class Breach:
    """A limit that a span does not keep."""

    span: Span
    limit: Limit
    found: float

    def __str__(self) -> str:
        return f"{self.span}: {self.limit.tag} is {self.limit.bound:g}, and the data has {self.found:.4g}"


class ColumnReport(msgspec.Struct, frozen=True):
    """A column over a whole job. drift_max: the largest index between a span and the one before, None: none was."""

    name: str
    null_rate: float
    null_rate_max: float
    distinct: int
    low: float | None
    high: float | None
    drift_max: float | None
    drift_at: str | None


def limits_of(view: View, tags: Mapping[str, str]) -> list[Limit]:
    """The limits that these tags set. Raises QualityError for a tag that is none."""
    columns = _columns(view)
    return [_limit(view.name, tag, tags[tag], columns) for tag in sorted(tags) if tag.startswith(PREFIX)]


def breaches(limits: Sequence[Limit], looked: Sequence[Looked]) -> list[Breach]:
    """The limits that spans do not keep. Drift is that from one of the spans, in order, to the next."""
    found = []
    for place, now in enumerate(looked):
        before = looked[place - 1].profile if place else {}
        for limit in limits:
            value = _value(limit, now, before)
            if value is not None and _breaks(limit, value):
                found.append(Breach(now.span, limit, value))
    return found


def column_reports(looked: Sequence[Looked], whole: Sequence[Looked] | None = None) -> list[ColumnReport]:
    """What there is to say of each column. `whole`: the same spans and the one before them, for the drift."""
    everything = merged([one.profile for one in looked])
    steps = whole if whole is not None else looked
    return [_report(name, column, looked, steps) for name, column in everything.items()]


def _report(name: str, column: ColumnProfile, looked: Sequence[Looked], steps: Sequence[Looked]) -> ColumnReport:
    none = ColumnProfile()
    drifts = [
        (index, now.span.start_ms)
        for before, now in pairwise(steps)
        if (index := drift(before.profile.get(name, none), now.profile.get(name, none))) is not None
    ]
    most, at_ms = max(drifts, default=(None, 0))
    return ColumnReport(
        name,
        rounded(column.null_rate) or 0.0,
        rounded(max((one.profile[name].null_rate for one in looked if name in one.profile), default=0.0)) or 0.0,
        column.distinct,
        rounded(column.low),
        rounded(column.high),
        rounded(most),
        None if most is None else moment(at_ms),
    )


def _columns(view: View) -> dict[str, str]:
    """From what a tag may name to the column."""
    if not isinstance(view, StreamView):
        return {field.name: field.name for field in view.fields}
    used = {name: name for name in (*view.spec.value_columns, *view.spec.distinct_columns)}
    return {**{spec.feature: spec.column for spec in view.spec.aggregations}, **used}


def _limit(view: str, tag: str, text: str, columns: Mapping[str, str]) -> Limit:
    rule, _, column = tag.removeprefix(PREFIX).partition(":")
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise QualityError(f"view {view!r}: the tag {tag!r} is {text!r}: write a number")
    if rule == ROWS_MIN and not column:
        return Limit(tag, rule, "", bound)
    if rule not in RULES:
        known = ", ".join((ROWS_MIN, *(f"{rule}:<column>" for rule in RULES)))
        raise QualityError(f"view {view!r}: the tag {tag!r} is no limit: write {PREFIX} and one of {known}")
    if column not in columns:
        raise QualityError(
            f"view {view!r}: the tag {tag!r} names no column: it has {', '.join(sorted(set(columns.values())))}"
        )
    return Limit(tag, rule, columns[column], bound)


def _value(limit: Limit, now: Looked, before: Profile) -> float | None:
    """What the limit is about, in this span; None where there is nothing to hold against it."""
    if limit.rule == ROWS_MIN:
        return now.rows if now.is_whole else None
    column = now.profile.get(limit.column)
    if column is None or not column.rows:
        return None
    if limit.rule == "drift_max":
        return drift(before[limit.column], column) if limit.column in before else None
    values = {"null_rate_max": column.null_rate, "min": column.low, "max": column.high}
    return values.get(limit.rule, column.distinct)


def _breaks(limit: Limit, value: float) -> bool:
    return value < limit.bound if limit.rule in (ROWS_MIN, "distinct_min", "min") else value > limit.bound
