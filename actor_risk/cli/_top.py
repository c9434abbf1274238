"""`top`: a running scoring application on one screen."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from actor_risk.cli._serving import DEFAULT_PORT
from actor_risk.cli._shared import console, stop_on_signals
from actor_risk.errors import ActorRiskError
from actor_risk.watching import Recent, fetch, parse, screen

READINGS_ONCE = 5
"""Two readings of a replica make a rate, and each reading may be of another one."""


@click.command()
@click.option("--url", default=f"http://127.0.0.1:{DEFAULT_PORT}", show_default=True)
@click.option("--every", "every_s", type=click.FloatRange(0.1, 10.0), default=1.0, show_default=True, metavar="SECONDS")
@click.option("--once", is_flag=True, help="Print what is measured within --every, and end; so it is in a pipe too.")
def top(url: str, every_s: float, once: bool) -> None:
    """Watch a running scoring application on one screen until Ctrl-C.

    Requests, latency by stage, verdicts, drift of the scores, missing and old features, what is degraded, the decision
    log. Rates are those of the last ten seconds.

    \b
      actor-risk top
      actor-risk top --url https://risk.example --every 2
      actor-risk top --once

    An API key or token with the scope `admin` is taken from ACTOR_RISK_API_KEY.
    """
    key, shown, recent = os.environ.get("ACTOR_RISK_API_KEY"), console(), Recent()
    if once or not shown.is_terminal:
        for reading in range(READINGS_ONCE):
            time.sleep(every_s / (READINGS_ONCE - 1) if reading else 0)
            recent.note(parse(fetch(url, key), time.monotonic()))
        shown.print(screen(url, recent, datetime.now(UTC)))
    else:
        _live(url, key, shown, recent, every_s)


def _live(url: str, key: str | None, shown: Console, recent: Recent, every_s: float) -> None:
    """Until Ctrl-C. A server that goes away may come back: meanwhile the screen says so."""
    stop = stop_on_signals()
    with Live(f"asking {url} …", console=shown, screen=True, auto_refresh=False) as live:
        while not stop.is_set():
            live.update(_reading(url, key, recent), refresh=True)
            stop.wait(every_s)


def _reading(url: str, key: str | None, recent: Recent) -> RenderableType:
    try:
        recent.note(parse(fetch(url, key), time.monotonic()))
    except ActorRiskError as error:
        return Text(str(error), style="red")
    return screen(url, recent, datetime.now(UTC))
