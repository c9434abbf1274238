"""Where time comes from: handed in, never fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Clock:
    """`now_ms()` is the time of day in milliseconds UTC, `monotonic_ns()` measures durations."""

    now_ms: Callable[[], int]
    monotonic_ns: Callable[[], int]


class Stopwatch:
    """Times the stages of one request."""

    __slots__ = ("_last_ns", "_monotonic_ns", "_start_ns")

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._start_ns = self._last_ns = monotonic_ns()

    def lap_ms(self) -> float:
        """Milliseconds since the last lap, or since the start."""
        now_ns = self._monotonic_ns()
        lap_ns, self._last_ns = now_ns - self._last_ns, now_ns
        return lap_ns / NS_PER_MS

    @property
    def total_ms(self) -> float:
        """Milliseconds from the start to the last lap."""
        return (self._last_ns - self._start_ns) / NS_PER_MS
