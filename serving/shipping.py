"""Brings the files of the decision log to the event log, at least once, from a thread of its own.

1. Each file is read from where the event log's last acknowledgement was, in batches of whole lines. Each decision is
   one record of `TOPIC`, its key the decision's id, its value the line.
2. What is acknowledged is noted beside the file, at most every `NOTE_EVERY_S`. A process killed in between, or a batch
   that failed, is followed by the same records once more: their ids tell.
3. A layout is a record of `LAYOUTS_TOPIC`, acknowledged before the decisions that need it.
4. Files of writers that are dead are taken over, every `ADOPT_EVERY_S`, by whoever gets the writer's lock.
5. While the event log is away the files stay as they are, and shipping is tried again after `RETRY_S`.

Files of one writer are shipped in their order, one after the other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from materialize.personal import reason_of
from serving.ports import RecordProducer
from serving.spool import (
    WriterLock,
    lock_writer,
    locked_writers,
    note_shipped,
    note_shipped_to,
    shipped_to,
    spool_files,
)
from serving.spool_writer import SpoolWriter

TOPIC = "decisions"
LAYOUTS_TOPIC = "decision-features"
TURN_S = 0.1
RETRY_S = 1.0
ADOPT_EVERY_S = 5.0
TELL_LAYOUTS_EVERY_S = 6 * 3_600.0
"""The event log may forget: a layout is shipped again so often by each process, and by each new one."""
NOTE_EVERY_S = 1.0
"""At full rate a note for each batch, a file written and renamed, would cost half as much as shipping the batch."""
BATCH_BYTES = 256 << 10
"""Some fifty decisions: one costs a third of what it does in batches of ten."""
RECORD_BYTES_MAX = 1_000_000
"""Kafka takes a MiB, with all that it adds."""

_FLUSH_MS = 10_000
_LAYOUT = b'{"kind":"features"'
_ID = b'"decision_id":"'
_ID_BYTES = 36
_LOG = logging.getLogger(__name__)


class Shipper:
    """Ships one writer's files, and those of dead writers of the same folder.

    shipped: acknowledged decisions. unshippable: those that are too large for the event log and stay in their file
    alone. failure: why nothing is shipped now, None when it is.
    """

    def __init__(self, own: SpoolWriter, open_producer: Callable[[], RecordProducer]) -> None:
        """`open_producer` makes the topics where there are none. It, and the producer, may raise anything."""
        self._own = own
        self._open_producer = open_producer
        self._producer: RecordProducer | None = None
        self._queues = {own.name: _Queue(own.begun, lambda path: path != own.path, None)}
        self._tell_layout_at_s: dict[bytes, float] = {}
        self.shipped = self.unshippable = 0
        self.failure: str | None = None
        self._closing = threading.Event()
        self._deadline_s = 0.0
        self._thread = threading.Thread(target=self._run, name="decision-shipping", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """Ship what waits, if that can be done in about this time, and stop. Blocks. Whether all of ours is shipped."""
        self._deadline_s = time.monotonic() + timeout_s
        self._closing.set()
        self._thread.join(timeout_s + _FLUSH_MS / 1000)
        return not self._own.begun

    def _run(self) -> None:
        adopted_s, pause_s = -ADOPT_EVERY_S, 0.0
        while not self._closing.wait(pause_s):
            started_s = time.monotonic()
            if started_s > adopted_s + ADOPT_EVERY_S:
                self._adopt()
                adopted_s = started_s
            has_more = self._turn()
            # Seldom, since a batch of few costs about as much. Behind, every other moment is left to the requests.
            pause_s = time.monotonic() - started_s if has_more else TURN_S if self.failure is None else RETRY_S
        while self._turn() and time.monotonic() < self._deadline_s:
            pass
        self._drop_producer()
        for queue in self._queues.values():
            queue.release()

    def _turn(self) -> bool:
        """Ship a batch of each writer. Whether more than that waits."""
        try:
            for queue in self._queues.values():
                self._ship_batch(queue)
        except Exception as error:  # any failure of any log, or of the disk: the files stay
            self._note_failure(reason_of(error))
            self._drop_producer()
            return False
        self._note_failure(None)
        for writer in [name for name, queue in self._queues.items() if queue.is_done()]:
            self._queues.pop(writer).release()
        return any(queue.is_behind for queue in self._queues.values())

    def _ship_batch(self, queue: _Queue) -> None:
        """Ship the writer's next lines, if there are any."""
        queue.note()  # first, so that an outage does not keep it from being noted
        batch = queue.read()
        if batch:
            self._ship(batch)
            queue.take_as_shipped()

    def _ship(self, batch: list[bytes]) -> None:
        if self._producer is None:
            self._producer = self._open_producer()
        decisions = [line for line in batch if not line.startswith(_LAYOUT)]
        for layout in batch if len(decisions) < len(batch) else ():
            self._tell_layout(self._producer, layout)
        too_large = [line for line in decisions if len(line) > RECORD_BYTES_MAX]
        for line in decisions:
            if len(line) <= RECORD_BYTES_MAX:
                self._producer.send(TOPIC, _id_of(line), line)
        self._producer.flush(_FLUSH_MS)
        for line in too_large:
            _LOG.error("decision %r has %d bytes, which the event log does not take", _id_of(line), len(line))
        self.shipped += len(decisions) - len(too_large)
        self.unshippable += len(too_large)

    def _tell_layout(self, producer: RecordProducer, line: bytes) -> None:
        now_s = time.monotonic()
        if line.startswith(_LAYOUT) and now_s > self._tell_layout_at_s.get(line, 0.0):
            producer.send(LAYOUTS_TOPIC, LAYOUTS_TOPIC.encode(), line)
            producer.flush(_FLUSH_MS)
            self._tell_layout_at_s[line] = now_s + TELL_LAYOUTS_EVERY_S

    def _adopt(self) -> None:
        """Take over what dead writers have left."""
        folder = self._own.folder
        with contextlib.suppress(OSError):  # next time
            left = {file.writer for file in spool_files(folder) if not file.is_shipped} | locked_writers(folder)
            locks = {writer: lock_writer(folder, writer) for writer in left - self._queues.keys()}
            files = spool_files(folder)  # once more: until now they may have been written or shipped by another
            for writer, lock in locks.items():
                if lock is not None:
                    paths = deque(file.path for file in files if file.writer == writer and not file.is_shipped)
                    self._queues[writer] = _Queue(paths, lambda _: True, lock)

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(Exception):  # whatever was under way is sent again
                producer.close()

    def _note_failure(self, failure: str | None) -> None:
        # Only changes are logged: at full rate an outage would fill the disk.
        if failure is not None and self.failure is None:
            _LOG.error("decisions are not shipped to the event log, they wait in files: %s", failure)
        if failure is None and self.failure is not None:
            _LOG.warning("decisions are shipped to the event log again")
        self.failure = failure


class _Queue:
    """The files of one writer that wait to be shipped, and how far the first of them is."""

    def __init__(self, paths: deque[Path], is_ended: Callable[[Path], bool], lock: WriterLock | None) -> None:
        """`is_ended`: whether a file will not grow any more. `lock`: when the writer is another one, and dead."""
        self._paths, self._is_ended, self._lock = paths, is_ended, lock
        self._file: BinaryIO | None = None
        self._offset = self._read_to = self._noted = 0
        self._note_again_s = 0.0
        self.is_behind = False
        """Whether more waits than what was read last."""

    def read(self) -> list[bytes]:
        """The lines after what is shipped, about `BATCH_BYTES` of them; none when nothing waits now."""
        while self._paths:
            path = self._paths[0]
            is_ended = self._is_ended(path)  # asked before it is read: then all of it is there
            lines = self._lines_of(path)
            self.is_behind = is_ended or self._read_to - self._offset >= BATCH_BYTES
            if lines or not is_ended:
                return lines
            self._finish(path)
        self.is_behind = False
        return []

    def take_as_shipped(self) -> None:
        """What was read is acknowledged."""
        self._offset = self._read_to

    def note(self, *, is_last: bool = False) -> None:
        """Write down how far the file is shipped, if that is news, and due."""
        now_s = time.monotonic()
        if not self._paths or self._offset == self._noted or (now_s < self._note_again_s and not is_last):
            return
        self._noted, self._note_again_s = self._offset, now_s + NOTE_EVERY_S
        with contextlib.suppress(OSError):  # a full disk: we know it, and another process would ship it again
            if self._paths[0].exists():
                note_shipped_to(self._paths[0], self._offset)

    def is_done(self) -> bool:
        """Whether nothing is left of a dead writer."""
        return self._lock is not None and not self._paths

    def release(self) -> None:
        """Leave what is left to others."""
        self.note(is_last=True)
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.release(forget=not self._paths)

    def _lines_of(self, path: Path) -> list[bytes]:
        if self._file is None:
            try:
                self._file = path.open("rb")
            except FileNotFoundError:  # deleted to make room
                return []
            self._offset = self._noted = shipped_to(path)
        self._file.seek(self._offset)
        found = self._file.read(BATCH_BYTES)
        if len(found) == BATCH_BYTES:
            found += self._file.readline()
        whole = found[: found.rfind(b"\n") + 1]
        self._read_to = self._offset + len(whole)
        return whole.split(b"\n")[:-1]

    def _finish(self, path: Path) -> None:
        if self._file is not None:
            if self._file.seek(0, os.SEEK_END) > self._offset:
                _LOG.warning("the last line of %s is cut off: its writer died before it had answered", path)
            self._file.close()
            with contextlib.suppress(OSError):  # a full disk: it may be shipped again
                if path.exists():
                    note_shipped(path)
        self._file = None
        self._noted = self._offset  # what is not noted of this file must not be noted of the next one
        self._paths.popleft()


def _id_of(line: bytes) -> bytes:
    start = line.find(_ID) + len(_ID)
    return line[start : start + _ID_BYTES]
