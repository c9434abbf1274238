"""Labels: decided by what generated an event, then flipped for a small share, as reviewers err."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from actor_risk.simulate._account_batch import BY_THE_ACTOR, AccountBatch, ActorType
from actor_risk.simulate._arrays import BoolArray, IntArray, happens
from actor_risk.simulate._exposures import AdBatch, AdKind
from actor_risk.simulate._schemas import AD_CLICK_LABELS_SCHEMA, ADVERTISER_LABELS_SCHEMA
from actor_risk.simulate._world import World

_JUDGED_SHARE = 0.4


def click_labels(rng: np.random.Generator, world: World, batch: AdBatch, table: pa.Table) -> pa.Table:
    """One row per click of `table`, which was made from `batch` row by row."""
    rows = np.flatnonzero(batch.kind == AdKind.CLICK)
    label = _noisy(rng, batch.invalid[rows], world.settings.label_noise)
    context = table.select(AD_CLICK_LABELS_SCHEMA.names[:-1]).take(pa.array(rows))
    return context.append_column("label", pa.array(label)).cast(AD_CLICK_LABELS_SCHEMA)


def advertiser_labels(rng: np.random.Generator, world: World, batch: AccountBatch, table: pa.Table) -> pa.Table:
    """Advertisers judged at random moments of their own activity: at the very instant of one of their events.

    ip and device are those of that event.
    """
    candidate = (batch.actor_type == ActorType.ADVERTISER) & np.isin(batch.kind, BY_THE_ACTOR)
    rows = np.flatnonzero(candidate & happens(rng, _JUDGED_SHARE, len(batch.kind)))
    begun = batch.time_ms[rows] >= world.advertisers.begin_ms[batch.actor[rows]]
    label = _noisy(rng, begun, world.settings.label_noise)
    context = table.select(["event_time", "actor_id", "ip", "device_id"]).take(pa.array(rows))
    return pa.Table.from_arrays([*context.columns, pa.array(label)], schema=ADVERTISER_LABELS_SCHEMA)


def _noisy(rng: np.random.Generator, truth: BoolArray, noise: float) -> IntArray:
    flipped = happens(rng, noise, len(truth))
    return np.asarray(truth ^ flipped, dtype=np.int64)
