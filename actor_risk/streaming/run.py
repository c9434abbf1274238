"""One stream worker, put together from a home and run until it is told to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Event as ThreadEvent
from threading import Thread

import redis
from feast import FeatureStore

from actor_risk.errors import ActorRiskError
from actor_risk.feast_repo import definitions_as_of_ms, stream_views
from actor_risk.home import Home
from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.report import WorkerReport
from materialize.definitions import StreamView
from materialize.events import open_formats
from materialize.online import RowWriter, WriteCounts, connect, redis_settings
from materialize.stream import DeadLetters
from materialize.stream.in_force import DefinitionsInForce
from materialize.stream.log import TopicPartition
from materialize.stream.measures import STAGES
from materialize.stream.worker import StreamWorker

REPORT_EVERY_S = 0.5


def run_worker(home: Home, options: WorkerOptions, stop: ThreadEvent, tell: Callable[[WorkerReport], None]) -> None:
    """Fold the events of all stream views' topics into their rows until `stop` is set.

    `tell` hears a report every REPORT_EVERY_S, from another thread, and one when the worker has ended.
    Raises ActorRiskError when the registry has no stream views, EventFormatError, DefinitionsSupersededError when
    workers with newer definitions are at work, and, only before it has begun, what passes by itself:
    LogUnavailableError and OnlineStoreUnavailableError.
    """
    store = home.feature_store()
    views = stream_views(store)
    if not views:
        raise ActorRiskError("the registry has no stream views: run `actor-risk apply` first")
    formats = open_formats(options.formats)
    with closing(home.event_log()) as log, closing(connect(redis_settings(store))) as client:
        topics = sorted({view.topic for view in views})
        log.ensure_topics(topics)
        in_force = _in_force(client, store, views, options.take_over)
        writer = RowWriter(client)
        with closing(DeadLetters(log)) as letters, closing(log.consumer(topics, options.group, options.start)) as read:
            worker = StreamWorker(
                store.project, views, read, writer, letters, _now_ms, formats=formats, in_force=in_force
            )
            with _reporting(lambda: report_of(worker, writer.counts, os.getpid(), _now_ms()), tell):
                worker.run(stop)


def report_of(worker: StreamWorker, writes: WriteCounts, pid: int, at_ms: int) -> WorkerReport:
    """The worker as it stands. Another thread than the worker's may ask: each number is then a recent one."""
    counts, measures = worker.counts, worker.measures
    return WorkerReport(
        pid=pid,
        at_ms=at_ms,
        state=worker.state,
        trouble=worker.trouble,
        partitions=[_place(partition) for partition in sorted(worker.partitions)],
        records=counts.records,
        bytes=measures.bytes,
        without_key=counts.without_key,
        replayed=counts.replayed,
        folded=counts.folded,
        duplicates=counts.duplicates,
        owned_by_batch=counts.owned_by_batch,
        too_late=counts.too_late,
        records_lost=counts.records_lost,
        commits_rejected=counts.commits_rejected,
        retries=counts.retries,
        rows_written=writes.written,
        rows_large=writes.large,
        rows_unchanged=writes.unchanged,
        conflicts=writes.conflicts,
        dead_letters=dict(counts.dead_letters),
        rows_refused=dict(writes.refused),
        lag={_place(partition): behind for partition, behind in sorted(measures.lag.items())},
        event_time_ahead_s=measures.event_time_ahead_s,
        stage_s={stage: measures.stage_s[stage].copy() for stage in STAGES},
        batch_s=measures.batch_s.copy(),
        batch_records=measures.batch_records.copy(),
        since_event_s=measures.since_event_s.copy(),
        since_log_s=measures.since_log_s.copy(),
    )


@contextmanager
def _reporting(report: Callable[[], WorkerReport], tell: Callable[[WorkerReport], None]) -> Iterator[None]:
    ended = ThreadEvent()

    def keep_telling() -> None:
        while not ended.wait(REPORT_EVERY_S):
            tell(report())

    thread = Thread(target=keep_telling, name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell(report())


def _in_force(
    client: redis.Redis, store: FeatureStore, views: Sequence[StreamView], by_force: bool
) -> DefinitionsInForce:
    in_force = DefinitionsInForce(client, store.project, views, definitions_as_of_ms(store))
    in_force.take(by_force=by_force)
    return in_force


def _place(partition: TopicPartition) -> str:
    return f"{partition.topic}:{partition.partition}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
