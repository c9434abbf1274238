"""Entities as codes: small integers that history and queries share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

Codes = np.ndarray[Any, np.dtype[np.int64]]
Column = np.ndarray[Any, Any]


def entity_codes(history: Sequence[Column], queries: Sequence[Column]) -> tuple[Codes, Codes]:
    """Codes of the entities of history, from 0, and of the queried ones, −1 for an entity that history does not have.

    Both are given as one column for each join key, in the same order. Without join keys there is one entity.
    """
    if not history:
        raise ValueError("an entity without join keys has no codes")
    if not len(history[0]):
        return np.empty(0, np.int64), np.full(len(queries[0]), -1, np.int64)
    if len(history) == 1:
        codes, uniques = pd.factorize(_plain(history[0]))
        return codes.astype(np.int64), pd.Index(uniques).get_indexer(pd.Index(_plain(queries[0]))).astype(np.int64)
    index = pd.MultiIndex.from_arrays([_plain(column) for column in history])
    codes, levels = pd.factorize(index)
    asked = pd.MultiIndex.from_arrays([_plain(column) for column in queries])
    return codes.astype(np.int64), pd.Index(levels).get_indexer(asked).astype(np.int64)


def _plain(column: Column) -> Column:
    """Integral floats as integers, so that 7.0 from a nullable column is the entity 7."""
    if np.issubdtype(column.dtype, np.floating) and len(column) and np.all(column == np.floor(column)):
        return column.astype(np.int64)
    return column
