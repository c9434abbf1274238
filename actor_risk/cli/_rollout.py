"""`rollout`: what answers under a model's name, and since when."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from actor_risk.cli._shared import console, home, now_ms

if TYPE_CHECKING:
    from models.rollouts import Rollout, Rollouts

DEFAULT_URL = "http://127.0.0.1:8000"
WITHOUT = ("refuse", "default", "fallback")

_by = click.option("--by", default=getpass.getuser, help="Who or what decides it. Default: you.")
_why = click.option("--why", default="", help="For what reason; kept in the history.")
_url = click.option("--url", help="Wait until this server has taken it, and say why if it does not.")


@click.group()
def rollout() -> None:
    """What answers under a model's name: set it, look at it, go back. Servers follow within a second or two.

    \b
      actor-risk rollout set ad_click_risk --canary challenger --share 0.05
      actor-risk rollout set ad_click_risk --champion challenger --no-canary
      actor-risk rollout set ad_click_risk --off
      actor-risk rollout rollback ad_click_risk
      actor-risk rollout status

    Entries are kept in the model store, with who set them, when and why; servers need no restart and no other access.
    """


@rollout.command("set")
@click.argument("model")
@click.option("--champion", metavar="MODEL", help="An alias, or a version: who answers.")
@click.option("--canary", metavar="MODEL", help="Who answers about a share of the actors, always the same ones.")
@click.option("--share", type=click.FloatRange(0, 1), help="The canary's share, such as 0.05.")
@click.option("--no-canary", is_flag=True)
@click.option("--shadow", "shadows", metavar="MODEL", multiple=True, help="Scored and only logged. Repeatable.")
@click.option("--no-shadows", is_flag=True)
@click.option("--review", type=float, help="Scores from here on are reviewed, instead of the model's threshold.")
@click.option("--block", type=float, help="Scores from here on are blocked; both thresholds or none.")
@click.option("--own-thresholds", is_flag=True, help="Each model's own thresholds again.")
@click.option("--off", is_flag=True, help="The kill switch.")
@click.option("--on", is_flag=True)
@click.option("--fallback-model", metavar="MODEL", help="Who answers where the policy falls back.")
@click.option("--no-fallback-model", is_flag=True)
@click.option("--fallback-score", type=float, help="The score while off, and where a policy falls back without model.")
@click.option("--no-fallback-score", is_flag=True)
@click.option("--store-away", type=click.Choice(WITHOUT), help="Without the online store.")
@click.option("--late", type=click.Choice(WITHOUT), help="When the request's deadline comes first.")
@_by
@_why
@_url
def set_(model: str, by: str, why: str, url: str | None, **given: Any) -> None:
    """Change what answers under MODEL. What is not named stays as it is.

    Aliases are replaced by the versions that they point at now. New versions are loaded and proven here first.
    """
    from actor_risk.rollout import next_entry

    store, rollouts = home().model_store(), _rollouts()
    before = rollouts.newest(model)
    changes = _changes(given, {} if before is None or before.policy is None else before.policy)
    if not changes:
        raise click.UsageError("say what is to change: see --help")
    _make(rollouts, model, next_entry(store, rollouts, model, changes, at_ms=now_ms(), by=by, why=why), url)


@rollout.command()
@click.argument("model")
@click.option("--to", type=click.IntRange(0), help="The entry of this number; 0: what the server is configured with.")
@_by
@_why
@_url
def rollback(model: str, to: int | None, by: str, why: str, url: str | None) -> None:
    """Make the entry before count again, at once. Once more goes further back."""
    from actor_risk.rollout import way_back

    rollouts = _rollouts()
    _make(rollouts, model, way_back(rollouts, model, to, at_ms=now_ms(), by=by, why=why), url)


@rollout.command()
@click.argument("model", required=False)
@click.option("--url", default=DEFAULT_URL, show_default=True, help="The server whose replicas are asked.")
@click.option("--last", type=click.IntRange(1), default=10, show_default=True, help="So many entries of the history.")
def status(model: str | None, url: str, last: int) -> None:
    """What is rolled out, how it came to that, and what the replicas really serve."""
    from actor_risk.rollout import described

    rollouts, shown = _rollouts(), console()
    for name in [model] if model else home().model_store().models():
        table = Table("rollout", "at (UTC)", "by", "what", "why", box=None, title=escape(name), title_justify="left")
        for entry in rollouts.history(name, last):
            when = datetime.fromtimestamp(entry.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
            what = described(entry.policy) + ("" if entry.restores is None else f" (back to {entry.restores})")
            table.add_row(str(entry.number), when, escape(entry.by), what, escape(entry.why))
        if not table.row_count:
            table.add_row("0", "", "", described(None), "")
        shown.print(table)
    shown.print(_served(url, model))


def _served(url: str, model: str | None) -> Table | str:
    """What the replicas behind an address say."""
    from actor_risk.client import Client, ClientError
    from actor_risk.rollout import ASKED

    table = Table("served", "rollout", "as", "of the actors", "version", box=None)
    try:
        with Client(url, api_key=os.environ.get("ACTOR_RISK_API_KEY"), timeout_s=5) as client:
            found = {
                (card.name, card.rollout, card.mode, f"{100 * card.share:g} %", card.version): None
                for _ in range(ASKED)
                for card in client.models()
                if model in (None, card.name)
            }
            notes = list(dict.fromkeys(note for _ in range(ASKED) for note in client.ready().notes))
    except ClientError as error:
        return f"nothing is known of {url}: {escape(str(error))}"
    for name, number, *rest in found:
        table.add_row(name, str(number), *rest)
    for note in notes:
        table.add_row("[yellow]note[/yellow]", "", "", "", escape(note))
    return table


def _rollouts() -> Rollouts:
    from models.rollouts import Rollouts

    here = home()
    return Rollouts(here.models, here.root / "model-cache")


def _make(rollouts: Rollouts, model: str, entry: Rollout, url: str | None) -> None:
    from actor_risk.client import Client
    from actor_risk.rollout import described, wait_until_taken

    rollouts.add(model, entry)
    click.echo(f"rollout {entry.number} of {model}: {described(entry.policy)}")
    if url is not None:
        with Client(url, api_key=os.environ.get("ACTOR_RISK_API_KEY"), timeout_s=5) as client:
            wait_until_taken(client, model, entry.number)
        click.echo(f"served at {url}")


def _changes(given: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The fields of a policy that the options change."""
    if given["off"] and given["on"]:
        raise click.UsageError("say --on or --off")
    changes = {name: given[name] for name in ("champion", "store_away", "late") if given[name]}
    if given["fallback_score"] is not None or given["no_fallback_score"]:
        changes["fallback_score"] = None if given["no_fallback_score"] else given["fallback_score"]
    if given["fallback_model"] or given["no_fallback_model"]:
        changes["fallback_model"] = None if given["no_fallback_model"] else given["fallback_model"]
    if given["off"] or given["on"]:
        changes["is_on"] = given["on"]
    if given["shadows"] or given["no_shadows"]:
        changes["shadows"] = list(given["shadows"])
    changes |= _together(given, "canary", ("canary", "share"), ("model", "share"), before, given["no_canary"])
    names = ("review", "block")
    return changes | _together(given, "thresholds", names, names, before, given["own_thresholds"])


def _together(
    given: dict[str, Any],
    field: str,
    options: tuple[str, str],
    names: tuple[str, str],
    before: dict[str, Any],
    none: bool,
) -> dict[str, Any]:
    """A field of two parts; the part that is not given stays as it was."""
    if none:
        return {field: None}
    parts = {name: given[option] for name, option in zip(names, options, strict=True) if given[option] is not None}
    if not parts:
        return {}
    both = {**(before.get(field) or {}), **parts}
    if len(both) < len(names):
        raise click.UsageError(f"--{options[0]} and --{options[1]} go together")
    return {field: both}
