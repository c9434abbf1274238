"""What both versions cost: of the views' definitions, and of what each version's process weighed on the sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from actor_risk.changes.described import RepoDefinition, ServiceDefinition, ViewDefinition
from actor_risk.changes.values import Costs, ServiceCost, ViewCost
from actor_risk.changes.weighed import COSTS_FILE, Weighed, WeighedView

ROUND_TRIP_US = 45.0
"""One pipelined read by an asyncio client over loopback, as measured by the benchmark of features; a network adds its
own. Reading itself, and what the functions on demand do, is measured on the sample's rows."""
READ_KB_US = 0.4
"""For each KB that comes back: what receiving and copying it takes, about 2.5 GB a second."""
WRITE_ROW_US = 9.0
"""What writing a row takes beside making it: looking whether there is one, a compare-and-set, the answer."""
WRITE_KB_US = 1.5
"""For each KB that is written, on both sides of the connection."""
LOOK_SHARE = 0.4
"""Before it writes, a backfill profiles what it has read: so much more of what reading takes."""
STREAM_LOAD_SECONDS, TABLE_LOAD_SECONDS = 0.7, 0.2
"""What a command takes to load the compiled code of tiles, or of batch rows, before its first row."""
JOB_SECONDS = 0.15
"""A job's lease, manifest and watermark."""
CHUNK_SECONDS = 0.01
"""Opening the files of a chunk, its entries in the manifest, and the fence."""
TABLE_CHUNKS, STREAM_CHUNKS = 30, 8
"""As many days as a backfill goes back by default, and as the longest windows do."""


def costs(old_folder: Path, new_folder: Path, old: RepoDefinition, new: RepoDefinition) -> Costs:
    """The costs of every view and service of both versions, and the commands that fill what has to be filled.

    A version whose process weighed nothing has the bounds of its definitions alone.
    """
    before, after = weighed(old_folder), weighed(new_folder)
    return Costs(
        old_views=_views(old, before),
        new_views=_views(new, after),
        old_services=_services(old, before),
        new_services=_services(new, after),
        backfill=tuple(f"actor-risk backfill --view {name}" for name in to_fill(old, new)),
    )


def to_fill(old: RepoDefinition, new: RepoDefinition) -> tuple[str, ...]:
    """The stored views of the new version whose rows are not those of the old one, by name."""
    before = {view.name: view for view in old.views}
    return tuple(
        sorted(view.name for view in new.views if view.fingerprint and _needs_filling(before.get(view.name), view))
    )


def weighed(folder: Path) -> Weighed | None:
    """What the version's process wrote into its folder; None for nothing."""
    path = folder / COSTS_FILE
    return msgspec.json.decode(path.read_bytes(), type=Weighed) if path.exists() else None


def untold_costs(folder: Path) -> tuple[str, ...]:
    """The views that could not be weighed, and why."""
    told = weighed(folder)
    return () if told is None else tuple(f"costs of {view}: {why}" for view, why in sorted(told.untold.items()))


def backfill_seconds(view: WeighedView, *, is_stream: bool) -> float:
    """How long a backfill of the view takes on one core of this machine: what was measured, and what is known of Redis
    and of the job around it."""
    looking = LOOK_SHARE * view.read_seconds
    writing = view.rows * (WRITE_ROW_US + view.value_bytes / 1_000 * WRITE_KB_US) / 1e6
    load = STREAM_LOAD_SECONDS if is_stream else TABLE_LOAD_SECONDS
    chunks = CHUNK_SECONDS * (STREAM_CHUNKS if is_stream else TABLE_CHUNKS)
    return JOB_SECONDS + load + chunks + view.read_seconds + looking + view.fold_seconds + writing


def _needs_filling(before: ViewDefinition | None, view: ViewDefinition) -> bool:
    return before is None or (before.fingerprint, before.keys) != (view.fingerprint, view.keys)


def _views(repo: RepoDefinition, told: Weighed | None) -> tuple[ViewCost, ...]:
    known = {} if told is None else {view.view: view for view in told.views}
    return tuple(_view(view, known.get(view.name)) for view in repo.views if view.kind != "on_demand")


def _view(view: ViewDefinition, told: WeighedView | None) -> ViewCost:
    if told is None:
        return ViewCost(view=view.name, bytes_max=view.row_bytes_max)
    return ViewCost(
        view=view.name,
        bytes_max=view.row_bytes_max,
        bytes_per_actor=told.bytes_per_actor,
        tiles_per_row=told.tiles_per_row,
        actors=told.actors,
        backfill_events=told.events,
        backfill_rows=told.rows,
        backfill_seconds=backfill_seconds(told, is_stream=view.kind == "stream"),
    )


def _services(repo: RepoDefinition, told: Weighed | None) -> tuple[ServiceCost, ...]:
    rows = {} if told is None else {view.view: view for view in told.views}
    merged = {} if told is None else {service.service: service.merge_us for service in told.services}
    return tuple(_service(service, rows, merged.get(service.name, 0.0)) for service in repo.services)


def _service(service: ServiceDefinition, rows: Mapping[str, WeighedView], merge_us: float) -> ServiceCost:
    size = sum(rows[view].value_bytes for view in service.reads if view in rows)
    return ServiceCost(
        service=service.name,
        reads=len(service.reads),
        features=len(service.features),
        bytes_per_request=size,
        latency_us=ROUND_TRIP_US + size / 1_000 * READ_KB_US + merge_us if merge_us else 0.0,
    )
