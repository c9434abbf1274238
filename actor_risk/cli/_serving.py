"""`serve` and `score`: the scoring application, and a question to it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actor_risk.cli._shared import console, home, stop_on_signals

if TYPE_CHECKING:
    from actor_risk.client import Explain

DEFAULT_PORT = 8000


@click.command()
@click.option("--port", type=int, default=DEFAULT_PORT, show_default=True)
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=Path("ray_config.yaml"),
    show_default=True,
    help="Ray Serve config file to start from.",
)
def serve(port: int, config: Path) -> None:
    """Run the scoring application on this machine until Ctrl-C: Ray Serve, with HAProxy where it is available.

    Serves the champion of every model in the store. For a running Ray cluster: `serve deploy ray_config.yaml`.
    """
    from actor_risk.serving_process import ServingProcess, write_config
    from models import CHAMPION

    here = home()
    here.root.mkdir(parents=True, exist_ok=True)
    models = dict.fromkeys(here.model_store().models(), CHAMPION)
    if not models:
        raise click.ClickException("there is no model to serve: run `actor-risk train` first")
    stop = stop_on_signals()
    process = ServingProcess(here, write_config(here, config, port, models), port)
    try:
        with console().status("starting Ray Serve …"):
            process.wait_until_ready()
        click.echo(f"ready at {process.url} (docs at {process.url}/docs); Ctrl-C stops it")
        while not stop.wait(0.5):
            if process.has_ended():
                raise click.ClickException(f"the scoring application ended: see {here.logs / 'serve.log'}")
    finally:
        process.stop()


@click.command()
@click.argument("keys", nargs=-1, metavar="KEY=VALUE …")
@click.option("--model", default="ad_click_risk", show_default=True)
@click.option("--event", help="The event to be scored, as JSON.")
@click.option("--explain", type=click.Choice(["none", "top", "full"]), default="top", show_default=True)
@click.option("--url", default=f"http://127.0.0.1:{DEFAULT_PORT}", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the decision record as it came.")
def score(keys: tuple[str, ...], model: str, event: str | None, explain: Explain, url: str, as_json: bool) -> None:
    """Ask a running scoring application about an actor.

    \b
      actor-risk score --model advertiser_risk advertiser_id=adv-17 device_id=dev-3 ip=10.0.0.7

    An API key or token is taken from ACTOR_RISK_API_KEY.
    """
    import msgspec

    from actor_risk.client import Client, ConnectionFailedError
    from actor_risk.shown_decision import show

    try:
        given = None if event is None else json.loads(event)
    except json.JSONDecodeError as error:
        raise click.BadParameter(str(error), param_hint="--event") from error
    try:
        with Client(url, api_key=os.environ.get("ACTOR_RISK_API_KEY")) as client:
            decision = client.score(model, _pairs(keys), given, explain=explain)
    except ConnectionFailedError as error:
        raise click.ClickException(f"nobody answers at {url} ({error}): start it with `actor-risk serve`") from error
    if as_json or explain == "none":
        click.echo(json.dumps(msgspec.to_builtins(decision), indent=2))
    else:
        show(console(), model, decision)


def _pairs(keys: tuple[str, ...]) -> dict[str, str]:
    odd = [key for key in keys if "=" not in key]
    if odd:
        raise click.BadParameter(f"{odd[0]!r}: write join keys as name=value", param_hint="KEY=VALUE")
    return dict(key.split("=", 1) for key in keys)
