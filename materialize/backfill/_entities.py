"""Which rows of history are of one entity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

Codes = np.ndarray[Any, np.dtype[np.int64]]
Column = np.ndarray[Any, Any]


def group_entities(keys: Sequence[Column]) -> tuple[Codes, Codes]:
    """The code of each row's entity, int64[n], by first appearance; and the position of each entity's first row.

    keys: a column of n values, without null, for each join key; at least one.
    """
    codes = _codes(keys[0])
    for column in keys[1:]:
        more = _codes(column)
        codes = _codes(codes * (int(more.max(initial=0)) + 1) + more)
    entities = int(codes.max(initial=-1)) + 1
    first = np.empty(entities, np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return codes, first


def _codes(column: Column) -> Codes:
    return pd.factorize(column)[0].astype(np.int64)
