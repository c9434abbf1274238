"""A signal asks a process to stop, whatever the process is in the middle of."""

from __future__ import annotations

import signal
import subprocess
import sys

TIMEOUT_S = 60
STOPPED = 7
"""What a child ends with that was stopped as it should be."""

_BEGIN = """
import os, signal, sys
from actor_risk.signals import set_by_signals

def again():
    told.append("again")

told = []
stop = set_by_signals([signal.SIGTERM], again)
"""
_WITHIN_A_WAIT = """
with stop._cond:  # as `stop.wait` has it when it begins and ends: a signal comes there once in some thousand waits
    os.kill(os.getpid(), signal.SIGTERM)
"""
_END = f"""
stop.wait()
os.kill(os.getpid(), signal.SIGTERM)
sys.exit({STOPPED} if told == ["again"] else 1)
"""


def ended_with(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], timeout=TIMEOUT_S, check=False).returncode


def test_the_first_signal_sets_the_event_and_a_later_one_calls() -> None:
    assert ended_with(f"{_BEGIN}os.kill(os.getpid(), signal.SIGTERM){_END}") == STOPPED


def test_a_signal_that_comes_amid_a_wait_for_the_event_is_heard() -> None:
    assert ended_with(f"{_BEGIN}{_WITHIN_A_WAIT}{_END}") == STOPPED


def test_another_signal_is_left_as_it_was() -> None:
    as_usual = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup it is ignored
    code = f"{as_usual}{_BEGIN}os.kill(os.getpid(), signal.SIGHUP)\nstop.wait()"
    assert ended_with(code) == -signal.SIGHUP
