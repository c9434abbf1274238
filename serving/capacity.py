"""How much may be under way at once, so that whoever is let in is answered soon.

What a machine can do depends on the machine, on the model and on what else runs there, so the bound is found while it
serves: as long as answers come in time it grows by one with every bound's worth of answers, and when one is late it
shrinks, at most once in the time that an answer takes (additive increase, multiplicative decrease, as TCP finds its
window: Chiu and Jain, 1989).
"""

from __future__ import annotations

from collections.abc import Callable

from serving.clock import NS_PER_MS

UNDER_WAY_MIN, UNDER_WAY_MAX = 16, 96
"""Fewer would leave rounds empty; more wait longer than anybody would."""
IN_TIME_MS = 12.0
"""Who is let in is answered within about this; who is not is told so at once, and may ask somebody else. What a caller
waits on a full machine, where proxy, store and load wait too, is up to four times as long: about 50 ms."""
_SHRINKS_TO = 0.8


class Capacity:
    """Counts what is under way, and bounds it by how long answers take."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._bound = float(UNDER_WAY_MAX)
        self._shrinks_again_ns = 0
        self.under_way = 0

    @property
    def bound(self) -> int:
        """How many may be under way."""
        return int(self._bound)

    def is_full(self, share: float = 1.0) -> bool:
        """Whether so large a share of the bound is taken."""
        return self.under_way >= self._bound * share

    def took(self, took_ns: int) -> None:
        """An answer took so long, from when its request was there until it was made, without the store's part."""
        if took_ns <= IN_TIME_MS * NS_PER_MS:
            self._bound = min(float(UNDER_WAY_MAX), self._bound + 1.0 / self._bound)
            return
        now_ns = self._monotonic_ns()
        if now_ns >= self._shrinks_again_ns:
            self._bound = max(float(UNDER_WAY_MIN), self._bound * _SHRINKS_TO)
            self._shrinks_again_ns = now_ns + took_ns
