"""`apply`: definitions into the registry."""

from __future__ import annotations

import click

from actor_risk.cli._shared import home
from materialize.quick_feast import import_feast_with_checks


@click.command()
def apply() -> None:
    """Put the definitions of feature_repo/ into the registry: `feast apply`, with the paths of this home."""
    import_feast_with_checks()
    from actor_risk.feast_repo import apply_repo

    here = home()
    done = apply_repo(here.feature_repo, here.registry, {"ACTOR_RISK_DATA": str(here.data)})
    click.echo(f"{done.views} views and the feature services {', '.join(done.services)} are in {here.registry}")
