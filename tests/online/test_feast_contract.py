"""What Feast 0.67 demands of an online store, held against our plug-in through Feast's own front doors.

Covered, after what Feast's own suites demand (universal online store, feature server, push, types, versioning):

- write_to_online_store, push and their asyncio forms; the newer event time wins, within one batch and out of order
- get_online_features by references and by service, in any order of entities and with repeated ones, with full names,
  for views renamed and with mapped join keys, for on-demand views whose input is not asked for, for composite keys and
  for views without entities; entity rows with unequal keys are refused
- get_online_features_async gives the same answer, in one round trip however many views and entities, on one event
  loop after another
- every type of value that Feast can declare, and null of each
- precomputed vectors of a feature service, which Feast stores through the plain read and write calls
- version metadata of views, once for each view
- apply, plan and teardown: the rows of a removed view go, those of the others stay, stream views included
- `feast serve` as it is, in a process of its own

Deliberately different:

- A missing entity is NOT_FOUND; Feast's own Redis store says PRESENT with a null from 1970.
- A view's TTL is enforced when it is read: OUTSIDE_MAX_AGE. There is no `key_ttl_seconds`: keys expire by the TTL.
- Rows of a stream view with aggregations cannot be written from outside: they come from the log and the backfill.
- Event times are kept to the millisecond.
- A row that is written for a view without entities by an empty entity key is read, as by Feast's placeholder key.
- References to a version of a view (`view@v2:feature`) raise Feast's VersionedOnlineReadNotSupported: a row belongs to
  one definition, and is NOT_FOUND under another.
- No vector search.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, KafkaSource, PushSource, ValueType, types
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.errors import VersionedOnlineReadNotSupported
from feast.field import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.stream_feature_view import stream_feature_view
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actor_risk.local import wait_until
from actor_risk.local.processes import free_port
from materialize.definitions import compile_service
from materialize.online import OnlineStoreError, compile_plan, connect_async
from materialize.online._reader import FeatureReader
from tests.support.small_store import at, file_source, profiles, small_store

NOW_MS = 1_760_000_000_000
SERVE_S = 90.0

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)


def views_of(directory: Path) -> dict[str, FeatureView]:
    """The shapes of views there are: of one entity (fed by a push source too), of two, and of none."""
    source = file_source(directory, "source", profiles([]))
    pushed = PushSource(name="driver_push", batch_source=source)
    rate = Field(name="rate", dtype=types.Float32)
    return {
        "driver_stats": FeatureView(
            name="driver_stats",
            entities=[driver],
            schema=[Field(name="driver_id", dtype=types.Int64), rate, Field(name="trips", dtype=types.Int64)],
            source=pushed,
            ttl=timedelta(hours=1),
        ),
        "orders": FeatureView(
            name="orders",
            entities=[driver, customer],
            schema=[
                Field(name="driver_id", dtype=types.Int64),
                Field(name="customer_id", dtype=types.String),
                Field(name="done", dtype=types.Bool),
            ],
            source=source,
        ),
        "totals": FeatureView(name="totals", schema=[Field(name="rides", dtype=types.Int64)], source=source),
    }


@pytest.fixture
def store(tmp_path: Path, redis_url: str, redis_namespace: str) -> Iterator[FeatureStore]:
    """The views, an on-demand view and services over them; the clock stands at NOW_MS."""
    views = views_of(tmp_path)

    @on_demand_feature_view(
        sources=[views["driver_stats"]], schema=[Field(name="rate_plus_100", dtype=types.Float64)], mode="python"
    )
    def plus(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"rate_plus_100": [None if rate is None else rate + 100 for rate in inputs["rate"]]}

    stats = views["driver_stats"]
    services = [
        FeatureService(name="all", features=[stats, views["orders"], views["totals"], plus]),
        FeatureService(name="totals_only", features=[views["totals"]]),
        FeatureService(
            name="pair",
            features=[
                stats[["trips"]].with_name("first").with_join_key_map({"driver_id": "first_id"}),
                stats[["trips"]].with_name("second").with_join_key_map({"driver_id": "second_id"}),
            ],
        ),
    ]
    opened = small_store(tmp_path, redis_namespace, redis_url, [driver, customer, *views.values(), plus, *services])
    online(opened).now_ms = lambda: NOW_MS
    yield opened
    asyncio.run(opened.close())


def online(store: FeatureStore) -> Any:
    return store._get_provider().online_store


def frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([{"event_time": at(NOW_MS), "created": at(NOW_MS), **row} for row in rows])


def fill(store: FeatureStore) -> None:
    """Two drivers, an order, and the totals."""
    drivers = [{"driver_id": i, "rate": 0.25 * i, "trips": 10 * i} for i in (1, 2)]
    store.write_to_online_store("driver_stats", frame(drivers))
    store.write_to_online_store("orders", frame([{"driver_id": 1, "customer_id": "c", "done": True}]))
    store.write_to_online_store("totals", frame([{"rides": 77}]))


ASKED = [{"driver_id": d, "customer_id": c} for d, c in ((2, "c"), (1, "c"), (9, "c"), (1, "c"))]
ANSWER = {
    "driver_id": [2, 1, 9, 1],
    "customer_id": ["c"] * 4,
    "rate": [0.5, 0.25, None, 0.25],
    "trips": [20, 10, None, 10],
    "done": [None, True, None, True],
    "rides": [77] * 4,
    "rate_plus_100": [100.5, 100.25, None, 100.25],
}


def test_all_kinds_of_views_are_read_together_in_the_order_asked(store: FeatureStore) -> None:
    fill(store)
    assert store.get_online_features(store.get_feature_service("all"), ASKED).to_dict() == ANSWER


def test_the_answer_without_blocking_is_the_same_message(store: FeatureStore) -> None:
    fill(store)
    service = store.get_feature_service("all")
    for options in ({}, {"full_feature_names": True}, {"include_feature_view_version_metadata": True}):
        expected = store.get_online_features(service, ASKED, **options).proto
        for _ in range(2):  # a client belongs to an event loop; the second loop needs another
            assert asyncio.run(store.get_online_features_async(service, ASKED, **options)).proto == expected


def test_all_views_and_entities_take_one_round_trip_each_way(store: FeatureStore, redis_url: str) -> None:
    fill(store)
    service = store.get_feature_service("all")
    sent: list[int] = []

    class Counting(redis.asyncio.Redis):
        def pipeline(self, *args: Any, **options: Any) -> Any:
            sent.append(1)
            return super().pipeline(*args, **options)

        async def execute_command(self, *args: Any, **options: Any) -> Any:
            sent.append(1)
            return await super().execute_command(*args, **options)

    async def ask() -> Any:
        client = Counting.from_url(redis_url)
        online(store)._async_clients[asyncio.get_running_loop()] = client
        answer = await store.get_online_features_async(service, ASKED)
        await store.close()
        return answer

    assert asyncio.run(ask()).to_dict() == ANSWER
    assert sent == [1]


def test_full_names_carry_the_name_of_the_view(store: FeatureStore) -> None:
    fill(store)
    names = ["driver_stats:rate", "totals:rides"]
    answer = store.get_online_features(names, [{"driver_id": 2}], full_feature_names=True).to_dict()
    assert answer == {"driver_id": [2], "driver_stats__rate": [0.5], "totals__rides": [77]}


def test_an_on_demand_view_is_computed_though_its_input_is_not_asked_for(store: FeatureStore) -> None:
    fill(store)
    answer = store.get_online_features(["plus:rate_plus_100"], [{"driver_id": 1}]).to_dict()
    assert answer == {"driver_id": [1], "rate_plus_100": [100.25]}


def test_one_view_under_two_names_reads_two_entities(store: FeatureStore) -> None:
    fill(store)
    service = store.get_feature_service("pair")
    rows = [{"first_id": 1, "second_id": 2}, {"first_id": 9, "second_id": 1}]
    answer = store.get_online_features(service, rows, full_feature_names=True).to_dict()
    assert answer["first__trips"] == [10, None]
    assert answer["second__trips"] == [20, 10]


def test_entity_rows_with_unequal_keys_are_refused(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="same keys"):
        store.get_online_features(["driver_stats:rate"], [{"driver_id": 1}, {"customer_id": "c"}])


def test_statuses_and_times_are_those_of_the_rows(store: FeatureStore) -> None:
    old = [{"driver_id": 3, "rate": 1.0, "trips": 1, "event_time": at(NOW_MS - 3_600_001)}]
    null = [{"driver_id": 4, "rate": None, "trips": 1}]
    fill(store)
    store.write_to_online_store("driver_stats", frame(old + null))
    rows = [{"driver_id": i} for i in (1, 3, 4, 9)]
    proto = store.get_online_features(["driver_stats:rate"], rows).proto
    vector = dict(zip(proto.metadata.feature_names.val, proto.results, strict=True))["rate"]
    assert list(vector.statuses) == [
        FieldStatus.PRESENT,
        FieldStatus.OUTSIDE_MAX_AGE,
        FieldStatus.NULL_VALUE,
        FieldStatus.NOT_FOUND,
    ]
    assert vector.event_timestamps[0].ToMilliseconds() == NOW_MS
    assert vector.event_timestamps[3].ToMilliseconds() == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=12), st.booleans())
def test_the_newest_event_time_stays_in_whatever_order_rows_come(
    store: FeatureStore, writes: list[tuple[int, int]], asynchronous: bool
) -> None:
    view = store.get_feature_view("driver_stats")
    online(store).update(store.config, [view], [], [], [], partial=False)
    rows = [
        (driver_key(i), {"trips": Value(int64_val=minute)}, at(NOW_MS - 60_000 * minute), None) for i, minute in writes
    ]
    told: list[int] = []
    if asynchronous:
        asyncio.run(_written(store, view, rows, told))
    else:
        online(store).online_write_batch(store.config, view, rows, told.append)
    assert sum(told) == len(rows)
    best = {i: min(m for j, m in writes if j == i) for i, _ in writes}
    read = online(store).online_read(store.config, view, [driver_key(i) for i in best], ["trips"])
    assert [(time, values["trips"].int64_val) for time, values in read] == [
        (at(NOW_MS - 60_000 * minute), minute) for minute in best.values()
    ]


async def _written(store: FeatureStore, view: FeatureView, rows: list[Any], told: list[int]) -> None:
    await online(store).online_write_batch_async(store.config, view, rows, told.append)
    await online(store).close()


def driver_key(number: int) -> EntityKey:
    return EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=number)])


def test_a_pushed_row_is_read_whichever_way_it_is_pushed(store: FeatureStore) -> None:
    store.push("driver_push", frame([{"driver_id": 1, "rate": 1.0, "trips": 1}]))

    async def push() -> None:
        await store.push_async("driver_push", frame([{"driver_id": 2, "rate": 2.0, "trips": 2}]))
        await store.close()

    asyncio.run(push())
    answer = store.get_online_features(["driver_stats:trips"], [{"driver_id": 1}, {"driver_id": 2}]).to_dict()
    assert answer["trips"] == [1, 2]


def test_a_times_zone_is_honoured_and_a_time_without_one_is_utc(store: FeatureStore) -> None:
    view = store.get_feature_view("driver_stats")
    naive = at(NOW_MS).replace(tzinfo=None)
    online(store).online_write_batch(store.config, view, [(driver_key(1), {}, naive, None)], None)
    assert online(store).online_read(store.config, view, [driver_key(1)])[0][0] == at(NOW_MS)


def test_feasts_placeholder_key_and_an_empty_key_are_the_same_row(store: FeatureStore) -> None:
    fill(store)
    placeholder = EntityKey(join_keys=["__dummy_id"], entity_values=[Value(string_val="")])
    view = store.get_feature_view("totals")
    newer = [(placeholder, {"rides": Value(int64_val=78)}, at(NOW_MS + 1), None)]
    online(store).now_ms = lambda: NOW_MS + 1
    online(store).online_write_batch(store.config, view, newer, None)
    assert store.get_online_features(["totals:rides"], [{"driver_id": 1}]).to_dict()["rides"] == [78]
    read = online(store).online_read(store.config, view, [EntityKey(), placeholder])
    assert [values["rides"].int64_val for _, values in read] == [78, 78]


def test_our_own_reader_finds_the_row_of_a_view_without_entities(store: FeatureStore) -> None:
    fill(store)
    service = compile_service(store.get_feature_service("totals_only"), store.registry, store.project)
    plan = compile_plan(store.project, service)

    async def read() -> Any:
        reader = FeatureReader(connect_async(online_settings(store)), store)
        vector = await reader.read(plan, {}, NOW_MS)
        await reader.close()
        return vector

    assert list(asyncio.run(read()).values) == [77]


def online_settings(store: FeatureStore) -> Any:
    return store.config.online_store.settings()


def test_version_metadata_names_each_view_once_and_only_when_asked(store: FeatureStore) -> None:
    fill(store)
    names = ["driver_stats:rate", "driver_stats:trips", "totals:rides"]
    plain = store.get_online_features(names, [{"driver_id": 1}])
    assert not plain.proto.metadata.feature_view_metadata
    asked = store.get_online_features(names, [{"driver_id": 1}], include_feature_view_version_metadata=True)
    found = {view.name: view.version for view in asked.proto.metadata.feature_view_metadata}
    versions = {name: store.get_feature_view(name).current_version_number or 0 for name in ("driver_stats", "totals")}
    assert found == versions
    assert len(asked.proto.metadata.feature_view_metadata) == 2


def test_a_reference_to_a_version_of_a_view_is_refused_by_feast(store: FeatureStore) -> None:
    view = store.get_feature_view("driver_stats")
    view.projection.version_tag = 1
    with pytest.raises(VersionedOnlineReadNotSupported):
        online(store)._check_versioned_read_support([(view, ["rate"])])


def test_precomputed_vectors_come_back_byte_by_byte(store: FeatureStore) -> None:
    keys = [driver_key(1), driver_key(2)]
    online(store).write_precomputed_vector(store.config, "all", store.project, keys[0], b"\x00vector")
    read = online(store).read_precomputed_vectors(store.config, "all", store.project, keys)
    assert read == [b"\x00vector", None]
    waiting = online(store).read_precomputed_vectors_async(store.config, "all", store.project, keys)
    assert asyncio.run(waiting) == read


# ---- types ----

SCALARS = {
    "bytes_val": b"\x00\xff",
    "string_val": "ü",
    "int32_val": -(2**31),
    "int64_val": 2**63 - 1,
    "double_val": 1e-300,
    "float_val": 0.5,
    "bool_val": False,
    "unix_timestamp_val": -1,
    "json_val": '{"a": [1]}',
    "uuid_val": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "time_uuid_val": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "decimal_val": "12345678901234567890.000000001",
}


def sample(name: str) -> Value:
    """A value of that field of Feast's Value message, with something in it."""
    if name in SCALARS:
        return Value(**{name: SCALARS[name]})
    value = Value()
    inner = getattr(value, name)
    inner.SetInParent()
    kind = name.rsplit("_", 2)[0]
    if hasattr(inner, "val") and f"{kind}_val" in SCALARS:
        inner.val.extend([SCALARS[f"{kind}_val"]] * 2)
    elif name in ("list_val", "set_val"):
        inner.val.extend([Value(int64_val=1), Value(string_val="x")])
    elif name in ("map_val", "struct_val"):
        inner.val["k"].CopyFrom(Value(map_val=Value_pb2.Map(val={"deep": Value(double_val=1.5)})))
    elif name in ("map_list_val", "struct_list_val"):
        inner.val.add().val["k"].CopyFrom(Value(bool_val=True))
    return value


DECLARED = {
    **{str(kind): kind for kind in types.VALUE_TYPES_TO_FEAST_TYPES.values() if kind is not types.Invalid},
    "struct": types.Struct({"k": types.Int64}),
    "structs": types.Array(types.Struct({"k": types.Int64})),
    "lists": types.Array(types.Array(types.Int64)),
    "sets": types.Set(types.Set(types.Int64)),
    "zoned": types.ZonedTimestamp,
}
FIELD_OF = {"VALUE_LIST": "list_val", "VALUE_SET": "set_val"}


@pytest.mark.parametrize("declared", sorted(DECLARED))
def test_a_value_of_every_type_and_a_null_of_it_come_back(
    tmp_path: Path, redis_url: str, redis_namespace: str, declared: str
) -> None:
    kind = DECLARED[declared].to_value_type().name
    value = sample(FIELD_OF.get(kind, "bytes_val" if kind.endswith("_BYTES") else f"{kind.lower()}_val"))
    schema = [Field(name="driver_id", dtype=types.Int64), Field(name="f", dtype=DECLARED[declared])]
    source = file_source(tmp_path, "source", profiles([]))
    view = FeatureView(name="typed", entities=[driver], schema=schema, source=source)
    store = small_store(tmp_path, redis_namespace, redis_url, [driver, view])
    view = store.get_feature_view("typed")
    rows = [(driver_key(1), {"f": value}, at(NOW_MS), None), (driver_key(2), {"f": Value()}, at(NOW_MS), None)]
    online(store).online_write_batch(store.config, view, rows, None)
    read = online(store).online_read(store.config, view, [driver_key(1), driver_key(2)])
    assert [values for _, values in read] == [{"f": value}, {"f": Value()}]
    asyncio.run(store.close())


def test_every_field_of_feasts_value_message_is_the_type_of_some_test() -> None:
    fields = {field.name for field in Value.DESCRIPTOR.oneofs_by_name["val"].fields}
    kinds = {kind.to_value_type().name for kind in DECLARED.values()}
    tested = {FIELD_OF.get(kind, f"{kind.lower()}_val") for kind in kinds}
    assert fields - tested == {"null_val"}


# ---- life of a project ----


def stream_view(directory: Path) -> FeatureView:
    history = file_source(directory, "history", profiles([]))
    source = KafkaSource(
        name="rides",
        topic="rides",
        kafka_bootstrap_servers="localhost:9092",
        message_format=JsonFormat(schema_json="event_id string, event_time timestamp, driver_id long"),
        timestamp_field="event_time",
        batch_source=history,
    )

    @stream_feature_view(
        entities=[driver],
        source=source,
        mode="python",
        timestamp_field="event_time",
        ttl=timedelta(0),
        schema=[Field(name="driver_id", dtype=types.Int64), Field(name="rides_1h", dtype=types.Int64)],
        aggregations=[
            Aggregation(column="ride", function="count", time_window=timedelta(hours=1), name="rides_1h"),
        ],
    )
    def rides(events: dict[str, Any]) -> dict[str, Any]:
        return {"ride": np.ones(len(events["event_id"]))}

    return rides


def keys_of(redis_url: str, project: str) -> set[str]:
    """The views that have rows."""
    with redis.Redis.from_url(redis_url) as client:
        return {key.split(b":")[1].decode() for key in client.scan_iter(match=f"{project}:*", count=1_000)}


def put_row(redis_url: str, project: str, view: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{project}:{view}:{{entity}}", "a row")


def test_a_stream_views_rows_go_when_it_is_removed_and_others_stay(
    store: FeatureStore, tmp_path: Path, redis_url: str
) -> None:
    rides = stream_view(tmp_path)
    store.apply([rides])
    put_row(redis_url, store.project, "rides")
    fill(store)
    store.apply([], objects_to_delete=[store.get_stream_feature_view("rides")], partial=False)
    assert keys_of(redis_url, store.project) == {"driver_stats", "orders", "totals"}


def test_rows_of_windows_cannot_be_written_from_outside(store: FeatureStore, tmp_path: Path) -> None:
    store.apply([stream_view(tmp_path)])
    view = store.get_stream_feature_view("rides")
    with pytest.raises(OnlineStoreError, match="publish its events"):
        online(store).online_write_batch(store.config, view, [(driver_key(1), {}, at(NOW_MS), None)], None)


def test_a_torn_down_project_leaves_no_rows_and_its_neighbour_all(
    store: FeatureStore, tmp_path: Path, redis_url: str
) -> None:
    store.apply([stream_view(tmp_path)])
    fill(store)
    put_row(redis_url, store.project, "rides")
    put_row(redis_url, f"{store.project}2", "driver_stats")
    store.teardown()
    assert keys_of(redis_url, store.project) == set()
    assert keys_of(redis_url, f"{store.project}2") == {"driver_stats"}


def test_tearing_down_some_views_leaves_the_others(store: FeatureStore, tmp_path: Path, redis_url: str) -> None:
    store.apply([stream_view(tmp_path)])
    fill(store)
    put_row(redis_url, store.project, "rides")
    online(store).teardown(store.config, [store.get_feature_view("orders")], [])
    assert keys_of(redis_url, store.project) == {"driver_stats", "totals", "rides"}


def test_a_plan_has_nothing_to_make_and_applies(store: FeatureStore) -> None:
    assert online(store).plan(store.config, store.registry.proto()) == []


# ---- feast serve ----

REPO = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, FileSource, KafkaSource, PushSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.stream_feature_view import stream_feature_view
from feast.field import Field
from feast.types import Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
source = PushSource(name="push", batch_source=FileSource(name="s", path="source.parquet", timestamp_field="event_time"))
stats = FeatureView(
    name="stats", entities=[driver], source=source, ttl=timedelta(days=36500),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64)],
)
service = FeatureService(name="service", features=[stats])
log = KafkaSource(
    name="log", topic="log", kafka_bootstrap_servers="localhost:9092", message_format=JsonFormat(schema_json=""),
    timestamp_field="event_time", batch_source=FileSource(name="h", path="h.parquet", timestamp_field="event_time"),
)

@stream_feature_view(
    entities=[driver], source=log, mode="python", timestamp_field="event_time", ttl=timedelta(0),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="n", dtype=Int64)],
    aggregations=[Aggregation(column="one", function="count", time_window=timedelta(hours=1), name="n")],
)
def windows(events):
    return {}
"""


def test_feast_serve_plan_apply_and_teardown_work_unmodified(
    tmp_path: Path, redis_url: str, redis_namespace: str
) -> None:
    config = {
        "project": redis_namespace,
        "provider": "local",
        "registry": "registry.db",
        "entity_key_serialization_version": 3,
        "online_store": {
            "type": "materialize.online.feast_store.PackedRedisOnlineStore",
            "connection_string": redis_url,
        },
        "offline_store": {"type": "materialize.offline.feast_store.WindowedParquetOfflineStore"},
        "batch_engine": {"type": "materialize.backfill.feast_engine.BackfillEngine"},
    }
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "features.py").write_text(REPO)
    file_source(tmp_path, "source", profiles([]))
    feast(tmp_path, "plan", "apply")
    with serving(tmp_path) as url:
        row = {"driver_id": [1], "trips": [12], "event_time": ["2026-01-01T00:00:00Z"]}
        post(f"{url}/push", {"push_source_name": "push", "df": row, "to": "online"})
        answer = post(
            f"{url}/get-online-features", {"feature_service": "service", "entities": {"driver_id": [1, 2, 1]}}
        )
    trips = answer["results"][answer["metadata"]["feature_names"].index("trips")]
    assert trips["values"] == [12, None, 12]
    assert trips["statuses"] == ["PRESENT", "NOT_FOUND", "PRESENT"]
    put_row(redis_url, redis_namespace, "windows")
    assert keys_of(redis_url, redis_namespace) == {"stats", "windows"}
    feast(tmp_path, "teardown")
    assert keys_of(redis_url, redis_namespace) == set()


FEAST_COMMANDS = """
import sys
from feast.cli.cli import cli
for command in sys.argv[2:]:
    cli(["--chdir", sys.argv[1], command], standalone_mode=False)
"""


def feast(repo: Path, *commands: str) -> None:
    """Feast's own command line, several commands in one process, as each new one takes seconds to start."""
    words = [sys.executable, "-c", FEAST_COMMANDS, repo, *commands]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def serving(repo: Path) -> Iterator[str]:
    """`feast serve` on a free port, until the block ends."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [Path(sys.executable).with_name("feast"), "--chdir", repo, "serve", "--port", str(port), "--workers", "1"]
    with (repo / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until(lambda: process.poll() is not None or _is_healthy(url), SERVE_S, "feast serve answers")
            assert process.poll() is None, (repo / "serve.log").read_text()
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _is_healthy(url: str) -> bool:
    with suppress(OSError):
        return bool(urllib.request.urlopen(f"{url}/health", timeout=5).status == 200)
    return False


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or "null")
