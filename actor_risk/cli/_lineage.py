"""`lineage`: from the column of a source to the decision, and back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actor_risk.cli._shared import home, leaving_nothing
from actor_risk.errors import ActorRiskError
from materialize.quick_feast import import_feast_quickly

if TYPE_CHECKING:
    from actor_risk.changes.described import RepoDefinition
    from actor_risk.home import Home


@click.command()
@click.argument("name")
@click.option("--up", "only_up", is_flag=True, help="Only what it is made from.")
@click.option("--down", "only_down", is_flag=True, help="Only what reads it.")
@click.option("--json", "as_json", is_flag=True, help="Nodes and edges as JSON.")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="A Mermaid flowchart.")
@click.option("--repo", "from_repo", is_flag=True, help="Of feature_repo/ as it stands, instead of what was applied.")
@leaving_nothing()
def lineage(name: str, only_up: bool, only_down: bool, as_json: bool, as_mermaid: bool, from_repo: bool) -> None:
    """What NAME is made from, and what reads it: from the column of a source to the decision log.

    NAME is a feature (`view:feature`, or its name alone where one view has it), a column (`source.column`), or the name
    of a source, an entity, a view, a service, a model (or `model@alias`), or a reason code.

    \b
      actor-risk lineage ip_clicks_24h
      actor-risk lineage ad_events.amount_usd --down
      actor-risk lineage ad_click_risk@champion --up --mermaid
    """
    if as_json and as_mermaid:
        raise click.UsageError("--json or --mermaid, not both")
    import_feast_quickly()
    from actor_risk import lineage as lines
    from actor_risk.lineage.models_read import reading_models

    here = home()
    definition = _of_repo(here) if from_repo else _of_registry(here)
    models, unread = reading_models(here.models)
    for told in unread:
        click.echo(f"not shown, since it cannot be read: {told}", err=True)
    both = only_up == only_down
    found = lines.lineage_of(lines.graph_of(definition, models), name, up=only_up or both, down=only_down or both)
    if as_json:
        click.echo(lines.as_json(found).decode())
    else:
        click.echo(lines.as_mermaid(found) if as_mermaid else lines.as_text(found))


def _of_registry(here: Home) -> RepoDefinition:
    from actor_risk.changes.registry_described import registry_definition
    from materialize.definitions import open_feature_store

    if not here.registry.exists():
        raise ActorRiskError(f"nothing was applied to {here.registry} yet: run `actor-risk apply`, or say --repo")
    return registry_definition(open_feature_store(here.feature_repo, here.registry), here.feature_repo, here.data)


def _of_repo(here: Home) -> RepoDefinition:
    from actor_risk.changes.compiling import CompileSettings, compile_versions
    from actor_risk.changes.planning import live_places

    with tempfile.TemporaryDirectory(prefix="actor-risk-lineage-") as folder:
        settings = CompileSettings(here.data, Path(folder), protected=live_places(here))
        found = compile_versions({"new": here.feature_repo}, settings)["new"].definition
    if found.problems and not found.views:
        raise ActorRiskError("; ".join(f"{one.place or here.feature_repo}: {one.message}" for one in found.problems))
    return found
