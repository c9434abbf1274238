"""`keys`: the file of API keys that a server lets in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.table import Table

from actor_risk.cli._shared import Instant, console
from actor_risk.errors import ActorRiskError
from serving.access import SCOPES, AccessFileError, KeyEntry, KeyFile, change_keys, digest_of, new_key, read_keys

_NAME = click.argument("name")
_FILE = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="ACTOR_RISK_ACCESS_KEYS",
    show_envvar=True,
    required=True,
    help="The file of keys; the server reads the same variable.",
)
_MS_PER_S = 1000


@click.group()
def keys() -> None:
    """API keys: make one, see which there are, take one back. A running server follows the file within seconds.

    \b
      export ACTOR_RISK_ACCESS_KEYS=/etc/actor-risk/keys.json
      actor-risk keys new checkout --scope score
      actor-risk keys list
      actor-risk keys revoke checkout --id 1f0c2b9a
    """


@keys.command()
@_NAME
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="Repeatable.")
@click.option("--expires", "expires_ms", type=Instant(), help="Not valid from then on (RFC 3339).")
@click.option("--rate", type=click.FloatRange(0, 1e6, min_open=True), help="Requests a second to one replica.")
@click.option("--burst", type=click.IntRange(1, 1_000_000), help="Requests at once.")
@_FILE
def new(
    name: str, scopes: Sequence[str], expires_ms: int | None, rate: float | None, burst: int | None, path: Path
) -> None:
    """Make a key for the client NAME, print it, and put its SHA-256 into the file.

    It is shown this once. A client may have several keys: make the new one, hand it out, revoke the old one.
    """
    key = new_key()
    entry = KeyEntry(
        name=name,
        sha256=digest_of(key.encode()).hex(),
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        expires=None if expires_ms is None else datetime.fromtimestamp(expires_ms / _MS_PER_S, UTC),
        rate=rate,
        burst=burst,
    )
    with _told(path):
        change_keys(path, lambda file: KeyFile((*file.keys, entry)))
    click.echo(key)


@keys.command("list")
@_FILE
def list_keys(path: Path) -> None:
    """Show the keys in the file: whose, what for, until when. The keys themselves are nowhere."""
    table = Table("name", "id", "scopes", "expires", "rate", "burst", box=None)
    with _told(path):
        entries = read_keys(path).keys
    for entry in entries:
        shown = (entry.expires, entry.rate, entry.burst)
        table.add_row(entry.name, entry.id, " ".join(entry.scopes), *("" if one is None else str(one) for one in shown))
    console().print(table)


@keys.command()
@_NAME
@click.option("--id", "key_id", help="Only this key of the client; `keys list` shows it.")
@_FILE
def revoke(name: str, key_id: str | None, path: Path) -> None:
    """Take the keys of the client NAME out of the file."""
    taken: list[KeyEntry] = []

    def without(file: KeyFile) -> KeyFile:
        taken.extend(entry for entry in file.keys if entry.name == name and key_id in (None, entry.id))
        if not taken:
            raise ActorRiskError(f"there is no such key of {name!r}; see `actor-risk keys list`")
        return KeyFile(tuple(entry for entry in file.keys if entry not in taken))

    with _told(path):
        change_keys(path, without)
    click.echo(f"revoked: {' '.join(entry.id for entry in taken)}")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except AccessFileError as error:
        raise ActorRiskError(f"{path}: {error}") from error
