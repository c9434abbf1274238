"""The stream worker: from the event log into rows, every event counted once.

The protocol, for each micro-batch:

1. Poll records. A partition's records come in offset order, and one member of the group reads it at a time.
2. Decode and validate each record. What is no valid event, or came too late for every view of its topic, goes to the
   dead letters, with its reason.
3. For each view of the topic: transform the events, leave out those without the view's key, group them by entity.
4. For each entity: read its row; leave out events whose offset the row has applied already; fold the rest; note the
   highest offset of each partition in the row; compare-and-set. When another writer was faster, do this step again.
5. Flush the dead letters.
6. If the definitions of our views are still those in force, commit the offsets.

An offset is that of a partition of one incarnation of the log: a topic that was deleted and made again, or another kind
of log, begins anew.

A crash before step 6 delivers the batch again: rows that step 4 wrote know its offsets and stay as they are; the others
take it now. A worker that lost its partitions without knowing (a zombie) applies, row by row, either what the row does
not have yet, with its offsets, or nothing.

While rows cannot be written, nothing more is polled: what is in hand is tried again and again, and the membership of
the group is kept. So what a worker holds is bounded: one poll, of which it decodes and folds `batch_bytes_max` at a
time. A partition that moves all the same is no loss: its next owner begins at the commit, and the rows know what they
have.

A row of another definition of its view is written over only if ours are in force (`materialize.stream.in_force`); else
the worker ends, and leaves the batch to those that have the newer ones.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event as ThreadEvent
from typing import Any, Literal

import numpy as np

from materialize.definitions import DefinitionError, StreamView, ViewEvents, identities_of
from materialize.events import (
    DEFAULT_SKEW_MS,
    Columns,
    Event,
    EventFormats,
    InvalidEventError,
    columns_from_events,
)
from materialize.kernel import KEEP_SLACK_MS, KernelError
from materialize.online import (
    EventsByRow,
    FoldedRows,
    FoldOutcome,
    KeyEncoder,
    OnlineStoreUnavailableError,
    RowFolder,
    RowWriter,
    WriteConflictError,
    events_by_row,
)
from materialize.stream.dead_letters import DeadLetters
from materialize.stream.errors import CommitRejectedError, LogUnavailableError, ProduceError, RecordsLostError
from materialize.stream.in_force import DefinitionsInForce
from materialize.stream.log import EventLogConsumer, Record, TopicPartition, next_offsets
from materialize.stream.measures import Laps, WorkerMeasures

Ints = np.ndarray[Any, np.dtype[np.int64]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

TRANSFORMATION_FAILED = "transformation_failed"
TOO_LATE = "too_late"
OTHER_SCHEMA = "other_schema"
"""Why a row of another definition is refused."""

WorkerState = Literal["starting", "idle", "working", "retrying"]
"""starting: owns no partition yet. retrying: something is away, and what is in hand waits for it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """How much at once, and how long to wait. `skew_ms`: how far ahead of our clock an event may be.

    batch_bytes_max: of the records' values; a micro-batch has at least one record. lag_every_s: how often the log is
    asked how far we are behind. keep_alive_every_s: how often the group hears of us while we do not poll.
    """

    batch_records_max: int = 5_000
    batch_bytes_max: int = 16 * 1024 * 1024
    poll_timeout_ms: int = 100
    flush_timeout_ms: int = 10_000
    skew_ms: int = DEFAULT_SKEW_MS
    retry_first_s: float = 0.1
    retry_max_s: float = 5.0
    lag_every_s: float = 2.0
    keep_alive_every_s: float = 1.0
    keep_alive_timeout_ms: int = 50


@dataclass
class WorkerCounts:
    """What became of everything that was polled, added up over the worker's life.

    records: taken through the whole protocol. dead_letters: by reason. The others count an event once for each view:
    without_key: it has no entity there; replayed: its row had applied its offset; and the kernel's folded, duplicates,
    owned_by_batch, too_late.
    """

    records: int = 0
    dead_letters: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    without_key: int = 0
    replayed: int = 0
    folded: int = 0
    duplicates: int = 0
    owned_by_batch: int = 0
    too_late: int = 0
    records_lost: int = 0
    commits_rejected: int = 0
    retries: int = 0


@dataclass(frozen=True)
class _Decoded:
    """The valid events of one topic in a batch, with where each stood in the log: partitions, offsets, int64[n]."""

    records: Sequence[Record]
    columns: Columns
    partitions: Ints
    offsets: Ints

    @classmethod
    def of(cls, records: Sequence[Record], columns: Columns, incarnation: int) -> _Decoded:
        """A partition is told by its number and the incarnation of its log."""
        partitions = np.fromiter([record.partition for record in records], np.int64, len(records))
        offsets = np.fromiter([record.offset for record in records], np.int64, len(records))
        return cls(records, columns, partitions | incarnation << 32, offsets)

    def take(self, places: Ints) -> _Decoded:
        """Some of the events."""
        columns = {name: column[places] for name, column in self.columns.items()}
        records = [self.records[place] for place in places]
        return _Decoded(records, columns, self.partitions[places], self.offsets[places])

    def too_late(self, now_ms: int, reach_ms: int) -> Ints:
        """The events that were more than `reach_ms` old when the log took them, by the earlier of its clock and ours.

        What is read late, or again, was on time when it came.
        """
        taken_ms = np.fromiter([record.timestamp_ms for record in self.records], np.int64, len(self.records))
        return np.flatnonzero(self.columns["event_time"] < np.minimum(taken_ms, now_ms) - reach_ms)


@dataclass(frozen=True)
class _Letter:
    """A record to be put aside, and why."""

    record: Record
    reason: str
    detail: str


class _GuardedFolder(RowFolder):
    """Starts rows of another definition anew only while ours is in force."""

    def __init__(self, view: StreamView, check: Callable[[], None]) -> None:
        self._check = check
        super().__init__(view)

    def fold(self, stored: Sequence[bytes | None], events: EventsByRow, refused: dict[str, int]) -> FoldedRows:
        """See `RowFolder.fold`. Raises DefinitionsSupersededError before anything is written."""
        found: dict[str, int] = {}
        folded = super().fold(stored, events, found)
        if OTHER_SCHEMA in found:
            self._check()
        for reason, count in found.items():
            refused[reason] = refused.get(reason, 0) + count
        return folded


class StreamWorker:
    """Folds the events of some topics into the rows of the views that read them."""

    def __init__(
        self,
        project: str,
        views: Iterable[StreamView],
        consumer: EventLogConsumer,
        writer: RowWriter,
        dead_letters: DeadLetters,
        now_ms: Callable[[], int],
        settings: WorkerSettings | None = None,
        formats: EventFormats | None = None,
        in_force: DefinitionsInForce | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`formats` says how the records of each topic are read; all of them are JSON without it. `in_force` says
        whether our definitions are; they are without it. `clock_s` is monotonic, and measures only our own work."""
        self._folders: dict[str, RowFolder] = {}
        self._views: dict[str, list[tuple[StreamView, KeyEncoder]]] = defaultdict(list)
        self._reach_ms: dict[str, int] = defaultdict(int)
        for view in views:
            reach_ms = max(view.spec.reach_ms, view.ttl_ms) + KEEP_SLACK_MS
            self._reach_ms[view.topic] = max(self._reach_ms[view.topic], reach_ms)
            self._views[view.topic].append((view, KeyEncoder(project, view.name, view.join_keys)))
            self._folders[view.name] = RowFolder(view) if in_force is None else _GuardedFolder(view, in_force.check)
        self._consumer = consumer
        self._writer = writer
        self._dead_letters = dead_letters
        self._now_ms = now_ms
        self._settings = settings or WorkerSettings()
        self._formats = formats or EventFormats()
        self._in_force = in_force
        self._clock_s = clock_s
        self._heard_s = self._lag_s = clock_s() - self._settings.lag_every_s
        self._in_hand: list[Record] = []
        self._letters: dict[tuple[str, int, int], _Letter] = {}
        self.counts = WorkerCounts()
        self.measures = WorkerMeasures()
        self.state: WorkerState = "starting"
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.trouble = ""

    def run(self, stop: ThreadEvent, on_batch: Callable[[WorkerCounts], None] | None = None) -> None:
        """Work until `stop` is set, finishing the batch in hand; an outage is waited out, and nothing is skipped.

        `on_batch` is called after every micro-batch. Raises DefinitionsSupersededError.
        """
        if self._in_force is not None:
            self._retrying(self._in_force.take, stop)
        while not stop.is_set():
            taken = self._retrying(self.run_once, stop)
            self.partitions = self._consumer.assignment()
            if self.partitions:
                self.state = "working" if taken else "idle"
            if taken and on_batch is not None:
                on_batch(self.counts)
            self._note_lag()

    def run_once(self) -> int:
        """Take one micro-batch through the whole protocol. Returns how many records it had.

        Raises LogUnavailableError, OnlineStoreUnavailableError, ProduceError or WriteConflictError; the next call takes
        the same batch again, as does whoever reads its partitions next. Raises DefinitionsSupersededError when others
        are to go on.
        """
        laps = Laps(self._clock_s)
        if not self._in_hand:
            self._in_hand = self._poll()
            laps.lap("poll")
        batch, size_bytes = _beginning(self._in_hand, self._settings.batch_bytes_max)
        if batch:
            self._finish(batch, laps)
            self.counts.records += len(batch)
            self.measures.note_batch(batch, size_bytes, laps.tell(self.measures), self._now_ms())
        self._in_hand = self._in_hand[len(batch) :]
        self._letters = {}
        return len(batch)

    def _poll(self) -> list[Record]:
        try:
            records = self._consumer.poll(self._settings.batch_records_max, self._settings.poll_timeout_ms)
        except RecordsLostError as error:
            self.counts.records_lost += 1
            _log.error("%s", error)
            return []
        self._heard_s = self._clock_s()
        return records

    def _finish(self, records: Sequence[Record], laps: Laps) -> None:
        """Steps 2 to 6 of the protocol."""
        decoded_at_ms = self._now_ms()
        batches = self._decode(records, decoded_at_ms)
        laps.lap("decode")
        for topic, decoded in batches.items():
            if not decoded.records:
                continue
            identities = identities_of(decoded.columns)
            for view, encoder in self._views[topic]:
                self._fold(view, encoder, decoded, identities)
                self._keep_alive()
            self.measures.note_events(decoded.columns["event_time"], decoded_at_ms, self._now_ms())
        laps.lap("fold")
        self._send_letters()
        laps.lap("dead_letters")
        self._commit(records)
        laps.lap("commit")

    def _commit(self, records: Sequence[Record]) -> None:
        """Step 6."""
        if self._in_force is not None:
            self._in_force.check()
        try:
            self._consumer.commit(next_offsets(records))
        except CommitRejectedError as error:
            self.counts.commits_rejected += 1
            _log.warning("%s", error)

    def _decode(self, records: Sequence[Record], now_ms: int) -> dict[str, _Decoded]:
        """Step 2: the valid events of each topic."""
        decode, skew_ms = self._formats.decode, self._settings.skew_ms
        valid: dict[str, tuple[list[Record], list[Event]]] = defaultdict(lambda: ([], []))
        for record in records:
            if self._letters and self._is_invalid(record):
                continue
            try:
                event = decode(record.topic, record.value, now_ms, skew_ms)
            except InvalidEventError as error:
                self._bury(record, error.reason, error.detail)
                continue
            kept, events = valid[record.topic]
            kept.append(record)
            events.append(event)
        batches = {
            topic: _Decoded.of(kept, columns_from_events(events), self._consumer.incarnation(topic))
            for topic, (kept, events) in valid.items()
        }
        return {topic: self._on_time(topic, batch, now_ms) for topic, batch in batches.items()}

    def _on_time(self, topic: str, batch: _Decoded, now_ms: int) -> _Decoded:
        """The batch without the events that came too late for every view."""
        late = batch.too_late(now_ms, self._reach_ms[topic])
        if not len(late):
            return batch
        reach = f"the views of {topic} reach {self._reach_ms[topic]} ms back"
        for place in late:
            age_ms = batch.records[place].timestamp_ms - int(batch.columns["event_time"][place])
            self._bury(batch.records[place], TOO_LATE, f"the event was {age_ms} ms old when it came; {reach}")
        return batch.take(np.setdiff1d(np.arange(len(batch.records)), late))

    def _fold(self, view: StreamView, encoder: KeyEncoder, decoded: _Decoded, identities: Hashes) -> None:
        """Steps 3 and 4 for one view."""
        for part, seen in self._seen(view, decoded, identities):
            self.counts.without_key += seen.skipped
            if not len(seen.block):
                continue
            events = events_by_row(encoder, seen, part.partitions[seen.rows], part.offsets[seen.rows])
            self._add(self._writer.fold_events(view, self._folders[view.name], events))

    def _seen(self, view: StreamView, decoded: _Decoded, identities: Hashes) -> list[tuple[_Decoded, ViewEvents]]:
        """The view's events; where the transformation fails, one by one, and the failing ones to the dead letters."""
        try:
            return [(decoded, view.events(decoded.columns, identities))]
        except (DefinitionError, KernelError):
            pass
        seen: list[tuple[_Decoded, ViewEvents]] = []
        for position, record in enumerate(decoded.records):
            one = decoded.take(np.array([position]))
            try:
                seen.append((one, view.events(one.columns)))
            except (DefinitionError, KernelError) as error:
                self._bury(record, TRANSFORMATION_FAILED, str(error))
        return seen

    def _bury(self, record: Record, reason: str, detail: str) -> None:
        """Put a record aside, once however often its batch is tried."""
        self._letters.setdefault((*record.topic_partition, record.offset), _Letter(record, reason, detail))

    def _is_invalid(self, record: Record) -> bool:
        """Whether an earlier try found that the record is no valid event; some view may still take one that is."""
        letter = self._letters.get((*record.topic_partition, record.offset))
        return letter is not None and letter.reason != TRANSFORMATION_FAILED

    def _send_letters(self) -> None:
        """Step 5. A letter that is not acknowledged is sent again with the next try."""
        if not self._letters:
            return
        for letter in self._letters.values():
            self._dead_letters.put(letter.record, letter.reason, letter.detail, self._now_ms())
        self._dead_letters.flush(self._settings.flush_timeout_ms)
        for letter in self._letters.values():
            self.counts.dead_letters[letter.reason] += 1

    def _add(self, outcome: FoldOutcome) -> None:
        counts = self.counts
        counts.replayed += outcome.replayed
        counts.folded += outcome.counts.folded
        counts.duplicates += outcome.counts.duplicates
        counts.owned_by_batch += outcome.counts.owned_by_batch
        counts.too_late += outcome.counts.too_late

    def _retrying(self, step: Callable[[], Any], stop: ThreadEvent) -> Any:
        """The step's result, tried until it is done or the worker is told to stop; None then."""
        wait_s = self._settings.retry_first_s
        while True:
            try:
                done = step()
            except (OnlineStoreUnavailableError, LogUnavailableError, ProduceError, WriteConflictError) as error:
                self.counts.retries += 1
                self.state, self.trouble = "retrying", str(error)
                _log.warning("%s; trying again in %.1f s", error, wait_s)
                if self._wait(wait_s, stop):
                    return None
                wait_s = min(wait_s * 2, self._settings.retry_max_s)
            else:
                self.trouble = ""
                return done

    def _wait(self, seconds: float, stop: ThreadEvent) -> bool:
        """Wait without leaving the group. Returns whether the worker was told to stop."""
        until_s = self._clock_s() + seconds
        while (left_s := until_s - self._clock_s()) > 0:
            if stop.wait(min(left_s, self._settings.keep_alive_every_s)):
                return True
            self._keep_alive()
        return stop.is_set()

    def _keep_alive(self) -> None:
        """Let the group hear of us, if it has not for a while: others may wait for us to share partitions anew."""
        if self._clock_s() - self._heard_s < self._settings.keep_alive_every_s:
            return
        with suppress(LogUnavailableError, CommitRejectedError):  # the next poll or commit will tell
            self._consumer.keep_alive(self._settings.keep_alive_timeout_ms)
        self._heard_s = self._clock_s()

    def _note_lag(self) -> None:
        if self._clock_s() - self._lag_s >= self._settings.lag_every_s:
            with suppress(LogUnavailableError):
                self.measures.lag = self._consumer.lag()
            self._lag_s = self._clock_s()


def _beginning(records: list[Record], bytes_max: int) -> tuple[list[Record], int]:
    """As many of the first records as fit, at least one if there is any, and the bytes of their values."""
    sizes = [len(record.value) for record in records]
    size = sum(sizes)
    if size <= bytes_max:
        return records, size
    count = max(1, int(np.searchsorted(np.cumsum(sizes), bytes_max, side="right")))
    return records[:count], sum(sizes[:count])
