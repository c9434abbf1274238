"""Between Feast's messages and stored rows: rows to write, values read, and the answer that Feast builds of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from feast import FeatureView
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.timestamp_pb2 import Timestamp

from materialize.definitions import BatchView, View
from materialize.online._batch_rows import BatchRow, value_from_proto, value_to_proto
from materialize.online._values import NO_AGE, FeatureStatus
from materialize.online._view_reader import ViewValues

FeastValues = tuple[datetime | None, dict[str, ValueProto] | None]
"""What Feast's `online_read` gives for one entity: event time and values, or twice None."""

ViewRequest = tuple[View, Sequence[str], Sequence[EntityKeyProto]]
"""A view, the names of the features wanted of it, and the entities."""


@dataclass(frozen=True)
class Spread:
    """A view to read, and which of its distinct entities each row of Feast's answer is about."""

    request: ViewRequest
    table: FeatureView
    owners: Sequence[int]


@dataclass(frozen=True)
class Answer:
    """Feast's answer under construction."""

    response: GetOnlineFeaturesResponse
    as_of_ms: int
    full_names: bool
    with_versions: bool

    def add(self, spreads: Sequence[Spread], reads: Sequence[Sequence[ViewValues]]) -> None:
        """Add one vector per feature, each entity's value at every row that asked for it."""
        for spread, values in zip(spreads, reads, strict=True):
            self._add_names(spread)
            self._add_vectors(spread, values)

    def _add_names(self, spread: Spread) -> None:
        projection = spread.table.projection
        called = projection.name_to_use()
        features = spread.request[1]
        metadata = self.response.metadata
        metadata.feature_names.val.extend(f"{called}__{name}" if self.full_names else name for name in features)
        name = projection.name_alias or projection.name
        if self.with_versions and all(known.name != name for known in metadata.feature_view_metadata):
            metadata.feature_view_metadata.add(
                name=name, version=getattr(spread.table, "current_version_number", None) or 0
            )

    def _add_vectors(self, spread: Spread, reads: Sequence[ViewValues]) -> None:
        view, features, _ = spread.request
        times = [_timestamp(self.as_of_ms - read.age_ms if read.age_ms != NO_AGE else None) for read in reads]
        protos = [_protos(view, features, read) for read in reads]
        for position in range(len(features)):
            self.response.results.append(
                GetOnlineFeaturesResponse.FeatureVector(
                    values=[protos[entity][position] for entity in spread.owners],
                    statuses=[_feast_status(reads[entity].statuses[position]) for entity in spread.owners],
                    event_timestamps=[times[entity] for entity in spread.owners],
                )
            )


def batch_row(
    view: BatchView, values: Mapping[str, ValueProto], event_time: datetime, created: datetime | None
) -> BatchRow:
    none = ValueProto()
    stored = tuple(value_from_proto(field, values.get(field.name, none)) for field in view.fields)
    return BatchRow(_milliseconds(event_time), 0 if created is None else _milliseconds(created), stored)


def _milliseconds(when: datetime) -> int:
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _protos(view: View, names: Sequence[str], read: ViewValues) -> list[ValueProto]:
    fields = {field.name: field for field in view.fields}
    return [value_to_proto(fields[name], value) for name, value in zip(names, read.values, strict=True)]


def feast_values(request: ViewRequest, reads: Sequence[ViewValues], as_of_ms: int) -> list[FeastValues]:
    view, names, _ = request
    out: list[FeastValues] = []
    for read in reads:
        if read.statuses and read.statuses[0] in (FeatureStatus.NOT_FOUND, FeatureStatus.OUTSIDE_MAX_AGE):
            out.append((None, None))
        else:
            event_time = datetime.fromtimestamp((as_of_ms - read.age_ms) / 1000, UTC)
            out.append((event_time, dict(zip(names, _protos(view, names, read), strict=True))))
    return out


def owners_of(indexes: Iterable[Sequence[int]], length: int) -> list[int]:
    owners = [0] * length
    for entity, rows in enumerate(indexes):
        for row in rows:
            owners[row] = entity
    return owners


def _feast_status(status: FeatureStatus) -> Any:
    return int(status)


def _timestamp(time_ms: int | None) -> Timestamp:
    stamp = Timestamp()
    if time_ms is not None:
        stamp.FromMilliseconds(time_ms)
    return stamp
