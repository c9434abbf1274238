"""Array types of this package, and the one check that every matrix passes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]


def as_matrix(values: Floats, feature_count: int) -> Floats:
    """`values` as C-contiguous, writeable float64[N, feature_count]; no copy when it is one already.

    Raises InputError for another rank or width.
    """
    matrix = np.ascontiguousarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != feature_count:
        raise InputError(
            f"the model reads {feature_count} features, the rows have shape {matrix.shape}: "
            f"pass float64[N, {feature_count}] in the manifest's order"
        )
    # Compiled code is typed by layout: a read-only or unaligned view would compile it anew, in the middle of a request.
    return matrix if matrix.flags.behaved else matrix.copy()
