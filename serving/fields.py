"""One value of a request as the type that a definition asks for, or an error that names the field."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from serving.errors import InvalidFieldError, MalformedBodyError

Key = Annotated[str, Meta(min_length=1, max_length=256)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

JOIN_KEY_TYPES: dict[str, Any] = {"string": Key, "int32": Int32, "int64": Int64}
REQUEST_FIELD_TYPES: dict[str, Any] = {
    "string": Annotated[str, Meta(max_length=4096)] | None,
    "int": Int64 | None,
    "int32": Int32 | None,
    "int64": Int64 | None,
    "float": float | None,
    "double": float | None,
    "bool": bool | None,
}
"""Lower-case names of Feast's value types → what a request may give for them."""

_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_NAMED = re.compile(r"(?:required|unknown) field `(?P<name>[^`]*)`")


class FieldReader:
    """Reads one named value of one type."""

    __slots__ = ("_kind", "decoder", "name")

    def __init__(self, name: str, kind: str, types: dict[str, Any]) -> None:
        """`kind` is a Feast value type. Raises KeyError when `types` has none of that name."""
        self.name = name
        self._kind = types[kind.lower()]
        self.decoder = msgspec.json.Decoder(self._kind)

    def decode(self, raw: bytes | msgspec.Raw, where: str) -> Any:
        """The value of one JSON text. Raises InvalidFieldError, or MalformedBodyError, for the field `where`."""
        return decode_json(self.decoder, raw, where)

    def check(self, value: object, where: str) -> Any:
        """The same for a value that is decoded already."""
        try:
            return msgspec.convert(value, self._kind)
        except msgspec.ValidationError as error:
            raise InvalidFieldError(str(error), where) from error


def decode_json(decoder: msgspec.json.Decoder[Any], raw: bytes | msgspec.Raw, where: str | None = None) -> Any:
    """Decode a body, or the part of it that stands at `where`.

    Raises MalformedBodyError for what is no JSON, InvalidFieldError with the field for what does not fit the type.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidFieldError(_without_path(str(error)), dotted(where, field_of(str(error)))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBodyError(f"not valid JSON: {error}", where) from error
    except RecursionError as error:
        raise MalformedBodyError("the JSON is nested too deeply", where) from error


def field_of(detail: str) -> str | None:
    """The field, in dots, that a message of msgspec is about, or None when it is about the whole."""
    path = _PATH.search(detail)
    named = _NAMED.search(detail)
    return dotted(path["path"] if path else None, named["name"] if named else None)


def dotted(outer: str | None, inner: str | None) -> str | None:
    """`outer.inner`, or the one that is given."""
    return ".".join(part for part in (outer, inner) if part) or None


def _without_path(detail: str) -> str:
    return _PATH.sub("", detail)
