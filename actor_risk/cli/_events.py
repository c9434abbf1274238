"""`simulate`: events of a made-up world."""

from __future__ import annotations

import click

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
