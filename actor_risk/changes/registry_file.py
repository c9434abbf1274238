"""Reads what a registry file defines.

Feast stores more than what is defined: when it was applied, up to when a view is materialized, functions as pickled
code whose bytes differ from one process to the next, the features of a stream view in any order. None of that counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feast.protos.feast.core.Registry_pb2 import Registry
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from actor_risk.changes.registered import Registered, digest
from actor_risk.errors import ActorRiskError

_KINDS = {
    "entities": "entity",
    "data_sources": "source",
    "feature_views": "view",
    "stream_feature_views": "view",
    "on_demand_feature_views": "view",
    "label_views": "view",
    "feature_services": "service",
}
_NOT_DEFINED = {"meta", "body", "data_source_class_type"}
"""Fields of any message: when it was applied; a function as pickled code, whose text is beside it; the class of a
source, which its other fields say, and which Feast fills in only when it writes a view for the second time."""
_FEASTS_OWN = "__dummy"
"""The entity that Feast adds by itself."""
_IN_ANY_ORDER = {"features", "featureColumns", "entityColumns"}


def registered_in(registry: Path) -> Registered:
    """What the registry file defines; nothing where there is none. Raises ActorRiskError for a file that is damaged."""
    try:
        proto = Registry.FromString(registry.read_bytes())
    except FileNotFoundError:
        return Registered()
    except DecodeError as error:
        raise ActorRiskError(f"{registry} is no Feast registry: restore it, or remove it and apply again") from error
    return Registered(dict(_parts(proto)))


def _parts(proto: Registry) -> Iterator[tuple[str, str]]:
    for field, kind in _KINDS.items():
        for one in getattr(proto, field):
            _forget(one)
            spec = MessageToDict(getattr(one, "spec", one))
            if spec["name"] == _FEASTS_OWN:
                continue
            yield f"{kind} {spec['name']}", digest(spec if kind == "service" else _ordered(spec))


def _forget(message: Message) -> None:
    """Clear what is no definition, in this message and in those within it."""
    for field, value in message.ListFields():
        if field.name in _NOT_DEFINED:
            message.ClearField(field.name)
        else:
            for one in _messages_in(value):
                _forget(one)


def _messages_in(value: Any) -> list[Message]:
    """The message itself, those of a list, or the values of a map; none in anything else."""
    if isinstance(value, Message):
        return [value]
    many = value.values() if hasattr(value, "values") else value if hasattr(value, "append") else ()
    return [one for one in many if isinstance(one, Message)]


def _ordered(value: Any, name: str = "") -> Any:
    """Lists whose order says nothing in one order; a service gives its features in theirs."""
    if isinstance(value, dict):
        return {key: _ordered(one, key) for key, one in value.items()}
    if isinstance(value, list):
        found = [_ordered(one) for one in value]
        return sorted(found, key=lambda one: json.dumps(one, sort_keys=True)) if name in _IN_ANY_ORDER else found
    return value
