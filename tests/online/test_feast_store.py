"""The Feast plug-in: every type, every status, the right keys, and nobody else's rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis
from feast import FeatureStore, FeatureView, types
from feast.field import Field
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from hypothesis import given
from hypothesis import strategies as st

from materialize.definitions import JoinKey
from materialize.online import KeyEncoder, OnlineStoreError, OnlineStoreUnavailableError
from materialize.online.feast_store import _glob_escaped
from tests.support.small_store import at, file_source, ip, profiles, small_store, view_over

NOW_MS = 1_760_000_000_000
HOUR_MS = 3_600_000
SAMPLES: dict[str, tuple[Any, list[Any]]] = {
    "f_double": (types.Float64, [1.5, -0.0, 1e308]),
    "f_float": (types.Float32, [1.5, 0.25, -3.0]),
    "f_int64": (types.Int64, [2**63 - 1, -(2**63), 0]),
    "f_int32": (types.Int32, [2**31 - 1, -(2**31), 0]),
    "f_bool": (types.Bool, [True, False, True]),
    "f_string": (types.String, ["", "ünïcode ☂", "x" * 5_000]),
    "f_bytes": (types.Bytes, [b"", b"\x00\xff", b"{}"]),
    "f_time": (types.UnixTimestamp, [datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)] * 3),
    "f_doubles": (types.Array(types.Float64), [[1.0, 2.5], [0.0], [1e-300]]),
    "f_strings": (types.Array(types.String), [["a", ""], ["ü"], ["z"] * 100]),
    "f_ints": (types.Array(types.Int64), [[1, 2], [3], [2**62]]),
    "f_bools": (types.Array(types.Bool), [[True, False], [False], [True]]),
}


@pytest.fixture
def store(tmp_path: Path, redis_url: str, redis_namespace: str) -> Iterator[FeatureStore]:
    """One view with a feature of every type, and a TTL of an hour; the clock stands at NOW_MS."""
    source = file_source(tmp_path, "source", profiles([]))
    view = view_over(source, {name: kind for name, (kind, _) in SAMPLES.items()}, ttl=timedelta(hours=1))
    opened = small_store(tmp_path, redis_namespace, redis_url, [ip, view])
    opened._get_provider().online_store.now_ms = lambda: NOW_MS
    yield opened
    opened._get_provider().online_store.client(opened.config).close()


def entity(name: str) -> EntityKey:
    return EntityKey(join_keys=["ip"], entity_values=[Value(string_val=name)])


def proto(name: str, value: Any) -> Value:
    converted: Value = python_values_to_proto_values([value], SAMPLES[name][0].to_value_type())[0]
    return converted


def write(
    store: FeatureStore, name: str, values: dict[str, Value], time_ms: int, created_ms: int | None = None
) -> None:
    created = None if created_ms is None else at(created_ms)
    row = (entity(name), values, at(time_ms), created)
    online = store._get_provider().online_store
    online.online_write_batch(store.config, store.get_feature_view("profile"), [row], None)


def read(store: FeatureStore, *names: str, features: list[str] | None = None) -> list[tuple[Any, Any]]:
    online = store._get_provider().online_store
    view = store.get_feature_view("profile")
    answer: list[tuple[Any, Any]] = online.online_read(store.config, view, [entity(n) for n in names], features)
    return answer


@pytest.mark.parametrize("sample", range(3))
def test_values_of_every_feast_type_come_back_as_they_were_written(store: FeatureStore, sample: int) -> None:
    values = {name: proto(name, examples[sample]) for name, (_, examples) in SAMPLES.items()}
    write(store, "a", values, NOW_MS - 5)
    [(event_time, found)] = read(store, "a")
    assert event_time == at(NOW_MS - 5)
    assert found == values


def test_a_null_of_any_type_comes_back_as_null_and_with_its_status(store: FeatureStore) -> None:
    write(store, "a", {"f_string": Value(), "f_ints": Value(null_val=0)}, NOW_MS)
    [(_, found)] = read(store, "a")
    assert {value.WhichOneof("val") for value in found.values()} == {None}
    assert statuses(store, ["a"], "f_double") == [FieldStatus.NULL_VALUE]


def test_only_the_requested_features_come_back(store: FeatureStore) -> None:
    write(store, "a", {"f_int64": proto("f_int64", 5), "f_bool": proto("f_bool", True)}, NOW_MS)
    [(_, found)] = read(store, "a", features=["f_bool"])
    assert found == {"f_bool": proto("f_bool", True)}


def test_a_missing_entity_is_not_found_and_a_row_past_its_ttl_is_outside_max_age(store: FeatureStore) -> None:
    for name, age_ms in (("fresh", HOUR_MS), ("old", HOUR_MS + 1)):
        write(store, name, {"f_int64": proto("f_int64", 5)}, NOW_MS - age_ms)
    names = ["fresh", "old", "nobody"]
    expected = [FieldStatus.PRESENT, FieldStatus.OUTSIDE_MAX_AGE, FieldStatus.NOT_FOUND]
    assert statuses(store, names, "f_int64") == expected
    assert [found is None for _, found in read(store, *names)] == [False, True, True]
    frame = store.get_online_features(["profile:f_int64"], [{"ip": name} for name in names]).to_df()
    assert frame["f_int64"].tolist()[0] == 5
    assert frame["f_int64"].isna().tolist() == [False, True, True]


def statuses(store: FeatureStore, names: list[str], feature: str) -> list[int]:
    proto_ = store.get_online_features([f"profile:{feature}"], [{"ip": name} for name in names]).proto
    return list(dict(zip(proto_.metadata.feature_names.val, proto_.results, strict=True))[feature].statuses)


def test_feasts_own_push_path_keeps_the_newer_row(store: FeatureStore) -> None:
    values = {name: [examples[0]] for name, (_, examples) in SAMPLES.items()}
    for value, time_ms in ((1, NOW_MS), (2, NOW_MS - 1)):
        row = {"ip": ["a"], "event_time": [at(time_ms)], **values, "f_int64": [value]}
        store.write_to_online_store("profile", pd.DataFrame(row))
    assert store.get_online_features(["profile:f_int64"], [{"ip": "a"}]).to_dict()["f_int64"] == [1]


def test_removing_a_view_deletes_its_rows_and_no_others(
    store: FeatureStore, redis_url: str, redis_namespace: str
) -> None:
    write(store, "a", {}, NOW_MS)
    others = [f"{redis_namespace}:profile_2:{{a}}", f"{redis_namespace}x:profile:{{a}}", f"{redis_namespace}:profil"]
    with redis.Redis.from_url(redis_url) as client:
        for other in others:
            client.set(other, "kept")
        online = store._get_provider().online_store
        view = store.get_feature_view("profile")
        online.update(store.config, [], [view], [], [], partial=False)
        assert read(store, "a")[0][1] is not None
        online.update(store.config, [view], [], [], [], partial=False)
        assert read(store, "a")[0][1] is None
        write(store, "a", {}, NOW_MS)
        online.teardown(store.config, [view], [])
        assert read(store, "a")[0][1] is None
        assert client.exists(*others) == len(others)


def test_characters_of_a_pattern_stand_for_themselves_in_a_key(redis_url: str, redis_namespace: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        names = [f"{redis_namespace}[ab]*", f"{redis_namespace}a-any", f"{redis_namespace}?\\"]
        for name in names:
            client.set(name, "")
        for name in names:
            assert client.keys(_glob_escaped(name.encode())) == [name.encode()]


def test_without_redis_feasts_calls_fail_with_a_typed_error(tmp_path: Path) -> None:
    view = view_over(file_source(tmp_path, "source", profiles([])), {"f_int64": types.Int64})
    store = small_store(tmp_path, "nowhere", "redis://127.0.0.1:1/0", [ip, view])
    with pytest.raises(OnlineStoreUnavailableError, match="Redis"):
        store.get_online_features(["profile:f_int64"], [{"ip": "a"}])
    with pytest.raises(OnlineStoreUnavailableError, match="Redis"):
        write(store, "a", {"f_int64": Value(int64_val=1)}, NOW_MS)


def test_a_value_of_another_type_than_the_field_is_refused(store: FeatureStore) -> None:
    with pytest.raises((ValueError, OnlineStoreError), match="f_int64"):
        write(store, "a", {"f_int64": Value(string_val="7")}, NOW_MS)


KEY_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "STRING": st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    "BYTES": st.binary(max_size=30),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "UNIX_TIMESTAMP": st.integers(-(2**40), 2**40),
}
PROTO_FIELDS = {kind: f"{kind.lower()}_val" for kind in KEY_VALUES}


@given(st.lists(st.sampled_from(sorted(KEY_VALUES)), min_size=1, max_size=3), st.data())
def test_key_bytes_are_those_of_feast(kinds: list[str], data: st.DataObject) -> None:
    join_keys = [JoinKey(f"key_{i}", kind) for i, kind in enumerate(kinds)]
    values = [data.draw(KEY_VALUES[kind]) for kind in kinds]
    protos = [Value(**{PROTO_FIELDS[kind]: value}) for kind, value in zip(kinds, values, strict=True)]
    feasts = EntityKey(join_keys=[key.name for key in join_keys], entity_values=protos)
    encoder = KeyEncoder("project", "view", join_keys)
    serialised = serialize_entity_key(feasts, entity_key_serialization_version=3)
    assert encoder.key(values) == encoder.key_of(feasts) == b"project:view:{" + serialised + b"}"


def test_a_field_added_to_a_view_makes_its_old_rows_not_found(store: FeatureStore) -> None:
    write(store, "a", {"f_int64": proto("f_int64", 5)}, NOW_MS)
    before: FeatureView = store.get_feature_view("profile")
    changed = FeatureView(
        name="profile",
        entities=[ip],
        schema=[*before.schema, Field(name="f_new", dtype=types.Int64)],
        source=before.batch_source,
        ttl=timedelta(hours=1),
    )
    store.apply([changed])
    assert statuses(store, ["a"], "f_int64") == [FieldStatus.NOT_FOUND]
    assert store._get_provider().online_store.counts.rows_refused == {"other_schema": 1}
