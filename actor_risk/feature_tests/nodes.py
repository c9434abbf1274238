"""Files of tests as values that know their line: YAML, or the list `CASES` of a Python file.

Scalars mean what they look like: `NO` is a word and no false, `12:00` is no number of minutes.
"""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from actor_risk.feature_tests.errors import CaseError

TABLE = "CASES"
"""The name of the list in a Python file."""

_NULLS = ("", "~", "null", "None")
_BOOLS = {"true": True, "false": False, "True": True, "False": False}
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Node:
    """A value and where it stands. value: None, bool, int, float, str, list[Node] or dict[str, Node]. text: a scalar as
    it is written. line: that of the key, for a value of a mapping."""

    line: int
    value: Any
    text: str = ""


def read_nodes(file: Path) -> Node:
    """What a file of tests holds. Raises CaseError for one that cannot be read."""
    return _python(file) if file.suffix == ".py" else _yaml(file)


def scalar(text: str) -> bool | int | float | str | None:
    """What a plain word means."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _yaml(file: Path) -> Node:
    try:
        composed = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise CaseError(file, line, f"this is no YAML: {error.problem or error.context}{_hint(error)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CaseError(file, 1, f"the file cannot be read: {error}") from error
    if composed is None:
        raise CaseError(file, 1, "the file is empty: write cases, or start with `actor-risk test --new VIEW`")
    return _of_yaml(file, composed, composed.start_mark.line + 1)


def _hint(error: yaml.MarkedYAMLError) -> str:
    """Tabs and braces are what people stumble over."""
    told = f"{error.context} {error.problem}"
    if "\\t" in told:
        return "; indent with spaces"
    return "; close every brace, and put a comma between its parts" if "flow" in told else ""


def _of_yaml(file: Path, node: yaml.Node, line: int) -> Node:
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Node] = {}
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise CaseError(file, key_line, "a key is a word here, no list and no mapping")
            if key.value in found:
                raise CaseError(file, key_line, f"{key.value!r} is there twice: leave one out")
            found[key.value] = _of_yaml(file, value, key_line)
        return Node(line, found)
    if isinstance(node, yaml.SequenceNode):
        return Node(line, [_of_yaml(file, one, one.start_mark.line + 1) for one in node.value])
    assert isinstance(node, yaml.ScalarNode)
    return Node(line, scalar(node.value) if node.style is None else node.value, node.value)


def _python(file: Path) -> Node:
    try:
        lines = _lines_of_cases(file)
        table = runpy.run_path(str(file)).get(TABLE)
    except SyntaxError as error:
        raise CaseError(file, error.lineno or 1, f"this is no Python: {error.msg}") from error
    except Exception as error:  # anybody's code
        raise CaseError(file, _raised_at(file, error), f"the file does not run: {error!r}") from error
    if not isinstance(table, list):
        raise CaseError(file, 1, f"write a list of cases named {TABLE}: {TABLE} = [{{'name': …, 'view': …}}]")
    lines += [lines[-1] if lines else 1] * (len(table) - len(lines))
    return Node(1, {"cases": Node(1, [_of_python(one, line) for one, line in zip(table, lines, strict=False)])})


def _lines_of_cases(file: Path) -> list[int]:
    """The line of each case of the list, as far as it is written out as one."""
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.Assign) and any(isinstance(t, ast.Name) and t.id == TABLE for t in targets):
            value = statement.value
            return [one.lineno for one in value.elts] if isinstance(value, ast.List) else [statement.lineno]
    return []


def _raised_at(file: Path, error: BaseException) -> int:
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _of_python(value: Any, line: int) -> Node:
    if isinstance(value, Mapping):
        return Node(line, {str(key): _of_python(one, line) for key, one in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return Node(line, [_of_python(one, line) for one in value])
    if value is None or isinstance(value, (bool, int, float, str)):
        return Node(line, value, "" if value is None else str(value))
    return Node(line, str(value), str(value))  # a datetime, say
