"""`train`: from labels to a champion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Column, Table

from actor_risk.cli._shared import console, home, progress_bar

if TYPE_CHECKING:
    from actor_risk.training import Published


@click.command()
@click.option("--model", "models", multiple=True, help="Only this model; may be given several times. All by default.")
@click.option("--rows", type=click.IntRange(1_000), default=20_000, show_default=True, help="Labelled rows at most.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML, TOML or JSON with settings, also for each model; the options below go before it.",
)
@click.option("--trainer", type=click.Choice(["lightgbm", "xgboost"]), help="lightgbm by default.")
@click.option("--calibration", type=click.Choice(["none", "platt", "isotonic"]), help="none by default.")
@click.option(
    "--capacity-per-day",
    "review_per_day",
    type=click.FloatRange(0, min_open=True),
    help="Cases a day that people can review: sets the review threshold, instead of a precision.",
)
@click.option("--trees", type=click.IntRange(1, 5_000), help="150 by default.")
@click.option("--seed", type=click.IntRange(0), help="7 by default. The same seed gives the same bytes.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for <model>/report.html and report.json.  [default: reports/ of the home]",
)
def train(
    models: tuple[str, ...], rows: int, config: Path | None, report: Path | None, **given: str | float | None
) -> None:
    """Build a point-in-time training set, train, export to ONNX, publish the bundle, make it champion, write a report.

    Metrics are measured on a later time span than the model was trained on.
    """
    from actor_risk.training import RECIPES, build_training_set, train_and_publish

    here, shown = home(), console()
    unknown = sorted(set(models) - set(RECIPES))
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r}: choose from {', '.join(RECIPES)}", param_hint="--model")
    options = {name: value for name, value in given.items() if value is not None}
    settings = {name: _settings(config, name, options, RECIPES) for name in models or RECIPES}
    store = here.feature_store()
    done: dict[str, Published] = {}
    with progress_bar(shown) as progress:
        for name, chosen in settings.items():
            task = progress.add_task(f"{name}: features", total=None)
            rows_of = build_training_set(store, RECIPES[name], here.data, rows)
            progress.update(task, description=f"{name}: trees", total=chosen.trees)
            done[name] = train_and_publish(
                store,
                RECIPES[name],
                rows_of,
                here.models,
                chosen,
                lambda count, total, task=task: progress.update(task, completed=count, total=total),  # type: ignore[misc]
                reports=report or here.reports,
            )
    _show(done, shown)


def _settings(config: Path | None, model: str, options: dict[str, Any], known: dict[str, Any]) -> Any:
    from models.errors import TrainingError
    from models.settings import TrainSettings, models_named, read_settings

    if config is None:
        return TrainSettings(**options)
    strangers = [name for name in models_named(config) if name not in known]
    if strangers:
        raise TrainingError(f"{config.name}: there is no model {strangers[0]!r}; there are {', '.join(known)}")
    return read_settings(config, model, **options)


def _show(done: dict[str, Published], shown: Console) -> None:
    version = Column("version", no_wrap=True, min_width=16)
    table = Table("model", version, "rows", "ROC AUC", "PR AUC", "base rate", box=None)
    for name, published in done.items():
        metrics = published.trained.metrics
        figures = (metrics.roc_auc, metrics.pr_auc, metrics.base_rate)
        table.add_row(name, published.version, f"{published.rows:,}", *(f"{figure:.3f}" for figure in figures))
    shown.print(table)
    for name, published in done.items():
        thresholds = published.trained.thresholds
        shown.print(f"{name}: review from {thresholds.review:.3f}, block from {thresholds.block:.3f}")
        shown.print(f"  calibration: {published.trained.calibration}", soft_wrap=True)
        shown.print(f"  report: {published.report}", soft_wrap=True)
