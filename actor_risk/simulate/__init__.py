"""Simulated events with known truth: ordinary ad and account traffic with real patterns of abuse mixed in."""

from actor_risk.simulate._bursts import QuietActors, click_farm_burst, quiet_honest_actors, stolen_card_burst
from actor_risk.simulate._errors import (
    InvalidClicksFileError,
    InvalidSettingsError,
    SimulationError,
    UnknownTopicError,
)
from actor_risk.simulate._lines import json_lines
from actor_risk.simulate._settings import SimulationSettings
from actor_risk.simulate._simulation import Simulation, moved, simulate, split
from actor_risk.simulate._write import FILES, write
from actor_risk.simulate.clicks import load_clicks, shift_to

__all__ = [
    "FILES",
    "InvalidClicksFileError",
    "InvalidSettingsError",
    "QuietActors",
    "Simulation",
    "SimulationError",
    "SimulationSettings",
    "UnknownTopicError",
    "click_farm_burst",
    "json_lines",
    "load_clicks",
    "moved",
    "quiet_honest_actors",
    "shift_to",
    "simulate",
    "split",
    "stolen_card_burst",
    "write",
]
