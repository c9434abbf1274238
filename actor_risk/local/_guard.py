"""Runs a command that dies with the process that started it: `_guard.py PARENT_PID COMMAND…`.

A file of its own, run by path in an isolated interpreter, because code between fork and exec in a threaded parent
may deadlock. On Linux the kernel sends SIGTERM to the command when its parent ends (`prctl(2)`, PR_SET_PDEATHSIG,
kept across exec); elsewhere the command simply runs, and the next start finds it by its record.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _main(parent_pid: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent_pid:  # it died before the signal was asked for
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
