"""The first scores of a graph that could grow, in a process with bounded memory and time.

`models.admission` says which graphs need it, and has made sure that what they take depends on the number of rows and
not on what is in them. The limits are far above what a model takes that answers within milliseconds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models.admission import named
from models.errors import UnsupportedModelError
from models.graph import GraphFacts

TRIAL_SECONDS = 20
TRIAL_BYTES_MAX = 2**30
TRIAL_ROWS = 1_024
"""An explanation by sampling scores about as many at once."""
_CHILD = Path(__file__).with_name("_trial_child.py")
_TIMES_FILE = 8
"""As much memory again as so many copies of the file."""


def try_out(content: bytes, facts: GraphFacts, *, seconds: int = TRIAL_SECONDS) -> None:
    """Loads the graph and scores one row, a few, and TRIAL_ROWS in another process.

    Takes about a third of a second. Raises UnsupportedModelError when that fails, crashes, takes more than `seconds`
    or more memory than TRIAL_BYTES_MAX and some copies of the file.
    """
    limits = (TRIAL_ROWS, TRIAL_BYTES_MAX + _TIMES_FILE * len(content), seconds)
    kind = "float64" if facts.input_type == "double" else "float32"
    command = [sys.executable, "-I", str(_CHILD), kind, *map(str, (facts.width, *limits))]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnsupportedModelError(
            f"scoring {TRIAL_ROWS:,} rows takes more than {seconds} s: the graph is not served"
        ) from error
    if done.returncode < 0:
        raise UnsupportedModelError(
            f"the graph broke the process that tried it (signal {-done.returncode}): it takes too long or too much "
            "memory, or the runtime cannot read it; export it again"
        )
    if done.returncode:
        reason = named(done.stderr.decode(errors="replace").strip(), 400)
        raise UnsupportedModelError(f"a trial of the graph failed, so it is not served: {reason}")
