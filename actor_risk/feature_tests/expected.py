"""What a test expects of a feature, and what of two values is equal."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from actor_risk.feature_tests.nodes import Node
from materialize.online import NUMERIC_KINDS

SUMS_TOLERANCE = 1e-9
"""Relative, absolute below 1: sums that are added in another order differ in their last bits."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_ABOUT = re.compile(rf"~?\s*({_NUMBER})\s*(?:±|\+/?-)\s*({_NUMBER})")


@dataclass(frozen=True)
class Expected:
    """A value as the test gives it. tolerance: how far a number may be off; None: only by how sums are added."""

    value: Any
    tolerance: float | None
    text: str

    def met_by(self, value: Any, tolerance: float) -> bool:
        """Whether a value is the expected one. tolerance: of the feature, see `same`."""
        if self.tolerance is None or value is None or self.value is None:
            return same(self.value, value, tolerance)
        return bool(abs(value - self.value) <= self.tolerance)


def expected(node: Node, kind: str) -> Expected:
    """What is expected of a feature of this Feast value type. Raises ValueError, which says what to write."""
    value = node.value
    if value is None:
        return Expected(None, None, "null")
    if isinstance(value, (list, dict)):
        raise ValueError("write one value: a number, a word, null, or ~ 1.5 ± 0.01")
    if kind not in NUMERIC_KINDS:
        return Expected(node.text, None, node.text)
    about = _ABOUT.fullmatch(node.text.strip())
    if about:
        return Expected(float(about[1]), abs(float(about[2])), f"{about[1]} ± {about[2]}")
    if isinstance(value, str):
        raise ValueError(f"{value!r} is no {kind}: write a number, null, or ~ 1.5 ± 0.01")
    return Expected(value, None, node.text)


def same(left: Any, right: Any, tolerance: float) -> bool:
    """Whether two values are equal: both null, the same word, or numbers that differ by no more than the tolerance,
    which is relative, absolute below 1."""
    if left is None or right is None:
        return left is None and right is None
    if isinstance(left, (str, bytes)) or isinstance(right, (str, bytes)):
        return bool(left == right)
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        return bool(left == right)
    if left == right:
        return True
    return bool(math.isfinite(left) and math.isfinite(right)) and abs(left - right) <= tolerance * max(
        1.0, abs(left), abs(right)
    )
