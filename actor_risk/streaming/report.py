"""What stream workers say of themselves: one statement for each worker, and one of the command that runs them."""

from __future__ import annotations

import msgspec

from materialize.stream.measures import FRESHNESS_S, RECORDS, SECONDS, Distribution


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the worker started, distributions, and its newest readings.

    state: `starting` until it owns partitions, then `idle`, `working` or `retrying`, whose reason is `trouble`;
    partitions: those that it owns, and lag: how many records it is behind, both as "topic:partition". The other names
    are those of `WorkerCounts`, `WorkerMeasures` and `WriteCounts`; rows_refused and dead_letters by reason.
    """

    pid: int = 0
    at_ms: int = 0
    state: str = "starting"
    trouble: str = ""
    partitions: list[str] = []
    records: int = 0
    bytes: int = 0
    without_key: int = 0
    replayed: int = 0
    folded: int = 0
    duplicates: int = 0
    owned_by_batch: int = 0
    too_late: int = 0
    records_lost: int = 0
    commits_rejected: int = 0
    retries: int = 0
    rows_written: int = 0
    rows_large: int = 0
    rows_unchanged: int = 0
    conflicts: int = 0
    dead_letters: dict[str, int] = {}
    rows_refused: dict[str, int] = {}
    lag: dict[str, int] = {}
    event_time_ahead_s: float = 0.0
    stage_s: dict[str, Distribution] = {}
    batch_s: Distribution = msgspec.field(default_factory=lambda: Distribution.over(SECONDS))
    batch_records: Distribution = msgspec.field(default_factory=lambda: Distribution.over(RECORDS))
    since_event_s: Distribution = msgspec.field(default_factory=lambda: Distribution.over(FRESHNESS_S))
    since_log_s: Distribution = msgspec.field(default_factory=lambda: Distribution.over(FRESHNESS_S))

    @property
    def put_aside(self) -> int:
        """Dead letters of any reason."""
        return sum(self.dead_letters.values())

    @property
    def behind(self) -> int:
        """Lag over all partitions."""
        return sum(self.lag.values())


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a command's workers do, the newest report of each by name.

    records and dead_letters: of all workers that there have been, those included that died. restarts: by worker.
    trouble: why a worker is not there at the moment, by worker.
    """

    pid: int = 0
    at_ms: int = 0
    group: str = ""
    records: int = 0
    dead_letters: int = 0
    workers: dict[str, WorkerReport] = {}
    restarts: dict[str, int] = {}
    trouble: dict[str, str] = {}

    @property
    def is_ready(self) -> bool:
        """Whether a worker owns partitions."""
        return any(report.partitions for report in self.workers.values())
