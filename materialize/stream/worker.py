"""The stream worker: from the event log into rows, every event counted once.

The protocol, for each micro-batch:

1. Poll records. A partition's records come in offset order, and one member of the group reads it at a time.
2. Decode and validate each record. What is no valid event goes to the dead letters, with its reason.
3. For each view of the topic: transform the events, leave out those without the view's key, group them by entity.
4. For each entity: read its row; leave out events whose offset the row has applied already; fold the rest; note the
   highest offset of each partition in the row; compare-and-set. When another writer was faster, do this step again.
5. Flush the dead letters.
6. Commit the offsets.

An offset is that of a partition of one incarnation of the log: a topic that was deleted and made again, or another kind
of log, begins anew.

A crash before step 6 delivers the batch again: rows that step 4 wrote know its offsets and stay as they are; the others
take it now. A worker that lost its partitions without knowing (a zombie) applies, row by row, either what the row does
not have yet, with its offsets, or nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Event as ThreadEvent
from typing import Any

import numpy as np

from materialize.definitions import DefinitionError, StreamView, ViewEvents, identities_of
from materialize.events import (
    DEFAULT_SKEW_MS,
    Columns,
    Event,
    InvalidEventError,
    columns_from_events,
    decode_event,
)
from materialize.kernel import KernelError
from materialize.online import (
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
from materialize.stream.log import EventLogConsumer, Record, next_offsets

Ints = np.ndarray[Any, np.dtype[np.int64]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

TRANSFORMATION_FAILED = "transformation_failed"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """How much at once, and how long to wait. `skew_ms`: how far ahead of our clock an event may be."""

    batch_records_max: int = 5_000
    poll_timeout_ms: int = 100
    flush_timeout_ms: int = 10_000
    skew_ms: int = DEFAULT_SKEW_MS
    retry_first_s: float = 0.1
    retry_max_s: float = 5.0


@dataclass
class WorkerCounts:
    """What became of everything that was polled, added up over the worker's life.

    records: polled. dead_letters: by reason. The others count an event once for each view: without_key: it has no
    entity there; replayed: its row had applied its offset; and the kernel's folded, duplicates, owned_by_batch,
    too_late.
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
        partitions = np.array([record.partition for record in records], dtype=np.int64)
        offsets = np.array([record.offset for record in records], dtype=np.int64)
        return cls(records, columns, partitions | incarnation << 32, offsets)

    def one(self, position: int) -> _Decoded:
        """One of the events alone."""
        part = slice(position, position + 1)
        columns = {name: column[part] for name, column in self.columns.items()}
        return _Decoded(self.records[part], columns, self.partitions[part], self.offsets[part])


@dataclass(frozen=True)
class _Letter:
    """A record to be put aside, and why."""

    record: Record
    reason: str
    detail: str


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
    ) -> None:
        self._folders: dict[str, RowFolder] = {}
        self._views: dict[str, list[tuple[StreamView, KeyEncoder]]] = defaultdict(list)
        for view in views:
            self._views[view.topic].append((view, KeyEncoder(project, view.name, view.join_keys)))
            self._folders[view.name] = RowFolder(view)
        self._consumer = consumer
        self._writer = writer
        self._dead_letters = dead_letters
        self._now_ms = now_ms
        self._settings = settings or WorkerSettings()
        self._in_hand: list[Record] = []
        self._letters: dict[tuple[str, int, int], _Letter] = {}
        self.counts = WorkerCounts()

    def run(
        self,
        stop: ThreadEvent,
        on_batch: Callable[[WorkerCounts], None] | None = None,
        on_ready: Callable[[WorkerCounts], None] | None = None,
    ) -> None:
        """Work until `stop` is set, finishing the batch in hand; an outage is waited out, and nothing is skipped.

        `on_ready` is called once, when the worker first owns partitions, `on_batch` after every micro-batch.
        """
        while not stop.is_set():
            taken = self._retrying(self.run_once, stop)
            if on_ready is not None and self._consumer.assignment():
                on_ready(self.counts)
                on_ready = None
            if taken and on_batch is not None:
                on_batch(self.counts)

    def run_once(self) -> int:
        """Take one micro-batch through the whole protocol. Returns how many records it had.

        Raises LogUnavailableError, OnlineStoreUnavailableError, ProduceError or WriteConflictError; the next call takes
        the same batch again, as does whoever reads its partitions next.
        """
        self._in_hand = self._in_hand or self._poll()
        taken = len(self._in_hand)
        if taken:
            self._finish(self._in_hand)
        self._in_hand = []
        self._letters = {}
        return taken

    def _poll(self) -> list[Record]:
        try:
            records = self._consumer.poll(self._settings.batch_records_max, self._settings.poll_timeout_ms)
        except RecordsLostError as error:
            self.counts.records_lost += 1
            _log.error("%s", error)
            return []
        self.counts.records += len(records)
        return records

    def _finish(self, records: Sequence[Record]) -> None:
        """Steps 2 to 6 of the protocol."""
        for topic, decoded in self._decode(records).items():
            identities = identities_of(decoded.columns)
            for view, encoder in self._views[topic]:
                self._fold(view, encoder, decoded, identities)
        self._send_letters()
        try:
            self._consumer.commit(next_offsets(records))
        except CommitRejectedError as error:
            self.counts.commits_rejected += 1
            _log.warning("%s", error)

    def _decode(self, records: Sequence[Record]) -> dict[str, _Decoded]:
        valid: dict[str, tuple[list[Record], list[Event]]] = defaultdict(lambda: ([], []))
        now_ms = self._now_ms()
        for record in records:
            if self._is_invalid(record):
                continue
            try:
                event = decode_event(record.topic, record.value, now_ms, self._settings.skew_ms)
            except InvalidEventError as error:
                self._bury(record, error.reason, error.detail)
                continue
            kept, events = valid[record.topic]
            kept.append(record)
            events.append(event)
        return {
            topic: _Decoded.of(kept, columns_from_events(events), self._consumer.incarnation(topic))
            for topic, (kept, events) in valid.items()
        }

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
            one = decoded.one(position)
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
        if not self._letters:
            return False
        letter = self._letters.get((*record.topic_partition, record.offset))
        return letter is not None and letter.reason != TRANSFORMATION_FAILED

    def _send_letters(self) -> None:
        """Step 5. A letter that is not acknowledged is sent again with the next try."""
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
                return step()
            except (OnlineStoreUnavailableError, LogUnavailableError, ProduceError, WriteConflictError) as error:
                self.counts.retries += 1
                _log.warning("%s; trying again in %.1f s", error, wait_s)
                if stop.wait(wait_s):
                    return None
                wait_s = min(wait_s * 2, self._settings.retry_max_s)
