"""`python -m bench NAME --json`: run a benchmark; its last line is one JSON object."""

from __future__ import annotations

import importlib
import sys

NAMES = ("demo", "features", "kernel", "stream")


def main() -> int:
    """Run the benchmark that the first argument names; the rest are its own."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m bench {{{','.join(NAMES)}}} [--json]")
        return 2
    importlib.import_module(f"bench.{sys.argv[1]}").run("--json" in sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
