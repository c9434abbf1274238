"""Spells of abuse, or of honest behaviour that resembles it."""

from __future__ import annotations

from dataclasses import dataclass

from actor_risk.simulate._arrays import IntArray
from actor_risk.simulate._rows import Rows


@dataclass(frozen=True)
class Episodes(Rows):
    """`size` clicks or payments by the actor or farm with index `group`, from `start_ms` on for `duration_ms`."""

    group: IntArray
    start_ms: IntArray
    duration_ms: IntArray
    size: IntArray
