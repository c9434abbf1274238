"""Rows whose every tile is occupied, for whoever reads windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from materialize.kernel import Row, ViewSpec, empty_row, fold_events


def full_times(spec: ViewSpec, as_of_ms: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Event times up to `as_of_ms`, at random within their tiles, one at least in each tile that any window covers."""
    times = [
        layout.hop_ms * index + rng.integers(0, layout.hop_ms)
        for layout in spec.hops
        for index in range((as_of_ms - layout.reach_ms) // layout.hop_ms, as_of_ms // layout.hop_ms)
    ]
    return np.sort(np.array(times, dtype=np.int64))


def full_row(spec: ViewSpec, as_of_ms: int, rng: np.random.Generator, values: int = 500, more: int = 0) -> Row:
    """A row with every tile occupied as of `as_of_ms`, and `more` events anywhere in its longest window.

    A column that is counted has `values` different values.
    """
    reach_ms = max(layout.reach_ms for layout in spec.hops)
    times = np.sort(np.append(full_times(spec, as_of_ms, rng), as_of_ms - rng.integers(0, reach_ms, more)))
    amounts = rng.lognormal(2.0, 2.0, len(times))
    columns = dict.fromkeys(spec.value_columns, amounts)
    columns |= {name: rng.integers(0, values, len(times)).astype(np.float64) for name in spec.distinct_columns}
    ids = rng.integers(0, 1 << 62, len(times)).tolist()
    row, _ = fold_events(spec, empty_row(spec), spec.block(times, ids, columns))
    return row
