"""How loops of this package are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.extending import intrinsic

_Function = TypeVar("_Function", bound=Callable[..., object])
_TO_READ, _TO_ALL_CACHES, _DATA = 0, 3, 1
"""https://llvm.org/docs/LangRef.html#llvm-prefetch-intrinsic"""


def compiled(function: _Function) -> _Function:
    """Compiled without relaxed arithmetic, kept on disk, and free of Python's lock."""
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def _prefetch(_typing: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
    """`prefetch(array, index)` in compiled code: have the element of a contiguous array of one dimension brought near.

    Nothing waits for it, and no result depends on it. The index is not checked.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        elements = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(elements, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, *(ir.Constant(number, said) for said in (_TO_READ, _TO_ALL_CACHES, _DATA))])
        return context.get_dummy_value()

    return numba.types.void(array, index), generate


prefetch: Callable[..., None] = intrinsic(_prefetch)
