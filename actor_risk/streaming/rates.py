"""From what workers have counted so far to what they did lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from actor_risk.streaming.report import StreamStatus, WorkerReport
from materialize.stream.measures import Distribution

RECENT_MS = 10_000
HISTORY_MS = 60_000

_MS_PER_S = 1_000


class Recent:
    """The statuses of the last minute."""

    def __init__(self) -> None:
        self._seen: deque[StreamStatus] = deque()

    def note(self, status: StreamStatus) -> None:
        """A status, newer than those before."""
        self._seen.append(status)
        while self._seen[0].at_ms < status.at_ms - HISTORY_MS:
            self._seen.popleft()

    def records_per_s(self, worker: str | None = None) -> float:
        """Records done with in the last RECENT_MS, per second, by one worker or by all."""
        if worker is None:
            return _per_s([(status.at_ms, status.records) for status in self._lately()])
        reports = [status.workers[worker] for status in self._lately() if worker in status.workers]
        return _per_s([(report.at_ms, report.records) for report in reports])

    def history(self, points: int) -> list[float]:
        """Records per second of all workers over the last HISTORY_MS in equal parts, the oldest first."""
        if len(self._seen) < 2:
            return []
        end_ms, part_ms = self._seen[-1].at_ms, HISTORY_MS / points
        parts: dict[int, list[tuple[int, int]]] = {}
        for status in self._seen:
            parts.setdefault(int((end_ms - status.at_ms) / part_ms), []).append((status.at_ms, status.records))
        return [_per_s(parts[place]) for place in sorted(parts, reverse=True) if len(parts[place]) > 1]

    def quantile(self, field: str, q: float, worker: str | None = None) -> float | None:
        """The quantile of a distribution of the reports over the last RECENT_MS; None without values."""
        lately = self._lately()
        names = lately[-1].workers if worker is None else [worker]
        changes = [
            _change(lately[-1].workers[name], lately[0].workers.get(name), lambda report: getattr(report, field))
            for name in names
            if name in lately[-1].workers
        ]
        return quantile(_sum(changes), q)

    def stage_shares(self) -> dict[str, float]:
        """Which share of the workers' time each stage of a micro-batch took over the last RECENT_MS, adding up to 1."""
        first, last = self._lately()[0], self._lately()[-1]
        spent: dict[str, float] = {}
        for name, report in last.workers.items():
            before = first.workers.get(name, WorkerReport())
            for stage, seen in report.stage_s.items():
                known = before.stage_s.get(stage)
                spent[stage] = spent.get(stage, 0.0) + max(seen.total - (known.total if known else 0.0), 0.0)
        whole = sum(spent.values())
        return {stage: seconds / whole for stage, seconds in spent.items()} if whole else {}

    def _lately(self) -> list[StreamStatus]:
        since_ms = self._seen[-1].at_ms - RECENT_MS
        return [status for status in self._seen if status.at_ms >= since_ms]


def quantile(seen: Distribution | None, q: float) -> float | None:
    """About the value below which a share `q` of the values lies, straight within a bucket; None without values.

    In the last bucket, which has no end, its beginning.
    """
    if seen is None or not sum(seen.counts):
        return None
    left = q * sum(seen.counts)
    for place, count in enumerate(seen.counts):
        if count and left <= count:
            low = seen.bounds[place - 1] if place else 0.0
            return low if place == len(seen.bounds) else low + (seen.bounds[place] - low) * left / count
        left -= count
    return seen.bounds[-1]


def _per_s(points: list[tuple[int, int]]) -> float:
    if len(points) < 2 or points[-1][0] == points[0][0]:
        return 0.0
    return max((points[-1][1] - points[0][1]) * _MS_PER_S / (points[-1][0] - points[0][0]), 0.0)


def _change(
    now: WorkerReport, before: WorkerReport | None, field: Callable[[WorkerReport], Distribution]
) -> Distribution:
    """What was added. A worker that was started again begins anew."""
    after = field(now)
    if before is None or before.pid != now.pid:
        return after
    known = field(before)
    counts = [new - old for new, old in zip(after.counts, known.counts, strict=True)]
    return Distribution(after.bounds, counts, after.total - known.total)


def _sum(parts: Iterable[Distribution]) -> Distribution | None:
    total: Distribution | None = None
    for part in parts:
        counts = part.counts if total is None else [a + b for a, b in zip(total.counts, part.counts, strict=True)]
        total = Distribution(part.bounds, list(counts), part.total + (0.0 if total is None else total.total))
    return total
