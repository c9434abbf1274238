"""`simulate` and `stream`: events, and what folds them into rows."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.live import Live

from actor_risk.cli._shared import console, home, now_ms, progress_bar

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


@click.command()
@click.option("--days", type=click.IntRange(1, 90), default=10, show_default=True, help="Length of the history.")
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same world.")
@click.option("--live/--no-live", default=False, help="Publish the events of the current hour to the event log.")
def simulate(days: int, seed: int, live: bool) -> None:
    """Make labelled events with real patterns of abuse: history to Parquet below .local/data.

    History ends at the full hour, where the stream takes over; --live publishes what came after it.
    """
    from actor_risk.publishing import publish_table
    from actor_risk.simulate import SimulationSettings, split, write
    from actor_risk.simulate import simulate as make

    here, shown = home(), console()
    until = now_ms()
    world = make(SimulationSettings(seed=seed, start_ms=until - days * DAY_MS, end_ms=until))
    history, recent = split(world, until // HOUR_MS * HOUR_MS)
    write(history, here.data)
    shown.print(f"{history.ad_events.num_rows:,} ad events and {history.account_events.num_rows:,} account events")
    shown.print(f"are in {here.data}")
    if live:
        log = here.event_log()
        tables = {"ad_events": recent.ad_events, "account_events": recent.account_events}
        log.ensure_topics(list(tables))
        with progress_bar(shown) as progress:
            for topic, table in tables.items():
                task = progress.add_task(f"publish {topic}", total=table.num_rows)
                publish_table(log, topic, table, lambda sent, task=task: progress.update(task, completed=sent))  # type: ignore[misc]
        log.close()


@click.command()
@click.option("--group", default="materialize", show_default=True, help="Consumer group; workers of one share topics.")
@click.option(
    "--from",
    "start",
    type=click.Choice(["earliest", "latest"]),
    default="earliest",
    show_default=True,
    help="Where a group begins that has never committed.",
)
@click.option("--status-file", type=click.Path(path_type=Path), help="Kept up to date with what the worker has done.")
def stream(group: str, start: str, status_file: Path | None) -> None:
    """Fold the event log into online rows until Ctrl-C or SIGTERM, which finish the batch and commit.

    Every event counts once, through crashes and restarts: a row knows the offsets that it has applied.
    """
    from actor_risk.worker_process import run_worker, stop_on_signals, write_status
    from materialize.stream.worker import WorkerCounts

    shown = console()
    stop = stop_on_signals()
    began = time.monotonic()

    def line(counts: WorkerCounts) -> str:
        rate = counts.records / max(time.monotonic() - began, 1e-9)
        dead = sum(counts.dead_letters.values())
        return f"{counts.records:,} events ({rate:,.0f}/s), {counts.replayed:,} replayed, {dead:,} dead letters"

    def tell(counts: WorkerCounts) -> None:
        write_status(status_file, counts)
        live.update(line(counts))

    with Live("waiting for partitions …", console=shown, transient=not shown.is_terminal) as live:
        counts = run_worker(
            home(),
            group,
            "latest" if start == "latest" else "earliest",
            lambda counts: write_status(status_file, counts),
            tell,
            stop,
        )
    shown.print(f"stopped: {line(counts)}")
