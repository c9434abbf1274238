"""`explain`: why, as bars in the terminal or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from actor_risk.cli._shared import console, home

if TYPE_CHECKING:
    from actor_risk.explaining import By, Explained


@click.command()
@click.argument("records", nargs=-1, type=click.Path(path_type=Path, allow_dash=True), metavar="[FILE | -] …")
@click.option("--id", "decision_id", help="A decision of the decision log, by its id.")
@click.option(
    "--log",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the decision log. Default: ACTOR_RISK_DECISIONS, else .local/decisions.",
)
@click.option("--model", metavar="NAME[@VERSION]", help="A model of the store, for --rows. Default version: champion.")
@click.option(
    "--rows",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Parquet with one column for each feature of the model, named with or without its view.",
)
@click.option(
    "--by",
    type=click.Choice(["feature", "reason"]),
    help="One bar for each feature, or for each reason (a family of features). Default: feature where all are known.",
)
@click.option("--top", type=click.IntRange(2, 100), default=12, show_default=True, help="Bars; the rest is one more.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A picture, .png or .svg, drawn by shap (extra `plots`). Without it: bars here.",
)
def explain(
    records: tuple[Path, ...],
    decision_id: str | None,
    log: Path | None,
    model: str | None,
    rows: Path | None,
    by: By | None,
    top: int,
    out: Path | None,
) -> None:
    """Why did an actor get its score? Base value + bars = margin, exactly.

    One decision gives a waterfall, several give a beeswarm: each dot a decision, right of the line it raised the risk.

    \b
    A decision as it was answered; ask with `explain: full` to see every feature:
      actor-risk score --explain full --json ip=203.0.113.9 … | actor-risk explain -
      actor-risk explain decision.json --by reason --out why.png

    \b
    A decision from the log, whether or not it was asked with an explanation:
      actor-risk explain --id 019a1f3e-5e00-7c3b-9d52-0c8f4e6a1b27 --out why.svg

    \b
    Many decisions, or what a model makes of rows that never were decisions:
      actor-risk explain decisions.jsonl --out swarm.png
      actor-risk explain --model ad_click_risk@challenger --rows sample.parquet --out swarm.png

    The units are those of the answer's `output_space`, log-odds for our own models: +0.7 doubles the odds.
    """
    from actor_risk.explained_bars import show_explained

    found = _explained(records, decision_id, log, model, rows, by)
    if by == "reason":
        found = found.by_reason()
    if out is None:
        show_explained(console(), found, top)
        return
    from models.plots import draw

    draw(found.explanation, found.names, found.data, out, title=found.title, features_max=top + 1)
    click.echo(f"wrote {out}")


def _explained(
    records: tuple[Path, ...],
    decision_id: str | None,
    log: Path | None,
    model: str | None,
    rows: Path | None,
    by: By | None,
) -> Explained:
    from actor_risk import explaining

    here = home()
    if (bool(records), decision_id is not None, rows is not None).count(True) != 1 or (rows is None) != (model is None):
        raise click.UsageError("give decision records, or --id, or --model with --rows: see --help")
    if decision_id is not None:
        return explaining.logged_record(log or here.decisions, decision_id, here.model_store)
    if rows is not None and model is not None:
        name, _, version = model.partition("@")
        bundle = here.model_store().load(name, version or "champion")
        return explaining.of_rows(bundle, explaining.read_rows(bundle, rows))
    return explaining.of_records(explaining.read_records([None if str(f) == "-" else f for f in records]), by)
