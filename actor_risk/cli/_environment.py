"""`up` and `down`: the embedded server."""

from __future__ import annotations

import click

from actor_risk.cli._shared import home


@click.command()
def up() -> None:
    """Start the embedded Valkey server on a free port, or find the one that runs.

    It keeps its data below .local/valkey (append-only) and outlives this command; `actor-risk down` stops it. Not
    needed with REDIS_URL set. For a local Kafka broker see `make kafka`.
    """
    here = home()
    if here.given_redis_url is not None:
        raise click.ClickException("REDIS_URL is set, so that Redis is used; unset it to start the embedded server")
    server = here.valkey(detached=True).start()
    click.echo(f"REDIS_URL={server.url}")


@click.command()
def down() -> None:
    """Stop the embedded Valkey server; its data stays."""
    home().valkey().stop()
    click.echo("Valkey is stopped.")
