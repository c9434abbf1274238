"""Preparation in front of an explained model: the prepared row is explained, its columns are the features."""

from __future__ import annotations

from models._arrays import Floats
from models.errors import UnsupportedModelError
from models.explain._core import Preparation
from models.explain._protocol import Explainer, Explanation
from models.explain._trees import InterventionalTrees


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

    def explain_probability(self, matrix: Floats) -> Explanation:
        """As `InterventionalTrees.explain_probability`. Raises UnsupportedModelError for other explainers behind it."""
        if isinstance(self._explainer, InterventionalTrees):
            return self._explainer.explain_probability(self._preparation.apply(matrix))
        raise UnsupportedModelError("only trees in log-odds that compare with a background explain a probability")
