"""Which inputs each output of a function is made from, read off its text.

A view's function takes a dict of columns (or of features) and gives a dict of columns. Where it is written plainly
(local names, and a dict that is returned) each output is followed to the inputs that it is made from. Where it is not,
an output is taken to be made from every input that the function mentions: too much, and never too little.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass

Names = frozenset[str]
NOTHING: Names = frozenset()


@dataclass(frozen=True)
class Reads:
    """made: output → the inputs that it is made from. is_whole: whether there are no other outputs. mentioned: all
    inputs that the function reads anywhere."""

    made: dict[str, Names]
    is_whole: bool
    mentioned: Names

    def of(self, output: str) -> Names | None:
        """The inputs of an output; None for what the function does not make, and passes on as it is."""
        if output in self.made:
            return self.made[output]
        return None if self.is_whole else self.mentioned


def reads_of(text: str, inputs: Collection[str]) -> Reads:
    """What the function in `text` reads of `inputs` (none: they are not known)."""
    function = _function(text)
    if function is None or not function.args.args:
        return Reads({}, False, frozenset(inputs))
    reader = _Reader(function.args.args[0].arg, frozenset(inputs))
    reader.run(function.body)
    made, is_whole = reader.returned()
    return Reads(made, is_whole, reader.mentioned or frozenset(inputs))


def _function(text: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    try:
        parsed = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return None
    return next((node for node in parsed.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))), None)


class _Reader:
    """Goes through the statements in their order, and keeps for each local name what it is made from."""

    def __init__(self, parameter: str, inputs: Names) -> None:
        self._parameter = parameter
        self._inputs = inputs
        self._local: dict[str, Names] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._dicts: dict[str, dict[str, Names]] = {}
        self._returns: list[dict[str, Names] | None] = []
        self.mentioned: Names = NOTHING

    def run(self, body: list[ast.stmt], given: Names = NOTHING) -> None:
        """`given`: what decides whether these statements run at all."""
        for statement in body:
            self._statement(statement, given)

    def returned(self) -> tuple[dict[str, Names], bool]:
        """The outputs, and whether they are all known."""
        made: dict[str, Names] = {}
        for one in self._returns:
            for name, names in (one or {}).items():
                made[name] = made.get(name, NOTHING) | names
        return made, bool(self._returns) and None not in self._returns

    def _statement(self, statement: ast.stmt, given: Names) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value, given)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value, given)
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                self._local[name] = self._local.get(name, NOTHING) | self._read(value) | given
            case ast.Return(value=value):
                self._read(value or ast.Constant(None))
                self._returns.append(self._dict(value, given))
            case ast.FunctionDef(name=name, body=body) | ast.AsyncFunctionDef(name=name, body=body):
                self._local[name] = frozenset().union(*(self._read(node) for node in body))
            case ast.If(test=test, body=body, orelse=orelse) | ast.While(test=test, body=body, orelse=orelse):
                self.run([*body, *orelse], given | self._read(test))
            case ast.For(target=target, iter=iterated, body=body, orelse=orelse):
                self._bind(target, self._read(iterated) | given)
                self._loop_words(target, iterated)
                self.run([*body, *orelse], given)
            case ast.With(body=body) | ast.Try(body=body):
                self.run(body, given)
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case _:
                self._read(statement)

    def _assign(self, target: ast.expr, value: ast.expr, given: Names) -> None:
        found = self._read(value) | given
        match target:
            case ast.Subscript(value=ast.Name(id=name), slice=key) if name in self._dicts:
                self._fill(name, key, found)
            case ast.Name(id=name):
                self._local[name] = found
                words = self._literal_words(value)
                if words is not None:
                    self._words[name] = words
                made = self._dict(value, given) if isinstance(value, ast.Dict) else None
                if made is not None:
                    self._dicts[name] = made
            case _:
                self._bind(target, found)

    def _fill(self, name: str, key: ast.expr, found: Names) -> None:
        keys = self._keys(key)
        if keys is None:
            del self._dicts[name]  # filled under keys that are not known: it tells nothing any more
            return
        for one in keys:
            self._dicts[name][one] = self._dicts[name].get(one, NOTHING) | found

    def _bind(self, target: ast.expr, found: Names) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self._local[node.id] = self._local.get(node.id, NOTHING) | found

    def _loop_words(self, target: ast.expr, iterated: ast.expr) -> None:
        words = self._literal_words(iterated)
        if isinstance(target, ast.Name) and words is not None:
            self._words[target.id] = words

    def _dict(self, value: ast.expr | None, given: Names) -> dict[str, Names] | None:
        """The outputs of a dict; None where they are not all known."""
        if isinstance(value, ast.Name):
            return self._dicts.get(value.id)
        if isinstance(value, ast.DictComp):
            return self._comprehended(value, given)
        if not isinstance(value, ast.Dict):
            return None
        made: dict[str, Names] = {}
        for key, one in zip(value.keys, value.values, strict=True):
            if key is None:
                part = self._spread(one, given)
            else:
                keys = self._keys(key)
                part = None if keys is None else dict.fromkeys(keys, self._read(one) | given)
            if part is None:
                return None
            made |= part
        return made

    def _spread(self, value: ast.expr, given: Names) -> dict[str, Names] | None:
        """What `**value` adds: of the parameter itself nothing but what is passed on as it is."""
        if isinstance(value, ast.Name) and value.id == self._parameter:
            return {}
        return self._dict(value, given)

    def _comprehended(self, value: ast.DictComp, given: Names) -> dict[str, Names] | None:
        """`{mark: made_from(mark) for mark in marks}`, of words that are written out."""
        first = value.generators[0]
        words = self._literal_words(first.iter)
        if len(value.generators) != 1 or words is None or not isinstance(first.target, ast.Name):
            return None
        if not (isinstance(value.key, ast.Name) and value.key.id == first.target.id):
            return None
        tested = frozenset().union(*(self._read(test) for test in first.ifs))
        made = {}
        for word in words:
            self._words[first.target.id] = (word,)
            made[word] = self._read(value.value) | tested | given
        return made

    def _keys(self, key: ast.expr) -> tuple[str, ...] | None:
        """The words that a key can be."""
        if isinstance(key, ast.Constant):
            return (key.value,) if isinstance(key.value, str) else None
        return self._words.get(key.id) if isinstance(key, ast.Name) else None

    def _literal_words(self, value: ast.expr) -> tuple[str, ...] | None:
        if isinstance(value, ast.Name):
            return self._words.get(value.id)
        if not isinstance(value, (ast.Tuple, ast.List, ast.Set)):
            return None
        words = [one.value for one in value.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        return tuple(words) if len(words) == len(value.elts) else None

    def _read(self, node: ast.AST) -> Names:
        """The inputs that an expression, or a statement, is made from."""
        found = frozenset(self._inputs_in(node))
        self.mentioned |= found
        return found

    def _inputs_in(self, node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=key) if name == self._parameter:
                yield from self._named(key)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get"), args=[key, *rest]) if (
                name == self._parameter
            ):
                yield from self._named(key)
                for one in rest:
                    yield from self._inputs_in(one)
            case ast.Name(id=name) if name == self._parameter:
                yield from self._inputs  # handed on as a whole
            case ast.Name(id=name):
                yield from self._local.get(name, NOTHING)
            case _:
                for child in ast.iter_child_nodes(node):
                    yield from self._inputs_in(child)

    def _named(self, key: ast.expr) -> Iterator[str]:
        words = self._keys(key)
        if words is None:
            yield from self._inputs
            yield from self._inputs_in(key)
        else:
            yield from words
