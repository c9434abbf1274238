"""A table of numpy columns: the base of every batch that generators pass on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from actor_risk.simulate._arrays import BoolArray, IntArray


@dataclass(frozen=True)
class Rows:
    """A dataclass whose fields are arrays of one length: its columns."""

    def take(self, rows: BoolArray | IntArray) -> Self:
        """The rows at these indices, or where this mask is true, in that order."""
        return type(self)(*(column[rows] for column in self._columns()))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """All rows of one or more parts, in their order."""
        return cls(*(np.concatenate(columns) for columns in zip(*(part._columns() for part in parts), strict=True)))

    def _columns(self) -> list[np.ndarray[Any, Any]]:
        return [getattr(self, field.name) for field in fields(self)]
