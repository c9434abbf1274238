"""Click farms and click injection: who they are and the clicks that they make.

The demo's burst and the history of a whole world come from the same `farm_exposures`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actor_risk.simulate._arrays import (
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    BoolArray,
    FloatArray,
    IntArray,
    Pools,
    draw_by,
    evenly,
    group_of,
    happens,
    lognormal_ms,
    spread_over,
)
from actor_risk.simulate._episodes import Episodes
from actor_risk.simulate._exposures import Exposures
from actor_risk.simulate._places import Places
from actor_risk.simulate._settings import SimulationSettings

_CLICKS_PER_FARM = 130
_SLOW_SHARE = 0.3
_BLITZ_EFFORT = 2.5
_LOGGED_IMPRESSION = 0.6


@dataclass(frozen=True)
class ClickFarms:
    """Farms by index: the pools that each works with. A slow farm has many devices and ips and never hurries."""

    devices: Pools
    ips: Pools
    creators: Pools
    slow: BoolArray


def build_farms(rng: np.random.Generator, settings: SimulationSettings, places: Places, clicks: int) -> ClickFarms:
    """Farms for about `clicks` invalid clicks; no clicks, no farms."""
    n = min(max(3, clicks // _CLICKS_PER_FARM), settings.creators // 8) if clicks else 0
    slow = happens(rng, _SLOW_SHARE, n)
    devices = np.where(slow, rng.integers(40, 120, n), rng.integers(4, 30, n))
    ips = np.where(slow, rng.integers(20, 60, n), rng.integers(1, 8, n))
    customers = rng.integers(1, 4, n)
    own_ips = rng.integers(0, settings.ips, int(ips.sum()))
    behind_shared = places.shared_ips[rng.integers(0, len(places.shared_ips), len(own_ips))]
    return ClickFarms(
        devices=Pools(rng.integers(0, settings.devices, int(devices.sum())), devices),
        ips=Pools(np.where(happens(rng, 0.25, len(own_ips)), behind_shared, own_ips), ips),
        creators=Pools(rng.integers(0, settings.creators, int(customers.sum())), customers),
        slow=slow,
    )


def farm_episodes(rng: np.random.Generator, farms: ClickFarms, settings: SimulationSettings, clicks: int) -> Episodes:
    """When the farms work: blitzes of minutes, shifts of hours, and slow runs of days."""
    per_farm = np.where(farms.slow, 2, rng.integers(1, 6, len(farms.slow)))
    group = group_of(per_farm)
    n = len(group)
    blitz = happens(rng, 0.4, n) & ~farms.slow[group]
    shift_ms = np.where(
        farms.slow[group], lognormal_ms(rng, 60 * HOUR_MS, 0.4, n), lognormal_ms(rng, 7 * HOUR_MS, 0.8, n)
    )
    duration_ms = np.where(blitz, lognormal_ms(rng, 15 * MINUTE_MS, 0.7, n), shift_ms)
    span_ms = settings.end_ms - settings.start_ms
    latest = np.maximum(1, span_ms - duration_ms // 2)
    start_ms = settings.start_ms + (evenly(rng, n) * latest).astype(np.int64)
    effort = rng.gamma(2.0, 1.0, n) * np.where(blitz, _BLITZ_EFFORT, 1.0)
    return Episodes(group, start_ms, duration_ms, spread_over(clicks, effort))


def farm_exposures(
    rng: np.random.Generator, farms: ClickFarms, episodes: Episodes, advertisers: FloatArray
) -> Exposures:
    """The invalid clicks of these episodes: few devices and ips on few creators, ramping up, hardly converting.

    `advertisers` is the cumulative distribution of the advertisers whose ads those creators show.
    """
    spell = np.repeat(np.arange(len(episodes.size)), episodes.size)
    group = episodes.group[spell]
    n = len(group)
    progress = rng.random(n) ** 0.7
    return Exposures(
        time_ms=episodes.start_ms[spell] + (progress * episodes.duration_ms[spell]).astype(np.int64),
        advertiser=draw_by(rng, advertisers, n),
        creator=farms.creators.draw(rng, group),
        ip=farms.ips.draw(rng, group),
        device=farms.devices.draw(rng, group),
        shown=happens(rng, _LOGGED_IMPRESSION, n),
        clicked=np.ones(n, dtype=bool),
        click_after_ms=lognormal_ms(rng, 2_600, 0.7, n),
        converted=happens(rng, 0.006, n),
        convert_after_ms=lognormal_ms(rng, 6 * MINUTE_MS, 1.5, n),
        invalid=np.ones(n, dtype=bool),
    )


def camouflage(
    rng: np.random.Generator, farms: ClickFarms, episodes: Episodes, share: float
) -> tuple[IntArray, IntArray, IntArray]:
    """Times, ips and devices of honest-looking sessions by which the farms hide, `share` of their clicks in number."""
    spell = np.repeat(np.arange(len(episodes.size)), (episodes.size * share).astype(np.int64))
    group = episodes.group[spell]
    # Outside the spell too: a device of a farm has a quiet past and a quiet future.
    drift = (rng.random(len(spell)) * 4 - 1.5) * episodes.duration_ms[spell]
    time_ms = episodes.start_ms[spell] + drift.astype(np.int64)
    return time_ms, farms.ips.draw(rng, group), farms.devices.draw(rng, group)


def injected_exposures(
    rng: np.random.Generator,
    places: Places,
    time_ms: IntArray,
    creator: IntArray,
    advertisers: FloatArray,
) -> Exposures:
    """Injected clicks at these instants: real users' devices, a click some milliseconds after the impression, and
    an install that was under way already, so that many convert at once."""
    n = len(time_ms)
    device = places.devices(rng, n)
    return Exposures(
        time_ms=time_ms,
        advertiser=draw_by(rng, advertisers, n),
        creator=creator,
        ip=places.ips_of(rng, device),
        device=device,
        shown=np.ones(n, dtype=bool),
        clicked=np.ones(n, dtype=bool),
        click_after_ms=lognormal_ms(rng, 70, 0.9, n),
        converted=happens(rng, 0.35, n),
        convert_after_ms=lognormal_ms(rng, 25 * SECOND_MS, 0.9, n),
        invalid=np.ones(n, dtype=bool),
    )
