"""What the registry says is compiled faithfully, and what cannot be honoured is refused with what to change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureView, KafkaSource, ValueType, types
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.field import Field
from feast.stream_feature_view import StreamFeatureView

from materialize.definitions import (
    BatchView,
    DefinitionError,
    JoinKey,
    StreamView,
    compile_service,
    compile_view,
    open_feature_store,
)
from materialize.events import columns_from_table, decode_event, event_time_ms
from materialize.kernel import Window
from materialize.online import BatchRow, FeatureStatus, compile_plan, encode_batch_row
from tests.support.plain_reads import read_one
from tests.support.small_store import file_source, ip, profiles, small_store, view_over
from tests.support.views import NOW_MS, SPEC, stream_view
from tests.support.world import World

NO_REDIS = "redis://127.0.0.1:1/0"
HOUR = timedelta(hours=1)


def stream_feature_view(tmp_path: Path, *aggregations: Aggregation, **changed: Any) -> StreamFeatureView:
    """A view of these aggregations, with a field for each."""
    names = [aggregation.resolved_name(aggregation.time_window) for aggregation in aggregations]
    source = KafkaSource(
        name="ad_events",
        topic="ad_events",
        kafka_bootstrap_servers="",
        message_format=JsonFormat(schema_json=""),
        timestamp_field="event_time",
        batch_source=file_source(tmp_path, "history", profiles([])),
    )
    described: dict[str, Any] = {
        "name": "traffic",
        "entities": [ip],
        "schema": [
            Field(name="ip", dtype=types.String),
            *(Field(name=name, dtype=types.Float64) for name in names),
        ],
        "source": source,
        "aggregations": list(aggregations),
        "timestamp_field": "event_time",
        "mode": "python",
        "ttl": timedelta(days=2),
        **changed,
    }
    return StreamFeatureView(**described)


def summed(**changed: Any) -> Aggregation:
    return Aggregation(**{"column": "amount", "function": "sum", "time_window": HOUR, "name": "spent", **changed})


def test_a_stream_view_keeps_its_aggregations_its_topic_and_its_keys(tmp_path: Path) -> None:
    sliding = summed(name="slow", time_window=timedelta(days=1), slide_interval=timedelta(hours=6))
    view = compile_view(stream_feature_view(tmp_path, summed(), sliding))
    assert isinstance(view, StreamView)
    assert (view.topic, view.timestamp_field, view.ttl_ms) == ("ad_events", "event_time", 2 * 86_400_000)
    assert view.join_keys == (JoinKey("ip", "STRING"),)
    assert [(s.feature, s.window) for s in view.spec.aggregations] == [
        ("spent", Window(3_600_000, 60_000)),
        ("slow", Window(86_400_000, 6 * 3_600_000)),
    ]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"function": "median"}, "median"),
        ({"time_window": timedelta(seconds=1)}, "10 seconds"),
        ({"time_window": timedelta(days=400)}, "90 days"),
        ({"function": "decayed_sum"}, r"decayed_sum\(30m\)"),
        ({"time_window": timedelta(days=90), "slide_interval": timedelta(seconds=10)}, "slide_interval"),
    ],
)
def test_an_aggregation_that_cannot_be_computed_is_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        compile_view(stream_feature_view(tmp_path, summed(**changed)))


@pytest.mark.parametrize(
    "fields",
    [["ip", "spent", "forgotten"], ["ip"]],
)
def test_a_schema_that_is_not_that_of_the_aggregations_is_refused(tmp_path: Path, fields: list[str]) -> None:
    schema = [Field(name=name, dtype=types.String if name == "ip" else types.Float64) for name in fields]
    with pytest.raises(DefinitionError, match="differ"):
        compile_view(stream_feature_view(tmp_path, summed(), schema=schema))


def test_a_decayed_sum_names_its_half_life(tmp_path: Path) -> None:
    view = compile_view(stream_feature_view(tmp_path, summed(function="decayed_sum(10m)")))
    assert isinstance(view, StreamView)
    assert [(s.feature, s.function) for s in view.spec.aggregations] == [("spent", "decayed_sum(10m)")]


def test_a_transformation_for_another_engine_is_refused(tmp_path: Path) -> None:
    view = stream_feature_view(tmp_path, summed(), udf=lambda frame: frame, udf_string="", mode="pandas")
    with pytest.raises(DefinitionError, match="python"):
        compile_view(view)


def test_a_batch_view_keeps_its_fields_and_its_keys_sorted_by_name(tmp_path: Path) -> None:
    device = Entity(name="a_device", join_keys=["a_device"], value_type=ValueType.INT64)
    source = file_source(tmp_path, "source", profiles([], a_device=pa.int64(), score=pa.float64()))
    store = small_store(
        tmp_path,
        "pairs",
        NO_REDIS,
        [ip, device, view_over(source, {"score": types.Float64}, entities=[ip, device], ttl=HOUR)],
    )
    view = compile_view(store.get_feature_view("profile"))
    assert isinstance(view, BatchView)
    assert view.join_keys == (JoinKey("a_device", "INT64"), JoinKey("ip", "STRING"))
    assert ([(f.name, f.kind) for f in view.fields], view.ttl_ms) == ([("score", "DOUBLE")], 3_600_000)


@pytest.mark.parametrize("service", ["ad_click_risk", "advertiser_risk"])
def test_every_feature_of_a_service_has_a_type_and_says_what_it_is(world: World, service: str) -> None:
    store = world.store
    definition = compile_service(store.get_feature_service(service), store.registry, store.project)
    plan = compile_plan(store.project, definition)
    assert len(plan.features) == len(set(plan.features)) >= (60 if service == "ad_click_risk" else 40)
    assert all(plan.descriptions)
    assert set(plan.kinds) <= {"INT64", "DOUBLE"}


def test_a_services_fingerprint_changes_with_what_it_gives_and_with_nothing_else(tmp_path: Path) -> None:
    source = file_source(tmp_path, "source", profiles([]))
    view = view_over(source, {"a": types.Float64, "b": types.Float64})
    services = [
        FeatureService(name=f"s{i}", features=[features])
        for i, features in enumerate([view, view[["a", "b"]], view[["b", "a"]], view[["a"]]])
    ]
    store = small_store(tmp_path, "prints", NO_REDIS, [ip, view, *services])
    prints = [
        compile_service(store.get_feature_service(s.name), store.registry, store.project).fingerprint for s in services
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def aliased_service(tmp_path: Path) -> tuple[Any, Any]:
    """A service that reads one view twice: of a click's IP, and of the IP of the sign-up."""
    source = file_source(tmp_path, "source", profiles([]))
    view: FeatureView = view_over(source, {"score": types.Float64})
    other = view.with_name("signup").with_join_key_map({"ip": "signup_ip"})
    service = FeatureService(name="both", features=[view, other])
    store = small_store(tmp_path, "aliases", NO_REDIS, [ip, view, service])
    definition = compile_service(store.get_feature_service("both"), store.registry, store.project)
    return store, definition


def test_a_view_that_a_service_reads_under_two_names_gives_each_its_own_value(tmp_path: Path) -> None:
    _, definition = aliased_service(tmp_path)
    plan = compile_plan("aliases", definition)
    assert plan.features == ("profile:score", "signup:score")
    assert [key.name for key in plan.join_keys] == ["ip", "signup_ip"]
    entities = {"ip": "i", "signup_ip": "j"}
    assert [row.encoder.key([entities[name] for name in row.key_names])[-2:-1] for row in plan.rows] == [b"i", b"j"]
    view = plan.rows[0].view
    assert isinstance(view, BatchView)
    rows = [encode_batch_row(view, BatchRow(NOW_MS, 0, (value,))) for value in (1.0, 2.0)]
    vector = read_one(plan, rows, entities, NOW_MS).vector(0)
    assert vector.values.tolist() == [1.0, 2.0]
    assert set(vector.statuses) == {FeatureStatus.PRESENT}


def columns(**more: Any) -> dict[str, Any]:
    return {
        "event_id": np.array(["1", "2"], dtype=object),
        "event_time": np.array([NOW_MS, NOW_MS]),
        "ip": np.array(["a", None], dtype=object),
        "amount": np.array([1.0, 2.0]),
        **more,
    }


def test_events_without_a_key_are_left_out_and_counted() -> None:
    seen = stream_view().events(columns())
    assert (len(seen.block), seen.skipped, seen.rows.tolist()) == (1, 1, [0])


@pytest.mark.parametrize("missing", ["event_id", "event_time", "ip"])
def test_events_without_a_column_that_every_view_needs_are_refused(missing: str) -> None:
    given = columns()
    del given[missing]
    with pytest.raises(DefinitionError, match=missing):
        stream_view().events(given)


@pytest.mark.parametrize(
    "odd",
    [
        lambda _: None,
        lambda _: {"amount": 1.0},
        lambda _: {"amount": np.ones(3)},
        lambda given: given["amount"].fill(0.0),
        lambda given: given["nowhere"],
    ],
)
def test_a_transformation_that_does_not_give_columns_is_a_definition_error(odd: Any) -> None:
    given = columns()
    with pytest.raises(DefinitionError, match="transformation"):
        replace(stream_view(), transform=odd).events(given)
    assert given["amount"].tolist() == [1.0, 2.0]


def test_a_transformation_may_give_lists() -> None:
    view = replace(stream_view(), transform=lambda _: {"amount": [5.0, None], "ip": ["a", "b"]})
    place = list(SPEC.value_columns).index("amount")
    values = view.events(columns()).block.values[:, place]
    assert values[0] == 5.0
    assert np.isnan(values[1])


@pytest.mark.parametrize("microseconds", [0, 1, 499, 500, 999])
def test_a_time_is_the_same_millisecond_from_a_record_and_from_a_file(microseconds: int) -> None:
    text = f"2025-10-09T08:53:20.123{microseconds:03d}Z"
    account = f'{{"event_id":"e","event_time":"{text}","event_type":"login","actor_type":"creator"'
    account += ',"actor_id":"a","ip":"i","device_id":"d"}'
    event = decode_event("account_events", account.encode(), 2 * NOW_MS)
    stored = pa.table({"event_time": pa.array([NOW_MS * 1000 + 123_000 + microseconds], pa.timestamp("us", "UTC"))})
    assert event_time_ms(event) == NOW_MS + 123 == columns_from_table(stored)["event_time"][0]


def test_the_nulls_of_a_column_of_categories_stay_null() -> None:
    table = pa.table({"country": pa.array(["DE", None, "FR"]).dictionary_encode()})
    assert columns_from_table(table)["country"].tolist() == ["DE", None, "FR"]


def test_integers_that_floats_cannot_tell_apart_stay_integers() -> None:
    found = columns_from_table(pa.table({"id": pa.array([2**60, 2**60 + 1, None]), "n": pa.array([1, None, 3])}))
    assert found["id"].tolist() == [2**60, 2**60 + 1, None]
    assert found["n"].dtype == np.float64


def test_a_folder_without_a_repository_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"feature_store\.yaml"):
        open_feature_store(tmp_path)
