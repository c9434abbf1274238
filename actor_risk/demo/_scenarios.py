"""What a demo is about: its events, its models, and whom it asks about before and after a burst of abuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from actor_risk.simulate import (
    Simulation,
    SimulationSettings,
    click_farm_burst,
    load_clicks,
    moved,
    quiet_honest_actors,
    shift_to,
    simulate,
    split,
)
from actor_risk.training import CONVERSION, RECIPES, Recipe
from models.train import TrainSettings

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HISTORY_DAYS = 10
BURST_MS = 4 * 60_000
BURST_CLICKS = 240
LIVE_MS_MIN = 2 * BURST_MS
RECENT_MS = 3 * HOUR_MS
USUAL_CLICKS = 3
KEYS = ("creator_id", "advertiser_id", "ip", "device_id")
CLICK_USD = 0.25
CLICK_DELAY_MS = 4_200
SEED = 7
WORLD_END_MS = 1_763_810_700_000  # a Saturday, 11:25 UTC
"""The world is always the same one, moved so that it ends now: what a demo shows does not depend on the hour."""


@dataclass(frozen=True)
class Burst:
    """Abuse by one actor: `events(now_ms)` just happened, `click` (without id and time) is what is asked about."""

    about: str
    model: str
    click: dict[str, str | float]
    events: Callable[[int], pa.Table]
    expected: str


@dataclass(frozen=True)
class Scenario:
    """The events of a demo, split at the full hour where the stream takes over, and what is made of them."""

    about: str
    history: Simulation
    live: Simulation
    cut_ms: int
    recipes: tuple[Recipe, ...]
    settings: TrainSettings
    rows_max: int
    burst: Burst


def simulated(now_ms: int) -> Scenario:
    """Simulated ads and accounts, and a click farm that falls upon a creator who has been quiet."""
    made = simulate(SimulationSettings(seed=SEED, start_ms=WORLD_END_MS - HISTORY_DAYS * DAY_MS, end_ms=WORLD_END_MS))
    world = moved(made, now_ms - WORLD_END_MS)
    cut_ms = _cut_ms(now_ms)
    history, live = split(world, cut_ms)
    one = _honest_click(world, now_ms)
    farm = quiet_honest_actors(history, 6)
    return Scenario(
        about=f"simulated events of {HISTORY_DAYS} days, seed {SEED}",
        history=history,
        live=live,
        cut_ms=cut_ms,
        recipes=tuple(RECIPES.values()),
        settings=TrainSettings(seed=SEED, threads=1),  # the other core is busy: OpenMP threads would wait for it
        rows_max=20_000,
        burst=Burst(
            about=f"a click farm clicks {BURST_CLICKS} times in {BURST_MS // 60_000} minutes on {one['creator_id']}",
            model="ad_click_risk",
            click={**one, "amount_usd": CLICK_USD, "ms_since_impression": CLICK_DELAY_MS},
            events=lambda at_ms: click_farm_burst(
                SEED,
                at_ms - BURST_MS,
                BURST_MS,
                BURST_CLICKS,
                one["advertiser_id"],
                one["creator_id"],
                [one["ip"], *farm.ips[:2]],
                [one["device_id"], *farm.device_ids[:3]],
            ),
            expected="the risk rises",
        ),
    )


def real_clicks(path: Path, now_ms: int) -> Scenario:
    """The real clicks of a file, moved in time so that the last one is now, with installs as the label.

    The label says *installed*, not *fraud*: the score is the probability of an install, and a burst makes it fall.
    """
    clicks = load_clicks(path, shift_to(path, now_ms))
    cut_ms = _cut_ms(now_ms)
    history, live = split(clicks, cut_ms)
    one = _typical_click(history.ad_events)
    return Scenario(
        about=f"{clicks.ad_events.num_rows:,} real clicks, moved in time so that the last one is now",
        history=history,
        live=live,
        cut_ms=cut_ms,
        recipes=(CONVERSION,),
        settings=TrainSettings(seed=SEED, trees=60, leaves=7, depth=3, leaf_rows_min=200, threads=1),
        rows_max=100_000,
        burst=Burst(
            about=f"{BURST_CLICKS} clicks within {BURST_MS // 60_000} minutes from one IP, {one['ip']}",
            model=CONVERSION.model,
            click=dict(one),
            events=lambda at_ms: click_farm_burst(
                SEED,
                at_ms - BURST_MS,
                BURST_MS,
                BURST_CLICKS,
                one["advertiser_id"],
                one["creator_id"],
                [one["ip"]],
                [one["device_id"]],
            ),
            expected="the score is the probability of an install, not of fraud",
        ),
    )


def _cut_ms(now_ms: int) -> int:
    """The full hour where history ends: before the burst begins, or a part of it would fall on the batch side."""
    return (now_ms - LIVE_MS_MIN) // HOUR_MS * HOUR_MS


def _honest_click(world: Simulation, now_ms: int) -> dict[str, str]:
    """The keys of a click of the last hours by actors whom no label calls abusive, on a creator of usual size."""
    labels = world.ad_click_labels.to_pandas()
    accused = labels[labels["label"] == 1]
    recent = labels[labels["event_time"] > pd.Timestamp(now_ms - RECENT_MS, unit="ms", tz="UTC")]
    for name in KEYS:
        kept = recent[~recent[name].isin(accused[name])]
        recent = kept if len(kept) else recent  # in a small world everybody may have met an abuser
    sizes = recent["creator_id"].map(labels["creator_id"].value_counts())
    row = recent.iloc[int((sizes - sizes.median()).abs().argmin())]
    return {name: str(row[name]) for name in KEYS}


def _typical_click(events: pa.Table) -> dict[str, str]:
    """The keys of the last click of an IP with few clicks."""
    clicks = events.to_pandas()
    per_ip = clicks["ip"].map(clicks["ip"].value_counts())
    row = clicks[per_ip == USUAL_CLICKS].iloc[-1]
    return {name: str(row[name]) for name in KEYS}
