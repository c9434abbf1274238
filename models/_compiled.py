"""How loops of this package are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compiled without relaxed arithmetic, kept on disk, and free of Python's lock."""
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
