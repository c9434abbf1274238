"""The code of a definition's function in a form that only its meaning changes.

Feast keeps the text of a function with its decorators, comments and layout. Rows and services are known by what their
functions compute, so a fingerprint is made from the tree that Python parses instead, written out here and not by
`ast.dump`, whose form differs between Python's versions.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator

from materialize.definitions._local_names import without_local_names

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (*_FUNCTIONS, ast.ClassDef)
_NO_MEANING = ("type_comment", "type_ignores", "kind", "type_params")


def canonical_code(text: str) -> str:
    """The function's code without decorators, docstrings, annotations, local names, comments and layout.

    The text itself where it is not Python.
    """
    try:
        parsed = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return text
    for node in ast.walk(parsed):
        _leave_out_words(node)
    only = parsed.body[0] if len(parsed.body) == 1 else parsed
    if isinstance(only, _FUNCTIONS):
        only.decorator_list = []  # Feast's
        without_local_names(only)
    return "".join(_written(only))


def _leave_out_words(node: ast.AST) -> None:
    """Docstrings and annotations say nothing that is computed."""
    if isinstance(node, _DOCUMENTED):
        node.body = _without_docstring(node.body)
    if isinstance(node, _FUNCTIONS):
        node.returns = None
    if isinstance(node, ast.arg):
        node.annotation = None


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_docstring = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if is_docstring else body


def _written(node: ast.AST) -> Iterator[str]:
    yield type(node).__name__
    yield "("
    for name, value in ast.iter_fields(node):
        if name not in _NO_MEANING and value is not None and value != []:
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
