"""Where in the repository a definition stands, as `file:line`, found in its text; and what of it is not Python."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from actor_risk.changes.described import Problem

_NOT_READ = {".git", ".venv", "__pycache__", ".ipynb_checkpoints", ".pytest_cache"}


class Places:
    """The places of names, by what is written there: a call with that name in it, a function, a variable."""

    def __init__(self, repo: Path, files: Iterable[Path]) -> None:
        """`files` of the repository; those that cannot be read or parsed have no places."""
        self._found: dict[str, list[tuple[str, str]]] = {}
        for file in files:
            for name, kind, line in _names(_parsed(file)):
                self._found.setdefault(name, []).append((kind, f"{file.relative_to(repo)}:{line}"))

    def of(self, name: str, *kinds: str) -> str:
        """The first place where one of the `kinds` has the name, else any place of it, else "".

        A kind is the name of what is called, `Entity`, or `def` or `=`.
        """
        found = self._found.get(name, [])
        for kind in (*kinds, "def", "name=", "=", "first"):
            for one, place in found:
                if one == kind:
                    return place
        return found[0][1] if found else ""


def python_files(repo: Path) -> list[Path]:
    """The Python files of the repository, but those of folders that nobody writes by hand."""
    return sorted(
        file
        for file in repo.rglob("*.py")
        if file.is_file() and not _NOT_READ.intersection(file.relative_to(repo).parts)
    )


def syntax_problems(repo: Path, files: Iterable[Path]) -> list[Problem]:
    """AR001 for every file that is not valid Python."""
    return [problem for file in files if (problem := _syntax_problem(repo, file)) is not None]


def line_in(repo: Path, frame: FrameType | None) -> str:
    """The innermost line of the repository that runs there, "" when none does."""
    while frame is not None:
        place = below(repo, frame.f_code.co_filename, frame.f_lineno)
        if place:
            return place
        frame = frame.f_back
    return ""


def line_of(repo: Path, error: BaseException) -> str:
    """The innermost line of the repository that the error passed; that of the statement that is not valid Python."""
    if isinstance(error, SyntaxError) and error.filename:
        place = below(repo, error.filename, error.lineno or 1)
        if place:
            return place
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        place = below(repo, frame.filename, frame.lineno or 1)
        if place:
            return place
    return ""


def below(repo: Path, filename: str, line: int) -> str:
    """`file:line` below the repository, "" for a file elsewhere."""
    path = Path(filename)
    return f"{path.relative_to(repo)}:{line}" if path.is_absolute() and path.is_relative_to(repo) else ""


def _syntax_problem(repo: Path, file: Path) -> Problem | None:
    name = str(file.relative_to(repo))
    try:
        ast.parse(file.read_bytes(), filename=name)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None) or 1
        text = (getattr(error, "text", None) or "").strip()
        said = getattr(error, "msg", None) or str(error)
        return Problem(code="AR001", message=f"{said}: {text}" if text else said, place=f"{name}:{line}")
    return None


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


def _names(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Name, kind and line: of functions, of variables that a call is assigned to, and of calls that name something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name, "def", node.lineno
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, "=", node.lineno
        elif isinstance(node, ast.Call):
            yield from _called(node)


def _called(node: ast.Call) -> Iterator[tuple[str, str, int]]:
    for keyword in node.keywords:
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str):
            yield keyword.value.value, _callee(node), node.lineno
            yield keyword.value.value, "name=", node.lineno
    if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        yield node.args[0].value, "first", node.lineno


def _callee(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
