"""`python -m bench NAME --json`: run a benchmark; its last line is one JSON object."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

NAMES = ("backfill", "demo", "explain", "features", "kernel", "plan", "score", "stream")
PEERS = {"backfill": "duckdb", "stream": "quixstreams"}
PEERS_FOLDER = Path(__file__).parents[1] / ".bench-peers"
"""What `make bench-peers` installs. It comes last on the path: of what both have, ours is the one that is measured."""


def main() -> int:
    """Run the benchmark that the first argument names; the rest are its own."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m bench {{{','.join(NAMES)}}} [--json]")
        return 2
    sys.path.append(str(PEERS_FOLDER))
    peer = PEERS.get(sys.argv[1])
    if peer is not None and importlib.util.find_spec(peer) is None:
        print(f"{peer} is needed to compare with: run `make bench-peers`")
        return 2
    importlib.import_module(f"bench.{sys.argv[1]}").run("--json" in sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
