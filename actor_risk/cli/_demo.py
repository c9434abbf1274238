"""`demo`: the whole job."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from actor_risk.cli._shared import home


@click.command()
@click.option(
    "--events",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Real ad clicks (Parquet) instead of simulated events; their label is an install, not fraud.",
)
@click.option("--once", is_flag=True, help="End after the second answer, which is printed as JSON on the last line.")
@click.option("--port", type=int, default=8000, show_default=True, help="Another one is taken if it is in use; 0: any.")
def demo(events: Path | None, once: bool, port: int) -> None:
    """Run the whole job on this machine and stay up until Ctrl-C.

    Simulates events, applies feature_repo/, backfills Redis, trains two models, starts Ray Serve and the stream worker,
    and scores an actor before and after a burst of abuse. Everything lies below .local/, and is made anew by every demo
    (data, registry, models, rows, decision log); everything that it started is stopped at its end.
    """
    from actor_risk.demo import run_demo

    run_demo(home(), events, once, port, Console(highlight=False, file=sys.stderr if once else sys.stdout))
