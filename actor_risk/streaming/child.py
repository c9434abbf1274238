"""`python -m actor_risk.streaming.child REPORT_FILE`: one worker as a process; its options come as JSON on one line of
the environment. SIGTERM and SIGINT let it finish its batch, commit, and leave the group."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import msgspec

from actor_risk.home import Home
from actor_risk.signals import set_by_signals
from actor_risk.status_file import replace_status
from actor_risk.streaming.endings import DIED, EXIT_CODES, how_it_ended
from actor_risk.streaming.options import WorkerOptions
from materialize.personal import reason_of, trace_of

OPTIONS_VARIABLE = "ACTOR_RISK_WORKER_OPTIONS"


def main() -> int:
    """Work until a signal comes. Returns the exit code, of EXIT_CODES."""
    from actor_risk.streaming.run import run_worker

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = set_by_signals((signal.SIGTERM, signal.SIGINT))
    options = msgspec.json.decode(os.environ[OPTIONS_VARIABLE], type=WorkerOptions)
    report_file = Path(sys.argv[1])
    try:
        run_worker(Home.from_environment(os.environ), options, stop, lambda report: replace_status(report_file, report))
    except Exception as error:
        how = how_it_ended(error)
        if how == "died":
            sys.stderr.write(f"{trace_of(error)}\n{reason_of(error)}\n")
            return DIED
        sys.stderr.write(f"{error}\n")
        return EXIT_CODES[how]
    return EXIT_CODES["stopped"]


if __name__ == "__main__":
    sys.exit(main())
