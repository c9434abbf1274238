"""Which inputs each output of a function is made from, read off its text.

A view's function takes a dict of columns (or of features) and gives a dict of columns. Where it is written plainly
(local names, and a dict that is returned) each output is followed to the inputs that it is made from. Where it is not,
an output is taken to be made from every input that the function mentions: too much, and never too little.

A local name stands for all that is ever put into it, in whatever order that happens: so loops, branches and lists that
are filled in one place and used in another are right without being run.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

Names = frozenset[str]
Function = ast.FunctionDef | ast.AsyncFunctionDef
NOTHING: Names = frozenset()

_NOT_FOLLOWED = frozenset(("NamedExpr", "Match", "Global", "Nonlocal", "ClassDef", "Await", "Yield", "YieldFrom"))
_JUMPS = (ast.Return, ast.Raise, ast.Break, ast.Continue)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_FILLING = frozenset(("append", "appendleft", "add", "extend", "fill", "insert", "put", "setdefault", "update"))
"""Methods that put something into what they are called on."""


@dataclass(frozen=True)
class Reads:
    """made: output → the inputs that it is made from. is_whole: whether there are no other outputs. mentioned: all
    inputs that the function reads anywhere. inputs: all that there are, as far as they are known."""

    made: dict[str, Names]
    is_whole: bool
    mentioned: Names
    inputs: Names = NOTHING

    def of(self, output: str) -> Names | None:
        """The inputs of an output; None for what the function does not make, and passes on as it is."""
        if output in self.made:
            return self.made[output]
        return None if self.is_whole else self.mentioned | (self.inputs & {output})


def reads_of(text: str, inputs: Collection[str]) -> Reads:
    """What the function in `text` reads of `inputs` (none: they are not known)."""
    known = frozenset(inputs)
    function = function_in(text)
    if function is None or not function.args.args:
        return Reads({}, False, known)
    reader = _Reader(function, known)
    made, is_whole = reader.returned() if _is_plain(function) else ({}, False)
    return Reads(made, is_whole, reader.mentioned or known, known)


def columns_read(text: str) -> Names:
    """The columns that the function takes by their names: `events["ip"]`, `events.get("ip")`."""
    return reads_of(text, ()).mentioned


def function_in(text: str) -> Function | None:
    """The first function that is defined in a text; None where there is none, or the text is not Python."""
    try:
        parsed = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return None
    return next((node for node in parsed.body if isinstance(node, _FUNCTIONS)), None)


def _is_plain(function: Function) -> bool:
    """Whether whatever gives a name its meaning is a statement that is followed."""
    parameter = function.args.args[0].arg
    followed = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Expr)}
    for node in ast.walk(function):
        if type(node).__name__ in _NOT_FOLLOWED or parameter in _put_into(node):
            return False
        if _is_filling(node) and id(node) not in followed:
            return False
        if isinstance(node, _FUNCTIONS) and node is not function and not _put_within(node) <= _own_names(node):
            return False  # it puts something into what it is given, or into what stands around it
    return True


def _is_filling(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _FILLING


def _put_within(function: ast.AST) -> set[str]:
    return {name for node in ast.walk(function) for name in _put_into(node)}


def _put_into(node: ast.AST) -> Iterator[str]:
    """The names into whose values a statement puts something, or that it gives another value."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store() | ast.Del()):
            yield from _root(node)
        case ast.Expr(value=ast.Call() as call):
            yield from _touched(call)


def _touched(call: ast.Call) -> Iterator[str]:
    """The names that a call that stands by itself may put something into: there is no other use of it."""
    if isinstance(call.func, ast.Attribute):
        yield from _root(call.func)
    if not _is_filling(call):
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            yield from _root(argument)


def _root(node: ast.AST) -> Iterator[str]:
    while isinstance(node, (ast.Subscript, ast.Attribute, ast.Starred)):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _own_names(function: ast.AST) -> set[str]:
    """The names that are given a value in a function, but for its parameters."""
    return {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


class _Reader:
    """Keeps for each local name what has been put into it, and goes through the function until nothing is added."""

    def __init__(self, function: Function, inputs: Names) -> None:
        self._parameter = function.args.args[0].arg
        self._inputs = inputs
        self._own = _own_names(function)
        self._local: dict[str, Names] = {}
        self._same: dict[str, set[str]] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._not_words: set[str] = set()
        self._dicts: dict[str, dict[str, Names]] = {}
        self._not_dicts: set[str] = set()
        self._jumps: Names = NOTHING
        self._returns: list[dict[str, Names] | None] = []
        self.mentioned: Names = NOTHING
        before = None
        while before != (before := self._known()):
            self._returns = []
            self._run(function.body, NOTHING)

    def returned(self) -> tuple[dict[str, Names], bool]:
        """The outputs, and whether they are all known; none where they are not."""
        made: dict[str, Names] = {}
        for one in self._returns:
            if one is None:
                return {}, False
            for name, names in one.items():
                made[name] = made.get(name, NOTHING) | names
        return made, bool(self._returns)

    def _known(self) -> tuple[object, ...]:
        sizes = {name: {key: len(names) for key, names in made.items()} for name, made in self._dicts.items()}
        return (
            dict(self._local),
            dict(self._words),
            frozenset(self._not_words),
            sizes,
            frozenset(self._not_dicts),
            self._jumps,
        )

    def _run(self, body: Iterable[ast.stmt], given: Names) -> None:
        """`given`: what decides whether these statements run at all."""
        for statement in body:
            self._statement(statement, given | self._jumps)

    def _statement(self, statement: ast.stmt, given: Names) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value, given)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value, given)
            case ast.AugAssign(target=target, value=value):
                self._put(target, self._read(value) | given)
            case ast.Return(value=value):
                self._read(value or ast.Constant(None))
                self._returns.append(self._dict(value, given))
            case ast.FunctionDef(name=name, body=body) | ast.AsyncFunctionDef(name=name, body=body):
                self._add(name, frozenset().union(*(self._read(node) for node in body)))
            case ast.If(test=test, body=body, orelse=orelse) | ast.While(test=test, body=body, orelse=orelse):
                self._branch(statement, [*body, *orelse], given | self._read(test))
            case ast.For(target=target, iter=iterated) | ast.AsyncFor(target=target, iter=iterated):
                found = self._read(iterated) | given
                self._name(target, self._literal_words(iterated))
                self._put(target, found)
                self._branch(statement, [*statement.body, *statement.orelse], found)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    found = self._read(item.context_expr) | given
                    if item.optional_vars is not None:
                        self._put(item.optional_vars, found)
                self._run(body, given)
            case ast.Try(body=body):
                self._run(body, given)
                whether = given | frozenset().union(*(self._read(node) for node in body))  # it may fail at any of it
                for handler in statement.handlers:
                    if handler.name is not None:
                        self._add(handler.name, whether)
                    self._run(handler.body, whether)
                self._run([*statement.orelse, *statement.finalbody], whether)
            case ast.Expr(value=ast.Call() as call):
                found = self._read(call) | given
                for name in self._own.intersection(_touched(call)):
                    self._fill(name, found)
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case _:
                self._read(statement)

    def _branch(self, statement: ast.stmt, body: list[ast.stmt], given: Names) -> None:
        """Where a branch may end the loop or the function, what comes later depends on it too."""
        if any(isinstance(node, _JUMPS) for node in ast.walk(statement)):
            self._jumps |= given
        self._run(body, given)

    def _assign(self, target: ast.expr, value: ast.expr, given: Names) -> None:
        found = self._read(value) | given
        if isinstance(target, ast.Name):
            self._name(target, self._literal_words(value))
            self._hold(target.id, self._dict(value, given) if isinstance(value, ast.Dict) else None)
            for name in _root(value):
                self._same.setdefault(name, set()).add(target.id)
                self._same.setdefault(target.id, set()).add(name)
        self._put(target, found)

    def _hold(self, name: str, made: dict[str, Names] | None) -> None:
        """A name for a dict whose keys are known."""
        if made is None:
            self._not_dicts.add(name)
            return
        known = self._dicts.setdefault(name, {})
        for key, names in made.items():
            known[key] = known.get(key, NOTHING) | names

    def _put(self, target: ast.expr, found: Names) -> None:
        match target:
            case ast.Subscript(value=ast.Name(id=name), slice=key) if name in self._dicts:
                keys = self._keys(key)
                self._hold(name, None if keys is None else dict.fromkeys(keys, found))
                self._add(name, found | self._read(key))
            case ast.Subscript() | ast.Attribute():
                within = found | self._read(target)
                for name in _root(target):
                    self._fill(name, within)
            case ast.Name(id=name):
                self._add(name, found)
            case _:
                for part in ast.iter_child_nodes(target):
                    if isinstance(part, ast.expr):
                        self._put(part, found)

    def _fill(self, name: str, found: Names) -> None:
        """Something is put into what the name, or another name, stands for."""
        self._not_dicts.add(name)
        waiting, seen = [name], {name}
        for one in waiting:
            self._add(one, found)
            others = self._same.get(one, set()) - seen
            seen |= others
            waiting += sorted(others)

    def _add(self, name: str, found: Names) -> None:
        self._local[name] = self._local.get(name, NOTHING) | found

    def _name(self, target: ast.expr, words: tuple[str, ...] | None) -> None:
        """A name for words that are written out."""
        if not isinstance(target, ast.Name):
            return
        if words is None:
            self._not_words.add(target.id)
        else:
            self._words[target.id] = tuple(dict.fromkeys((*self._words.get(target.id, ()), *words)))

    def _dict(self, value: ast.expr | None, given: Names) -> dict[str, Names] | None:
        """The outputs of a dict; None where they are not all known."""
        if isinstance(value, ast.Name):
            held = None if value.id in self._not_dicts else self._dicts.get(value.id)
            return None if held is None else {key: names | given for key, names in held.items()}
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
        name = first.target.id
        if not (isinstance(value.key, ast.Name) and value.key.id == name) or name in self._not_words:
            return None
        made, before = {}, self._words.get(name)
        for word in words:
            self._words[name] = (word,)
            tested = frozenset().union(*(self._read(test) for test in first.ifs))
            made[word] = self._read(value.value) | tested | given
        del self._words[name]
        if before is not None:
            self._words[name] = before
        return made

    def _keys(self, key: ast.expr) -> tuple[str, ...] | None:
        """The words that a key can be."""
        if isinstance(key, ast.Constant):
            return (key.value,) if isinstance(key.value, str) else None
        return self._words_of(key.id) if isinstance(key, ast.Name) else None

    def _words_of(self, name: str) -> tuple[str, ...] | None:
        return None if name in self._not_words else self._words.get(name)

    def _literal_words(self, value: ast.expr) -> tuple[str, ...] | None:
        if isinstance(value, ast.Name):
            return self._words_of(value.id)
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
