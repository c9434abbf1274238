"""When ordinary things happen: more by day than by night, less at weekends, and never evenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actor_risk.simulate._arrays import DAY_MS, MINUTE_MS, FloatArray, IntArray, cumulative, draw_by

_GUST_MINUTES = 10
_PEAK_HOUR = 19


@dataclass(frozen=True)
class Rhythm:
    """A rate per minute over `[start_ms, end_ms)`, as a cumulative distribution."""

    start_ms: int
    end_ms: int
    cdf: FloatArray

    def sample(self, rng: np.random.Generator, n: int) -> IntArray:
        """n instants in milliseconds UTC, unsorted, all inside the span."""
        minute = draw_by(rng, self.cdf, n)
        within = (rng.random(n) * MINUTE_MS).astype(np.int64)
        return np.asarray(np.minimum(self.start_ms + minute * MINUTE_MS + within, self.end_ms - 1))


def daily_rhythm(rng: np.random.Generator, start_ms: int, end_ms: int) -> Rhythm:
    """The rhythm of a population: day and night, week and weekend (UTC), and gusts of some minutes."""
    minutes = max(1, -(-(end_ms - start_ms) // MINUTE_MS))
    at_ms = start_ms + np.arange(minutes, dtype=np.int64) * MINUTE_MS
    hour = (at_ms % DAY_MS) / (60 * MINUTE_MS)
    daytime = 1 + 0.8 * np.cos((hour - _PEAK_HOUR) * 2 * np.pi / 24)
    weekday = (at_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday; 0 is Monday
    gusts = np.repeat(rng.gamma(4.0, 0.25, -(-minutes // _GUST_MINUTES)), _GUST_MINUTES)[:minutes]
    return Rhythm(start_ms, end_ms, cumulative(daytime * np.where(weekday >= 5, 0.8, 1.0) * gusts))
