"""Who goes on when more want to run than there are processors: who runs already.

By default Linux lets whoever wakes up take a processor from whoever is at work. Where replicas, HAProxy and Redis share
a few processors, each answer wakes three of them, and two replicas were interrupted 3,100 times a second, each time to
come back to caches that others had used. Under SCHED_BATCH (sched(7)) who wakes up waits for a free processor, or until
the other sleeps or has used up its slice. What that gives and what it costs: docs/decisions/0026.
"""

from __future__ import annotations

import contextlib
import os

SCHED_BATCH = "ACTOR_RISK_SCHED_BATCH"
"""0 in this variable turns it off: see `Settings`."""


def interrupt_nobody() -> None:
    """From now on this thread, and what it starts, runs under SCHED_BATCH, where there is that and it is allowed."""
    if not hasattr(os, "SCHED_BATCH"):
        return
    with contextlib.suppress(OSError):  # a sandbox may forbid it: all runs as it did
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
