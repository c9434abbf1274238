"""Where time comes from: handed in, never fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

NS_PER_MS = 1e6
NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Clock:
    """`now_ms()` is the time of day in milliseconds UTC, `monotonic_ns()` measures durations."""

    now_ms: Callable[[], int]
    monotonic_ns: Callable[[], int]

    def left_s(self, until_ns: int) -> float:
        """Seconds until a monotonic time; negative when it is over."""
        return (until_ns - self.monotonic_ns()) / NS_PER_S
