"""Sudden abuse by chosen actors, for a demonstration: made by the generators of the history itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actor_risk.simulate._arrays import DAY_MS, IntArray, Pools
from actor_risk.simulate._cards import card_runs, stolen_card_behaviour
from actor_risk.simulate._episodes import Episodes
from actor_risk.simulate._errors import InvalidSettingsError
from actor_risk.simulate._exposures import unfold
from actor_risk.simulate._farms import ClickFarms, farm_exposures
from actor_risk.simulate._places import country_of_ips, os_of_devices
from actor_risk.simulate._simulation import Simulation, in_span
from actor_risk.simulate._tables import Names, account_table, ad_table
from actor_risk.simulate._world import Stream, random_stream

_CLICK_PRICE_USD = 0.25
_NOBODY = pa.array([], pa.string())


@dataclass(frozen=True)
class QuietActors:
    """Names of actors, the quietest first; all four tuples may be shorter than asked for, never longer."""

    advertiser_ids: tuple[str, ...]
    creator_ids: tuple[str, ...]
    ips: tuple[str, ...]
    device_ids: tuple[str, ...]


def quiet_honest_actors(simulation: Simulation, n: int) -> QuietActors:
    """Up to n actors of each kind that no label calls abusive and that have a history but do little at present.

    A history is as many events as the median actor has, of an advertiser's account events, of all events of an ip or
    a device. Present is the last day of `simulation`, which may be the history half of a `split`. Order: fewest
    events in that day, then most events ever, then the name.
    """
    ads, accounts = simulation.ad_events, simulation.account_events
    advertisers = accounts.filter(pc.equal(accounts.column("actor_type"), "advertiser")).rename_columns(
        ["advertiser_id" if name == "actor_id" else name for name in accounts.column_names]
    )
    return QuietActors(
        advertiser_ids=_quiet("advertiser_id", [advertisers], _labels(simulation), n),
        creator_ids=_quiet("creator_id", [ads], _labels(simulation), n),
        ips=_quiet("ip", [ads, accounts], _labels(simulation), n),
        device_ids=_quiet("device_id", [ads, accounts], _labels(simulation), n),
    )


def click_farm_burst(
    seed: int,
    start_ms: int,
    duration_ms: int,
    clicks: int,
    advertiser_id: str,
    creator_id: str,
    ips: Sequence[str],
    devices: Sequence[str],
) -> pa.Table:
    """A click farm's work on one creator's placements: about `clicks` clicks in the schema of `ad_events`.

    Events lie in `[start_ms, start_ms + duration_ms)`, sorted by time; a part of the impressions is among them. Each
    click comes from one of the devices and one of the ips, so few of these make the burst plain.
    Raises InvalidSettingsError for a size below 1 and for no ip or device.
    """
    _require(clicks, duration_ms, ips, devices)
    rng = random_stream(seed, Stream.BURST)
    one = np.zeros(1, dtype=np.int64)
    farm = ClickFarms(_pool(devices), _pool(ips), Pools(one, one + 1), slow=np.zeros(1, dtype=bool))
    exposures = farm_exposures(rng, farm, _episode(start_ms, duration_ms, clicks), np.ones(1))
    batch = in_span(unfold(rng, exposures, np.full(1, _CLICK_PRICE_USD)), start_ms, start_ms + duration_ms)
    names = _names(pa.array([advertiser_id]), pa.array([creator_id]), ips, devices)
    return ad_table(batch, names, rng, f"click-farm-{seed}-{start_ms:x}")


def stolen_card_burst(
    seed: int,
    start_ms: int,
    duration_ms: int,
    attempts: int,
    advertiser_id: str,
    ips: Sequence[str],
    devices: Sequence[str],
) -> pa.Table:
    """Burst spending on stolen cards: `attempts` payments and failed payments, with the logins, submitted ads and
    chargebacks that go with them, in the schema of `account_events`.

    Events lie in `[start_ms, start_ms + duration_ms)`, sorted by time. Each attempt comes from one of the devices and
    one of the ips; many ips mean many countries.
    Raises InvalidSettingsError for a size below 1 and for no ip or device.
    """
    _require(attempts, duration_ms, ips, devices)
    rng = random_stream(seed, Stream.BURST)
    group = np.zeros(attempts, dtype=np.int64)
    batch = card_runs(
        rng,
        _episode(start_ms, duration_ms, attempts),
        stolen_card_behaviour(rng, 1),
        ip=_pool(ips).draw(rng, group),
        device=_pool(devices).draw(rng, group),
    )
    names = _names(pa.array([advertiser_id]), _NOBODY, ips, devices)
    return account_table(
        in_span(batch, start_ms, start_ms + duration_ms), names, rng, f"stolen-card-{seed}-{start_ms:x}"
    )


def _labels(simulation: Simulation) -> list[pa.Table]:
    return [simulation.ad_click_labels, simulation.advertiser_labels]


def _quiet(key: str, events: list[pa.Table], labels: list[pa.Table], n: int) -> tuple[str, ...]:
    keys = pa.chunked_array([chunk for table in events for chunk in table.column(key).chunks], pa.string())
    time_ms = np.concatenate([_milliseconds(table) for table in events])
    if len(time_ms) == 0:
        return ()
    encoded = keys.combine_chunks().dictionary_encode()
    names, index = encoded.dictionary, encoded.indices.to_numpy()
    ever = np.bincount(index, minlength=len(names))
    recent = np.bincount(index[time_ms > time_ms.max() - DAY_MS], minlength=len(names))
    honest = ~np.asarray(pc.is_in(names, _accused(key, labels)).to_numpy(zero_copy_only=False), dtype=bool)
    order = np.lexsort((names.to_numpy(zero_copy_only=False).astype(str), -ever, recent))
    fit = honest & (ever >= np.median(ever))
    return tuple(names.take(pa.array(order[fit[order]][:n])).to_pylist())


def _accused(key: str, labels: list[pa.Table]) -> pa.Array:
    """Everybody with this key in a row whose label is 1."""
    rows = [table.filter(pc.equal(table.column("label"), 1)) for table in labels if key in table.column_names]
    return pa.chunked_array([chunk for table in rows for chunk in table.column(key).chunks], pa.string()).unique()


def _milliseconds(table: pa.Table) -> IntArray:
    return np.asarray(table.column("event_time").cast(pa.int64()).to_numpy())


def _require(size: int, duration_ms: int, ips: Sequence[str], devices: Sequence[str]) -> None:
    if size < 1 or duration_ms < 1:
        raise InvalidSettingsError(f"{size} events in {duration_ms} ms: give 1 or more of both")
    if not ips or not devices:
        raise InvalidSettingsError("a burst comes from somewhere: give at least one ip and one device")


def _pool(names: Sequence[str]) -> Pools:
    return Pools(np.arange(len(names)), np.array([len(names)]))


def _episode(start_ms: int, duration_ms: int, size: int) -> Episodes:
    return Episodes(np.array([0]), np.array([start_ms]), np.array([duration_ms]), np.array([size]))


def _names(advertisers: pa.Array, creators: pa.Array, ips: Sequence[str], devices: Sequence[str]) -> Names:
    return Names(advertisers, creators, pa.array(ips), pa.array(devices), country_of_ips(ips), os_of_devices(devices))
