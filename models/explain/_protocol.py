"""What every explainer answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats
from models.errors import MissingExtraError
from models.graph import LOG_ODDS, PROBABILITY

__all__ = ["LOG_ODDS", "PROBABILITY", "Explainer", "Explanation"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """`base_value` + the sum of a row of `attributions` (float64[N, F]) is the row's margin, or its score where a
    probability was asked for.

    `reference` says what the rows are compared with, `output_space` in which unit, see `models.graph`.
    Estimates have `standard_errors` float64[N, F] of the attributions and the number of `pairs` int64[N] of sampled
    orders behind them; exact explanations have neither.
    """

    base_value: float
    attributions: Floats
    reference: str
    output_space: str
    standard_errors: Floats | None = None
    pairs: NDArray[np.int64] | None = None

    def to_shap(self, names: Sequence[str], data: Floats | None = None) -> Any:
        """The same as a `shap.Explanation`, for shap's plots and whatever else takes one.

        `names` of the F features; `data` float64[N, F], the rows that were explained, for plots that colour by value.
        Raises MissingExtraError without the extra `plots`.
        """
        try:
            import shap
        except ImportError as error:
            raise MissingExtraError("shap is not installed: `pip install 'actor-risk[plots]'`") from error
        base_values = np.full(len(self.attributions), self.base_value)
        return shap.Explanation(self.attributions, base_values, data, feature_names=list(names))


class Explainer(Protocol):
    """Splits a margin into one share per feature."""

    @property
    def base_value(self) -> float: ...

    def explain(self, matrix: Floats) -> Explanation:
        """The explanation of float64[N, F], NaN for a missing value. Raises InputError for another width."""
        ...
