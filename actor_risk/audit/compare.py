"""Served values beside recomputed ones: which are equal. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actor_risk.audit.definition import AuditedFeature

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

EXACT_MAX = 2**53


@dataclass(frozen=True)
class Values:
    """Values of n decisions. numbers: float64[n, F]. there: bool[n, F], whether there is a value. others: (decision,
    feature) → the value where a float64 does not say it: words, and integers beyond 2^53."""

    numbers: Floats
    there: Mask
    others: Mapping[tuple[int, int], Any]

    def value(self, row: int, place: int) -> Any:
        """One value as it is; None for none."""
        if not self.there[row, place]:
            return None
        return self.others.get((row, place), float(self.numbers[row, place]))


def equal_values(online: Values, offline: Values, features: Sequence[AuditedFeature]) -> Mask:
    """bool[n, F]: no value on both sides, or values that differ by no more than the feature's tolerance."""
    tolerances = np.array([feature.tolerance for feature in features])
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.maximum(1.0, np.maximum(np.abs(online.numbers), np.abs(offline.numbers)))
        gaps = np.abs(online.numbers - offline.numbers)
        close = (gaps <= tolerances * scale) & np.isfinite(gaps)
    same = np.where(online.there & offline.there, close | (online.numbers == offline.numbers), False)
    same |= ~online.there & ~offline.there
    for row, place in online.others.keys() | offline.others.keys():
        same[row, place] = online.value(row, place) == offline.value(row, place)
    return np.asarray(same)


def differences(online: Values, offline: Values) -> Floats:
    """float64[n, F]: the absolute difference of two numbers, NaN where there are not two."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(online.numbers - offline.numbers)
        apart[online.numbers == offline.numbers] = 0.0  # two equal infinities
    apart[~(online.there & offline.there)] = np.nan
    return np.asarray(apart)


def relative_differences(online: Values, offline: Values) -> Floats:
    """float64[n, F]: 2·|a−b| / (|a|+|b|), from 0 to 2, and 0 for two zeros; NaN where there are not two numbers."""
    apart = differences(online, offline)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        found = np.minimum(apart / (np.abs(online.numbers) / 2 + np.abs(offline.numbers) / 2), 2.0)
    found[apart == 0] = 0.0
    found[np.isinf(apart)] = 2.0
    return np.asarray(found)


def as_logged(value: Any) -> Any:
    """A word as the log has it: bytes in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def exceeds_float(value: Any) -> bool:
    """Whether it is an integer that float64 may not tell from its neighbours."""
    return isinstance(value, int) and not -EXACT_MAX <= value <= EXACT_MAX
