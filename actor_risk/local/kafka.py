"""The local broker from the command line: `python -m actor_risk.local.kafka up|down|status`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from actor_risk.local._kafka_broker import KAFKA_VERSION, Kafka, default_cache
from actor_risk.local.errors import LocalRuntimeError

_directory = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".local/kafka/broker"),
    show_default=True,
    help="Where the broker keeps its record, log and data.",
)


@click.group(help=f"Apache Kafka {KAFKA_VERSION} on loopback, for local runs and tests.")
def main() -> None:
    """The group of the three commands."""


@main.command()
@_directory
def up(directory: Path) -> None:
    """Fetch Kafka if need be, start the broker, and print its address; it runs until `down`."""
    try:
        broker = _broker(directory).start()
    except LocalRuntimeError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap_servers}")


@main.command()
@_directory
def down(directory: Path) -> None:
    """Stop the broker; its data stays."""
    try:
        _broker(directory).stop()
    except LocalRuntimeError as error:
        raise click.ClickException(str(error)) from error
    click.echo("Kafka is stopped.")


@main.command()
@_directory
def status(directory: Path) -> None:
    """Say whether the broker runs, and where; exit code 1 if it does not."""
    found = _broker(directory).running()
    if found is None:
        raise click.ClickException("Kafka is not running: start it with `up`.")
    click.echo(f"Kafka {KAFKA_VERSION} runs at 127.0.0.1:{found.port} (process {found.pid}).")


def _broker(directory: Path) -> Kafka:
    return Kafka(directory, default_cache(Path.cwd(), os.environ), detached=True)


if __name__ == "__main__":
    main()
