"""What the kernel must compute, said naively: every event looked at for every feature. O(events · features)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from materialize.kernel import AggregationSpec, ViewSpec


@dataclass(frozen=True)
class OracleEvent:
    """One event: its identity, time, and columns (None for null)."""

    event_id: str
    time_ms: int
    columns: dict[str, float | str | None]


ORACLE: dict[str, Callable[[Sequence[tuple[int, float]]], float | None]] = {
    # (age in milliseconds, value) of each event covered
    "count": lambda pairs: len(pairs),
    "sum": lambda pairs: math.fsum(value for _, value in pairs),
    "mean": lambda pairs: math.fsum(value for _, value in pairs) / len(pairs) if pairs else None,
    "min": lambda pairs: min((value for _, value in pairs), default=None),
    "max": lambda pairs: max((value for _, value in pairs), default=None),
    "var": lambda pairs: statistics.variance([v for _, v in pairs]) if len(pairs) > 1 else None,
    "std": lambda pairs: statistics.stdev([v for _, v in pairs]) if len(pairs) > 1 else None,
    "last": lambda pairs: max((-age, value) for age, value in pairs)[1] if pairs else None,
    "first": lambda pairs: max(pairs)[1] if pairs else None,
    "count_distinct": lambda pairs: len({value for _, value in pairs}),
    "decayed_sum(30m)": lambda pairs: math.fsum(value * 0.5 ** (age / 1_800_000) for age, value in pairs),
}


def oracle_values(spec: ViewSpec, events: Sequence[OracleEvent], as_of_ms: int) -> list[float | None] | None:
    """Every feature's value as of a time, or None where no window covers any event."""
    once = list({event.event_id: event for event in sorted(events, key=lambda e: -e.time_ms)}.values())
    tails = [(as_of_ms - s.window.length_ms) // s.window.hop_ms * s.window.hop_ms for s in spec.aggregations]
    if not any(min(tails) <= event.time_ms <= as_of_ms for event in once):
        return None
    return [_value(s, tail, once, as_of_ms) for s, tail in zip(spec.aggregations, tails, strict=True)]


def _value(spec: AggregationSpec, tail_ms: int, events: Sequence[OracleEvent], as_of_ms: int) -> float | None:
    covered = [(as_of_ms - e.time_ms, e.columns[spec.column]) for e in events if tail_ms <= e.time_ms <= as_of_ms]
    return ORACLE[spec.function]([(age, value) for age, value in covered if value is not None])  # type: ignore[misc]
