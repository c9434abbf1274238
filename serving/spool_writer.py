"""One writer's files in the folder of the decision log, one after the other."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from serving.logged import FeatureLayout
from serving.spool import WriterLock, begin_file, lock_writer

DAY_MS = 86_400_000


class SpoolWriter:
    """Appends whole lines. `sync` and `close` may be called by another thread than `write`."""

    def __init__(
        self, folder: Path, name: str, file_bytes_max: int, file_age_ms_max: int, now_ms: Callable[[], int]
    ) -> None:
        """`name` is one that no other writer of the folder ever has. Opens nothing before the first write."""
        self.folder, self.name = folder, name
        self.begun: deque[Path] = deque()
        """Files that were begun; whoever ships them takes them away."""
        self._file_bytes_max, self._file_age_ms_max, self._now_ms = file_bytes_max, file_age_ms_max, now_ms
        self._lock: WriterLock | None = None
        self._descriptors = threading.Lock()
        self._descriptor: int | None = None
        self._path: Path | None = None
        self._to_sync: deque[int] = deque()
        self._opened_ms = self._size = self.files_begun = 0
        self._layouts: set[tuple[str, str]] = set()

    @property
    def path(self) -> Path | None:
        """The file that is written now; any other one of `begun` will not grow any more."""
        return self._path

    def write(self, lines: bytes, layout: FeatureLayout) -> None:
        """Append lines, after one for their layout if the file has none yet: all of it is with the operating system
        when this returns, in one write, or nothing is there. Raises OSError.
        """
        descriptor = self._current()
        named = (layout.service, layout.fingerprint)
        if named not in self._layouts:
            self._layouts.add(named)
            lines = msgspec.json.encode(layout) + b"\n" + lines
        try:
            _write_all(descriptor, lines, self._size)
        except OSError:
            self.end_file()
            raise
        self._size += len(lines)

    def sync(self) -> None:
        """Have the disk take what was written, in case the machine loses power. Raises OSError."""
        with self._descriptors:
            current = None if self._descriptor is None else os.dup(self._descriptor)
        ended = [self._to_sync.popleft() for _ in range(len(self._to_sync))]
        for descriptor in ended if current is None else [*ended, current]:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def end_file(self) -> None:
        """Write to another file from now on."""
        with self._descriptors:
            if self._descriptor is not None:
                self._to_sync.append(self._descriptor)
            self._descriptor = self._path = None

    def close(self, *, forget: bool) -> None:
        """End the file and give the lock up: what is not shipped is for others. `forget` when nothing is left."""
        self.end_file()
        with contextlib.suppress(OSError):
            self.sync()
        if self._lock is not None:
            self._lock.release(forget=forget)
        self._lock = None

    def _current(self) -> int:
        now_ms = self._now_ms()
        is_old = now_ms - self._opened_ms >= self._file_age_ms_max or now_ms // DAY_MS != self._opened_ms // DAY_MS
        if is_old or self._size >= self._file_bytes_max:
            self.end_file()
        if self._descriptor is None:
            self._begin_file(now_ms)
        assert self._descriptor is not None
        return self._descriptor

    def _begin_file(self, now_ms: int) -> None:
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Others may look for an instant whether we are dead.
            self._lock = lock_writer(self.folder, self.name, wait=True)
        self.files_begun += 1
        descriptor, path = begin_file(self.folder, self.name, self.files_begun, now_ms)
        self._opened_ms, self._size, self._layouts = now_ms, 0, set()
        self._path = path
        self.begun.append(path)
        with self._descriptors:
            self._descriptor = descriptor


def _write_all(descriptor: int, data: bytes, size: int) -> None:
    """Append all of `data`, or cut the file back to `size`, which it had before. Raises OSError."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, memoryview(data)[written:] if written else data)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
