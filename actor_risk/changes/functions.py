"""What the function of a view gives, and which columns an edit changes: read off its text, never run."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from functools import lru_cache

from actor_risk.changes.reads import Function, Names, function_in
from materialize.definitions import canonical_code

TEXTS_MAX = 2_000
"""Functions whose text is read once: it is asked about each feature and each reader of a view."""


@lru_cache(TEXTS_MAX)
def words_in(text: str) -> Names:
    """Every string that stands in the function: whatever it reads by name is among them."""
    function = function_in(text)
    nodes = ast.walk(function) if function is not None else iter(())
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


@lru_cache(TEXTS_MAX)
def outputs(text: str) -> Mapping[str, str] | None:
    """Column that the function gives → how it is computed, in a form that words and other columns do not change.

    None where that cannot be read off: the function is no plain list of assignments that ends in a dict.
    """
    function = function_in(text)
    if function is None:
        return None if text.strip() else {}  # a view without a function: nothing is computed
    parts = _parts(function)
    if parts is None:
        return None
    given, local = parts
    return {name: _alone(function, expression, local) for name, expression in given.items()}


def changed_outputs(old: str, new: str) -> Names | None:
    """The columns that the functions compute otherwise, or one alone gives. None where that cannot be told."""
    before, after = outputs(old), outputs(new)
    if before is None or after is None:
        return None
    return frozenset(name for name in set(before) | set(after) if before.get(name) != after.get(name))


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _parts(function: Function) -> tuple[dict[str, ast.expr], dict[str, ast.stmt]] | None:
    """(column → its expression, local name → what it stands for); None for a function of another form."""
    local: dict[str, ast.stmt] = {}
    for statement in function.body[:-1]:
        names = _bound(statement)
        if names is None or any(name in local for name in names):
            return None
        local.update(dict.fromkeys(names, statement))
    last = function.body[-1]
    if not isinstance(last, ast.Return) or not isinstance(last.value, ast.Dict):
        return None
    given = _entries(last.value, local)
    return None if given is None else (given, local)


def _bound(statement: ast.stmt) -> tuple[str, ...] | None:
    """The names that a statement gives a meaning to, None for a statement that may do anything else."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return ()
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return tuple((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    if isinstance(statement, ast.FunctionDef):
        return (statement.name,)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    named = [target.id for target in targets if isinstance(target, ast.Name)]
    return tuple(named) if named and len(named) == len(targets) else None


def _entries(given: ast.Dict, local: dict[str, ast.stmt]) -> dict[str, ast.expr] | None:
    found: dict[str, ast.expr] = {}
    for key, value in zip(given.keys, given.values, strict=True):
        entries = _spread(value, local) if key is None else _entry(key, value)
        if entries is None:
            return None
        found.update(entries)
    return found


def _entry(key: ast.expr, value: ast.expr) -> dict[str, ast.expr] | None:
    return {key.value: value} if isinstance(key, ast.Constant) and isinstance(key.value, str) else None


def _spread(value: ast.expr, local: dict[str, ast.stmt]) -> dict[str, ast.expr] | None:
    """The entries of `**{mark: … for mark in ("click", "login")}`; the words may stand in a name of their own."""
    if not isinstance(value, ast.DictComp) or len(value.generators) != 1 or value.generators[0].ifs:
        return None
    loop = value.generators[0]
    words = _words(loop.iter, local)
    if words is None or not isinstance(loop.target, ast.Name) or not _is_name(value.key, loop.target.id):
        return None
    return {word: _Put(loop.target.id, word).visit(_copy(value.value)) for word in words}


def _words(node: ast.expr, local: dict[str, ast.stmt]) -> list[str] | None:
    if isinstance(node, ast.Name):
        meaning = local.get(node.id)
        return _words(meaning.value, {}) if isinstance(meaning, ast.Assign) else None
    if not isinstance(node, (ast.Tuple, ast.List)):
        return None
    words = [one.value for one in node.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return words if len(words) == len(node.elts) else None


def _copy(node: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(node), mode="eval").body


class _Put(ast.NodeTransformer):
    """Puts a word where the name of the loop stands."""

    def __init__(self, name: str, word: str) -> None:
        self._name, self._word = name, word

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self._word) if node.id == self._name else node


def _alone(function: Function, expression: ast.expr, local: dict[str, ast.stmt]) -> str:
    """The function as if it gave the one expression alone: with the statements that this needs, and no others."""
    needed: dict[int, ast.stmt] = {}
    waiting: list[ast.AST] = [expression]
    for node in waiting:
        for name in (one.id for one in ast.walk(node) if isinstance(one, ast.Name)):
            if name in local and id(local[name]) not in needed:
                needed[id(local[name])] = local[name]
                waiting.append(local[name])
    alone = copy.copy(function)
    alone.name, alone.decorator_list = "alone", []
    alone.body = [*(one for one in function.body if id(one) in needed), ast.Return(expression)]
    return canonical_code(ast.unparse(ast.fix_missing_locations(alone)))
