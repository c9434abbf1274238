"""What a worker measures of itself: once for each micro-batch, never for each event.

Values of single events (how fresh they are) are those of a sample of fixed size, each standing for as many as it was
taken from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from materialize.stream.log import Record, TopicPartition

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
RECORDS = (1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0)
FRESHNESS_S = (
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0,
    30.0, 60.0, 300.0, 3_600.0, 86_400.0,
)  # fmt: skip
"""Upper bounds of buckets, in the unit of the name."""

STAGES = ("poll", "decode", "fold", "dead_letters", "commit")
"""The parts of a micro-batch. `fold` is everything from the transformation to the written rows."""

SAMPLE_MAX = 64
"""How many events of a micro-batch are looked at."""

_MS_PER_S = 1_000


class Distribution(msgspec.Struct):
    """How many values fell into each bucket: up to each of `bounds`, and above the last. `total` is their sum."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    @staticmethod
    def over(bounds: tuple[float, ...]) -> Distribution:
        """One that has seen nothing."""
        return Distribution(bounds, [0] * (len(bounds) + 1))

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, as if it came so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def copy(self) -> Distribution:
        """As it stands now."""
        return Distribution(self.bounds, list(self.counts), self.total)


class WorkerMeasures:
    """The distributions and the newest readings of one worker; counts of events are its `WorkerCounts`."""

    def __init__(self) -> None:
        self.stage_s = {stage: Distribution.over(SECONDS) for stage in STAGES}
        self.batch_s = Distribution.over(SECONDS)
        self.batch_records = Distribution.over(RECORDS)
        self.since_event_s = Distribution.over(FRESHNESS_S)
        self.since_log_s = Distribution.over(FRESHNESS_S)
        self.event_time_ahead_s = 0.0
        self.bytes = 0
        self.lag: dict[TopicPartition, int] = {}

    def note_batch(self, records: Sequence[Record], size_bytes: int, seconds: float, written_ms: int) -> None:
        """A micro-batch is done: all its rows were written at `written_ms`."""
        self.batch_records.add(len(records))
        self.batch_s.add(seconds)
        self.bytes += size_bytes
        _add_ages(self.since_log_s, [record.timestamp_ms for record in _sample(records)], len(records), written_ms)

    def note_events(self, times_ms: np.ndarray[Any, np.dtype[np.int64]], now_ms: int, written_ms: int) -> None:
        """Events of these times, valid at `now_ms`, are in their rows since `written_ms`."""
        if len(times_ms):
            self.event_time_ahead_s = (int(times_ms.max()) - now_ms) / _MS_PER_S
            _add_ages(self.since_event_s, _sample(times_ms), len(times_ms), written_ms)


class Laps:
    """A stopwatch over the stages of one micro-batch."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._began_s = self._lap_s = clock_s()
        self._stages_s: dict[str, float] = defaultdict(float)

    def lap(self, stage: str) -> None:
        """The time since the last lap went into this stage."""
        now_s = self._clock_s()
        self._stages_s[stage] += now_s - self._lap_s
        self._lap_s = now_s

    def tell(self, measures: WorkerMeasures) -> float:
        """Add the stages to what was measured. Returns the seconds since the watch was started."""
        for stage, seconds in self._stages_s.items():
            measures.stage_s[stage].add(seconds)
        return self._lap_s - self._began_s


def _sample(values: Any) -> Any:
    return values[:: max(1, len(values) // SAMPLE_MAX)]


def _add_ages(distribution: Distribution, times_ms: Iterable[int], stand_for: int, now_ms: int) -> None:
    times = list(times_ms)
    weight, odd = divmod(stand_for, len(times))
    for place, time_ms in enumerate(times):
        distribution.add(max(0, now_ms - int(time_ms)) / _MS_PER_S, weight + (place < odd))
