"""`train`: from labels to a champion."""

from __future__ import annotations

import click
from rich.table import Table

from actor_risk.cli._shared import console, home, progress_bar


@click.command()
@click.option("--model", "models", multiple=True, help="Only this model; may be given several times. All by default.")
@click.option("--rows", type=click.IntRange(1_000), default=20_000, show_default=True, help="Labelled rows at most.")
@click.option("--trees", type=click.IntRange(1, 5_000), default=150, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same bytes.")
def train(models: tuple[str, ...], rows: int, trees: int, seed: int) -> None:
    """Build a point-in-time training set, train LightGBM, export to ONNX, publish the bundle, make it champion.

    Metrics are measured on a later time span than the model was trained on.
    """
    from actor_risk.training import RECIPES, build_training_set, train_and_publish
    from models.train import TrainSettings

    here, shown = home(), console()
    unknown = sorted(set(models) - set(RECIPES))
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r}: choose from {', '.join(RECIPES)}", param_hint="--model")
    store = here.feature_store()
    table = Table("model", "version", "rows", "ROC AUC", "PR AUC", "base rate", box=None)
    with progress_bar(shown) as progress:
        for name in models or RECIPES:
            task = progress.add_task(f"{name}: features", total=None)
            rows_of = build_training_set(store, RECIPES[name], here.data, rows)
            progress.update(task, description=f"{name}: trees", total=trees)
            done = train_and_publish(
                store,
                RECIPES[name],
                rows_of,
                here.models,
                TrainSettings(trees=trees, seed=seed),
                lambda count, total, task=task: progress.update(task, completed=count, total=total),  # type: ignore[misc]
            )
            metrics = done.trained.metrics
            table.add_row(
                name,
                done.version,
                f"{done.rows:,}",
                f"{metrics.roc_auc:.3f}",
                f"{metrics.pr_auc:.3f}",
                f"{metrics.base_rate:.3f}",
            )
    shown.print(table)
