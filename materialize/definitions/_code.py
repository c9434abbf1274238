"""The code of a definition's function in a form that only its meaning changes.

Feast keeps the text of a function with its decorators, comments and layout. Rows and services are known by what their
functions compute, so a fingerprint is made from the tree that Python parses instead, written out here and not by
`ast.dump`, whose form differs between Python's versions.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (*_FUNCTIONS, ast.ClassDef)
_NO_MEANING = ("type_comment", "type_ignores", "kind", "type_params")


def canonical_code(text: str) -> str:
    """The function's code without decorators, docstrings, annotations, comments and layout.

    The text itself where it is not Python.
    """
    try:
        parsed = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return text
    return "".join(_written(parsed.body[0] if len(parsed.body) == 1 else parsed, outermost=True))


def _written(node: ast.AST, *, outermost: bool = False) -> Iterator[str]:
    yield type(node).__name__
    yield "("
    for name, value in ast.iter_fields(node):
        if name in _NO_MEANING or _is_left_out(node, name, outermost=outermost):
            continue
        if name == "body" and isinstance(node, _DOCUMENTED):
            value = _without_docstring(value)
        if value is not None and value != []:
            yield f"{name}="
            yield from _value(value)
            yield ","
    yield ")"


def _value(value: object) -> Iterator[str]:
    if isinstance(value, ast.AST):
        yield from _written(value)
    elif isinstance(value, list):
        yield "["
        for one in value:
            yield from _value(one)
            yield ","
        yield "]"
    else:
        yield repr(value)


def _is_left_out(node: ast.AST, name: str, *, outermost: bool) -> bool:
    """Annotations say nothing that is computed; the outermost function's decorators are Feast's."""
    if isinstance(node, (*_FUNCTIONS, ast.arg)) and name in ("returns", "annotation"):
        return True
    return outermost and isinstance(node, _FUNCTIONS) and name == "decorator_list"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_docstring = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if is_docstring else body
