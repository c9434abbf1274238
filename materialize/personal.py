"""What logs, screens, spans and reports leave out: values that say something about people. `***` stands for each.

Two rules, for two kinds of text:

- The error of somebody else's code (Redis, Arrow, a function of the repository) may quote any value, tagged or not.
  `told` gives its kind and its words without what it quotes, `trace_of` its way through the code. All errors that are
  logged are made of these.
- A record that a person looks at has names beside its values. `Personal` hides those that definitions tag `pii`.

Never a digest of the value: there are four billion IPs, which whoever has the key tries in minutes. Lines are joined by
trace and decision id, which lead to the decision log and its access control.
"""

from __future__ import annotations

import dis
import json
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

PII = "pii"
"""The tag: on a view it names join keys and columns (`"ip device_id"`), on a field or entity it says `"true"`."""

MASK = "***"

TYPE_NAMES = frozenset(
    {"float", "int", "str", "bytes", "bool", "list", "dict", "tuple", "NoneType", "ndarray", "object"}
)
"""Names of types, which errors quote."""

_COUNTING = frozenset({"count", "count_distinct"})
_QUOTED = re.compile(r"""(['"])(.*?)\1""", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w'\"])\d[\d.:_]*")
_WORD = re.compile(r"""[^\s'",;:()\[\]{}=]+""")
_RAISE = dis.opmap["RAISE_VARARGS"]
_COMMAND = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
_ARGUMENTS = re.compile(r",? with args beginning with: .*", re.DOTALL)
_OURS = ("materialize.", "serving.", "models.", "actor_risk.")


def tagged(tags: Mapping[str, str]) -> dict[str, None]:
    """The names of join keys and columns that a view's tag says are personal, in its order."""
    return dict.fromkeys(re.findall(r"[^\s,]+", tags.get(PII, "")))


def gives_values(function: str) -> bool:
    """Whether a window's function gives somebody's value: of a single event any does but counting."""
    return function not in _COUNTING


def reason_of(error: BaseException) -> str:
    """What an error says: one of ours in its own words, which have no values in them, any other as `told`."""
    words = str(error)
    return words if words and f"{type(error).__module__}.".startswith(_OURS) else told(error)


def told(error: BaseException, code: str = "") -> str:
    """The kind of an error and what it says, without values.

    Of a message that a `raise` has made, those words are kept that stand in the code of that function, or in `code`; of
    one that Python or a library in C has made, see `without_values`.
    """
    raising = raising_code(error)
    if isinstance(error, OSError) and error.strerror is not None:
        said = error.strerror
    elif raising is None:
        said = without_values(str(error), code)
    else:
        known = {*_WORD.findall(words_in(raising)), *_WORD.findall(code), *TYPE_NAMES}
        said = _WORD.sub(lambda found: found[0] if found[0] in known else MASK, str(error))
    return f"{type(error).__name__}: {said}".removesuffix(": ")


def without_values(text: str, code: str = "", mask: str = MASK) -> str:
    """A text with `mask` for all that it quotes and for its numbers, but for what stands in `code`, such as that of the
    function that failed."""

    def quoted(found: re.Match[str]) -> str:
        known = found[2] in TYPE_NAMES or (bool(code) and found[2] in code)
        return found[0] if known else f"{found[1]}{mask}{found[1]}"

    def number(found: re.Match[str]) -> str:
        return found[0] if re.search(rf"\b{re.escape(found[0])}\b", code) else mask

    return _NUMBER.sub(number, _QUOTED.sub(quoted, text))


def words_of(function: Any) -> str:
    """The names and constants in a function's code, which an error of it may quote."""
    code = getattr(function, "__code__", None)
    return "" if code is None else words_in(code)


def words_in(code: CodeType) -> str:
    """The same of code."""
    return repr((code.co_consts, code.co_names))


def trace_of(error: BaseException) -> str:
    """The kinds of an exception and of what led to it, each with the lines of code that it came by.

    Their messages are left out: what nobody foresaw may quote a value of the request, and so a person's data.
    """
    parts: list[str] = []
    met: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in met:
        met.add(id(found))
        kind = type(found)
        parts.append(f"{kind.__module__}.{kind.__qualname__}\n{''.join(traceback.format_tb(found.__traceback__))}")
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return "caused by ".join(parts).rstrip()


def told_by_redis(error: BaseException) -> str:
    """What Redis or its client says, without the command that it is about: keys and arguments are people's."""
    return _ARGUMENTS.sub("", _COMMAND.sub("", str(error)))


@dataclass(frozen=True)
class Personal:
    """The names of fields whose values are personal: join keys, columns of events, features.

    `names` None: nobody knows which are, so all are.
    """

    names: frozenset[str] | None

    @property
    def hides_nothing(self) -> bool:
        """Whether nothing is personal."""
        return self.names is not None and not self.names

    def hides(self, name: str) -> bool:
        """Whether the values of that name are left out."""
        return self.names is None or name in self.names

    def value(self, name: str, value: Any) -> Any:
        """The value, or MASK."""
        return MASK if self.hides(name) else value

    def document(self, data: bytes) -> bytes:
        """A JSON document with MASK for the values of personal members, at whatever depth.

        Of bytes that are no JSON object nobody knows where a value begins: they are MASK, all of them. So is a document
        of which nobody knows what is personal. Without anything personal it is what was given.
        """
        if self.hides_nothing:
            return data
        found = _object(data)
        return MASK.encode() if found is None else json.dumps(self._masked(found), ensure_ascii=False).encode()

    def text(self, text: str, data: bytes) -> str:
        """What was said about a document, with MASK for its personal values; for all that is quoted if it is none."""
        if self.hides_nothing:
            return text
        found = _object(data)
        if found is None:
            return without_values(text)
        for value in sorted(self._hidden(found), key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", MASK, text)
        return text

    def _masked(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {name: MASK if self.hides(name) else self._masked(value) for name, value in node.items()}
        return [self._masked(one) for one in node] if isinstance(node, list) else node

    def _hidden(self, node: Any) -> set[str]:
        """The words that stand for the personal values of a document."""
        if isinstance(node, list):
            return set().union(*map(self._hidden, node))
        if not isinstance(node, dict):
            return set()
        inner = (_words(value) if self.hides(name) else self._hidden(value) for name, value in node.items())
        return set().union(*inner)


def raising_code(error: BaseException) -> CodeType | None:
    """The code whose `raise` made the error; None if no code of Python did."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return None
    code, at = last.tb_frame.f_code, last.tb_lasti
    return code if 0 <= at < len(code.co_code) and code.co_code[at] == _RAISE else None


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _words(value: Any) -> set[str]:
    return {word for scalar in _scalars(value) for word in (str(scalar), repr(scalar).strip("'\"")) if word}


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from (one for inner in value.values() for one in _scalars(inner))
    elif isinstance(value, list):
        yield from (one for inner in value for one in _scalars(inner))
    elif value is not None:
        yield value
