"""The aggregation functions by name: which partials each keeps, and how these become a value.

A new function is one entry here (and one line in the tests' oracle); a new partial, if it needs one, is a class in
`_partials.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from materialize.kernel._errors import UnknownFunctionError
from materialize.kernel._partials import Count, Floats, Latest, Max, Min, Moments, Partial, Sum

COUNT_DISTINCT = "count_distinct"


@dataclass(frozen=True)
class Aggregation:
    """A function of a window's events: its partials, and `finalize(state) -> value` with NaN for null.

    `finalize` takes the partials' slots side by side, float64[states, slots], and gives float64[states].
    """

    name: str
    partials: tuple[Partial, ...]
    finalize: Callable[[Floats], Floats]


def _slot(state: Floats) -> Floats:
    return state[:, 0]


def _finite(state: Floats) -> Floats:
    return np.where(np.isinf(state[:, 0]), np.nan, state[:, 0])


def _ratio(above: Floats, below: Floats, there: np.ndarray[Any, np.dtype[np.bool_]]) -> Floats:
    ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=there)
    return ratio


def _mean(state: Floats) -> Floats:
    total, count = state.T
    return _ratio(total, count, count > 0)


def _variance(state: Floats) -> Floats:
    """Sample variance (n − 1), as SQL and pandas have it: null for fewer than two values."""
    count, _, spread = state.T
    return _ratio(spread, count - 1, count > 1)


def _std(state: Floats) -> Floats:
    return np.asarray(np.sqrt(_variance(state)))


def _second_slot_if_any(state: Floats) -> Floats:
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


def aggregation(name: str) -> Aggregation:
    """The function of that name. Raises UnknownFunctionError, which lists the functions there are."""
    try:
        return FUNCTIONS[name]
    except KeyError:
        raise UnknownFunctionError(
            f"no aggregation function {name!r}: choose one of {', '.join(sorted(FUNCTIONS))}"
        ) from None
