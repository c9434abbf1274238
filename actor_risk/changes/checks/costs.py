"""What a change costs more than before."""

from __future__ import annotations

from collections.abc import Iterator

from actor_risk.changes.findings import Finding
from actor_risk.changes.values import Costs, ViewCost
from actor_risk.changes.versions import Versions
from actor_risk.changes.wording import size
from actor_risk.reporting.words import counted

GROWTH = 1.5
GROWTH_BYTES = 1_024


def find_costs(versions: Versions, costs: Costs | None) -> Iterator[Finding]:
    """AR501 and AR502."""
    if costs is None:
        return
    views = {cost.view: cost for cost in costs.old_views}
    for view in costs.new_views:
        was = views.get(versions.old_name("view", view.view))
        if was is not None:
            yield from _rows(versions, was, view)
    services = {cost.service: cost for cost in costs.old_services}
    for service in costs.new_services:
        before = services.get(versions.old_name("service", service.service))
        if before is not None and service.reads > before.reads:
            yield Finding(
                code="AR502",
                subject=service.service,
                message=f"one request reads {counted(service.reads, 'row')}, before {before.reads}.",
                instead="Nothing need be done. Features of an entity that is read anyway cost no further row when they "
                "stand in a view of it that the service reads.",
            )


def _rows(versions: Versions, old: ViewCost, new: ViewCost) -> Iterator[Finding]:
    measured = bool(old.bytes_per_actor and new.bytes_per_actor)
    was, now = (old.bytes_per_actor, new.bytes_per_actor) if measured else (old.bytes_max, new.bytes_max)
    if not was or now < GROWTH * was or now - was < GROWTH_BYTES:
        return
    view = versions.new.view(new.view)
    about = "on the sample's mean actor" if measured else "at most"
    total = f", {size((now - was) * new.actors)} more for the sample's {new.actors:,} actors" if new.actors else ""
    yield Finding(
        code="AR501",
        subject=new.view,
        message=f"a row takes {size(now)} {about}, before {size(was)}: {now / was:.1f} times{total}.",
        instead=(
            "A longer hop makes fewer tiles: write `slide_interval=timedelta(days=1)` on the longest windows. Distinct "
            "counts take most: up to 2 KiB for each tile and column. If it is worth it, waive this with the reason."
        ),
        place=view.place if view is not None else "",
    )
