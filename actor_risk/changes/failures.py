"""What a function of the repository did wrong on the sample, without anything that it was given.

The text of an error may quote a value of somebody's: of what it quotes, and of its numbers, only what stands in the
function's own code is kept.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

from actor_risk.changes.described import Problem
from materialize.definitions import DefinitionError

_QUOTED = re.compile(r"""(['"])(.*?)\1""")
_NUMBER = re.compile(r"(?<![\w'\"])\d[\d.:_]*")
_PATH = re.compile(r"(?:/[\w.@~-]+){2,}/?")
TEXT_MAX = 200
LEFT_OUT = "…"
_KINDS = frozenset({"float", "int", "str", "bytes", "bool", "list", "dict", "tuple", "NoneType", "ndarray", "object"})
"""Names of types, which errors quote."""


def code_text(written: str | None, function: Any) -> str:
    """What a function's code says: as it is written, or what is left of that in the function."""
    code = getattr(function, "__code__", None)
    return written or ("" if code is None else repr((code.co_consts, code.co_names)))


def failure(view: str, error: BaseException, code: str, repo: Path | None) -> Problem:
    """The problem of a view whose function, or whose events, failed so. code: the function as it is written."""
    cause = error.__cause__ if isinstance(error, DefinitionError) and error.__cause__ is not None else error
    if isinstance(cause, DefinitionError):
        text = _without_values(str(error), code + view)
    else:
        text = f"{type(cause).__name__}: {_without_values(str(cause), code)}"
    return Problem(
        code="AR304", subject=view, place=_place(cause, repo), message=f"view {view!r} fails on the sample: {text}"
    )


def _without_values(text: str, code: str) -> str:
    def quoted(found: re.Match[str]) -> str:
        known = found[2] in code or found[2] in _KINDS
        return found[0] if known else f"{found[1]}{LEFT_OUT}{found[1]}"

    def number(found: re.Match[str]) -> str:
        return found[0] if re.search(rf"\b{re.escape(found[0])}\b", code) else LEFT_OUT

    return _PATH.sub(LEFT_OUT, _NUMBER.sub(number, _QUOTED.sub(quoted, text)))[:TEXT_MAX]


def _place(error: BaseException, repo: Path | None) -> str:
    """The last line of the repository that the error passed, `file:line` below it."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        if repo is not None and path.is_absolute() and path.is_relative_to(repo.resolve()):
            return f"{path.relative_to(repo.resolve())}:{frame.lineno}"
    return ""
