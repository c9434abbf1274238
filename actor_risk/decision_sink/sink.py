"""From the event log into the archive, at least once.

1. Records are taken from the log until they are many, or the first of them is old.
2. They are written, one file for each hour in which decisions were made.
3. When the files are safe, the group's offsets are committed. A sink that is killed before is followed by one that
   reads the same records again, into another file.

Whatever cannot be reached is tried again; nothing is passed over but what the log has lost, and what is no decision.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

import msgspec
import pyarrow as pa
from msgspec import Struct

from actor_risk.decision_records import Service
from actor_risk.decision_sink.archive import Archive
from actor_risk.decision_sink.rows import Layout, Row, row_of, table_of
from materialize.personal import reason_of, told
from materialize.stream import (
    CommitRejectedError,
    EventLog,
    EventLogConsumer,
    LogUnavailableError,
    Record,
    RecordsLostError,
    StreamError,
    TopicPartition,
    next_offsets,
)
from materialize.stream.log import Start

TOPIC = "decisions"
LAYOUTS_TOPIC = "decision-features"
LAYOUTS_MAX = 2_000
"""So many of the newest are looked through for the features of a decision."""
HOUR_MS = 3_600_000

_POLL_RECORDS = 1_000
_POLL_MS = 200
_RETRY_S = 1.0
_TAKE_OVER_S = 30.0
"""Partitions that others hold for longer than this are held by the living: those of the dead are given to us before."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """`age_s_max`: how long a decision waits for its file; `bytes_max`: how many wait in memory. `once`: end when all
    that is in the log is written, but for the part of other sinks that are at work."""

    group: str = "decisions-sink"
    start: Start = "earliest"
    age_s_max: float = 60.0
    bytes_max: int = 64 << 20
    once: bool = False


class SinkStatus(Struct):
    """What a sink has done. repeated: decisions that came again within a file. unreadable: records that are none of
    ours. gaps: how often the log had lost records before they were read. waiting: taken and not written yet. lag: what
    was in the log when files were written last, and not in them; None when that is not known."""

    written: int = 0
    files: int = 0
    repeated: int = 0
    unreadable: int = 0
    gaps: int = 0
    waiting: int = 0
    lag: int | None = None
    trouble: str | None = None


class DecisionSink:
    """One member of the sink's group: start more of them, and they share the partitions."""

    def __init__(
        self, log: EventLog, archive: Archive, settings: SinkSettings, tell: Callable[[SinkStatus], None]
    ) -> None:
        """`tell` is called several times a second."""
        self._log, self._archive, self._settings, self._tell = log, archive, settings, tell
        self._layouts: dict[Service, str] = {}
        self._records: list[Record] = []
        self._bytes = 0
        self._since_s = 0.0
        self._uncommitted: dict[TopicPartition, int] = {}
        self.status = SinkStatus()

    def run(self, stop: threading.Event) -> SinkStatus:
        """Go on until `stop` is set, then write what was taken. Raises StreamError when the log refuses for good."""
        partitions = self._log.ensure_topics([TOPIC, LAYOUTS_TOPIC])[TOPIC]
        with closing(self._log.consumer([TOPIC], self._settings.group, self._settings.start)) as consumer:
            held: frozenset[TopicPartition] = frozenset()
            since_s = time.monotonic()
            while not stop.is_set():
                found = self._poll(consumer, stop)
                if self._is_due() or not held <= consumer.assignment():  # partitions that leave are done with first
                    self._write_out(consumer, stop)
                assigned = consumer.assignment()
                if assigned != held:
                    held, since_s = assigned, time.monotonic()
                self._tell(self.status)
                has_all_of_its = len(held) == partitions or time.monotonic() >= since_s + _TAKE_OVER_S
                if self._settings.once and held and not found and has_all_of_its:
                    self._write_out(consumer, stop)
                    if self.status.lag == 0:
                        break
            self._write_out(consumer, stop)
        self._tell(self.status)
        return self.status

    def _poll(self, consumer: EventLogConsumer, stop: threading.Event) -> list[Record]:
        try:
            records = consumer.poll(_POLL_RECORDS, _POLL_MS)
        except RecordsLostError as error:
            self.status.gaps += 1
            _LOG.error("decisions are missing in the archive, the log had not kept them until now: %s", error)
            return []
        except LogUnavailableError as error:
            self._wait(error, stop)
            return []
        self.status.trouble = None
        if records and not self._records:
            self._since_s = time.monotonic()
        self._records += records
        self._bytes += sum(len(record.value) for record in records)
        self.status.waiting = len(self._records)
        return records

    def _is_due(self) -> bool:
        is_old = time.monotonic() >= self._since_s + self._settings.age_s_max
        return bool(self._records) and (is_old or self._bytes >= self._settings.bytes_max)

    def _write_out(self, consumer: EventLogConsumer, stop: threading.Event) -> None:
        """Write all that was taken, and commit. Gives up only when told to stop: the log keeps what is not committed.

        An hour that was written is not written again because another one failed.
        """
        rows = self._rows()
        hours = [list(group) for _, group in groupby(rows, lambda row: row.time_ms // HOUR_MS)]
        self._learn_layouts({row.answer.service for row in rows})
        while hours:
            try:
                consumer.keep_alive(0)
                self._archive.write(hours[0][0].time_ms, table_of(hours[0], self._layouts))
            except (OSError, pa.ArrowException, LogUnavailableError) as error:
                self._wait(error, stop)
                if stop.is_set():
                    return
                continue
            self.status.written += len(hours.pop(0))
            self.status.files += 1
        self._uncommitted |= next_offsets(self._records)
        self._records, self._bytes, self.status.waiting = [], 0, 0
        self._commit(consumer)
        self._note_lag(consumer)

    def _rows(self) -> list[Row]:
        """What was taken, each decision once, sorted by id."""
        found: dict[str, Row] = {}
        for record in self._records:
            try:
                row = row_of(record.value)
            except (msgspec.DecodeError, ValueError) as error:
                self.status.unreadable += 1
                _LOG.error("a record is no decision: %s %d: %s", record.topic_partition, record.offset, told(error))
                continue
            self.status.repeated += row.answer.decision_id in found
            found[row.answer.decision_id] = row
        return [found[decision_id] for decision_id in sorted(found)]

    def _learn_layouts(self, services: set[Service]) -> None:
        if services <= self._layouts.keys():
            return
        decoder = msgspec.json.Decoder(Layout)
        try:
            for record in self._log.tail(LAYOUTS_TOPIC, LAYOUTS_MAX):
                layout = decoder.decode(record.value)
                self._layouts[Service(layout.service, layout.fingerprint)] = record.value.decode()
        except (StreamError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _LOG.warning("which features decisions have is not known: %s", reason_of(error))
        for service in services - self._layouts.keys():
            _LOG.warning("features of %s (%s) are not in the log: layout is null", service.name, service.fingerprint)

    def _commit(self, consumer: EventLogConsumer) -> None:
        """Commit what is written; what cannot be committed now is committed with the next."""
        if not self._uncommitted:
            return
        try:
            consumer.commit(self._uncommitted)
        except CommitRejectedError as error:
            _LOG.warning("some decisions will be in two files: %s", error)
        except StreamError as error:
            self.status.trouble = str(error)
            return
        self._uncommitted = {}

    def _note_lag(self, consumer: EventLogConsumer) -> None:
        try:
            self.status.lag = sum(consumer.lag().values())
        except StreamError:
            self.status.lag = None

    def _wait(self, error: Exception, stop: threading.Event) -> None:
        if self.status.trouble is None:
            _LOG.warning("decisions wait: %s", error)
        self.status.trouble = str(error)
        self._tell(self.status)
        stop.wait(_RETRY_S)
