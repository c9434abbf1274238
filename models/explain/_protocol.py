"""What every explainer answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from models._arrays import Floats

LOG_ODDS, PROBABILITY = "log_odds", "probability"


@dataclass(frozen=True, slots=True)
class Explanation:
    """`base_value` + the sum of a row of `attributions` (float64[N, F]) is the row's margin.

    `reference` says what the rows are compared with, `output_space` in which unit; where that is `probability`, the sum is
    the row's score.
    """

    base_value: float
    attributions: Floats
    reference: str
    output_space: str


class Explainer(Protocol):
    """Splits a margin into one share per feature."""

    @property
    def base_value(self) -> float: ...

    def explain(self, matrix: Floats) -> Explanation:
        """The explanation of float64[N, F], NaN for a missing value. Raises InputError for another width."""
        ...
