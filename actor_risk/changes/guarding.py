"""What the repository may not do in the process that imports it: call the network, start a program, write anything but
temporary files. What it prints is kept. Once there, a guard stays until its process ends."""

from __future__ import annotations

import io
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from actor_risk.changes.described import Problem
from actor_risk.changes.places import line_in

_NETWORK = {
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
    "socket.sendto",
    "socket.sendmsg",
}
_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn"}
_CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PRINTED_CHARS = 2_000
_FILE_BYTES_MAX = 2 << 30
"""Of one file that this process writes, so that a repository that prints without end fills no disk."""


class RefusedCallError(OSError):
    """The repository calls the network, or starts a program, which it may not while a plan is made."""


class Guard:
    """Sees what runs in this process and refuses what the repository may not do.

    Nothing at all writes to `protected` files and folders; code of the repository, and what it calls, writes only to
    `own`, temporary files and devices. refused: what was called, by the line of the repository that did.
    """

    def __init__(self, repo: Path, own: Path, protected: Sequence[Path]) -> None:
        self._repo = repo
        self._protected = tuple(os.path.realpath(path) for path in protected)
        self._free = tuple(os.path.realpath(path) for path in (own, tempfile.gettempdir(), "/dev"))
        self.refused: list[Problem] = []

    def stand(self) -> None:
        """From now on until the process ends."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES_MAX, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _NETWORK:
            self._refuse(
                f"calls the network ({event.removeprefix('socket.')} {_address(event, args)})".replace(" )", ")")
            )
        elif event in _PROGRAMS:
            self._refuse_program(args)
        elif event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _WRITING:
                self._refuse_write(path)
        elif event in _CHANGES:
            for path in args:
                self._refuse_write(path)

    def _refuse_program(self, args: tuple[Any, ...]) -> None:
        """Libraries of ours may ask the system what it is; code of the repository may not."""
        if line_in(self._repo, sys._getframe(2)):
            program = args[0] if args and isinstance(args[0], (str, bytes, os.PathLike)) else ""
            self._refuse(f"starts a program ({os.fsdecode(program)})".replace(" ()", ""))

    def _refuse(self, what: str) -> None:
        place = line_in(self._repo, sys._getframe(2))
        if all(problem.place != place for problem in self.refused):
            self.refused.append(Problem(code="AR004", message=what, place=place))
        raise RefusedCallError(f"{what}, which nothing does while the repository is looked at")

    def _refuse_write(self, path: object) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        real = os.path.realpath(os.fsdecode(path))
        if _is_below(real, self._protected):
            raise PermissionError(f"{real} is live: nothing writes to it while the repository is looked at")
        if not _is_below(real, self._free) and line_in(self._repo, sys._getframe(2)):
            raise PermissionError(
                f"{real} is no temporary file: nothing writes to it while the repository is looked at"
            )


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


class Printed:
    """What was printed: its beginning, and where in the repository it began ("" for code that is not Python's)."""

    def __init__(self, repo: Path, file: Path) -> None:
        self._repo = repo
        self._file = file
        self.place = ""

    @property
    def text(self) -> str:
        """The first characters of it."""
        with self._file.open(errors="replace") as file:
            said = file.read(_PRINTED_CHARS + 1)
        return said if len(said) <= _PRINTED_CHARS else said[:_PRINTED_CHARS] + "…"

    def noted(self) -> None:
        """Remembers the line that runs, the first time."""
        self.place = self.place or line_in(self._repo, sys._getframe(1))


@contextmanager
def printing_kept(repo: Path, file: Path) -> Iterator[Printed]:
    """What anything in this process writes to its two outputs goes to `file`, whatever language it is written in."""
    printed = Printed(repo, file)
    before = os.dup(1), os.dup(2), sys.stdout, sys.stderr
    kept = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(kept, number)
    os.close(kept)
    sys.stdout, sys.stderr = (_Noting(number, printed.noted) for number in (1, 2))
    try:
        yield printed
    finally:
        with suppress(OSError, ValueError):  # whoever closed or filled it
            sys.stdout.flush()
            sys.stderr.flush()
        sys.stdout, sys.stderr = before[2:]
        for number, saved in zip((1, 2), before[:2], strict=True):
            os.dup2(saved, number)
            os.close(saved)


class _Noting(io.TextIOWrapper):
    """An output that says when it is written to."""

    def __init__(self, number: int, note: Callable[[], None]) -> None:
        super().__init__(io.FileIO(number, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True)
        self._note = note

    def write(self, text: str) -> int:
        """As a text file does."""
        self._note()
        return super().write(text)


def _address(event: str, args: tuple[Any, ...]) -> str:
    """Whom it calls, as far as the event says."""
    address = args[1] if event in ("socket.connect", "socket.sendto", "socket.sendmsg") else args[0]
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]}:{address[1]}"
    return str(address or "")
