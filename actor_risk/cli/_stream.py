"""`stream`: workers that fold the event log into rows."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from actor_risk.cli._shared import Instant, console, home, stop_on_signals
from actor_risk.errors import ActorRiskError
from actor_risk.home import Home
from actor_risk.status_file import read_status, replace_status
from actor_risk.streaming.folder import STATUS, make_folder, running_commands
from actor_risk.streaming.metrics import MetricsServer
from actor_risk.streaming.options import DEFAULT_GROUP, WorkerOptions
from actor_risk.streaming.rates import Recent
from actor_risk.streaming.report import StreamStatus
from actor_risk.streaming.supervisor import Supervisor
from actor_risk.streaming.top import line, screen
from actor_risk.streaming.workers import WorkerPool
from materialize.stream.log import Start

WORKERS_MAX = 256
SHOW_EVERY_S = 0.5

Show = Callable[[StreamStatus], None]
Command = TypeVar("Command", bound=Callable[..., Any])


class StartAt(click.ParamType[Start]):
    """`earliest`, `latest`, or a moment: that of the log, less what an event may be ahead of it."""

    name = "start"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Start:
        """See `Start`."""
        if value == "earliest" or value == "latest":
            return value
        from materialize.events import DEFAULT_SKEW_MS

        return max(0, Instant().convert(value, param, ctx) - DEFAULT_SKEW_MS)


def start_option(more: str = "") -> Callable[[Command], Command]:
    """`--from`, of every command that reads the log as a group."""
    return click.option(
        "--from",
        "start",
        type=StartAt(),
        default="earliest",
        show_default=True,
        metavar="earliest|latest|TIME",
        help=f"Where a group begins that has never committed.{more}",
    )


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    default=1,
    show_default=True,
    help="How many, one core each. More than the topics have partitions stand by.",
)
@click.option("--group", default=DEFAULT_GROUP, show_default=True, help="Consumer group; workers of one share topics.")
@start_option(
    " TIME (2026-11-20T00:00:00Z): the end of a backfill, which has everything before it; the group begins a minute "
    "earlier in the log, as events may be so far ahead."
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="TOPIC=FORMAT",
    help="How a topic's records are read: ad_events=json (the default), ad_events=avro:FILE.avsc for bare Avro, or "
    "ad_events=avro:FOLDER of <id>.avsc for Confluent's wire format. Repeatable.",
)
@click.option("--top", is_flag=True, help="Show the workers on one screen.")
@click.option("--attach", is_flag=True, help="Run nothing: show what the command does that runs already in this home.")
@click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Run the workers as Ray actors on this cluster: auto, HOST:PORT, ray://…, or local for a Ray of their own.",
)
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics there; 0: any port.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Where metrics are served.")
@click.option("--take-over", is_flag=True, help="Put this registry's definitions in force, even over newer ones.")
@click.option("--status-file", type=click.Path(path_type=Path), help="Kept up to date with what they do, as JSON.")
def stream(
    workers: int,
    group: str,
    start: Start,
    formats: tuple[str, ...],
    top: bool,
    attach: bool,
    ray_address: str | None,
    metrics_port: int | None,
    metrics_host: str,
    take_over: bool,
    status_file: Path | None,
) -> None:
    """Fold the event log into online rows until Ctrl-C or SIGTERM, which let each worker finish its batch and commit.

    Every event counts once, through crashes and restarts: a row knows the offsets that it has applied. A worker that
    dies is started again, and its partitions move to the others meanwhile; one that dies over and over ends the
    command.

    \b
    actor-risk stream --workers 4 --top            four processes, on one screen
    actor-risk stream --top --attach               look at the command that runs
    actor-risk stream --workers 8 --ray auto       eight actors on a Ray cluster
    actor-risk stream --metrics-port 9464          with Prometheus metrics
    actor-risk stream --from 2026-11-20T00:00:00Z  a new group, after a backfill up to then

    To deploy a changed view: `actor-risk apply`, start the new workers, then backfill the view. Workers with the old
    definition notice the new ones, and stop or begin again with the new definition.
    """
    here, shown = home(), console()
    if attach:
        _watch(here, shown, top)
        return
    _check_formats(formats)
    options = WorkerOptions(group=group, start=start, formats=formats, take_over=take_over)
    folder = make_folder(here.stream, os.getpid())
    supervisor = Supervisor(_pool(here, ray_address, workers, folder), workers, options, pid=os.getpid())
    stop = stop_on_signals()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=shown, markup=False)]
    )
    with _metrics(supervisor, metrics_host, metrics_port, shown), _display(shown, top) as show:

        def tell(status: StreamStatus) -> None:
            replace_status(folder / STATUS, status)
            replace_status(status_file, status)
            show(status)

        status = supervisor.run(stop, tell)
    shown.print(f"stopped: {status.records:,} events, {status.dead_letters:,} dead letters")


def _check_formats(specs: tuple[str, ...]) -> None:
    """Raises ActorRiskError for what every worker would refuse."""
    from materialize.events import EventFormatError, open_formats

    try:
        open_formats(specs)
    except EventFormatError as error:
        raise ActorRiskError(f"--format {error}") from error


def _pool(here: Home, ray_address: str | None, workers: int, folder: Path) -> WorkerPool:
    if ray_address is None:
        from actor_risk.streaming.processes import ProcessPool

        return ProcessPool(here, folder)
    from actor_risk.streaming.on_ray import RayPool  # brings Ray

    return RayPool(here, ray_address, workers)


@contextmanager
def _metrics(supervisor: Supervisor, host: str, port: int | None, shown: Console) -> Iterator[None]:
    if port is None:
        yield
        return
    server = MetricsServer(supervisor.status, host, port)
    shown.print(f"metrics at {server.url}")
    try:
        yield
    finally:
        server.close()


@contextmanager
def _display(shown: Console, top: bool) -> Iterator[Show]:
    """What shows a status: one screen, one line, or nothing where nobody looks."""
    recent = Recent()
    shown_s = 0.0
    with Live("waiting for partitions …", console=shown, screen=top, transient=not shown.is_terminal) as live:

        def show(status: StreamStatus) -> None:
            nonlocal shown_s
            if time.monotonic() < shown_s + SHOW_EVERY_S:
                return
            shown_s = time.monotonic()
            recent.note(status)
            live.update(screen(status, recent) if top else line(status, recent))

        yield show


def _watch(here: Home, shown: Console, top: bool) -> None:
    """Show the newest command of this home until it ends, or until Ctrl-C; once, where nobody looks."""
    found = running_commands(here.stream)
    if not found:
        raise ActorRiskError("no stream command runs in this home: start one with `actor-risk stream`")
    if not shown.is_terminal:
        _print_once(found[-1], shown, top)
        return
    stop = stop_on_signals()
    with _display(shown, top) as show:
        while found[-1] in running_commands(here.stream) and not stop.wait(SHOW_EVERY_S):
            show(read_status(found[-1], StreamStatus))


def _print_once(path: Path, shown: Console, top: bool) -> None:
    recent = Recent()
    recent.note(read_status(path, StreamStatus))
    time.sleep(2 * SHOW_EVERY_S)  # two statuses make a rate
    status = read_status(path, StreamStatus)
    recent.note(status)
    shown.print(screen(status, recent) if top else line(status, recent))
