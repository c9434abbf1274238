"""A server of our own on this machine: one per directory, found again after a crash, stopped by its id.

    <directory>/server.json   the record: who runs, on which port, who started it
    <directory>/server.lock   held while starting or stopping, so that two callers start one server
    <directory>/server.log    its output
    <directory>/data/         its data

A process is ours when the absolute path of our config file stands in its command line; no other is ever signalled.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from actor_risk.local.errors import DeadlineError, StartError
from actor_risk.local.processes import (
    free_port,
    is_alive,
    is_ours,
    log_tail,
    start_child,
    stop_by_pid,
    wait_until,
)

_START_ATTEMPTS = 3  # another process may take the free port first
_LOCK_TIMEOUT_S = 120.0


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down about a started server. `owner_pid` is the process that it dies with, 0 if none."""

    pid: int
    port: int
    owner_pid: int


class LocalServer(ABC):
    """Start, reuse and stop of one server in one directory; a subclass says how it is configured and asked."""

    name: str
    ready_timeout_s: float
    config_name: str

    def __init__(self, directory: Path, *, detached: bool = False) -> None:
        """`detached` servers outlive this process; others end with it (by the kernel on Linux)."""
        self.directory = directory.absolute()
        self.detached = detached
        self._child: subprocess.Popen[bytes] | None = None
        self._record: ServerRecord | None = None

    @abstractmethod
    def _prepare(self, port: int) -> list[str]:
        """Write the config file for `port` and return the command; the command names `config_path`."""

    @abstractmethod
    def _answers(self, port: int) -> bool:
        """Whether the server on `port` serves requests now; returns within a few seconds."""

    @property
    def config_path(self) -> Path:
        """The config file, whose path marks the process as ours."""
        return self.directory / self.config_name

    @property
    def data_path(self) -> Path:
        """Where the server keeps its data."""
        return self.directory / "data"

    @property
    def log_path(self) -> Path:
        """Where the server's output goes."""
        return self.directory / "server.log"

    @property
    def address(self) -> str:
        """`127.0.0.1:port` of the started server. Raises StartError before `start`."""
        return f"127.0.0.1:{self.record.port}"

    @property
    def record(self) -> ServerRecord:
        """What runs: process id, port and owner. Raises StartError before `start`."""
        if self._record is None:
            raise StartError(f"{self.name} is not started: call start() first")
        return self._record

    def start(self) -> Self:
        """Reuse the server that runs in this directory, or start one, and return when it answers.

        1. A server of ours whose owner lives, or which is detached, is reused if it answers.
        2. Any other server of ours is stopped: it is an orphan about to die, or hangs.
        3. Otherwise a server is started on a free port, tried again if the port was taken meanwhile.

        Raises StartError with the end of its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            found = self.running()
            if found is not None and self._is_usable(found):
                self._record = found
            else:
                self._stop_recorded()
                self._record = self._start_new()
        return self

    def running(self) -> ServerRecord | None:
        """The record of the server of this directory if its process runs and is ours, else None."""
        try:
            record = msgspec.json.decode(self._record_path.read_bytes(), type=ServerRecord)
        except (FileNotFoundError, msgspec.DecodeError):  # a torn record is no record
            return None
        return record if is_ours(record.pid, str(self.config_path)) else None

    def stop(self) -> None:
        """Stop the server of this directory, whoever started it; nothing happens if none runs."""
        if not self.directory.exists():
            return
        with self._locked():
            self._stop_recorded()
        self._record = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server if this object started it; a reused one belongs to somebody else."""
        if self._child is not None:
            self.stop()

    @property
    def _record_path(self) -> Path:
        return self.directory / "server.json"

    def _is_usable(self, found: ServerRecord) -> bool:
        is_orphan = found.owner_pid != 0 and not is_alive(found.owner_pid)
        return not is_orphan and self._answers(found.port)

    def _start_new(self) -> ServerRecord:
        self.data_path.mkdir(parents=True, exist_ok=True)
        for _ in range(_START_ATTEMPTS):
            port = free_port()
            self._child = start_child(self._prepare(port), self.log_path, die_with_parent=not self.detached)
            record = ServerRecord(pid=self._child.pid, port=port, owner_pid=0 if self.detached else os.getpid())
            self._write_record(record)
            if self._becomes_ready(port):
                return record
            self._stop_recorded()
        raise StartError(f"{self.name} did not start; the end of {self.log_path}:\n{log_tail(self.log_path)}")

    def _becomes_ready(self, port: int) -> bool:
        with suppress(DeadlineError):
            wait_until(lambda: self._has_ended() or self._answers(port), self.ready_timeout_s, f"{self.name} answers")
        return not self._has_ended() and self._answers(port)

    def _has_ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def _stop_recorded(self) -> None:
        found = self.running()
        if found is not None:
            stop_by_pid(found.pid, str(self.config_path))
        if self._child is not None:
            self._child.wait()
            self._child = None
        self._record_path.unlink(missing_ok=True)

    def _write_record(self, record: ServerRecord) -> None:
        draft = self._record_path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(record))
        draft.replace(self._record_path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with exclusive(self.directory / "server.lock"):
            yield


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the advisory lock of `path` (created when missing) for the block, freed by the kernel if we die.

    Raises DeadlineError if somebody else holds it for two minutes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        wait_until(lambda: _try_lock(handle.fileno()), _LOCK_TIMEOUT_S, f"the lock {path} is free", pause=time.sleep)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
