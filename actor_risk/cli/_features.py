"""`apply` and `backfill`: definitions into the registry, history into rows."""

from __future__ import annotations

from pathlib import Path

import click

from actor_risk.cli._shared import Instant, console, home, now_ms, progress_bar

BACKFILL_DAYS = 30
DAY_MS = 86_400_000


@click.command()
def apply() -> None:
    """Put the definitions of feature_repo/ into the registry: `feast apply`, with the paths of this home."""
    from actor_risk.feast_repo import apply_repo

    here = home()
    done = apply_repo(here.feature_repo, here.registry, {"ACTOR_RISK_DATA": str(here.data)})
    click.echo(f"{done.views} views and the feature services {', '.join(done.services)} are in {here.registry}")


@click.command()
@click.option("--view", "views", multiple=True, help="Only this view; may be given several times. All by default.")
@click.option("--start", type=Instant(), help=f"Profiles since then. Default: {BACKFILL_DAYS} days before the end.")
@click.option("--end", type=Instant(), default="now", show_default=True, help="History up to then.")
@click.option("--status-file", type=click.Path(path_type=Path), help="Kept up to date with what is done.")
def backfill(views: tuple[str, ...], start: int | None, end: int, status_file: Path | None) -> None:
    """Write online rows from history: `feast materialize`, view by view. Running it again changes nothing.

    A stream view is filled as far back as its windows reach, up to a tile's edge before --end; from there on the
    stream owns it.

    \b
      actor-risk backfill
      actor-risk backfill --view ip_ad_stats --end 2026-11-20T00:00:00Z
    """
    from actor_risk.backfill_process import write_status
    from actor_risk.feast_repo import materialize

    here = home()
    store = here.feature_store()
    since = end - BACKFILL_DAYS * DAY_MS if start is None else start
    with progress_bar(console()) as progress:
        task = progress.add_task("backfill", total=None)

        def tell(name: str, done: int, total: int) -> None:
            write_status(status_file, name, done, total)
            progress.update(task, description=f"backfill {name}", completed=done, total=total)

        names = materialize(store, since, min(end, now_ms()), list(views) or None, tell)
    click.echo(f"{len(names)} views are filled.")
