"""The aggregation functions by name: which partials each keeps, and how these become a value.

A new function is one entry here (and one line in the tests' oracle); a new partial, if it needs one, is a class in
`_partials.py`.

`decayed_sum` has its half-life in its name: `decayed_sum(30m)`, in ms, s, m, h or d.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from materialize.kernel._errors import UnknownFunctionError
from materialize.kernel._partials import Count, Decayed, Floats, Latest, Max, Min, Moments, Partial, Sum, decay

COUNT_DISTINCT = "count_distinct"
DECAYED_SUM = "decayed_sum"

Finalize = Callable[[Floats, int], Floats]
"""From the partials' slots side by side, float64[states, slots], and the as-of time in ms, to float64[states]."""

_HALF_LIFE = re.compile(r"decayed_sum\((\d+)(ms|s|m|h|d)\)")
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True)
class Aggregation:
    """A function of a window's events: its partials, and what makes a value of their state, NaN for null.

    kind, parameter: what the compiled core knows the function by, and a number that it needs (0 for none).
    """

    name: str
    partials: tuple[Partial, ...]
    finalize: Finalize
    parameter: int = 0

    @property
    def kind(self) -> str:
        return self.name.partition("(")[0]


def _slot(state: Floats, _: int) -> Floats:
    return state[:, 0]


def _finite(state: Floats, _: int) -> Floats:
    return np.where(np.isinf(state[:, 0]), np.nan, state[:, 0])


def _ratio(above: Floats, below: Floats, there: np.ndarray[Any, np.dtype[np.bool_]]) -> Floats:
    ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=there)
    return ratio


def _mean(state: Floats, _: int) -> Floats:
    total, count = state.T
    return _ratio(total, count, count > 0)


def _variance(state: Floats, _: int) -> Floats:
    """Sample variance (n − 1), as SQL and pandas have it: null for fewer than two values."""
    count, _, spread = state.T
    return _ratio(spread, count - 1, count > 1)


def _std(state: Floats, as_of_ms: int) -> Floats:
    return np.asarray(np.sqrt(_variance(state, as_of_ms)))


def _second_slot_if_any(state: Floats, _: int) -> Floats:
    return np.where(np.isinf(state[:, 0]), np.nan, state[:, 1])


FUNCTIONS: dict[str, Aggregation] = {
    aggregation.name: aggregation
    for aggregation in (
        Aggregation("count", (Count(),), _slot),
        Aggregation("sum", (Sum(),), _slot),
        Aggregation("mean", (Sum(), Count()), _mean),
        Aggregation("min", (Min(),), _finite),
        Aggregation("max", (Max(),), _finite),
        Aggregation("var", (Moments(),), _variance),
        Aggregation("std", (Moments(),), _std),
        Aggregation("last", (Latest(1),), _second_slot_if_any),
        Aggregation("first", (Latest(-1),), _second_slot_if_any),
        Aggregation(COUNT_DISTINCT, (), _slot),  # its state is a set: see Sets
    )
}


@lru_cache(maxsize=1024)
def aggregation(name: str) -> Aggregation:
    """The function of that name. Raises UnknownFunctionError, which lists the functions there are."""
    half_life = _HALF_LIFE.fullmatch(name)
    if half_life is not None and int(half_life[1]):
        return _decayed_sum(name, int(half_life[1]) * _UNITS_MS[half_life[2]])
    if name.startswith(DECAYED_SUM):
        raise UnknownFunctionError(f"{name!r} names no half-life: write, for half an hour, {DECAYED_SUM}(30m)")
    try:
        return FUNCTIONS[name]
    except KeyError:
        names = ", ".join([*sorted(FUNCTIONS), f"{DECAYED_SUM}(<half-life>)"])
        raise UnknownFunctionError(f"no aggregation function {name!r}: choose one of {names}") from None


def _decayed_sum(name: str, half_life_ms: int) -> Aggregation:
    def finalize(state: Floats, as_of_ms: int) -> Floats:
        """0 for no events, as a sum has it."""
        times, sums = state.T
        return np.asarray(sums * decay(np.where(np.isinf(times), 0.0, as_of_ms - times), half_life_ms))

    return Aggregation(name, (Decayed(half_life_ms),), finalize, half_life_ms)
