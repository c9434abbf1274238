"""The hidden truth of a simulation: who there is, and which of them are abusive from when on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from actor_risk.simulate._advertisers import Advertisers, build_advertisers
from actor_risk.simulate._arrays import FloatArray, IntArray, cumulative
from actor_risk.simulate._creators import Creators, build_creators
from actor_risk.simulate._farms import ClickFarms, build_farms
from actor_risk.simulate._places import Places, build_places
from actor_risk.simulate._settings import SimulationSettings

CLICKS_PER_EVENT = 0.3
_INJECTED_SHARE = 0.22


class Stream(IntEnum):
    """Independent random streams, so that a change of one part of the world leaves the others as they were."""

    PLACES = 0
    FARMS = 1
    CREATORS = 2
    ADVERTISERS = 3
    AD_TRAFFIC = 4
    AD_ABUSE = 5
    ACCOUNTS = 6
    CARDS = 7
    PROFILES = 8
    LABELS = 9
    INGESTION = 10
    BURST = 11


def random_stream(seed: int, stream: Stream) -> np.random.Generator:
    """The generator of one part of the world with this seed."""
    return np.random.default_rng([seed, int(stream)])


@dataclass(frozen=True)
class World:
    """Everybody in a simulation. `injectors` are the creators whose apps inject clicks."""

    settings: SimulationSettings
    places: Places
    creators: Creators
    advertisers: Advertisers
    farms: ClickFarms
    injectors: IntArray

    @property
    def farm_clicks(self) -> int:
        """About how many clicks the farms make in the span."""
        return invalid_clicks(self.settings) - self.injected_clicks

    @property
    def injected_clicks(self) -> int:
        """About how many clicks are injected in the span."""
        return int(invalid_clicks(self.settings) * _INJECTED_SHARE)

    @property
    def budget_cdf(self) -> FloatArray:
        """The cumulative distribution of ad traffic over advertisers."""
        return cumulative(self.advertisers.budget)


def invalid_clicks(settings: SimulationSettings) -> int:
    """About how many invalid clicks there are in the span."""
    return int(settings.ad_events_per_day * settings.days * CLICKS_PER_EVENT * settings.invalid_click_share)


def build_world(settings: SimulationSettings) -> World:
    """The world of these settings; equal settings build equal worlds."""
    places = build_places(random_stream(settings.seed, Stream.PLACES), settings)
    farms_rng = random_stream(settings.seed, Stream.FARMS)
    clicks = invalid_clicks(settings)
    return World(
        settings=settings,
        places=places,
        creators=build_creators(random_stream(settings.seed, Stream.CREATORS), settings, places),
        advertisers=build_advertisers(random_stream(settings.seed, Stream.ADVERTISERS), settings, places),
        farms=build_farms(farms_rng, settings, places, int(clicks * (1 - _INJECTED_SHARE))),
        injectors=farms_rng.integers(0, settings.creators, max(2, settings.creators // 100) if clicks else 0),
    )
