"""Preparation in front of an explained model: the prepared row is explained, its columns are the features."""

from __future__ import annotations

from models._arrays import Floats
from models.explain._core import Preparation
from models.explain._protocol import Explainer, Explanation


class Prepared:
    """An explainer of prepared rows as one of rows: what treats each feature alone changes no feature's share."""

    def __init__(self, explainer: Explainer, preparation: Preparation) -> None:
        self._explainer = explainer
        self._preparation = preparation

    @property
    def base_value(self) -> float:
        return self._explainer.base_value

    def explain(self, matrix: Floats) -> Explanation:
        """The explanation of float64[N, F]. Raises InputError for another width."""
        return self._explainer.explain(self._preparation.apply(matrix))
