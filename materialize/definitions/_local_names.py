"""Local names of a function replaced by their places: how they are called says nothing of what is computed.

Names are replaced where that is certain. A function that may look at names itself (`eval`, `locals`, `query`, a class,
`nonlocal`, `match` …) keeps all of its own; in others those stay that a text mentions, and parameters also where a call
might pass something by their name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_SEE_NAMES = frozenset(
    ("dir", "eval", "evaluate", "exec", "execute", "globals", "inspect", "locals", "query", "sql", "sys", "vars")
)
"""Names by which a function sees how its names are called: Python's own, and those of pandas, numexpr and DuckDB."""

_BIND_OTHERWISE = frozenset(("ClassDef", "Global", "Nonlocal", "Match", "NamedExpr", "TypeAlias"))
"""What binds names in ways that are not followed here."""

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_WORD = re.compile(r"[^\W\d]\w*")


def without_local_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Replaces, in place, the names that are local to a function and to those within it.

    Its docstrings and decorators, which compute nothing, are to be gone.
    """
    nodes = list(ast.walk(function))
    if not any(map(_is_beyond_us, nodes)):
        _Places(nodes).function(function, {})


def _is_beyond_us(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _SEE_NAMES or name.startswith("__")
        case ast.alias(name=name, asname=called):
            parts = name.split(".")
            return not _SEE_NAMES.isdisjoint(parts) or (len(parts) > 1 and called is None)
        case ast.ImportFrom(module=str() as module):
            return not _SEE_NAMES.isdisjoint(module.split("."))
        case _:
            return type(node).__name__ in _BIND_OTHERWISE


class _Places:
    """Goes through the scopes from the outermost on, and numbers names as they are met."""

    def __init__(self, nodes: Iterable[ast.AST]) -> None:
        texts: set[str] = set()
        self._passed: set[str | None] = set()
        for node in nodes:
            match node:
                case ast.Constant(value=str() as text):
                    texts.add(text)
                case ast.keyword(arg=name):  # None for `**names`
                    self._passed.add(name)
        self._passed |= texts
        self._mentioned = {word for text in texts if not text.isidentifier() for word in _WORD.findall(text)}
        self._count = 0

    def function(self, node: Function, outer: Mapping[str, str]) -> None:
        """The parameters and the local names of a function, and those within it."""
        parameters = _parameters(node.args)
        body = node.body if isinstance(node.body, list) else [node.body]
        names = {**outer, **{one.arg: self._place_of_parameter(one.arg) for one in parameters}}
        own = dict.fromkeys(name for one in body for name in _bound(one))
        names |= {name: self._place(name) for name in own if all(name != one.arg for one in parameters)}
        for one in parameters:
            one.arg = names[one.arg]
        for part in body:
            self._replace(part, names)

    def _place(self, name: str) -> str:
        self._count += 1
        return name if name in self._mentioned else f"%{self._count}"

    def _place_of_parameter(self, name: str) -> str:
        place = self._place(name)
        return name if name in self._passed or None in self._passed else place

    def _replace(self, node: ast.AST, names: Mapping[str, str]) -> None:
        match node:
            case ast.Name():
                node.id = names.get(node.id, node.id)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                if not isinstance(node, ast.Lambda):
                    node.name = names[node.name]
                for outside in _evaluated_outside(node):
                    self._replace(outside, names)
                self.function(node, names)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node, names)
            case _:
                if isinstance(node, ast.alias):
                    node.asname = names[node.asname or node.name]
                elif isinstance(node, ast.ExceptHandler) and node.name is not None:
                    node.name = names[node.name]
                for part in ast.iter_child_nodes(node):
                    self._replace(part, names)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, outer: Mapping[str, str]
    ) -> None:
        """A scope of its own, but for what it goes through first."""
        first = node.generators[0]
        self._replace(first.iter, outer)
        own = dict.fromkeys(name for one in node.generators for name in _bound(one.target))
        names = {**outer, **{name: self._place(name) for name in own}}
        for part in ast.iter_child_nodes(node):
            for inner in ast.iter_child_nodes(part) if isinstance(part, ast.comprehension) else (part,):
                if inner is not first.iter:
                    self._replace(inner, names)


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    more = (arguments.vararg, arguments.kwarg)
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [*every, *(one for one in more if one is not None)]


def _evaluated_outside(node: Function) -> Iterator[ast.expr]:
    """What of a function stands in it, and is computed where it is defined."""
    if not isinstance(node, ast.Lambda):
        yield from node.decorator_list
    yield from node.args.defaults
    yield from (one for one in node.args.kw_defaults if one is not None)


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement, or a part of one, gives a meaning to in its own scope."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.alias(name=name, asname=called):
            yield called or name
        case _ if not isinstance(node, (ast.Lambda, *_COMPREHENSIONS)):
            if isinstance(node, ast.ExceptHandler) and node.name is not None:
                yield node.name
            for part in ast.iter_child_nodes(node):
                yield from _bound(part)
