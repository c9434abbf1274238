"""Timing contenders in turn: same inputs, same process, same server; medians and their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Timed = Callable[[Sequence[Item]], list[int]]
"""Does its work for each item and gives the nanoseconds that each took."""


class WrongValuesError(AssertionError):
    """Two contenders gave different values, so nothing is timed. The message says which value and both numbers."""


@dataclass(frozen=True)
class Timing:
    """Microseconds: over all calls the median and the 90th percentile, over the rounds the range of their medians."""

    p50_us: float
    p90_us: float
    rounds_us: tuple[float, float]

    @classmethod
    def of(cls, rounds: Sequence[Sequence[int]]) -> Timing:
        """From the nanoseconds of each call in each round."""
        calls = np.concatenate([np.asarray(ns, dtype=np.float64) for ns in rounds]) / 1e3
        medians = [float(np.median(ns)) / 1e3 for ns in rounds]
        return cls(float(np.median(calls)), float(np.quantile(calls, 0.9)), (min(medians), max(medians)))

    def spread(self, per: int = 1) -> dict[str, float | list[float]]:
        """As the report has it, divided by `per` items that one call handles."""
        return {
            "p50": rounded(self.p50_us / per),
            "p90": rounded(self.p90_us / per),
            "rounds": [rounded(us / per) for us in self.rounds_us],
        }

    def per_second(self, per: int) -> int:
        """How many of the `per` items of a call are done in a second, at the median."""
        return round(per * 1e6 / self.p50_us)


def each(call: Callable[[Item], object]) -> Timed[Item]:
    """Times a plain function."""

    def timed(items: Sequence[Item]) -> list[int]:
        clock = time.perf_counter_ns
        taken = []
        for item in items:
            began = clock()
            call(item)
            taken.append(clock() - began)
        return taken

    return timed


async def awaited(call: Callable[[Item], Awaitable[object]], items: Sequence[Item]) -> list[int]:
    """Times a coroutine function, one call after the other within one event loop."""
    clock = time.perf_counter_ns
    taken = []
    for item in items:
        began = clock()
        await call(item)
        taken.append(clock() - began)
    return taken


def fastest(forms: Mapping[str, Timed[Item]], trial: Sequence[Item]) -> tuple[str, Timed[Item]]:
    """The form with the lowest median in a second pass over the trial's items, and its name."""
    medians = {form: statistics.median(timed([*trial, *trial])[len(trial) :]) for form, timed in forms.items()}
    best = min(medians, key=lambda form: medians[form])
    return best, forms[best]


def alternate(
    contenders: Mapping[str, Timed[Item]], inputs: Callable[[int], Sequence[Item]], rounds: int, warm_ups: int = 1
) -> dict[str, Timing]:
    """Time the contenders in turn, each round on its own inputs, another one first each time.

    The first `warm_ups` rounds do not count.
    """
    names = list(contenders)
    taken: dict[str, list[list[int]]] = {name: [] for name in names}
    for turn in range(rounds + warm_ups):
        items = inputs(turn)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            ns = contenders[name](items)
            if turn >= warm_ups:
                taken[name].append(ns)
    return {name: Timing.of(rounds_ns) for name, rounds_ns in taken.items()}


def rounded(value: float) -> float:
    """To three significant digits, as no measurement here is good for more; above 1,000 to whole numbers."""
    return float(round(value)) if abs(value) >= 1_000 else float(f"{value:.3g}")


def same_values(what: str, got: np.ndarray, expected: np.ndarray, rtol: float = 0.0) -> int:
    """How many values were compared. NaN stands for null and equals itself. Raises WrongValuesError."""
    if got.shape != expected.shape:
        raise WrongValuesError(f"{what}: {got.shape} values against {expected.shape}")
    wrong = ~np.isclose(got, expected, rtol=rtol, atol=rtol, equal_nan=True)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise WrongValuesError(f"{what}: {int(wrong.sum())} differ, the first at {at}: {got[at]} for {expected[at]}")
    return int(got.size)
