"""What the function of a view reads and gives, and which columns an edit changes: read off its text, never run."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator

Names = frozenset[str]


def columns_read(text: str) -> Names:
    """The columns that the function takes out of its argument: `events["ip"]`, `events.get("ip")`."""
    function = _function(text)
    if function is None or not function.args.args:
        return frozenset()
    argument = function.args.args[0].arg
    return frozenset(name for node in ast.walk(function) for name in _taken(node, argument))


def words_in(text: str) -> Names:
    """Every string that stands in the function: whatever it reads by name is among them."""
    function = _function(text)
    nodes = ast.walk(function) if function is not None else iter(())
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def outputs(text: str) -> dict[str, str] | None:
    """Column that the function gives → how it is computed, in a form that layout and other columns do not change.

    None where that cannot be read off: the function is no plain list of assignments that ends in a dict.
    """
    function = _function(text)
    if function is None:
        return None if text.strip() else {}  # a view without a function: nothing is computed
    parts = _parts(function)
    if parts is None:
        return None
    given, local = parts
    return {name: _in_full(expression, local) for name, expression in given.items()}


def changed_outputs(old: str, new: str) -> Names | None:
    """The columns that the functions compute otherwise, or one alone gives. None where that cannot be told."""
    before, after = outputs(old), outputs(new)
    if before is None or after is None:
        return None
    return frozenset(name for name in set(before) | set(after) if before.get(name) != after.get(name))


def _function(text: str) -> ast.FunctionDef | None:
    try:
        parsed = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return None
    return next((node for node in parsed.body if isinstance(node, ast.FunctionDef)), None)


def _taken(node: ast.AST, argument: str) -> Iterator[str]:
    key: ast.expr | None = None
    if isinstance(node, ast.Subscript) and _is_name(node.value, argument):
        key = node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        key = node.args[0] if node.func.attr == "get" and _is_name(node.func.value, argument) else None
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        yield key.value


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _parts(function: ast.FunctionDef) -> tuple[dict[str, ast.expr], dict[str, ast.AST]] | None:
    """(column → its expression, local name → what it stands for); None for a function of another form."""
    local: dict[str, ast.AST] = {}
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


def _entries(given: ast.Dict, local: dict[str, ast.AST]) -> dict[str, ast.expr] | None:
    found: dict[str, ast.expr] = {}
    for key, value in zip(given.keys, given.values, strict=True):
        entries = _spread(value, local) if key is None else _entry(key, value)
        if entries is None:
            return None
        found.update(entries)
    return found


def _entry(key: ast.expr, value: ast.expr) -> dict[str, ast.expr] | None:
    return {key.value: value} if isinstance(key, ast.Constant) and isinstance(key.value, str) else None


def _spread(value: ast.expr, local: dict[str, ast.AST]) -> dict[str, ast.expr] | None:
    """The entries of `**{mark: … for mark in ("click", "login")}`; the words may stand in a name of their own."""
    if not isinstance(value, ast.DictComp) or len(value.generators) != 1 or value.generators[0].ifs:
        return None
    loop = value.generators[0]
    words = _words(loop.iter, local)
    if words is None or not isinstance(loop.target, ast.Name) or not _is_name(value.key, loop.target.id):
        return None
    return {word: _Put(loop.target.id, word).visit(_copy(value.value)) for word in words}


def _words(node: ast.expr, local: dict[str, ast.AST]) -> list[str] | None:
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


def _in_full(expression: ast.expr, local: dict[str, ast.AST]) -> str:
    """The expression, and all that the local names in it stand for."""
    meanings: dict[str, str] = {}
    waiting: list[ast.AST] = [expression]
    while waiting:
        node = waiting.pop()
        for name in sorted({one.id for one in ast.walk(node) if isinstance(one, ast.Name)}):
            if name in local and name not in meanings:
                meanings[name] = ast.unparse(_bare(local[name]))
                waiting.append(local[name])
    return "\n".join([ast.unparse(expression), *(f"{name}: {text}" for name, text in sorted(meanings.items()))])


def _bare(node: ast.AST) -> ast.AST:
    """A nested function without its docstring."""
    if not isinstance(node, ast.FunctionDef) or ast.get_docstring(node) is None or len(node.body) == 1:
        return node
    return ast.FunctionDef(**{**dict(ast.iter_fields(node)), "body": node.body[1:], "lineno": 1, "col_offset": 0})
