"""Advertisers: honest ones, agencies, and the accounts that stolen cards, farms and reseller rings stand behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actor_risk.simulate._arrays import (
    DAY_MS,
    HOUR_MS,
    BoolArray,
    FloatArray,
    IntArray,
    Pools,
    evenly,
    happens,
    lognormal_ms,
)
from actor_risk.simulate._behaviour import AccountBehaviour, Pattern, account_behaviour
from actor_risk.simulate._places import Places
from actor_risk.simulate._settings import SimulationSettings

NEVER_MS = 2**62
_ABUSE_SHARES = {Pattern.STOLEN_CARD: 0.4, Pattern.ACCOUNT_FARM: 0.3, Pattern.RESELLER_RING: 0.3}
_AGENCY_SHARE = 0.3
_TEAM_SIZE = {Pattern.HONEST: 8, Pattern.STOLEN_CARD: 1, Pattern.ACCOUNT_FARM: 5, Pattern.RESELLER_RING: 5}
_FRESH_SHARE = {Pattern.HONEST: 0.2, Pattern.STOLEN_CARD: 0.55, Pattern.ACCOUNT_FARM: 1.0, Pattern.RESELLER_RING: 0.25}


@dataclass(frozen=True)
class Advertisers:
    """Advertisers by index.

    `begin_ms` is the instant from which an account is abusive (`NEVER_MS` for honest ones), `closed_ms` the one at
    which the platform closes it. `own_*` and `ring_*` have shape (n, 2): usual and second choice, before the abuse
    and during it.
    """

    pattern: IntArray
    begin_ms: IntArray
    signup_ms: IntArray
    closed_ms: IntArray
    own_ip: IntArray
    own_device: IntArray
    ring_ip: IntArray
    ring_device: IntArray
    activity: FloatArray
    budget: FloatArray
    click_price_usd: FloatArray
    behaviour: AccountBehaviour

    @property
    def abusive(self) -> BoolArray:
        """Which advertisers turn abusive at some time."""
        return np.asarray(self.pattern != Pattern.HONEST)


@dataclass(frozen=True)
class _Careers:
    begin_ms: IntArray
    signup_ms: IntArray
    closed_ms: IntArray


def build_advertisers(rng: np.random.Generator, settings: SimulationSettings, places: Places) -> Advertisers:
    """The advertisers of a world."""
    n = settings.advertisers
    pattern, team = _patterns_and_teams(rng, settings)
    own_device = places.devices(rng, 2 * n).reshape(n, 2)
    own_ip = np.stack([places.home_ip[own_device[:, 0]], places.second_ip[own_device[:, 0]]], axis=1)
    ring_ip, ring_device = _team_places(rng, settings, places, pattern, team)
    from_the_first_day = ((team >= 0) & (pattern != Pattern.RESELLER_RING))[:, None]
    careers = _careers(rng, settings, pattern, team)
    return Advertisers(
        pattern=pattern,
        begin_ms=careers.begin_ms,
        signup_ms=careers.signup_ms,
        closed_ms=careers.closed_ms,
        own_ip=np.where(from_the_first_day, ring_ip, own_ip),
        own_device=np.where(from_the_first_day, ring_device, own_device),
        ring_ip=ring_ip,
        ring_device=ring_device,
        activity=np.exp(0.8 * rng.standard_normal(n)),
        budget=np.exp(1.4 * rng.standard_normal(n)),
        click_price_usd=0.25 * np.exp(0.6 * rng.standard_normal(n)),
        behaviour=account_behaviour(rng, pattern),
    )


def _patterns_and_teams(rng: np.random.Generator, settings: SimulationSettings) -> tuple[IntArray, IntArray]:
    """Each advertiser's pattern and the number of its team, −1 for those who act alone."""
    n = settings.advertisers
    abusive = round(n * settings.abusive_advertiser_share)
    counts = {pattern: int(abusive * share) for pattern, share in _ABUSE_SHARES.items()}
    counts[Pattern.STOLEN_CARD] += abusive - sum(counts.values())
    counts[Pattern.HONEST] = n - abusive
    pattern = np.repeat(list(counts), list(counts.values())).astype(np.int64)
    place = np.concatenate([np.arange(count) for count in counts.values()])
    team = pattern * n + place // _by_pattern(_TEAM_SIZE, pattern).astype(np.int64)
    alone = (pattern == Pattern.STOLEN_CARD) | (
        (pattern == Pattern.HONEST) & (place >= _AGENCY_SHARE * counts[Pattern.HONEST])
    )
    numbers = np.unique(np.where(alone, -1, team), return_inverse=True)[1] - int(alone.any())
    order = rng.permutation(n)
    return pattern[order], numbers[order]


def _team_places(
    rng: np.random.Generator, settings: SimulationSettings, places: Places, pattern: IntArray, team: IntArray
) -> tuple[IntArray, IntArray]:
    """ips and devices, shape (n, 2), that a team shares; a stolen card brings strange ones of its own."""
    n = len(team)
    size = rng.integers(1, 4, max(1, int(team.max()) + 1))
    devices = Pools(rng.integers(0, settings.devices, int(size.sum())), size)
    ips = Pools(places.home_ip[devices.members], size)
    group = np.repeat(np.maximum(team, 0), 2)
    alone = np.repeat(team < 0, 2)
    ip = np.where(alone, rng.integers(0, settings.ips, 2 * n), ips.draw(rng, group)).reshape(n, 2)
    device = np.where(alone, rng.integers(0, settings.devices, 2 * n), devices.draw(rng, group)).reshape(n, 2)
    one_device = (pattern == Pattern.ACCOUNT_FARM)[:, None]
    first_of_team = devices.members[(np.cumsum(size) - size)[np.maximum(team, 0)]][:, None]
    return ip, np.where(one_device, first_of_team, device)


def _careers(rng: np.random.Generator, settings: SimulationSettings, pattern: IntArray, team: IntArray) -> _Careers:
    """When an account signs up, turns abusive and is closed; a team's accounts do so soon after one another."""
    n = len(pattern)
    span_ms = settings.end_ms - settings.start_ms
    of_team = evenly(rng, max(1, int(team.max()) + 1))[np.maximum(team, 0)]
    moment = np.where(team >= 0, of_team, evenly(rng, n)) * 1.05 - 0.1
    apart_ms = rng.exponential(np.where(pattern == Pattern.RESELLER_RING, 2 * DAY_MS, 6 * HOUR_MS))
    turn_ms = settings.start_ms + (moment * span_ms + np.where(team >= 0, apart_ms, 0)).astype(np.int64)
    old_ms = settings.start_ms - (rng.exponential(300 * DAY_MS, n) + DAY_MS).astype(np.int64)
    warms_up = np.isin(pattern, (Pattern.STOLEN_CARD, Pattern.RESELLER_RING))
    warm_up_ms = np.where(warms_up, rng.exponential(1.5 * DAY_MS, n), 0).astype(np.int64)
    fresh = happens(rng, _by_pattern(_FRESH_SHARE, pattern), n)
    abusive = pattern != Pattern.HONEST
    return _Careers(
        begin_ms=np.where(abusive, turn_ms, NEVER_MS),
        signup_ms=np.where(fresh, turn_ms - warm_up_ms, np.minimum(old_ms, turn_ms)),
        closed_ms=np.where(abusive, turn_ms + lognormal_ms(rng, 3.5 * DAY_MS, 0.5, n), NEVER_MS),
    )


def _by_pattern(values: dict[Pattern, float] | dict[Pattern, int], pattern: IntArray) -> FloatArray:
    return np.array([values[each] for each in Pattern], dtype=np.float64)[pattern]
