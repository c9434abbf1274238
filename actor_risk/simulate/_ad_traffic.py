"""Ad traffic: people's sessions with their rush hours, offices and fashions, and the abuse that hides among them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from actor_risk.simulate._arrays import (
    MINUTE_MS,
    SECOND_MS,
    IntArray,
    cumulative,
    draw_by,
    evenly,
    group_of,
    happens,
    lognormal_ms,
    running_total,
)
from actor_risk.simulate._exposures import AdBatch, Exposures, unfold
from actor_risk.simulate._farms import camouflage, farm_episodes, farm_exposures, injected_exposures
from actor_risk.simulate._rhythm import Rhythm, daily_rhythm
from actor_risk.simulate._rows import Rows
from actor_risk.simulate._world import CLICKS_PER_EVENT, Stream, World, random_stream

_EXPOSURES_PER_SESSION = 2.5
_CROWD_SESSIONS = 45
_CROWD_SHARE = 0.14
_CAMOUFLAGE = 0.15
_LOGGED_IMPRESSION = 0.95  # the rest is lost on its way, as beacons are
_EVENTS_PER_SESSION = _EXPOSURES_PER_SESSION * (1 / (1 - CLICKS_PER_EVENT) - (1 - _LOGGED_IMPRESSION))


@dataclass(frozen=True)
class _Sessions(Rows):
    """One row per session; `creator` is −1 where nothing draws the person to one creator."""

    time_ms: IntArray
    device: IntArray
    ip: IntArray
    creator: IntArray


def ad_traffic(world: World) -> AdBatch:
    """All ad events of a world, unsorted, some of them outside the span."""
    rng = random_stream(world.settings.seed, Stream.AD_TRAFFIC)
    abuse_rng = random_stream(world.settings.seed, Stream.AD_ABUSE)
    rhythm = daily_rhythm(rng, world.settings.start_ms, world.settings.end_ms)
    farmed, hiding = _farmed(abuse_rng, world)
    injected = _injected(abuse_rng, world, rhythm)
    events = _events_of(farmed) + _events_of(injected) + len(hiding.time_ms) * _EVENTS_PER_SESSION
    ordinary = _ordinary_sessions(rng, world, rhythm, _ordinary_count(world, events))
    exposures = Exposures.join([_browse(rng, world, ordinary), _browse(abuse_rng, world, hiding), farmed, injected])
    return unfold(rng, _among_members(rng, world, exposures), world.advertisers.click_price_usd)


def _ordinary_count(world: World, abusive_events: float) -> int:
    """How many sessions fill the stream up to its size, after abuse has taken its part."""
    total = world.settings.ad_events_per_day * world.settings.days
    return max(1, int((total - abusive_events) / _EVENTS_PER_SESSION))


def _events_of(exposures: Exposures) -> int:
    return int(exposures.shown.sum() + exposures.clicked.sum() + (exposures.clicked & exposures.converted).sum())


def _ordinary_sessions(rng: np.random.Generator, world: World, rhythm: Rhythm, n: int) -> _Sessions:
    crowd_size = int(n * _CROWD_SHARE)
    alone = n - crowd_size
    device = world.places.devices(rng, alone)
    single = _Sessions(
        rhythm.sample(rng, alone), device, world.places.ips_of(rng, device), np.full(alone, -1, dtype=np.int64)
    )
    return _Sessions.join([single, _crowds(rng, world, rhythm, crowd_size)])


def _crowds(rng: np.random.Generator, world: World, rhythm: Rhythm, n: int) -> _Sessions:
    """Honest bursts: a creator goes viral, or an office looks at the same thing through its one ip."""
    crowds = max(2, n // _CROWD_SESSIONS)
    crowd = draw_by(rng, cumulative(rng.gamma(1.0, 1.0, crowds)), n)
    length_ms = lognormal_ms(rng, 35 * MINUTE_MS, 1.1, crowds)
    local = happens(rng, 0.4, crowds)
    office = world.places.shared_ips[rng.integers(0, len(world.places.shared_ips), crowds)]
    device = world.places.devices(rng, n)
    start_ms = rhythm.sample(rng, crowds)
    return _Sessions(
        time_ms=start_ms[crowd] + (rng.beta(1.5, 3.0, n) * length_ms[crowd]).astype(np.int64),
        device=device,
        ip=np.where(local[crowd], office[crowd], world.places.ips_of(rng, device)),
        creator=draw_by(rng, cumulative(world.creators.popularity), crowds)[crowd],
    )


def _browse(rng: np.random.Generator, world: World, sessions: _Sessions) -> Exposures:
    """What people see and click in these sessions."""
    sizes = rng.geometric(1 / _EXPOSURES_PER_SESSION, len(sessions.time_ms)).astype(np.int64)
    session = group_of(sizes)
    n = len(session)
    browsing_ms = running_total(lognormal_ms(rng, 18 * SECOND_MS, 1.0, n), sizes)
    favourite = np.where(
        sessions.creator >= 0, sessions.creator, draw_by(rng, cumulative(world.creators.popularity), len(sizes))
    )
    elsewhere = draw_by(rng, cumulative(world.creators.popularity), n)
    time_ms = sessions.time_ms[session] + browsing_ms
    creator = _joined_by(rng, world, time_ms, np.where(happens(rng, 0.75, n), favourite[session], elsewhere))
    device = sessions.device[session]
    accident = happens(rng, world.creators.accident_share[creator], n)
    clicked = accident | happens(rng, world.places.click_share[device], n)
    return Exposures(
        time_ms=time_ms,
        advertiser=draw_by(rng, world.budget_cdf, n),
        creator=creator,
        ip=sessions.ip[session],
        device=device,
        shown=happens(rng, _LOGGED_IMPRESSION, n),
        clicked=clicked,
        click_after_ms=lognormal_ms(rng, np.where(accident, 300.0, 4_000.0), 0.9, n),
        converted=happens(rng, np.where(accident, 0.004, 0.05), n),
        convert_after_ms=lognormal_ms(rng, 6 * MINUTE_MS, 2.0, n),
        invalid=np.zeros(n, dtype=bool),
    )


def _joined_by(rng: np.random.Generator, world: World, time_ms: IntArray, creator: IntArray) -> IntArray:
    """The creators, with an old one in place of each that has not signed up by then."""
    old = np.flatnonzero(world.creators.signup_ms < world.settings.start_ms)
    stand_in = old[draw_by(rng, cumulative(world.creators.popularity[old]), len(creator))]
    return np.where(world.creators.signup_ms[creator] <= time_ms, creator, stand_in)


def _farmed(rng: np.random.Generator, world: World) -> tuple[Exposures, _Sessions]:
    """The farms' invalid clicks, and the sessions by which they look like people."""
    episodes = farm_episodes(rng, world.farms, world.settings, world.farm_clicks)
    time_ms, ip, device = camouflage(rng, world.farms, episodes, _CAMOUFLAGE)
    hiding = _Sessions(time_ms, device, ip, np.full(len(time_ms), -1, dtype=np.int64))
    return farm_exposures(rng, world.farms, episodes, world.budget_cdf), hiding


def _injected(rng: np.random.Generator, world: World, rhythm: Rhythm) -> Exposures:
    """Injected clicks of a few apps, each from its own day on."""
    apps = len(world.injectors)
    begin = evenly(rng, apps) * 0.8
    n = int(world.injected_clicks * apps / max(1.0, (1 - begin).sum())) if apps else 0
    app = rng.integers(0, max(1, apps), n)
    time_ms = rhythm.sample(rng, n)
    span_ms = world.settings.end_ms - world.settings.start_ms
    active = np.flatnonzero(time_ms > world.settings.start_ms + begin[app] * span_ms)
    return injected_exposures(rng, world.places, time_ms[active], world.injectors[app[active]], world.budget_cdf)


def _among_members(rng: np.random.Generator, world: World, exposures: Exposures) -> Exposures:
    """Exposures whose creator and advertiser have signed up and are not closed; another advertiser steps in."""
    members, creators = world.advertisers, world.creators
    closed_or_new = (members.signup_ms[exposures.advertiser] > exposures.time_ms) | (
        members.closed_ms[exposures.advertiser] < exposures.time_ms
    )
    founders = np.flatnonzero((members.signup_ms < world.settings.start_ms) & ~members.abusive)
    stand_in = founders[draw_by(rng, cumulative(members.budget[founders]), len(closed_or_new))]
    advertiser = np.where(closed_or_new, stand_in, exposures.advertiser)
    known = creators.signup_ms[exposures.creator] <= exposures.time_ms
    return replace(exposures, advertiser=advertiser).take(known)
