"""Creators: whose placements show the ads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actor_risk.simulate._arrays import DAY_MS, FloatArray, IntArray, happens
from actor_risk.simulate._places import Places
from actor_risk.simulate._settings import SimulationSettings


@dataclass(frozen=True)
class Creators:
    """Creators by index. `accident_share` is the share of their clicks that a finger makes by mistake (games)."""

    popularity: FloatArray
    accident_share: FloatArray
    signup_ms: IntArray
    device: IntArray
    ip: IntArray


def build_creators(rng: np.random.Generator, settings: SimulationSettings, places: Places) -> Creators:
    """The creators of a world; a sixth of them signs up within the span."""
    n = settings.creators
    device = places.devices(rng, n)
    span_ms = settings.end_ms - settings.start_ms
    fresh_ms = settings.start_ms + (rng.random(n) * span_ms).astype(np.int64)
    old_ms = settings.start_ms - (rng.exponential(350 * DAY_MS, n) + DAY_MS).astype(np.int64)
    return Creators(
        popularity=np.exp(1.3 * rng.standard_normal(n)),
        accident_share=np.where(happens(rng, 0.06, n), rng.beta(4, 8, n), rng.beta(1, 60, n)),
        signup_ms=np.where(happens(rng, 1 / 6, n), fresh_ms, old_ms),
        device=device,
        ip=places.home_ip[device],
    )
