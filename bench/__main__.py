"""`python -m bench NAME --json`: run a benchmark; its last line is one JSON object."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import sys
from pathlib import Path

NAMES = ("backfill", "demo", "explain", "features", "kernel", "plan", "score", "stream")
WITH_SHORT_FORM = ("backfill", "score", "stream")
PEERS = {"backfill": "duckdb", "stream": "quixstreams"}
PEERS_FOLDER = Path(__file__).parents[1] / ".bench-peers"
"""What `make bench-peers` installs. It comes last on the path: of what both have, ours is the one that is measured."""


def main() -> int:
    """Run the benchmark that the first argument names."""
    options = vars(_parser().parse_args())
    name = options.pop("name")
    sys.path.append(str(PEERS_FOLDER))
    peer = PEERS.get(name)
    if peer is not None and importlib.util.find_spec(peer) is None:
        print(f"{peer} is needed to compare with: run `make bench-peers`")
        return 2
    importlib.import_module(f"bench.{name}").run(**options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Run a benchmark; bench/README.md tells of all."
    )
    named = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name in NAMES:
        about = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())) or ""
        one = named.add_parser(
            name,
            help=about.partition("\n")[0],
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument(
            "--json", dest="as_json", action="store_true", help="end with one JSON line, as in bench/results/"
        )
        if name in WITH_SHORT_FORM:
            one.add_argument("--short", dest="is_short", action="store_true", help="a part of the time, for tries")
    return parser


if __name__ == "__main__":
    sys.exit(main())
