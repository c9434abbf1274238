"""Events in Avro: the bare datum of one schema file, or Confluent's wire format with a folder of schema files.

The only module that imports fastavro (the extra `avro`). An event that begins with `{` is read as JSON if it is JSON:
what this project publishes itself is, and a topic can change its format while it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import fastavro

from materialize.events._decode import Event, InvalidEventError, JsonEventDecoder, event_of, event_struct
from materialize.events._errors import EventFormatError
from materialize.personal import told

MAGIC = b"\x00"
"""The first byte of Confluent's wire format; the schema's id follows in four bytes, big-endian, then the datum."""

HEADER_BYTES = 5

_JSON_BEGINS = b"{"
_RECORDS = ("record", "error")  # fastavro reads an RPC's error as the record that it is
_READ_AS_THEY_ARE = frozenset({"timestamp-millis", "uuid"})  # milliseconds and text are what our structs want

Schema = Any
"""A schema as fastavro has parsed it."""


class WriterSchemas(Protocol):
    """Where the schema that an event names comes from: a folder here; a registry would be another class."""

    def schema(self, schema_id: int) -> Schema:
        """The schema of that id, from `readable_schema`. Raises EventFormatError when it is not to be had."""
        ...


class SchemaFolder:
    """See `WriterSchemas`: `<folder>/<id>.avsc`, read when it is first named, so files may be added at any time."""

    def __init__(self, folder: Path) -> None:
        """Raises EventFormatError when there is no such folder."""
        if not folder.is_dir():
            raise EventFormatError(f"{folder} is no folder: put the schemas there as <id>.avsc")
        self._folder = folder
        self._known: dict[int, Schema] = {}

    def schema(self, schema_id: int) -> Schema:
        """See `WriterSchemas.schema`."""
        if schema_id not in self._known:
            self._known[schema_id] = load_schema(self._folder / f"{schema_id}.avsc")
        return self._known[schema_id]


class AvroEventDecoder:
    """See `EventDecoder`: the datum alone, written with one schema."""

    def __init__(self, topic: str, schema: Schema) -> None:
        """`schema` is from `readable_schema`. Raises InvalidEventError, `unknown_topic`."""
        self._struct = event_struct(topic)
        self._json = JsonEventDecoder(topic)
        self._schema = schema

    def decode(self, data: bytes) -> Event:
        """See `EventDecoder.decode`."""
        if data[:1] == _JSON_BEGINS:
            try:
                return self._json.decode(data)
            except InvalidEventError as error:
                if error.reason != "malformed":
                    raise
        return event_of(self._struct, _fields(data, 0, self._schema))


class ConfluentEventDecoder:
    """See `EventDecoder`: Confluent's wire format."""

    def __init__(self, topic: str, schemas: WriterSchemas) -> None:
        """Raises InvalidEventError, `unknown_topic`."""
        self._struct = event_struct(topic)
        self._json = JsonEventDecoder(topic)
        self._schemas = schemas

    def decode(self, data: bytes) -> Event:
        """See `EventDecoder.decode`."""
        if data[:1] == _JSON_BEGINS:
            return self._json.decode(data)
        if data[:1] != MAGIC or len(data) < HEADER_BYTES:
            raise InvalidEventError("malformed", "neither a zero byte and a schema id, nor a JSON object")
        schema_id = int.from_bytes(data[1:HEADER_BYTES])
        try:
            schema = self._schemas.schema(schema_id)
        except EventFormatError as error:
            raise InvalidEventError("unknown_schema", str(error)) from error
        return event_of(self._struct, _fields(data, HEADER_BYTES, schema))


def load_schema(path: Path) -> Schema:
    """The schema in a file. Raises EventFormatError."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise EventFormatError(f"there is no schema at {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise EventFormatError(f"{path} is not JSON, as an Avro schema must be: {error}") from error
    try:
        return readable_schema(found)
    except EventFormatError as error:
        raise EventFormatError(f"{path}: {error}") from error


def readable_schema(schema: Any) -> Schema:
    """A schema that is safe to read hostile bytes with, ready for the decoders. Raises EventFormatError.

    It must be a record. What refers to itself is refused, since bytes could nest it until the stack overflows, and a
    list of what takes no bytes, since a few bytes could ask for more elements than memory holds.
    """
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        raise EventFormatError("an event's Avro schema must be a record")
    try:
        parsed: Schema = fastavro.parse_schema(_plain(dict(schema)))
        _least_bytes(parsed, {}, ())
    except EventFormatError:
        raise
    except Exception as error:  # it has an exception for this, raises KeyError and others besides, and checks no sizes
        raise EventFormatError(f"this is no Avro schema: {error!r}") from error
    return parsed


def _fields(data: bytes, begin: int, schema: Schema) -> dict[str, Any]:
    stream = BytesIO(data)
    stream.seek(begin)
    try:
        fields: dict[str, Any] = fastavro.schemaless_reader(stream, schema, None)  # type: ignore[assignment]
    except Exception as error:  # on hostile bytes fastavro raises a dozen kinds, from EOFError to OverflowError
        raise InvalidEventError("malformed", f"not of this Avro schema: {told(error)}") from error
    if stream.tell() != len(data):
        raise InvalidEventError("malformed", f"{len(data) - stream.tell()} bytes are left after the Avro datum")
    return fields


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The record without the logical types that would only be turned into objects and back."""
    return {**schema, "fields": [{**field, "type": _plain_type(field["type"])} for field in schema.get("fields", [])]}


def _plain_type(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_plain_type(option) for option in kind]
    if isinstance(kind, Mapping) and kind.get("logicalType") in _READ_AS_THEY_ARE:
        return {name: value for name, value in kind.items() if name != "logicalType"}
    return kind


def _least_bytes(kind: Any, named: dict[str, Any], within: tuple[str, ...]) -> int:
    """The fewest bytes that a value of this type takes, as 0 or 1. Raises EventFormatError for what is not safe."""
    if isinstance(kind, list):
        for option in kind:
            _least_bytes(option, named, within)
        return 1  # the number of the option
    if isinstance(kind, str):
        if kind in within:
            raise EventFormatError(f"the type {kind!r} refers to itself: an event must not nest without end")
        return _least_bytes(named[kind], named, within) if kind in named else int(kind != "null")
    if "name" in kind:
        named[kind["name"]] = kind
    if kind["type"] in _RECORDS:
        inside = (*within, kind["name"])
        return max((_least_bytes(field["type"], named, inside) for field in kind["fields"]), default=0)
    if kind["type"] in ("array", "map"):
        items = kind["items"] if kind["type"] == "array" else kind["values"]
        if not _least_bytes(items, named, within) and kind["type"] == "array":
            raise EventFormatError("a list of what takes no bytes cannot be read safely")
        return 1
    if kind["type"] == "fixed":
        return int(kind["size"] > 0)
    return 1 if kind["type"] == "enum" else _least_bytes(kind["type"], named, within)
