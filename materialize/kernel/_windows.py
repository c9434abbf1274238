"""Sawtooth windows on integer milliseconds.

    tail = floor((t − w) / h) · h                       as-of time t
      │◄──────────────── between w and w + h ───────────►│
    ──┼────┬────┬────┬────┬────┬────┬────┬────┬────┬─────┼──► event time
      tile tile tile …                              head: fresh to the last event

The tail moves by whole hops, so that a window is a union of tiles; the head is exact. (The scheme is that of Chronon's
sawtooth windows.)
"""

from __future__ import annotations

from dataclasses import dataclass

from materialize.kernel._errors import WindowError

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

WINDOW_MIN_MS = 10 * SECOND_MS
WINDOW_MAX_MS = 90 * DAY_MS

_DEFAULT_HOPS = (
    (10 * MINUTE_MS, 10 * SECOND_MS),
    (HOUR_MS, MINUTE_MS),
    (12 * HOUR_MS, 5 * MINUTE_MS),
    (12 * DAY_MS, HOUR_MS),
)


def default_hop_ms(window_ms: int) -> int:
    """The hop of a window whose definition names none: finer for shorter windows."""
    for longest_ms, hop_ms in _DEFAULT_HOPS:
        if window_ms <= longest_ms:
            return hop_ms
    return DAY_MS


@dataclass(frozen=True)
class Window:
    """A sawtooth window of `length_ms` whose tail moves in steps of `hop_ms`."""

    length_ms: int
    hop_ms: int

    def __post_init__(self) -> None:
        if not WINDOW_MIN_MS <= self.length_ms <= WINDOW_MAX_MS:
            raise WindowError(f"a window of {self.length_ms} ms: choose one from 10 seconds to 90 days")
        if self.hop_ms <= 0:
            raise WindowError(f"a hop of {self.hop_ms} ms: a hop is longer than nothing")

    @classmethod
    def of(cls, length_ms: int, slide_ms: int | None = None) -> Window:
        """The window whose hop is `slide_ms` where that divides the length, and the default one otherwise.

        Feast sets the slide interval to the window's length when none is given, so a slide equal to the length says
        nothing.
        """
        named = slide_ms is not None and 0 < slide_ms < length_ms and length_ms % slide_ms == 0
        return cls(length_ms, slide_ms if named and slide_ms is not None else default_hop_ms(length_ms))

    def tail_ms(self, as_of_ms: int) -> int:
        """The earliest event time that the window covers as of `as_of_ms`."""
        return (as_of_ms - self.length_ms) // self.hop_ms * self.hop_ms

    @property
    def reach_ms(self) -> int:
        """How far back before the as-of time the window can cover an event at most (exclusive)."""
        return self.length_ms + self.hop_ms
