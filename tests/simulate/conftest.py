"""One small world that most tests look at."""

from __future__ import annotations

import pytest

from actor_risk.simulate import Simulation, SimulationSettings, simulate

START_MS = 1_763_596_800_000  # 2025-11-20T00:00:00Z
DAY_MS = 86_400_000


@pytest.fixture(scope="session")
def small_settings() -> SimulationSettings:
    return SimulationSettings(
        seed=7,
        start_ms=START_MS,
        end_ms=START_MS + 5 * DAY_MS,
        advertisers=300,
        creators=400,
        ips=3_000,
        devices=4_000,
        ad_events_per_day=8_000,
        account_events_per_day=3_000,
    )


@pytest.fixture(scope="session")
def small(small_settings: SimulationSettings) -> Simulation:
    return simulate(small_settings)
