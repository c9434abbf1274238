"""Libraries that fit trees, behind one small protocol: rows and settings in, plain trees and the library's own answers
out. A library is imported when its trainer is chosen.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats
from models.errors import TrainingError
from models.settings import TrainSettings
from models.trees import Ensemble

__all__ = ["Fitted", "Progress", "Trainer", "load_trainer"]

Progress = Callable[[int, int], None]
"""Called with (trees done, trees in all)."""

_MODULES = {"lightgbm": "models.trainers._lightgbm", "xgboost": "models.trainers._xgboost"}


class Fitted(Protocol):
    """A model as its library has it."""

    @property
    def library(self) -> tuple[str, str]:
        """Name and version of the library."""
        ...

    def margin(self, rows: Floats) -> Floats:
        """Log-odds float64[N] of float64[N, F]: the library's own trees, added up in double precision."""
        ...

    def score(self, rows: Floats) -> Floats:
        """The library's own probabilities, float64[N], in whatever precision it has."""
        ...

    def trees(self) -> Ensemble:
        """The same model as plain trees in double precision, with covers (fitting rows in each leaf)."""
        ...


class Trainer(Protocol):
    """Fits one model. Equal arguments give equal trees, to the bit, on one machine."""

    def fit(
        self,
        matrix: Floats,
        labels: NDArray[np.int8],
        weights: Floats | None,
        settings: TrainSettings,
        categorical: tuple[int, ...],
        progress: Progress | None,
    ) -> Fitted:
        """matrix float64[N, F] with NaN for missing, labels int8[N], weights float64[N] or None, `categorical` the
        columns whose values are codes of categories."""
        ...


def load_trainer(name: str) -> Trainer:
    """Raises TrainingError when there is no such trainer, or its library is not installed."""
    if name not in _MODULES:
        raise TrainingError(f"there is no trainer {name!r}: choose from {', '.join(_MODULES)}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        raise TrainingError(f"{name} is not installed ({error}): install actor-risk[train]") from error
    trainer: Trainer = module.TRAINER
    return trainer
