"""What a person or a script did with one shown ad, and the events that the log gets from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from actor_risk.simulate._arrays import BoolArray, FloatArray, IntArray
from actor_risk.simulate._rows import Rows


class AdKind(IntEnum):
    """Event types of `ad_events`; the value indexes `AD_EVENT_TYPES`."""

    IMPRESSION = 0
    CLICK = 1
    CONVERSION = 2


AD_EVENT_TYPES = ("impression", "click", "conversion")


@dataclass(frozen=True)
class Exposures(Rows):
    """One row per ad shown. `time_ms` is the impression; the delays count from it and from the click.

    `shown` says whether the impression itself is logged, `invalid` is the truth about a click.
    """

    time_ms: IntArray
    advertiser: IntArray
    creator: IntArray
    ip: IntArray
    device: IntArray
    shown: BoolArray
    clicked: BoolArray
    click_after_ms: IntArray
    converted: BoolArray
    convert_after_ms: IntArray
    invalid: BoolArray


@dataclass(frozen=True)
class AdBatch(Rows):
    """Ad events as columns, unsorted. `since_ms` is −1 where there is none, `amount_usd` NaN."""

    time_ms: IntArray
    kind: IntArray
    advertiser: IntArray
    creator: IntArray
    ip: IntArray
    device: IntArray
    amount_usd: FloatArray
    since_ms: IntArray
    invalid: BoolArray


def unfold(rng: np.random.Generator, exposures: Exposures, click_price_usd: FloatArray) -> AdBatch:
    """The impressions, clicks and conversions of these exposures. `click_price_usd` is per advertiser."""
    clicked_ms = exposures.time_ms + exposures.click_after_ms
    converted_ms = clicked_ms + exposures.convert_after_ms
    never = np.full(len(clicked_ms), -1, dtype=np.int64)
    parts = [
        (AdKind.IMPRESSION, exposures.shown, exposures.time_ms, never),
        (AdKind.CLICK, exposures.clicked, clicked_ms, exposures.click_after_ms),
        (AdKind.CONVERSION, exposures.clicked & exposures.converted, converted_ms, converted_ms - exposures.time_ms),
    ]
    kind = np.concatenate([np.full(int(keep.sum()), kind, dtype=np.int64) for kind, keep, _, _ in parts])
    row = np.concatenate([np.flatnonzero(keep) for _, keep, _, _ in parts])
    return AdBatch(
        time_ms=np.concatenate([time[keep] for _, keep, time, _ in parts]),
        kind=kind,
        advertiser=exposures.advertiser[row],
        creator=exposures.creator[row],
        ip=exposures.ip[row],
        device=exposures.device[row],
        amount_usd=_amounts(rng, kind, click_price_usd[exposures.advertiser[row]]),
        since_ms=np.concatenate([since[keep] for _, keep, _, since in parts]),
        invalid=exposures.invalid[row],
    )


def _amounts(rng: np.random.Generator, kind: IntArray, click_price_usd: FloatArray) -> FloatArray:
    """What each event cost: an impression little, a click its price, a conversion some tens of clicks."""
    scale = np.array([0.02, 1.0, 25.0])[kind]
    return np.asarray(np.round(click_price_usd * scale * np.exp(0.3 * rng.standard_normal(len(kind))), 4))
