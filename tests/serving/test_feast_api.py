"""`POST /get-online-features`: its answers, and what it refuses. Feast's own client is in tests/parity."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from feast.feature_server_utils import convert_response_to_dict
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import BytesList, DoubleList, Map
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from jsonschema import Draft202012Validator

from materialize.definitions import (
    BatchView,
    FeatureField,
    JoinKey,
    OnDemandView,
    RequestField,
    ServiceDefinition,
    ServiceView,
)
from materialize.online import (
    BatchRow,
    FeatureMatrix,
    OnlineStoreUnavailableError,
    ReadPlan,
    UnknownFeatureError,
    UnknownServiceError,
    assemble,
    compile_plan,
    encode_batch_row,
    lookup,
    value_from_proto,
)
from serving.asgi import ScoringApp
from serving.clock import Clock
from serving.feast_api import NOT_HERE, FeastApi, FeaturesAnswer, FeaturesRequest
from serving.openapi import openapi_document
from tests.serving.fakes import NOW_MS, Answer, World

PATH = "/get-online-features"
KEYS = (JoinKey("ip", "STRING"),)
STORED = {
    "DOUBLE": ValueProto(double_val=0.1),
    "FLOAT": ValueProto(float_val=0.1),
    "INT64": ValueProto(int64_val=2**62 + 1),
    "INT32": ValueProto(int32_val=-5),
    "BOOL": ValueProto(bool_val=True),
    "UNIX_TIMESTAMP": ValueProto(unix_timestamp_val=1_795_000_000),
    "STRING": ValueProto(string_val="zoë"),
    "BYTES": ValueProto(bytes_val=b"\x00\xff"),
    "DOUBLE_LIST": ValueProto(double_list_val=DoubleList(val=[1.0, float("inf")])),
    "BYTES_LIST": ValueProto(bytes_list_val=BytesList(val=[b"\x01"])),
    "MAP": ValueProto(map_val=Map(val={"a": ValueProto(string_val="b")})),
}
VIEW = BatchView("profile", KEYS, tuple(FeatureField(f"f_{kind.lower()}", kind) for kind in STORED), 7, 60_000)
OTHER = BatchView("other", (JoinKey("user", "INT64"),), (FeatureField("f_double", "DOUBLE"),), 8, 0)
BOTH = ("profile:f_double", "other:f_double")
SERVICE = "service"


def doubled(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": [None if v is None else v * 2 for v in inputs["asked"]]}


COMPUTED = OnDemandView(
    "computed", doubled, False, (), (RequestField("asked", "DOUBLE"),), (FeatureField("doubled", "DOUBLE"),)
)


def plan_of(names: Sequence[str]) -> ReadPlan:
    views = tuple(
        ServiceView(view, features, tuple(key.name for key in view.join_keys), view.name)
        for view in (VIEW, OTHER)
        if (features := tuple(field.name for field in view.fields if f"{view.name}:{field.name}" in names))
    )
    known = {
        f"{view.name}:{field.name}": (view.name, field) for view in (VIEW, OTHER, COMPUTED) for field in view.fields
    }
    computed = (COMPUTED,) if "computed:doubled" in names else ()
    definition = ServiceDefinition(SERVICE, views, computed, tuple(known[name] for name in names), "fingerprint")
    return compile_plan("project", definition)


ALL = [f"profile:{field.name}" for field in VIEW.fields] + ["computed:doubled"]
ENCODE = plan_of(ALL).rows[0].encoder.key


class MemoryRows:
    """Rows in a dict, read by the real plan and matrix."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.failure: OnlineStoreUnavailableError | None = None

    def store(self, ip: str, age_ms: int, values: Mapping[str, ValueProto]) -> None:
        row = tuple(value_from_proto(field, values.get(field.kind, ValueProto())) for field in VIEW.fields)
        self.rows[ENCODE([ip])] = encode_batch_row(VIEW, BatchRow(NOW_MS - age_ms, 0, row))

    def join_keys(self) -> Mapping[str, JoinKey]:
        return {name: JoinKey(name, "STRING") for name in ("ip", "device_id")}

    def plan(self, service: str) -> ReadPlan:
        if service != SERVICE:
            raise UnknownServiceError(f"no feature service {service!r}")
        return plan_of(ALL)

    def plan_for(self, features: Sequence[str]) -> ReadPlan:
        try:
            return plan_of(features)
        except KeyError as error:
            raise UnknownFeatureError(f"no feature {error}") from error

    async def read_many(
        self,
        plan: ReadPlan,
        entities: Sequence[Mapping[str, object]],
        as_of_ms: int,
        requests: Sequence[Mapping[str, object]] | None = None,
    ) -> FeatureMatrix:
        if self.failure is not None:
            raise self.failure
        found = lookup(plan, entities)
        rows = [self.rows.get(key) for key in found.keys]
        return assemble(plan, found, rows, entities, [as_of_ms] * len(entities), requests)


@pytest.fixture
def rows() -> MemoryRows:
    return MemoryRows()


@pytest.fixture
def client(rows: MemoryRows, empty_world: World) -> World:
    """A server that answers Feast's clients; at most 40 values of one request."""

    async def shut_down() -> None: ...

    empty_world.app = ScoringApp(
        empty_world.service,
        Clock(now_ms=lambda: NOW_MS, monotonic_ns=lambda: 0),
        body_bytes_max=10_000,
        shut_down=shut_down,
        feast=FeastApi(rows, values_max=40),
    )
    return empty_world


def ask(client: World, body: Any) -> Answer:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return asyncio.run(client.call("POST", PATH, data, {"content-type": "application/json"}))


def by_name(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    told = answer.json()
    return dict(zip(told["metadata"]["feature_names"], told["results"], strict=True))


def test_every_type_is_written_as_feast_writes_it(client: World, rows: MemoryRows) -> None:
    rows.store("a", 1_500, STORED)
    columns = by_name(ask(client, {"feature_service": SERVICE, "entities": {"ip": ["a", "b"], "asked": [2.5, None]}}))
    for kind, proto in STORED.items():
        vector = GetOnlineFeaturesResponse.FeatureVector(values=[proto, ValueProto()])
        (expected,) = convert_response_to_dict(GetOnlineFeaturesResponse(results=[vector]))["results"]
        assert columns[f"f_{kind.lower()}"] == {
            "values": expected["values"],
            "statuses": ["PRESENT", "NOT_FOUND"],
            "event_timestamps": ["2026-11-18T11:06:38.500Z", "1970-01-01T00:00:00Z"],
        }
    assert columns["doubled"]["values"] == [5.0, None]
    assert columns["ip"]["values"] == ["a", "b"]
    assert "asked" not in columns


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinity_is_written_as_feast_writes_it(client: World, rows: MemoryRows, value: float) -> None:
    proto = ValueProto(double_val=value)
    rows.store("a", 0, {"DOUBLE": proto})
    vector = GetOnlineFeaturesResponse.FeatureVector(values=[proto])
    expected = convert_response_to_dict(GetOnlineFeaturesResponse(results=[vector]))["results"][0]["values"]
    columns = by_name(ask(client, {"features": ["profile:f_double"], "entities": {"ip": ["a"]}}))
    assert columns["f_double"]["values"] == expected


def test_null_and_old_values_have_their_statuses_and_a_whole_second_has_no_fraction(
    client: World, rows: MemoryRows
) -> None:
    rows.store("null", 1_000, {})
    rows.store("old", 61_000, STORED)
    columns = by_name(ask(client, {"features": ["profile:f_string"], "entities": {"ip": ["null", "old"]}}))
    assert columns["f_string"] == {
        "values": [None, None],
        "statuses": ["NULL_VALUE", "OUTSIDE_MAX_AGE"],
        "event_timestamps": ["2026-11-18T11:06:39Z", "2026-11-18T11:05:39Z"],
    }


def test_keys_of_other_entities_come_back_and_unknown_columns_do_not(client: World) -> None:
    body = {"features": ["profile:f_bool"], "entities": {"device_id": ["d"], "ip": ["a"], "label": [1]}, "unheard": 1}
    assert list(by_name(ask(client, body))) == ["device_id", "ip", "f_bool"]


def test_request_time_values_may_stand_in_the_request_context(client: World) -> None:
    body = {"features": ["computed:doubled"], "entities": {"ip": ["a"]}, "request_context": {"asked": [4]}}
    assert by_name(ask(client, body))["doubled"]["values"] == [8.0]


def test_full_names_keep_features_of_one_name_apart(client: World) -> None:
    body = {"features": BOTH, "entities": {"ip": ["a"], "user": [1]}}
    refused = ask(client, body)
    assert (refused.status, refused.json()["field"]) == (422, "full_feature_names")
    columns = by_name(ask(client, {**body, "full_feature_names": True}))
    assert list(columns) == ["ip", "user", "profile__f_double", "other__f_double"]


ONE = ["profile:f_double"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        ([], 422, None),
        ({"features": ONE}, 422, "entities"),
        ({"features": ONE, "entities": {}}, 422, "entities"),
        ({"entities": {"ip": ["a"]}}, 422, "features"),
        ({"features": ["nothing:f"], "entities": {"ip": ["a"]}}, 422, "features"),
        ({"features": [7], "entities": {"ip": ["a"]}}, 422, "features[0]"),
        ({"feature_service": "nothing", "entities": {"ip": ["a"]}}, 422, "feature_service"),
        ({"features": ONE, "entities": {"device_id": ["a"]}}, 422, "entities.ip"),
        ({"features": ONE, "entities": {"ip": [None]}}, 422, "entities.ip"),
        ({"features": ONE, "entities": {"ip": [5]}}, 422, "entities.ip"),
        ({"features": ONE, "entities": {"ip": "a"}}, 422, "entities[...]"),
        ({"features": ONE, "entities": {"ip": ["a"], "device_id": ["d", "e"]}}, 422, "entities"),
        ({"features": ONE, "entities": {"ip": ["a"] * 41}}, 422, "entities"),
        ({"features": ["computed:doubled"], "entities": {"ip": ["a"]}}, 422, "entities.asked"),
        ({"features": ["computed:doubled"], "entities": {"asked": ["a"]}}, 422, "entities.asked"),
        ({"features": ONE, "entities": {"ip": ["a" * 10_000]}}, 413, None),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_field_at_fault(
    client: World, body: Any, status: int, field: str | None
) -> None:
    refused = ask(client, body)
    assert (refused.status, refused.json().get("field")) == (status, field), refused.body
    assert refused.headers["content-type"] == "application/problem+json"


def test_without_redis_the_answer_is_to_try_again(client: World, rows: MemoryRows) -> None:
    rows.failure = OnlineStoreUnavailableError("Redis is away")
    answer = ask(client, {"features": ONE, "entities": {"ip": ["a"]}})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("path", sorted(NOT_HERE))
def test_what_feasts_server_does_besides_is_refused_with_what_to_do(client: World, path: str) -> None:
    answer = asyncio.run(client.call("POST", path, b"{}", {"content-type": "application/json"}))
    assert answer.status == 404
    assert NOT_HERE[path] in answer.json()["detail"]


def test_requests_are_counted_by_route_and_status(client: World) -> None:
    ask(client, {"features": ONE, "entities": {"ip": ["a"]}})
    ask(client, b"{")
    page = asyncio.run(client.call("GET", "/metrics")).body.decode()
    assert f'actor_risk_requests_total{{route="{PATH}",status="200"}} 1.0' in page
    assert f'actor_risk_requests_total{{route="{PATH}",status="400"}} 1.0' in page


def test_the_openapi_document_describes_the_route_with_examples_that_fit(client: World) -> None:
    document = asyncio.run(client.call("GET", "/openapi.json")).json()
    assert document == msgspec.json.decode(msgspec.json.encode(openapi_document(with_feast=True)))
    described = {path: tuple(method.upper() for method in methods) for path, methods in document["paths"].items()}
    assert described == client.app.paths
    operation = document["paths"][PATH]["post"]
    asked = operation["requestBody"]["content"]["application/json"]
    answered = operation["responses"]["200"]["content"]["application/json"]
    for schema, kind, shown in [
        *((asked["schema"], FeaturesRequest, example["value"]) for example in asked["examples"].values()),
        (answered["schema"], FeaturesAnswer, answered["example"]),
    ]:
        msgspec.convert(shown, kind)
        Draft202012Validator({**schema, "components": document["components"]}).validate(shown)


def test_a_server_without_feasts_part_says_that_nothing_lives_there(empty_world: World) -> None:
    assert ask(empty_world, {}).status == 404
