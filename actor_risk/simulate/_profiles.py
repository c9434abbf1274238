"""Profiles: a snapshot of every known actor at each midnight, made of what was known by then.

They say little about abuse, and some actors have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from actor_risk.simulate._account_batch import AccountBatch, AccountKind, ActorType
from actor_risk.simulate._arrays import DAY_MS, MINUTE_MS, BoolArray, FloatArray, IntArray, happens
from actor_risk.simulate._exposures import AdBatch, AdKind
from actor_risk.simulate._places import COUNTRIES, OS_NAMES
from actor_risk.simulate._schemas import (
    ADVERTISER_PROFILES_SCHEMA,
    CREATOR_PROFILES_SCHEMA,
    DEVICE_PROFILES_SCHEMA,
    IP_PROFILES_SCHEMA,
)
from actor_risk.simulate._tables import Names, amounts, instants, named, spelled
from actor_risk.simulate._world import World

_UNKNOWN_ACCOUNT_SHARE = 0.02
_UNKNOWN_PLACE_SHARE = 0.12
_SNAPSHOT_MINUTES = 30
_CREATOR_SHARE_OF_PRICE = 0.6


@dataclass(frozen=True)
class Profiles:
    """The four tables of daily snapshots, each sorted by event time."""

    advertisers: pa.Table
    creators: pa.Table
    ips: pa.Table
    devices: pa.Table


@dataclass(frozen=True)
class _Snapshots:
    """Which rows there are: one per actor known at a midnight, ordered by midnight."""

    day: IntArray
    actor: IntArray
    time_ms: IntArray
    created_ms: IntArray


def build_profiles(
    rng: np.random.Generator, world: World, names: Names, ads: AdBatch, accounts: AccountBatch
) -> Profiles:
    """The profiles of a world whose events within the span are given."""
    return Profiles(
        advertisers=_advertisers(rng, world, names, accounts),
        creators=_creators(rng, world, names, ads),
        ips=_ips(rng, world, names, ads),
        devices=_devices(rng, world, names, ads),
    )


def _advertisers(rng: np.random.Generator, world: World, names: Names, accounts: AccountBatch) -> pa.Table:
    n = world.settings.advertisers
    everyone = world.advertisers
    mine = accounts.actor_type == ActorType.ADVERTISER
    paid = mine & (accounts.kind == AccountKind.PAYMENT)
    rejected = mine & (accounts.kind == AccountKind.AD_REJECTED)
    spend = _until_midnight(world, accounts.time_ms[paid], accounts.actor[paid], accounts.amount_usd[paid], n)
    rejections = _until_midnight(
        world, accounts.time_ms[rejected], accounts.actor[rejected], np.ones(rejected.sum()), n
    )
    age_before_days = np.maximum(world.settings.start_ms - everyone.signup_ms, 0) / DAY_MS
    spent_before = age_before_days * everyone.activity * 40 * rng.gamma(2, 0.5, n)
    rejected_before = rng.poisson(np.minimum(age_before_days, 120) * 0.04 * (1 + 0.5 * everyone.abusive))
    verified = happens(rng, np.where(everyone.abusive, 0.48, 0.66), n)
    methods = 1 + rng.poisson(np.where(everyone.abusive, 0.9, 0.6))
    rows = _snapshots(rng, world, everyone.signup_ms, _UNKNOWN_ACCOUNT_SHARE)
    who = rows.actor
    columns = [
        instants(rows.time_ms),
        instants(rows.created_ms),
        named(names.advertisers, who),
        _age_days(rows, everyone.signup_ms),
        pa.array(verified[who].astype(np.int64)),
        spelled(COUNTRIES, world.places.ip_country[everyone.own_ip[who, 0]]),
        pa.array(methods[who]),
        amounts(np.round(spent_before[who] + spend[rows.day, who], 2)),
        pa.array(rejected_before[who] + rejections[rows.day, who].astype(np.int64)),
    ]
    return pa.Table.from_arrays(columns, schema=ADVERTISER_PROFILES_SCHEMA)


def _creators(rng: np.random.Generator, world: World, names: Names, ads: AdBatch) -> pa.Table:
    n = world.settings.creators
    everyone = world.creators
    clicks = ads.kind == AdKind.CLICK
    price = _CREATOR_SHARE_OF_PRICE * ads.amount_usd[clicks]
    payout = _until_midnight(world, ads.time_ms[clicks], ads.creator[clicks], price, n)
    age_before_days = np.maximum(world.settings.start_ms - everyone.signup_ms, 0) / DAY_MS
    paid_before = age_before_days * everyone.popularity * 1.2 * rng.gamma(2, 0.5, n)
    followers = (400 * everyone.popularity * np.exp(1.1 * rng.standard_normal(n))).astype(np.int64)
    verified = happens(rng, np.minimum(0.9, 0.25 + 0.05 * everyone.popularity), n)
    rows = _snapshots(rng, world, everyone.signup_ms, _UNKNOWN_ACCOUNT_SHARE)
    who = rows.actor
    columns = [
        instants(rows.time_ms),
        instants(rows.created_ms),
        named(names.creators, who),
        _age_days(rows, everyone.signup_ms),
        pa.array(verified[who].astype(np.int64)),
        pa.array(followers[who]),
        spelled(COUNTRIES, world.places.ip_country[everyone.ip[who]]),
        amounts(np.round(paid_before[who] + payout[rows.day, who], 2)),
    ]
    return pa.Table.from_arrays(columns, schema=CREATOR_PROFILES_SCHEMA)


def _ips(rng: np.random.Generator, world: World, names: Names, ads: AdBatch) -> pa.Table:
    n = world.settings.ips
    farmed = _members(world.farms.ips.members, n)
    datacenter = happens(rng, np.where(farmed, 0.2, 0.04), n)
    vpn = happens(rng, np.where(farmed, 0.15, 0.06), n)
    seen_ms = _first_seen_ms(rng, world, ads.time_ms, ads.ip, n)
    rows = _snapshots(rng, world, seen_ms, _UNKNOWN_PLACE_SHARE)
    columns = [
        instants(rows.time_ms),
        instants(rows.created_ms),
        named(names.ips, rows.actor),
        pa.array(datacenter[rows.actor].astype(np.int64)),
        pa.array(vpn[rows.actor].astype(np.int64)),
        spelled(COUNTRIES, world.places.ip_country[rows.actor]),
        _age_days(rows, seen_ms),
    ]
    return pa.Table.from_arrays(columns, schema=IP_PROFILES_SCHEMA)


def _devices(rng: np.random.Generator, world: World, names: Names, ads: AdBatch) -> pa.Table:
    n = world.settings.devices
    farmed = _members(world.farms.devices.members, n)
    emulator = happens(rng, np.where(farmed, 0.12, 0.02), n)
    rooted = happens(rng, np.where(farmed, 0.15, 0.05), n)
    seen_ms = _first_seen_ms(rng, world, ads.time_ms, ads.device, n)
    rows = _snapshots(rng, world, seen_ms, _UNKNOWN_PLACE_SHARE)
    columns = [
        instants(rows.time_ms),
        instants(rows.created_ms),
        named(names.devices, rows.actor),
        pa.array(emulator[rows.actor].astype(np.int64)),
        pa.array(rooted[rows.actor].astype(np.int64)),
        spelled(OS_NAMES, world.places.device_os[rows.actor]),
        _age_days(rows, seen_ms),
    ]
    return pa.Table.from_arrays(columns, schema=DEVICE_PROFILES_SCHEMA)


def _midnights(world: World) -> IntArray:
    """Every midnight UTC from the one at or before the start up to the last one before the end."""
    first = world.settings.start_ms // DAY_MS * DAY_MS
    return np.arange(first, world.settings.end_ms, DAY_MS, dtype=np.int64)


def _snapshots(rng: np.random.Generator, world: World, since_ms: IntArray, unknown_share: float) -> _Snapshots:
    """A row per midnight for each actor that exists by then, except for the share that nobody has a profile of."""
    midnights = _midnights(world)
    known = ~happens(rng, unknown_share, len(since_ms))
    day, actor = np.nonzero((since_ms[None, :] <= midnights[:, None]) & known[None, :])
    time_ms = midnights[day]
    written_ms = rng.integers(MINUTE_MS, _SNAPSHOT_MINUTES * MINUTE_MS, len(midnights))[day]
    return _Snapshots(day, actor, time_ms, time_ms + written_ms)


def _until_midnight(world: World, time_ms: IntArray, actor: IntArray, value: FloatArray, n: int) -> FloatArray:
    """Sums of `value` per midnight and actor over the events before that midnight; shape (midnights, n)."""
    midnights = _midnights(world)
    counted_at = np.searchsorted(midnights, time_ms, side="right")
    inside = counted_at < len(midnights)
    cell = counted_at[inside] * n + actor[inside]
    per_day = np.bincount(cell, weights=value[inside], minlength=len(midnights) * n)
    return np.cumsum(per_day.reshape(len(midnights), n), axis=0)


def _first_seen_ms(rng: np.random.Generator, world: World, time_ms: IntArray, actor: IntArray, n: int) -> IntArray:
    """When each ip or device was first seen: mostly long ago, for some with their first event of the span."""
    earlier = world.settings.start_ms - (rng.exponential(200 * DAY_MS, n) + DAY_MS).astype(np.int64)
    first = np.full(n, world.settings.end_ms, dtype=np.int64)
    np.minimum.at(first, actor, time_ms)
    return np.where(happens(rng, 0.15, n), first, earlier)


def _members(index: IntArray, n: int) -> BoolArray:
    member = np.zeros(n, dtype=bool)
    member[index] = True
    return member


def _age_days(rows: _Snapshots, since_ms: IntArray) -> pa.Array:
    return pa.array(np.round((rows.time_ms - since_ms[rows.actor]) / DAY_MS, 3))
