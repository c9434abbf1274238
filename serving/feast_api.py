"""Feast's feature server, as far as reading goes: `POST /get-online-features` for Feast's `remote` online store.

Requests and answers are those of Feast 0.67 (`feast/feature_server.py`, `feast/feature_server_utils.py`): columns in,
columns out, on-demand values always PRESENT and without a time. Errors are problem details; Feast's client shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from feast.feature_server_utils import convert_response_to_dict
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from msgspec import Meta, Struct

from materialize.definitions import DefinitionError, JoinKey
from materialize.online import (
    FeatureMatrix,
    FeatureStatus,
    FieldValue,
    ReadPlan,
    UnknownFeatureError,
    UnknownServiceError,
)
from serving.errors import InvalidFieldError
from serving.fields import REQUEST_FIELD_TYPES, Int32, Int64, decode_json

VALUES_MAX = 50_000
"""Entities × features of one request: other requests wait while it is answered, some tens of milliseconds."""

PRESENT = FeatureStatus.PRESENT.name
NO_TIME = "1970-01-01T00:00:00Z"
"""What Feast writes where there is no time: the epoch."""

NOT_HERE = {
    "/push": "rows of windows come from the event log: publish events to its topics",
    "/write-to-online-store": "this server only reads: run `feast materialize` with the online store's own plug-in",
    "/materialize": "this server only reads: run `actor-risk backfill`, or `feast materialize`",
    "/materialize-incremental": "this server only reads: run `feast materialize-incremental`",
    "/retrieve-online-documents": "there is no search by vectors here",
    "/search": "there is no search by vectors here",
}
"""What Feast's clients may ask of a feature server and this one does not do, with what to do instead."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Columns = dict[str, list[Any]]

_JOIN_KEY_TYPES: dict[str, Any] = {
    "STRING": Annotated[str, Meta(max_length=1024)],
    "INT32": Int32,
    "INT64": Int64,
    "UNIX_TIMESTAMP": Int64,
}
_STATUS_NAMES = {int(status): status.name for status in FeatureStatus}


class FeaturesRequest(Struct, frozen=True, kw_only=True):
    """What to read: a feature service, or features as "view:feature", for entities given as columns of equal length.

    `entities` also has the request-time values of on-demand views; `request_context` may have them instead. Names that
    the features do not need are ignored, as are fields that are unknown: Feast's own server does so.
    """

    entities: Columns
    features: Annotated[list[Name], Meta(max_length=1000)] = []
    feature_service: Name | None = None
    full_feature_names: bool = False
    request_context: Columns = {}


class FeaturesMetadata(Struct, frozen=True):
    """The name of each column of the answer: join keys first, then features."""

    feature_names: list[str]


class FeatureColumn(Struct, frozen=True):
    """One column: for each entity its value, its status and the time of the newest event in it (RFC 3339)."""

    values: list[Any]
    statuses: list[str]
    event_timestamps: list[str]


class FeaturesAnswer(Struct, frozen=True):
    """Feast's `GetOnlineFeaturesResponse` as JSON."""

    metadata: FeaturesMetadata
    results: list[FeatureColumn]


class ManyFeatures(Protocol):
    """Reads features of many entities: `materialize.online.FeatureReader`."""

    def join_keys(self) -> Mapping[str, JoinKey]:
        """The join keys of all entities in the registry, by name."""
        ...

    def plan(self, service: str) -> ReadPlan:
        """The compiled plan of a feature service. Raises UnknownServiceError."""
        ...

    def plan_for(self, features: Sequence[str]) -> ReadPlan:
        """The compiled plan of "view:feature" references. Raises UnknownFeatureError or DefinitionError."""
        ...

    async def read_many(
        self,
        plan: ReadPlan,
        entities: Sequence[Mapping[str, object]],
        as_of_ms: int,
        requests: Sequence[Mapping[str, object]] | None = None,
    ) -> FeatureMatrix:
        """The features of each of `entities` as of a time. Raises OnlineStoreUnavailableError."""
        ...


class FeastApi:
    """Answers what Feast's clients ask."""

    def __init__(self, reader: ManyFeatures, values_max: int = VALUES_MAX) -> None:
        """`values_max` bounds entities × features of one request."""
        self._reader = reader
        self._values_max = values_max

    async def get_online_features(self, body: bytes, now_ms: int) -> FeaturesAnswer:
        """The features that a request asks for, as of now.

        Raises MalformedBodyError or InvalidFieldError, OnlineStoreUnavailableError when Redis is away.
        """
        request: FeaturesRequest = decode_json(_REQUEST_DECODER, body)
        plan = self._plan(request)
        names = _column_names(plan, request.full_feature_names)
        length = self._entity_count(request, plan)
        keys = self._join_key_columns(request, plan)
        asked = {field.name: _request_column(request, field.name, field.kind) for field in plan.request_fields}
        matrix = await self._reader.read_many(plan, _rows(keys, length), now_ms, _rows(asked, length))
        given = [FeatureColumn(column, [PRESENT] * length, [NO_TIME] * length) for column in keys.values()]
        return FeaturesAnswer(FeaturesMetadata([*keys, *names]), [*given, *_columns(matrix, now_ms)])

    def _join_key_columns(self, request: FeaturesRequest, plan: ReadPlan) -> dict[str, list[Any]]:
        """Each join key's values, also of entities that the features do not need: Feast's server gives them back."""
        kinds = {key.name: key.kind for key in (*self._reader.join_keys().values(), *plan.join_keys)}
        for key in plan.join_keys:
            if key.name not in request.entities:
                raise InvalidFieldError("missing: one value per entity is needed", f"entities.{key.name}")
        return {
            name: _join_key_column(column, name, kinds[name])
            for name, column in request.entities.items()
            if name in kinds
        }

    def _plan(self, request: FeaturesRequest) -> ReadPlan:
        if request.feature_service is None and not request.features:
            raise InvalidFieldError("missing: give features (view:feature), or a feature_service", "features")
        where = "features" if request.feature_service is None else "feature_service"
        try:
            if request.feature_service is not None:
                return self._reader.plan(request.feature_service)
            return self._reader.plan_for(request.features)
        except (UnknownFeatureError, UnknownServiceError, DefinitionError) as error:
            raise InvalidFieldError(str(error), where) from error

    def _entity_count(self, request: FeaturesRequest, plan: ReadPlan) -> int:
        columns = request.entities | request.request_context
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            told = ", ".join(f"{name}: {len(column)}" for name, column in columns.items()) or "none at all"
            raise InvalidFieldError(f"columns of one length are needed, one value per entity, not {told}", "entities")
        (length,) = lengths
        if length * len(plan.features) > self._values_max:
            raise InvalidFieldError(
                f"{length} entities × {len(plan.features)} features are more than the {self._values_max} values of "
                "one answer: ask in parts",
                "entities",
            )
        return length


def _join_key_column(column: list[Any], name: str, kind: str) -> list[Any]:
    if kind not in _JOIN_KEY_TYPES:
        raise InvalidFieldError(f"an entity of type {kind} cannot be given as JSON", f"entities.{name}")
    return _converted(column, _JOIN_KEY_TYPES[kind], f"entities.{name}")


def _request_column(request: FeaturesRequest, name: str, kind: str) -> list[Any]:
    if name in request.request_context:
        where, column = f"request_context.{name}", request.request_context[name]
    elif name in request.entities:
        where, column = f"entities.{name}", request.entities[name]
    else:
        raise InvalidFieldError(
            "missing: an on-demand view needs one value per entity, null for none", f"entities.{name}"
        )
    if kind.lower() not in REQUEST_FIELD_TYPES:
        raise InvalidFieldError(f"a request field of type {kind} cannot be given as JSON", where)
    return _converted(column, REQUEST_FIELD_TYPES[kind.lower()], where)


def _converted(column: list[Any], kind: Any, where: str) -> list[Any]:
    try:
        converted: list[Any] = msgspec.convert(column, list[kind])
    except msgspec.ValidationError as error:
        raise InvalidFieldError(str(error), where) from error
    return converted


def _rows(columns: Mapping[str, Sequence[Any]], length: int) -> list[dict[str, object]]:
    if not columns:
        return [{} for _ in range(length)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column_names(plan: ReadPlan, full: bool) -> list[str]:
    """The name of each feature in the answer. Raises InvalidFieldError when two of them would be the same."""
    if full:
        return [ref.replace(":", "__", 1) for ref in plan.features]
    names = [ref.partition(":")[2] for ref in plan.features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidFieldError(f"several views have a {twice[0]!r}: ask with full_feature_names", "full_feature_names")
    return names


def _columns(matrix: FeatureMatrix, as_of_ms: int) -> list[FeatureColumn]:
    length = len(matrix.values)
    computed = {position for run in matrix.plan.on_demand for _, position in run.outputs}
    times = _Times(as_of_ms)
    return [
        FeatureColumn(native_column(matrix, f), [PRESENT] * length, [NO_TIME] * length)
        if f in computed
        else FeatureColumn(
            native_column(matrix, f),
            [_STATUS_NAMES[status] for status in matrix.statuses[:, f].tolist()],
            times.of(matrix.ages_ms[:, f]),
        )
        for f in range(len(matrix.plan.features))
    ]


class _Times:
    """Writes times; the features of one view share theirs."""

    def __init__(self, as_of_ms: int) -> None:
        self._as_of_ms = as_of_ms
        self._written: dict[bytes, list[str]] = {}

    def of(self, ages_ms: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
        """The times of values of these ages."""
        key = ages_ms.tobytes()
        if key not in self._written:
            there = (ages_ms >= 0).tolist()
            texts = np.datetime_as_string((self._as_of_ms - ages_ms).astype("datetime64[ms]")).tolist()
            self._written[key] = [
                _rfc3339(text) if is_there else NO_TIME for text, is_there in zip(texts, there, strict=True)
            ]
        return self._written[key]


def _rfc3339(text: str) -> str:
    """As protobuf writes a Timestamp in JSON: no fraction when there is none, three digits otherwise."""
    return f"{text.removesuffix('.000')}Z"


def native_column(matrix: FeatureMatrix, position: int) -> list[Any]:
    """The values as Feast writes them in JSON; bytes are left to the encoder, which writes base64 as protobuf does."""
    column = matrix.column(position)
    if position not in matrix.objects and not np.isinf(matrix.values[:, position]).any():
        return column
    return [
        value
        if value is None or type(value) in (int, str, bool, bytes) or (type(value) is float and isfinite(value))
        else _odd(value)
        for value in column
    ]


def _odd(value: FieldValue) -> Any:
    """What JSON has no numbers for, and Feast's lists, maps and the rest."""
    if isinstance(value, float):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    vector = GetOnlineFeaturesResponse.FeatureVector(values=[value])
    return convert_response_to_dict(GetOnlineFeaturesResponse(results=[vector]))["results"][0]["values"][0]


_REQUEST_DECODER = msgspec.json.Decoder(FeaturesRequest)
