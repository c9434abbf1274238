"""Counters and histograms that are cheap to add to.

The counting is our own: importing Feast switches prometheus_client's metrics, for the whole process, to memory-mapped
files that all registries share.
"""

from __future__ import annotations

from bisect import bisect_left


class Counts:
    """A counter with labels: their values → how many."""

    __slots__ = ("series",)

    def __init__(self) -> None:
        self.series: dict[tuple[object, ...], int] = {}

    def add(self, *labels: object, count: int = 1) -> None:
        """Add to the series of these label values."""
        self.series[labels] = self.series.get(labels, 0) + count


class Buckets:
    """A histogram. `bounds` ascend; a value belongs to the first bound that it is not above."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
