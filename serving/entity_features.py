"""`GET /v1/features/{entity}/{key}`: what is stored of one entity, for people and for tests of what was stored.

An entity has one join key here, as every entity of Feast's has. A view that is keyed by several entities at once is
nobody's alone, and an on-demand view needs a request: `POST /get-online-features` reads those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from materialize.definitions import DefinitionError
from materialize.online import EntityFeatures, FeatureMatrix, ReadPlan, UnknownFeatureError, UnknownServiceError
from serving.decision import StoredFeature, StoredFeatures
from serving.errors import InvalidFieldError, UnknownEntityError
from serving.feast_api import native_column
from serving.fields import JOIN_KEY_TYPES
from serving.http import Receive, Response, Scope, query_of
from serving.identifiers import rfc3339
from serving.record import STATUS_NAMES
from serving.routing import PATH_PARAMS

_NO_STORE = (("cache-control", "no-store"),)
SERVICE, FEATURES = "service", "features"


class EntityReader(Protocol):
    """Reads what is stored of entities: `materialize.online.FeatureReader`."""

    def entities(self) -> Mapping[str, EntityFeatures]:
        """The entities of the registry, by name."""
        ...

    def plan(self, service: str) -> ReadPlan:
        """The compiled plan of a feature service. Raises UnknownServiceError."""
        ...

    def plan_for(self, features: Sequence[str]) -> ReadPlan:
        """The compiled plan of "view:feature" references. Raises UnknownFeatureError or DefinitionError."""
        ...

    async def read_many(
        self, plan: ReadPlan, entities: Sequence[Mapping[str, object]], as_of_ms: Sequence[int]
    ) -> FeatureMatrix:
        """The features of each of `entities` as of its time. Raises OnlineStoreUnavailableError."""
        ...


class EntityFeaturesApi:
    """Handler for `ScoringApp`."""

    def __init__(self, reader: EntityReader, now_ms: Callable[[], int]) -> None:
        self._reader = reader
        self._now_ms = now_ms

    async def features(self, scope: Scope, _receive: Receive) -> Response:
        """`GET /v1/features/{entity}/{key}`, all of them, or `?service=name`, or `?features=view:feature,…`."""
        params = scope[PATH_PARAMS]
        answer = await self.read(params["entity"], params["key"], query_of(scope))
        return Response(200, msgspec.json.encode(answer), headers=_NO_STORE)

    async def read(self, entity: str, key_text: str, query: Mapping[str, Sequence[str]]) -> StoredFeatures:
        """What is stored of an entity. Raises UnknownEntityError, InvalidFieldError, OnlineStoreUnavailableError."""
        entities = self._reader.entities()
        if entity not in entities:
            raise UnknownEntityError(entity, entities)
        its = entities[entity]
        key = _key(its.join_key.kind, key_text)
        plan = self._plan(entity, its, query)
        now_ms = self._now_ms()
        matrix = await self._reader.read_many(plan, [{its.join_key.name: key}], [now_ms])
        return StoredFeatures(
            entity=entity,
            join_key=its.join_key.name,
            key=key,
            is_known=matrix.met.of(0).rows_found > 0,
            as_of=rfc3339(now_ms),
            as_of_ms=now_ms,
            features=_features(matrix),
        )

    def _plan(self, entity: str, its: EntityFeatures, query: Mapping[str, Sequence[str]]) -> ReadPlan:
        for name in query:
            if name not in (SERVICE, FEATURES):
                raise InvalidFieldError(f"unknown; there are {SERVICE} and {FEATURES}", name)
        if len(query) > 1 or any(len(values) > 1 for values in query.values()):
            raise InvalidFieldError(f"give one {SERVICE}, or one list of {FEATURES}", FEATURES)
        named = next(iter(query), FEATURES)
        try:
            refs = self._refs(entity, its, query)
            if not refs:
                raise InvalidFieldError(f"there is no feature of {entity!r} in it", named)
            return self._reader.plan_for(refs)
        except (UnknownFeatureError, UnknownServiceError, DefinitionError) as error:
            raise InvalidFieldError(str(error), named) from error

    def _refs(self, entity: str, its: EntityFeatures, query: Mapping[str, Sequence[str]]) -> Sequence[str]:
        if SERVICE in query:
            service = self._reader.plan(query[SERVICE][0])
            return [ref for ref in service.features if ref in its.features]
        if FEATURES not in query:
            return its.features
        refs = query[FEATURES][0].split(",")
        others = [ref for ref in refs if ref not in its.features]
        if others:
            raise InvalidFieldError(f"no feature of {entity!r} alone: {', '.join(others)[:512]}", FEATURES)
        return refs


def _key(kind: str, text: str) -> str | int:
    """The key that a part of a path says."""
    if kind.lower() not in JOIN_KEY_TYPES:
        raise InvalidFieldError(f"a key of type {kind} cannot stand in a path: POST /get-online-features", "key")
    try:
        key: str | int = msgspec.convert(text, JOIN_KEY_TYPES[kind.lower()], strict=False)
    except msgspec.ValidationError as error:
        raise InvalidFieldError(str(error), "key") from error
    return key


def _features(matrix: FeatureMatrix) -> list[StoredFeature]:
    plan, statuses, ages_ms = matrix.plan, matrix.statuses[0].tolist(), matrix.ages_ms[0].tolist()
    values: list[Any] = [native_column(matrix, place)[0] for place in range(len(plan.features))]
    return [
        StoredFeature(
            feature=ref,
            description=plan.descriptions[place],
            type=plan.kinds[place],
            value=values[place],
            status=STATUS_NAMES[statuses[place]],
            age_ms=None if ages_ms[place] < 0 else ages_ms[place],
        )
        for place, ref in enumerate(plan.features)
    ]
