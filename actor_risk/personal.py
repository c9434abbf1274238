"""Which fields are personal, by the tags that the registry has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feast.aggregation import Aggregation
from feast.protos.feast.core.Registry_pb2 import Registry
from google.protobuf.message import DecodeError

from actor_risk.errors import ActorRiskError
from materialize.personal import PII, Personal, gives_values, tagged


def personal_in(registry: Path) -> Personal:
    """What is personal by the registry file; everything where there is none. Raises ActorRiskError if it is damaged."""
    try:
        proto = Registry.FromString(registry.read_bytes())
    except FileNotFoundError:
        return Personal(None)
    except DecodeError as error:
        raise ActorRiskError(f"{registry} is no Feast registry: restore it, or remove it and apply again") from error
    return personal_by(proto)


def personal_by(registry: Any) -> Personal:
    """What is personal by a registry, as Feast's message.

    The tag of a view names join keys and columns; what a window passes on of such a column is personal, too. On a field
    or an entity the tag says that the field or its join key is.
    """
    return Personal(frozenset(_names(registry)))


def _names(proto: Any) -> Iterator[str]:
    for entity in proto.entities:
        if entity.spec.tags.get(PII):
            yield entity.spec.join_key
    for views in (proto.feature_views, proto.stream_feature_views, proto.on_demand_feature_views, proto.label_views):
        for view in views:
            yield from _names_of(view.spec)


def _names_of(spec: Any) -> Iterator[str]:
    named = tagged(spec.tags)
    yield from named
    for field in (*spec.features, *getattr(spec, "entity_columns", ())):
        if field.tags.get(PII):
            yield field.name
    for one in getattr(spec, "aggregations", ()):
        if one.column in named and gives_values(one.function):
            aggregation = Aggregation.from_proto(one)
            yield aggregation.resolved_name(aggregation.time_window)
