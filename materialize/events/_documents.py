"""The schema of a topic as documents for others, made from its struct: JSON Schema, and Avro to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.inspect import DateTimeType, FloatType, IntType, Metadata, NoneType, StructType, Type, UnionType

from materialize.events._decode import event_struct
from materialize.events._schemas import TOPICS

JSON_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_VERSION_FIELD = "schema_version"


def schema_version(topic: str) -> int:
    """The newest version of the topic's schema that is read here. Raises InvalidEventError, `unknown_topic`."""
    (field,) = (field for field in _described(topic).fields if field.name == _VERSION_FIELD)
    assert isinstance(field.type, IntType)
    assert field.type.le is not None
    return field.type.le


def json_schema(topic: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one topic's events, named by topic and version.

    It says all that the decoder checks, but for the years and the skew of `event_time`, and that 1.0 is no integer.
    Raises InvalidEventError, `unknown_topic`.
    """
    struct = event_struct(topic)
    _, components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    described = components.pop(struct.__name__)
    head = {"$schema": JSON_SCHEMA_DIALECT, "$id": f"urn:actor-risk:{topic}:v{schema_version(topic)}"}
    return {**head, **described, "title": f"{topic} v{schema_version(topic)}", **_definitions(components)}


def avro_schema(topic: str) -> dict[str, Any]:
    """An Avro schema with the fields of one topic's events; bounds are not part of Avro, and hold all the same.

    Raises InvalidEventError, `unknown_topic`.
    """
    described = _described(topic)
    return {
        "type": "record",
        "name": described.cls.__name__,
        "namespace": f"actor_risk.v{schema_version(topic)}",
        "doc": (described.cls.__doc__ or "").strip(),
        "fields": [_avro_field(field) for field in described.fields],
    }


def schema_documents() -> dict[str, dict[str, Any]]:
    """Every document by its file name: `<topic>.v<version>.schema.json` and `<topic>.v<version>.avsc`."""
    return {
        f"{topic}.v{schema_version(topic)}.{end}": make(topic)
        for topic in TOPICS
        for end, make in (("schema.json", json_schema), ("avsc", avro_schema))
    }


def _described(topic: str) -> StructType:
    described = msgspec.inspect.type_info(event_struct(topic))
    assert isinstance(described, StructType)
    return described


def _definitions(components: dict[str, Any]) -> dict[str, Any]:
    return {"$defs": components} if components else {}


def _avro_field(field: msgspec.inspect.Field) -> dict[str, Any]:
    options = [_bare(option) for option in _options(field.type)]
    kind = _avro_type(options)
    if any(isinstance(option, NoneType) for option in options):
        return {"name": field.name, "type": ["null", kind], "default": None}
    if field.default is not msgspec.NODEFAULT:
        return {"name": field.name, "type": kind, "default": field.default}
    return {"name": field.name, "type": kind}


def _options(kind: Type) -> tuple[Type, ...]:
    bare = _bare(kind)
    return bare.types if isinstance(bare, UnionType) else (bare,)


def _bare(kind: Type) -> Type:
    """The type under its description."""
    return kind.type if isinstance(kind, Metadata) else kind


def _avro_type(options: Sequence[Type]) -> Any:
    """Words are strings, not enums: an enum's new word would be unreadable for whoever has the old schema."""
    if any(isinstance(option, DateTimeType) for option in options):
        return {"type": "long", "logicalType": "timestamp-millis"}
    if any(isinstance(option, IntType) for option in options):
        return "long"
    return "double" if any(isinstance(option, FloatType) for option in options) else "string"
