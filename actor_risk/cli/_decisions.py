"""`decisions`: what was decided, for good."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from actor_risk.cli._shared import console, home, stop_on_signals
from actor_risk.cli._stream import start_option
from actor_risk.errors import ActorRiskError
from materialize.stream.log import Start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actor_risk.decision_sink import Archive, SinkStatus


@click.group()
def decisions() -> None:
    """What becomes of decisions after they are answered: servers put them into the event log by themselves."""


@decisions.command()
@click.option(
    "--to",
    "where",
    required=True,
    envvar="ACTOR_RISK_DECISIONS_ARCHIVE",
    help="A directory, or an address that pyarrow knows: s3://bucket/decisions, gs://… Also: "
    "ACTOR_RISK_DECISIONS_ARCHIVE, by which servers find decisions there.",
)
@click.option(
    "--group", default="decisions-sink", show_default=True, help="Consumer group; sinks of one share the work."
)
@start_option()
@click.option(
    "--every-s",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long a decision waits for its file, at most.",
)
@click.option(
    "--mib-max",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="Of records in memory; when there are so many, they are written at once.",
)
@click.option("--once", is_flag=True, help="Write what is in the log, and end.")
def sink(where: str, group: str, start: Start, every_s: float, mib_max: int, once: bool) -> None:
    """Write decisions from the event log to Parquet, by the hour, until Ctrl-C or SIGTERM.

    Each decision is written at least once, through crashes and restarts: what the log was told to be done is safe in a
    file. A decision may be in two files after a crash; tell by decision_id.

    \b
    actor-risk decisions sink --to .local/archive
    actor-risk decisions sink --to s3://bucket/decisions --every-s 300     larger files, on Kafka
    actor-risk decisions sink --to .local/archive --once                   as a job

    On Redis the log keeps 65,536 decisions only: let the sink run, and let it write more often than they come.
    """
    from actor_risk.decision_sink import DecisionSink, SinkSettings

    here, shown = home(), console()
    settings = SinkSettings(group=group, start=start, age_s_max=every_s, bytes_max=mib_max << 20, once=once)
    stop = stop_on_signals()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=shown, markup=False)]
    )
    with closing(here.event_log()) as log, _display(shown) as show:
        status = DecisionSink(log, _archive(where), settings, show).run(stop)
    shown.print(f"stopped: {_line(status)}", soft_wrap=True)


def _archive(where: str) -> Archive:
    from pyarrow import ArrowException

    from actor_risk.decision_sink import Archive

    try:
        return Archive(where)
    except (ArrowException, OSError) as error:
        raise ActorRiskError(f"--to {where}: {error}") from error


@contextmanager
def _display(shown: Console) -> Iterator[Callable[[SinkStatus], None]]:
    """What shows a status: one line, or nothing where nobody looks."""
    with Live("waiting for partitions …", console=shown, transient=not shown.is_terminal) as live:
        yield lambda status: live.update(_line(status))


def _line(status: SinkStatus) -> str:
    parts = [f"{status.written:,} decisions in {status.files:,} files", f"{status.waiting:,} wait for theirs"]
    counts = {
        "left in the log": status.lag,
        "came again": status.repeated,
        "unreadable": status.unreadable,
        "gaps: the log had not kept all": status.gaps,
    }
    parts += [f"{count:,} {name}" for name, count in counts.items() if count]
    return ", ".join(parts) + (f"; trouble: {status.trouble}" if status.trouble else "")
