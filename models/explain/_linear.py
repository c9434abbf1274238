"""Exact Shapley values of a linear model, whatever treats each of its features alone before it.

The margin is a sum of one term for each feature, so a feature's share is its own term minus the background's mean of
that term, in every order of features.
"""

from __future__ import annotations

from models._arrays import Floats
from models.errors import InputError
from models.explain._core import Linear, Preparation
from models.explain._protocol import Explanation


class LinearExplainer:
    """Explains margins of a linear model as differences from a background sample float64[B, F]."""

    def __init__(
        self, linear: Linear, preparation: Preparation, background: Floats, reference: str, output_space: str
    ) -> None:
        """Raises InputError for an empty background or one of another width."""
        prepared = preparation.apply(background)
        if not len(prepared):
            raise InputError("an explanation compares with a background: give at least one row")
        self._linear = linear
        self._preparation = preparation
        self._typical = prepared.mean(axis=0)
        self._reference = reference
        self._output_space = output_space
        # one after the other: a library's product adds up in an order that depends on the processor
        self.base_value = float(sum((self._typical * linear.weights).tolist(), float(linear.intercept)))

    def explain(self, matrix: Floats) -> Explanation:
        """The explanation of float64[N, F]. Raises InputError for another width."""
        terms = (self._preparation.apply(matrix) - self._typical) * self._linear.weights
        return Explanation(self.base_value, terms, self._reference, self._output_space)
