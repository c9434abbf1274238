"""The whole simulation, its split by time, and the honest actors in it that are quiet just now."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actor_risk.simulate._account_batch import AccountBatch
from actor_risk.simulate._account_traffic import account_traffic
from actor_risk.simulate._ad_traffic import ad_traffic
from actor_risk.simulate._exposures import AdBatch
from actor_risk.simulate._labels import advertiser_labels, click_labels
from actor_risk.simulate._profiles import build_profiles
from actor_risk.simulate._schemas import TIME
from actor_risk.simulate._settings import SimulationSettings
from actor_risk.simulate._tables import account_table, ad_table, names_of
from actor_risk.simulate._world import Stream, build_world, random_stream

Batch = TypeVar("Batch", AdBatch, AccountBatch)


@dataclass(frozen=True)
class Simulation:
    """Events, labels and profiles as Arrow tables, each sorted by `event_time` (timestamp[ms, UTC]).

    `ad_events` and `account_events` have the fields of `materialize.events`' schemas and `created`, the ingestion
    time. Labels stand in tables of their own; what label 1 means is in their schema's metadata.
    """

    ad_events: pa.Table
    account_events: pa.Table
    ad_click_labels: pa.Table
    advertiser_labels: pa.Table
    advertiser_profiles: pa.Table
    creator_profiles: pa.Table
    ip_profiles: pa.Table
    device_profiles: pa.Table


def simulate(settings: SimulationSettings) -> Simulation:
    """The events, labels and profiles of a world with these settings; equal settings give equal tables."""
    world = build_world(settings)
    names = names_of(world)
    ads = in_span(ad_traffic(world), settings.start_ms, settings.end_ms)
    accounts = in_span(account_traffic(world), settings.start_ms, settings.end_ms)
    ingestion = random_stream(settings.seed, Stream.INGESTION)
    run = f"{settings.seed}-{settings.start_ms:x}"
    ad_events = ad_table(ads, names, ingestion, f"ad-{run}")
    account_events = account_table(accounts, names, ingestion, f"account-{run}")
    labels = random_stream(settings.seed, Stream.LABELS)
    profiles = build_profiles(random_stream(settings.seed, Stream.PROFILES), world, names, ads, accounts)
    return Simulation(
        ad_events=ad_events,
        account_events=account_events,
        ad_click_labels=click_labels(labels, world, ads, ad_events),
        advertiser_labels=advertiser_labels(labels, world, accounts, account_events),
        advertiser_profiles=profiles.advertisers,
        creator_profiles=profiles.creators,
        ip_profiles=profiles.ips,
        device_profiles=profiles.devices,
    )


def split(simulation: Simulation, at_ms: int) -> tuple[Simulation, Simulation]:
    """(history, live): the rows of every table with event time before `at_ms`, and those from `at_ms` on."""
    history, live = {}, {}
    for field in fields(Simulation):
        table = getattr(simulation, field.name)
        rows = _rows_before(table, at_ms)
        history[field.name], live[field.name] = table.slice(0, rows), table.slice(rows)
    return Simulation(**history), Simulation(**live)


def moved(simulation: Simulation, by_ms: int) -> Simulation:
    """The same world `by_ms` milliseconds later: every instant in every table is moved."""
    return Simulation(**{field.name: _moved(getattr(simulation, field.name), by_ms) for field in fields(Simulation)})


def _moved(table: pa.Table, by_ms: int) -> pa.Table:
    by = pa.scalar(by_ms, pa.duration("ms"))
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(place, field, pc.add(table.column(place), by).cast(field.type))
    return table


def _rows_before(table: pa.Table, at_ms: int) -> int:
    instant = pa.scalar(at_ms, pa.timestamp("ms")).cast(TIME)
    return int(pc.sum(pc.less(table.column("event_time"), instant)).as_py() or 0)


def in_span(batch: Batch, start_ms: int, end_ms: int) -> Batch:
    """The events in `[start_ms, end_ms)`, by time; events of one instant keep the order in which they were made."""
    inside = np.flatnonzero((batch.time_ms >= start_ms) & (batch.time_ms < end_ms))
    return batch.take(inside[np.argsort(batch.time_ms[inside], kind="stable")])
