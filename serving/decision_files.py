"""The decision log as files: JSON lines, appended by a thread of their own, so that no answer waits for a disk.

    <folder>/date=2026-11-25/134501-<writer>-0001.jsonl

1. `append` encodes the decision on the caller's thread and queues the line: some microseconds, no lock, no I/O.
2. Every `TURN_S` the thread appends what is queued to its file, in one write, and begins another file when that one is
   old, large, or of yesterday. A line is whole, or the last of its file and cut off: readers pass over such a one.
3. While a write fails (a full disk, a folder that may not be written), the lines stay queued and the write is tried
   again every `RETRY_S`, in a new file. Beyond `waiting_bytes_max` new decisions are dropped, counted and told.
4. When the folder holds more than `folder_bytes_max`, its oldest files are deleted, counted and told.

A process that is killed loses what it queued in its last `TURN_S`; one that stops writes it first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import xxhash

from serving.logged import FeatureLayout, LoggedDecision
from serving.ports import LogCounts

TURN_S = 0.1
RETRY_S = 1.0
SUFFIX = ".jsonl"

_CLOSE_S = 5.0
_HASHES = 1 << 64
_LOG = logging.getLogger(__name__)

_Line = tuple[FeatureLayout, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """The bounds of a decision log; the folder's counts for all writers that share it."""

    folder_bytes_max: int
    waiting_bytes_max: int = 32 << 20
    file_bytes_max: int = 64 << 20
    file_age_ms_max: int = 3_600_000


class DecisionFiles:
    """See `serving.ports.DecisionLog`. `append` is for one thread, the rest for any."""

    def __init__(
        self, folder: Path, writer: str, limits: FileLimits, now_ms: Callable[[], int], rate: float = 1.0
    ) -> None:
        """`writer` is a name that no other writer of the folder has. `rate`: the share of decisions to keep."""
        self._files = _Files(folder, writer, limits, now_ms)
        self._waiting_bytes_max = limits.waiting_bytes_max
        self._wanted_below = round(rate * _HASHES)
        self._encoder = msgspec.json.Encoder()
        self._queue: deque[_Line] = deque()
        self._taken: list[_Line] = []
        self._queued_bytes = self._written_bytes = 0  # each counted by one thread: their difference needs no lock
        self._dropped_full = self._dropped_failed = self._logged = 0
        self._is_dropping = False
        self._failure: str | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._thread.start()

    def wants(self, decision_id: str) -> bool:
        """See `DecisionLog.wants`."""
        return xxhash.xxh3_64_intdigest(decision_id.encode()) < self._wanted_below

    def append(self, entries: Sequence[LoggedDecision], layout: FeatureLayout) -> None:
        """See `DecisionLog.append`."""
        for entry in entries:
            self._append(entry, layout)

    def _append(self, entry: LoggedDecision, layout: FeatureLayout) -> None:
        try:
            line = self._encoder.encode_lines((entry,))
        except Exception as error:  # a value that JSON cannot say: it must not cost the answer
            self._dropped_failed += 1
            if self._dropped_failed == 1:
                _LOG.error("a decision cannot be logged, it and others like it are dropped: %r", error)
            return
        if self._queued_bytes - self._written_bytes + len(line) > self._waiting_bytes_max:
            self._dropped_full += 1
            self._note_dropping(True)
            return
        self._note_dropping(False)
        self._queued_bytes += len(line)
        self._queue.append((layout, line))

    def counts(self) -> LogCounts:
        """See `DecisionLog.counts`."""
        waiting = len(self._queue) + len(self._taken)
        return LogCounts(self._logged, self._dropped_full, self._dropped_failed, self._files.deleted, waiting)

    def failure(self) -> str | None:
        """See `DecisionLog.failure`."""
        return self._failure

    def close(self) -> None:
        """Write what is queued, if it can be written within some seconds. Blocks."""
        self._closing.set()
        self._thread.join(_CLOSE_S)

    def _note_dropping(self, is_dropping: bool) -> None:
        # Only changes are logged: at full rate an outage would fill the disk.
        if is_dropping and not self._is_dropping:
            _LOG.error("decisions are dropped from the decision log: too many wait to be written")
        if self._is_dropping and not is_dropping:
            _LOG.warning("decisions are logged again; %d were dropped since the start", self._dropped_full)
        self._is_dropping = is_dropping

    def _run(self) -> None:
        while not self._closing.wait(TURN_S if self._failure is None else RETRY_S):
            self._write_queued()
        self._write_queued()
        self._files.close()

    def _write_queued(self) -> None:
        """Write all that is queued now. What a failed write leaves is written by the next."""
        while self._queue:
            self._taken.append(self._queue.popleft())
        try:
            self._files.write(self._taken)
        except OSError as error:
            self._note_failure(str(error))
            return
        self._note_failure(None)
        self._logged += len(self._taken)
        self._written_bytes += sum(len(line) for _, line in self._taken)
        self._taken.clear()

    def _note_failure(self, failure: str | None) -> None:
        if failure is not None and self._failure is None:
            _LOG.error("the decision log cannot be written, decisions wait: %s", failure)
        if failure is None and self._failure is not None:
            _LOG.warning("the decision log is written again")
        self._failure = failure


class _Files:
    """The files of one writer, one after the other. For one thread."""

    def __init__(self, folder: Path, writer: str, limits: FileLimits, now_ms: Callable[[], int]) -> None:
        self._folder, self._writer, self._limits, self._now_ms = folder, writer, limits, now_ms
        self._descriptor: int | None = None
        self._path = Path()
        self._opened_ms = self._size = self._number = 0
        self._layouts: set[tuple[str, str]] = set()
        self.deleted = 0

    def write(self, lines: list[_Line]) -> None:
        """Append the lines, each after a line for its layout if the file has none yet; all of them, or none.

        Raises OSError.
        """
        if not lines:
            return
        try:
            descriptor = self._current()
            parts: list[bytes] = []
            for layout, line in lines:
                if (layout.service, layout.fingerprint) not in self._layouts:
                    self._layouts.add((layout.service, layout.fingerprint))
                    parts.append(msgspec.json.encode(layout) + b"\n")
                parts.append(line)
            _write_all(descriptor, b"".join(parts), self._size)
            self._size = os.lseek(descriptor, 0, os.SEEK_CUR)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; the next write begins another."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None

    def _current(self) -> int:
        now_ms = self._now_ms()
        is_full = self._size >= self._limits.file_bytes_max or now_ms - self._opened_ms >= self._limits.file_age_ms_max
        if self._descriptor is not None and (is_full or _day(now_ms) != _day(self._opened_ms)):
            self.close()
        if self._descriptor is None:
            self._make_room()
            self._open(now_ms)
        assert self._descriptor is not None
        return self._descriptor

    def _open(self, now_ms: int) -> None:
        at, self._number = datetime.fromtimestamp(now_ms / 1000, UTC), self._number + 1
        folder = self._folder / f"date={_day(now_ms)}"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{at:%H%M%S}-{self._writer}-{self._number:04}{SUFFIX}"
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._opened_ms, self._size, self._layouts = now_ms, 0, set()

    def _make_room(self) -> None:
        """Delete the oldest files, as many as are too much; several writers may do so at once."""
        sizes = _sizes(self._folder)
        excess = sum(sizes.values()) + self._limits.file_bytes_max - self._limits.folder_bytes_max
        for path in sorted(sizes, key=lambda path: (path.parent.name, path.name)):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            self.deleted += 1
            excess -= sizes[path]
            _LOG.warning("the decision log is full: %s is deleted", path)


def _sizes(folder: Path) -> Mapping[Path, int]:
    sizes = {}
    for path in folder.glob(f"date=*/*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another writer was faster
            sizes[path] = path.stat().st_size
    return sizes


def _write_all(descriptor: int, data: bytes, size: int) -> None:
    """Append all of `data`, or cut the file back to `size`, which it had before. Raises OSError."""
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")
