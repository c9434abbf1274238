"""The decision log as files: JSON lines that the operating system has before the answer leaves.

1. `append` encodes the decisions of a round and writes them to this process's file, in one write. What it wrote
   survives the process, however that ends. A line is whole, or the last of its file and cut off: readers pass over it.
2. A thread has the disk take what was written, every `SYNC_EVERY_S`: a machine that loses power loses about so much.
3. While a write fails (a full disk, a folder that may not be written), lines wait in memory and the write is tried
   again every `SYNC_EVERY_S`, in a new file. Beyond `waiting_bytes_max` decisions are dropped, counted and told.
4. When the folder holds more than `folder_bytes_max`, the oldest files go, those first that the event log has: counted
   and told, as an error where decisions are lost.
5. `serving.shipping` brings the files to the event log, where there is a shipper.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import xxhash

from materialize.personal import reason_of
from serving.logged import FeatureLayout, LoggedDecision
from serving.ports import LogCounts
from serving.shipping import Shipper
from serving.spool_room import SpoolRoom
from serving.spool_writer import SpoolWriter

SYNC_EVERY_S = 1.0
TIDY_EVERY_S = 5.0

_CLOSE_S = 5.0
_HASHES = 1 << 64
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """The bounds of a decision log; the folder's counts for all writers that share it."""

    folder_bytes_max: int
    waiting_bytes_max: int = 32 << 20
    file_bytes_max: int = 64 << 20
    file_age_ms_max: int = 3_600_000

    @staticmethod
    def within(folder_bytes_max: int) -> FileLimits:
        """Bounds for a folder of this size: of at least eight files, so that one is not much of it."""
        return FileLimits(folder_bytes_max=folder_bytes_max, file_bytes_max=min(64 << 20, folder_bytes_max // 8))


@dataclass(frozen=True, slots=True)
class _Round:
    """Lines that could not be written yet."""

    lines: bytes
    count: int
    layout: FeatureLayout


class DecisionFiles:
    """See `serving.ports.DecisionLog`. `append` is for one thread, the rest for any."""

    def __init__(
        self,
        folder: Path,
        writer: str,
        limits: FileLimits,
        now_ms: Callable[[], int],
        rate: float = 1.0,
        shipper: Callable[[SpoolWriter], Shipper] | None = None,
    ) -> None:
        """`writer` is a name that no other writer of the folder ever has. `rate`: the share of decisions to keep.
        `shipper` makes what brings them to the event log; without it they stay files."""
        self._limits = limits
        self._files = SpoolWriter(folder, writer, limits.file_bytes_max, limits.file_age_ms_max, now_ms)
        self._wanted_below = round(rate * _HASHES)
        self._encoder = msgspec.json.Encoder()
        self._writing = threading.Lock()
        self._waiting: deque[_Round] = deque()
        self._waiting_bytes = 0
        self._logged = self._dropped_full = self._dropped_failed = 0
        self._is_dropping = False
        self._failure: str | None = None
        self._shipper = None if shipper is None else shipper(self._files)
        bytes_max = limits.folder_bytes_max - limits.file_bytes_max  # a file may grow as large before we look again
        self._room = SpoolRoom(folder, writer, bytes_max, is_shipped=shipper is not None)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._thread.start()

    def wants(self, decision_id: str) -> bool:
        """See `DecisionLog.wants`."""
        return xxhash.xxh3_64_intdigest(decision_id.encode()) < self._wanted_below

    def append(self, entries: Sequence[LoggedDecision], layout: FeatureLayout) -> None:
        """See `DecisionLog.append`."""
        one = self._encoded(entries, layout)
        if not one.count:
            return
        with self._writing:
            if self._waiting or not self._write(one):
                self._let_wait(one)

    def counts(self) -> LogCounts:
        """See `DecisionLog.counts`."""
        return LogCounts(
            logged=self._logged,
            dropped_full=self._dropped_full,
            dropped_failed=self._dropped_failed,
            deleted_files=self._room.deleted_files,
            waiting=sum(one.count for one in list(self._waiting)),
            shipped=0 if self._shipper is None else self._shipper.shipped,
            unshippable=0 if self._shipper is None else self._shipper.unshippable,
            lost_unshipped=self._room.lost_unshipped,
            unshipped_bytes=self._room.unshipped_bytes,
        )

    def notes(self) -> list[str]:
        """See `DecisionLog.notes`."""
        notes = []
        if self._failure is not None:
            notes.append(f"the decision log cannot be written, decisions wait in memory: {self._failure}")
        if self._shipper is not None and self._shipper.failure is not None:
            notes.append(f"the event log does not take decisions, they wait in files: {self._shipper.failure}")
        return notes

    def close(self) -> None:
        """Write and ship what waits, as far as that can be done within some seconds. Blocks."""
        self._closing.set()
        self._thread.join(_CLOSE_S)
        self._files.end_file()
        is_shipped = self._shipper is None or self._shipper.close(_CLOSE_S)
        self._files.close(forget=is_shipped)

    def _encoded(self, entries: Sequence[LoggedDecision], layout: FeatureLayout) -> _Round:
        try:
            return _Round(self._encoder.encode_lines(entries), len(entries), layout)
        except Exception as error:  # a value that JSON cannot say: it must not cost the answer, nor the others
            if len(entries) > 1:
                each = [self._encoded((entry,), layout) for entry in entries]
                return _Round(b"".join(one.lines for one in each), sum(one.count for one in each), layout)
            self._dropped_failed += 1
            if self._dropped_failed == 1:
                _LOG.error("a decision cannot be logged, it and others like it are dropped: %s", reason_of(error))
            return _Round(b"", 0, layout)

    def _write(self, one: _Round) -> bool:
        try:
            self._files.write(one.lines, one.layout)
        except OSError as error:
            self._note_failure(str(error))
            return False
        self._note_failure(None)
        self._logged += one.count
        return True

    def _let_wait(self, one: _Round) -> None:
        is_full = self._waiting_bytes + len(one.lines) > self._limits.waiting_bytes_max
        self._note_dropping(is_full)
        if is_full:
            self._dropped_full += one.count
            return
        self._waiting_bytes += len(one.lines)
        self._waiting.append(one)

    def _note_dropping(self, is_dropping: bool) -> None:
        # Only changes are logged: at full rate an outage would fill the disk.
        if is_dropping and not self._is_dropping:
            _LOG.error("decisions are dropped from the decision log: too many wait to be written")
        if self._is_dropping and not is_dropping:
            _LOG.warning("decisions are logged again; %d were dropped since the start", self._dropped_full)
        self._is_dropping = is_dropping

    def _note_failure(self, failure: str | None) -> None:
        if failure is not None and self._failure is None:
            _LOG.error("the decision log cannot be written, decisions wait: %s", failure)
        if failure is None and self._failure is not None:
            _LOG.warning("the decision log is written again")
        self._failure = failure

    def _run(self) -> None:
        tidied_s = begun = -1.0
        while not self._closing.wait(SYNC_EVERY_S):
            with contextlib.suppress(OSError):  # the next write tells
                self._write_waiting()
                self._files.sync()
                if begun != self._files.files_begun or time.monotonic() > tidied_s + TIDY_EVERY_S:
                    begun, tidied_s = self._files.files_begun, time.monotonic()
                    self._room.tidy()
        self._write_waiting()

    def _write_waiting(self) -> None:
        is_written = True
        while self._waiting and is_written:
            with self._writing:
                is_written = self._write(self._waiting[0])
                if is_written:
                    self._waiting_bytes -= len(self._waiting.popleft().lines)
