"""What a function of the repository did wrong on the sample, without anything that it was given.

The text of an error may quote a value of somebody's. Of what it quotes, of numbers and of addresses only what stands in
the function's own code is kept; of all its words, where the repository's own `raise` or `assert` put them together, and
of those behind a colon, where whoever reports a value writes it.
"""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path
from typing import Any

import actor_risk
import materialize
from actor_risk.changes.described import Problem
from actor_risk.changes.places import line_of
from materialize.definitions import DefinitionError
from materialize.personal import TYPE_NAMES, raising_code, without_values, words_of

_PATH = re.compile(r"(?:/[\w.@~-]+){2,}/?")
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+|\b(?=\w*\d)\w+\b")
_WORD = re.compile(r"\w+")
TEXT_MAX = 200
LEFT_OUT = "…"
_LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    *(str(Path(module.__file__ or "").parent) for module in (actor_risk, materialize)),
)


def code_text(written: str | None, function: Any) -> str:
    """What a function's code says: as it is written, or what is left of that in the function."""
    return written or words_of(function)


def failure(view: str, error: BaseException, code: str, repo: Path | None) -> Problem:
    """The problem of a view whose function, or whose events, failed so. code: the function as it is written."""
    cause = error.__cause__ if isinstance(error, DefinitionError) and error.__cause__ is not None else error
    if isinstance(cause, DefinitionError):
        text = _without_values(str(error), code + view)
    else:
        told = _without_words(str(cause), code, everywhere=_is_raised_by_hand(cause))
        text = f"{type(cause).__name__}: {_without_values(told, code)}"
    place = "" if repo is None else line_of(repo.resolve(), cause)
    return Problem(code="AR304", subject=view, place=place, message=f"view {view!r} fails on the sample: {text}")


def _without_words(text: str, code: str, *, everywhere: bool) -> str:
    """Without words that the code does not have: anywhere, or behind the first colon."""
    first, colon, rest = ("", "", text) if everywhere else text.partition(": ")
    known = {*_WORD.findall(code), *TYPE_NAMES}
    kept = _WORD.sub(lambda found: found[0] if found[0] in known else LEFT_OUT, rest)
    return first + colon + kept


def _without_values(text: str, code: str) -> str:
    def plain(found: re.Match[str]) -> str:
        return found[0] if re.search(rf"\b{re.escape(found[0])}\b", code) else LEFT_OUT

    text = _ADDRESS.sub(plain, without_values(text, code, LEFT_OUT))
    return re.sub(rf"{LEFT_OUT}(?:[\W_]{{0,2}}{LEFT_OUT})+", LEFT_OUT, _PATH.sub(LEFT_OUT, text))[:TEXT_MAX]


def _is_raised_by_hand(error: BaseException) -> bool:
    """Whether a `raise` or an `assert` that is no library's made the error."""
    code = raising_code(error)
    return code is not None and not code.co_filename.startswith(_LIBRARIES)
