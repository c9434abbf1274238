"""History gives what was known as of each row's time, to the millisecond, and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, ValueType, types
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.definitions import BatchView, FeatureField, JoinKey
from materialize.offline import HistoryError, read_history, values_of_view
from tests.kernel.oracle import OracleEvent, oracle_values
from tests.support.small_store import at, file_source, ip, profiles, small_store, view_over
from tests.support.views import SPEC, stream_view

NOW_MS = 1_760_000_000_000
HOUR_MS = 3_600_000
NO_REDIS = "redis://127.0.0.1:1/0"
EVENTS = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_time", pa.timestamp("ms", "UTC")),
        ("ip", pa.string()),
        ("amount", pa.float64()),
    ]
)


def asked(*rows: tuple[str, int], **columns: Sequence[Any]) -> pd.DataFrame:
    """An entity dataframe of (ip, as-of time in ms)."""
    return pd.DataFrame(
        {
            "ip": [name for name, _ in rows],
            "event_timestamp": pd.to_datetime([time for _, time in rows], unit="ms", utc=True),
            **columns,
        }
    )


def store_of(tmp_path: Path, table: pa.Table, ttl: timedelta = timedelta(0), **fields: Any) -> FeatureStore:
    """A store of one profile view over this table."""
    source = file_source(tmp_path, "source", table, created_timestamp_column="created")
    view = view_over(source, fields or {"score": types.Float64}, ttl=ttl)
    return small_store(tmp_path, "history", NO_REDIS, [ip, view])


def scores(store: FeatureStore, frame: pd.DataFrame, **options: Any) -> list[float | None]:
    found = store.get_historical_features(frame, ["profile:score"], **options).to_df()["score"]
    return [None if value != value else value for value in found]


@dataclass(frozen=True)
class Profile:
    """One row of history."""

    name: str
    time_ms: int
    created_ms: int
    score: float | None


def newest(rows: Sequence[Profile], name: str, as_of_ms: int, ttl_ms: int, known_as_of: bool) -> float | None:
    """What a point-in-time join must give, said naively."""
    seen = [row for row in rows if row.name == name and row.time_ms <= as_of_ms]
    if known_as_of:
        seen = [row for row in seen if row.created_ms <= as_of_ms]
    if not seen:
        return None
    last = max(seen, key=lambda row: (row.time_ms, row.created_ms))
    return None if ttl_ms and as_of_ms - last.time_ms > ttl_ms else last.score


NEAR = st.integers(0, 40).map(lambda step: NOW_MS + step)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), NEAR, NEAR), unique_by=lambda row: row, max_size=25),
    st.lists(st.tuples(st.sampled_from("abcd"), NEAR), min_size=1, max_size=25),
    st.sampled_from((0, 1, 7)),
    st.booleans(),
)
def test_a_batch_value_is_the_newest_row_known_then(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int, int]],
    queries: list[tuple[str, int]],
    ttl_ms: int,
    known_as_of: bool,
) -> None:
    history = [Profile(*row, None if i % 5 == 4 else float(i)) for i, row in enumerate(rows)]
    table = profiles(
        [{"ip": r.name, "event_time": r.time_ms, "created": r.created_ms, "score": r.score} for r in history],
        score=pa.float64(),
    )
    directory = tmp_path_factory.mktemp("history")
    source = file_source(directory, "source", table, created_timestamp_column="created")
    view = BatchView("profile", (JoinKey("ip", "STRING"),), (FeatureField("score", "DOUBLE"),), 1, ttl_ms)
    names = np.array([name for name, _ in queries], dtype=object)
    times = np.array([time for _, time in queries], dtype=np.int64)
    found = values_of_view(view, source, directory, ["score"], [names], times, known_as_of)
    expected = [newest(history, name, time, ttl_ms, known_as_of) for name, time in queries]
    assert found.columns[0].to_pylist() == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 26 * HOUR_MS), st.none() | st.floats(0, 100)), max_size=40
    ),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(-HOUR_MS, 27 * HOUR_MS)), min_size=1, max_size=12),
)
def test_windows_are_those_of_the_oracle_at_every_as_of_time(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[str, int, float | None]],
    queries: list[tuple[str, int]],
) -> None:
    directory = tmp_path_factory.mktemp("events")
    rows = [
        {"event_id": f"e{i}", "event_time": NOW_MS + after, "ip": name, "amount": amount}
        for i, (name, after, amount) in enumerate(events)
    ]
    source = file_source(directory, "source", pa.Table.from_pylist(rows, schema=EVENTS))
    names = [spec.feature for spec in SPEC.aggregations]
    keys = [np.array([name for name, _ in queries], dtype=object)]
    times = np.array([NOW_MS + after for _, after in queries], dtype=np.int64)
    found = values_of_view(stream_view(), source, directory, names, keys, times)
    got = np.array([column.to_numpy(zero_copy_only=False) for column in found.columns], dtype=np.float64).T
    for position, (name, after) in enumerate(queries):
        own = [
            OracleEvent(row["event_id"], row["event_time"], {"amount": row["amount"], "ip": row["ip"]})
            for row in rows
            if row["ip"] == name
        ]
        wanted = oracle_values(SPEC, own, NOW_MS + after) or [None] * len(names)
        np.testing.assert_allclose(got[position], [np.nan if v is None else v for v in wanted], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("moved_ms", "clicks"), [(-1, 1), (0, 1), (1, None)])
def test_an_event_a_millisecond_after_the_as_of_time_is_not_there(
    tmp_path: Path, moved_ms: int, clicks: int | None
) -> None:
    row = {"event_id": "e", "event_time": NOW_MS + moved_ms, "ip": "a", "amount": 1.0}
    source = file_source(tmp_path, "source", pa.Table.from_pylist([row], schema=EVENTS))
    keys, times = [np.array(["a"], dtype=object)], np.array([NOW_MS])
    found = values_of_view(stream_view(), source, tmp_path, ["count_300000"], keys, times)
    assert found.columns[0].to_pylist() == [clicks]


@pytest.mark.parametrize(("moved_ms", "score"), [(-1, 5.0), (0, 5.0), (1, None)])
def test_a_profile_a_millisecond_after_the_as_of_time_is_not_there(
    tmp_path: Path, moved_ms: int, score: float | None
) -> None:
    table = profiles([{"ip": "a", "event_time": NOW_MS + moved_ms, "score": 5.0}], score=pa.float64())
    assert scores(store_of(tmp_path, table), asked(("a", NOW_MS))) == [score]


def test_a_microsecond_after_the_as_of_time_is_within_its_millisecond(tmp_path: Path) -> None:
    table = pa.table(
        {
            "ip": ["a", "b"],
            "event_time": pa.array([NOW_MS * 1000 + 999, NOW_MS * 1000 + 1_000], pa.timestamp("us", "UTC")),
            "created": pa.array([0, 0], pa.timestamp("us", "UTC")),
            "score": [1.0, 2.0],
        }
    )
    assert scores(store_of(tmp_path, table), asked(("a", NOW_MS), ("b", NOW_MS))) == [1.0, None]


def test_ttl_is_the_last_age_at_which_a_value_counts(tmp_path: Path) -> None:
    table = profiles([{"ip": "a", "event_time": NOW_MS, "score": 5.0}], score=pa.float64())
    store = store_of(tmp_path, table, ttl=timedelta(hours=1))
    assert scores(store, asked(("a", NOW_MS + HOUR_MS), ("a", NOW_MS + HOUR_MS + 1))) == [5.0, None]


def test_what_was_created_later_is_left_out_on_request(tmp_path: Path) -> None:
    rows = [
        {"ip": "a", "event_time": NOW_MS - 10, "created": NOW_MS - 9, "score": 1.0},
        {"ip": "a", "event_time": NOW_MS - 5, "created": NOW_MS + 5, "score": 2.0},
    ]
    store = store_of(tmp_path, profiles(rows, score=pa.float64()))
    frame = asked(("a", NOW_MS), ("a", NOW_MS + 5), ("a", NOW_MS - 10))
    assert scores(store, frame) == [2.0, 2.0, 1.0]
    assert scores(store, frame, filter_by_created_timestamp=True) == [1.0, 2.0, None]


@pytest.mark.parametrize(
    ("options", "clicks"),
    [({}, [2, 2, 2]), ({"created_timestamp_column": "created"}, [1, 2, 2])],
    ids=["a source that does not say when", "a source that says when"],
)
def test_windows_count_an_event_from_when_it_was_known_on_request(
    tmp_path: Path, options: dict[str, Any], clicks: list[int]
) -> None:
    created = EVENTS.append(pa.field("created", pa.timestamp("us", "UTC")))
    rows = [
        {"event_id": "e1", "event_time": NOW_MS, "ip": "a", "amount": 1.0, "created": at(NOW_MS + 1)},
        {"event_id": "e2", "event_time": NOW_MS, "ip": "a", "amount": 1.0, "created": None},
    ]
    source = file_source(tmp_path, "source", pa.Table.from_pylist(rows, schema=created), **options)
    keys, times = [np.array(["a"] * 3, dtype=object)], np.array([NOW_MS, NOW_MS + 1, NOW_MS + 9])
    found = values_of_view(stream_view(), source, tmp_path, ["count_300000"], keys, times, known_as_of=True)
    assert found.columns[0].to_pylist() == clicks


def test_rows_keep_their_order_their_repetitions_and_their_other_columns(tmp_path: Path) -> None:
    table = profiles(
        [{"ip": n, "event_time": NOW_MS, "score": s} for n, s in (("a", 1.0), ("b", 2.0))], score=pa.float64()
    )
    frame = asked(("b", NOW_MS), ("a", NOW_MS), ("b", NOW_MS), ("?", NOW_MS), label=[3, 1, 4, 1])
    frame.index = [9, 9, 2, 5]
    found = store_of(tmp_path, table).get_historical_features(frame, ["profile:score"]).to_df()
    assert found["label"].tolist() == [3, 1, 4, 1]
    assert found["ip"].tolist() == ["b", "a", "b", "?"]
    assert found["event_timestamp"].tolist() == frame["event_timestamp"].tolist()
    assert found["score"].fillna(-1).tolist() == [2.0, 1.0, 2.0, -1]


def test_no_rows_asked_give_no_rows_with_every_column(tmp_path: Path) -> None:
    frame = asked().astype({"ip": object})
    store = store_of(tmp_path, profiles([], score=pa.float64()))
    found = store.get_historical_features(frame, ["profile:score"], full_feature_names=True).to_df()
    assert (list(found.columns), len(found)) == (["ip", "event_timestamp", "profile__score"], 0)


def test_no_history_gives_null(tmp_path: Path) -> None:
    assert scores(store_of(tmp_path, profiles([], score=pa.float64())), asked(("a", NOW_MS))) == [None]


def test_mapped_columns_are_read_under_their_new_names(tmp_path: Path) -> None:
    table = profiles([{"ip": "a", "event_time": NOW_MS, "raw": 7.0}], raw=pa.float64())
    source = file_source(tmp_path, "source", table, field_mapping={"raw": "score"})
    store = small_store(tmp_path, "mapped", NO_REDIS, [ip, view_over(source, {"score": types.Float64})])
    assert scores(store, asked(("a", NOW_MS))) == [7.0]


@pytest.mark.parametrize("key", [2**60 + 1, -(2**62) + 1])
def test_integer_keys_of_64_bits_are_told_apart(tmp_path: Path, key: int) -> None:
    account = Entity(name="account", join_keys=["account"], value_type=ValueType.INT64)
    rows = [
        {"ip": "", "event_time": NOW_MS, "account": key, "score": 1.0},
        {"ip": "", "event_time": NOW_MS - 1, "account": key - 1, "score": 2.0},
    ]
    source = file_source(tmp_path, "source", profiles(rows, account=pa.int64(), score=pa.float64()))
    store = small_store(
        tmp_path, "wide", NO_REDIS, [account, view_over(source, {"score": types.Float64}, entities=[account])]
    )
    frame = asked(*[("", NOW_MS)] * 3).assign(account=[key, key - 1, key + 1]).drop(columns="ip")
    assert scores(store, frame) == [1.0, 2.0, None]


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_view_of_two_keys_is_joined_on_both(tmp_path: Path, is_empty: bool) -> None:
    device = Entity(name="device", join_keys=["device"], value_type=ValueType.STRING)
    rows = [{"ip": i, "device": d, "event_time": NOW_MS, "score": s} for i, d, s in (("a", "x", 1.0), ("a", "y", 2.0))]
    table = profiles([] if is_empty else rows, device=pa.string(), score=pa.float64())
    source = file_source(tmp_path, "source", table)
    view = view_over(source, {"score": types.Float64}, entities=[ip, device])
    store = small_store(tmp_path, "pairs", NO_REDIS, [ip, device, view])
    frame = asked(*[(name, NOW_MS) for name in "aab"], device=["y", "x", "x"])
    assert scores(store, frame) == ([None] * 3 if is_empty else [2.0, 1.0, None])


def test_rows_without_a_key_are_nobodys(tmp_path: Path) -> None:
    rows = [{"ip": name, "event_time": NOW_MS, "score": 1.0} for name in (None, "a")]
    store = store_of(tmp_path, profiles(rows, score=pa.float64()))
    assert scores(store, asked(("None", NOW_MS), ("a", NOW_MS), ("nan", NOW_MS))) == [None, 1.0, None]


def test_nan_in_history_is_null(tmp_path: Path) -> None:
    rows = [{"ip": "a", "event_time": NOW_MS, "score": float("nan")}]
    store = store_of(tmp_path, profiles(rows, score=pa.float64()))
    table = store.get_historical_features(asked(("a", NOW_MS)), ["profile:score"]).to_arrow()
    assert table.column("score").null_count == 1


def test_the_nulls_of_a_column_of_categories_are_nulls(tmp_path: Path) -> None:
    words = pa.array(["a", None, "b"]).dictionary_encode()
    table = pa.Table.from_arrays(
        [pa.array(["e1", "e2", "e3"]), pa.array([NOW_MS] * 3, pa.timestamp("ms", "UTC")), words, pa.array([1.0] * 3)],
        schema=EVENTS.set(2, pa.field("ip", words.type)),
    )
    source = file_source(tmp_path, "source", table)
    keys, times = [np.array(["a", "b"], dtype=object)], np.array([NOW_MS] * 2)
    found = values_of_view(stream_view(), source, tmp_path, ["count_300000"], keys, times)
    assert found.columns[0].to_pylist() == [1, 1]


def broken(tmp_path: Path, kind: str) -> FeatureStore:
    """A store whose history is wrong in some way."""
    table = profiles([{"ip": "a", "event_time": NOW_MS, "score": 1.0}], score=pa.float64())
    store = store_of(tmp_path, table)
    path = tmp_path / "source.parquet"
    if kind == "no file":
        path.unlink()
    elif kind == "no Parquet":
        path.write_bytes(b"not parquet at all")
    elif kind == "no column":
        pq.write_table(table.drop_columns(["score"]), path)
    elif kind == "no zone":
        pq.write_table(table.set_column(1, "event_time", table.column(1).cast(pa.timestamp("ms"))), path)
    elif kind == "text for time":
        pq.write_table(table.set_column(1, "event_time", pa.array(["2025-01-01"])), path)
    elif kind == "text for numbers":
        pq.write_table(table.set_column(3, "score", pa.array(["high"])), path)
    return store


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("no file", "source.parquet"),
        ("no Parquet", "source.parquet"),
        ("no column", "no column score"),
        ("no zone", "UTC"),
        ("text for time", "UTC"),
        ("text for numbers", "'score'"),
    ],
)
def test_history_that_cannot_be_used_is_an_error_that_says_where(tmp_path: Path, kind: str, told: str) -> None:
    with pytest.raises(HistoryError, match=told):
        scores(broken(tmp_path, kind), asked(("a", NOW_MS)))


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (asked(("a", NOW_MS)).drop(columns="ip"), "ip"),
        (asked(("a", NOW_MS)).assign(event_timestamp=pd.Timestamp("2025-01-01")), "zone"),
        (asked(("a", NOW_MS)).assign(event_timestamp=pd.to_datetime([None], utc=True)), "null"),
    ],
)
def test_an_entity_dataframe_that_cannot_be_used_is_an_error_that_says_what_to_do(
    tmp_path: Path, frame: pd.DataFrame, told: str
) -> None:
    store = store_of(tmp_path, profiles([], score=pa.float64()))
    with pytest.raises(HistoryError, match=told):
        store._get_provider().offline_store.get_historical_features(
            store.config, [store.get_feature_view("profile")], ["profile:score"], frame, store.registry, store.project
        ).to_df()


def test_only_the_asked_span_is_read_and_its_ends_are_exact(tmp_path: Path) -> None:
    table = profiles([{"ip": str(i), "event_time": NOW_MS + i} for i in range(5)])
    source = file_source(tmp_path, "source", table)
    found = read_history(source, tmp_path, NOW_MS + 1, NOW_MS + 3)
    assert found.column("ip").to_pylist() == ["1", "2"]


def test_a_result_is_saved_once_and_replaced_only_on_request(tmp_path: Path) -> None:
    store = store_of(tmp_path, profiles([{"ip": "a", "event_time": NOW_MS, "score": 1.0}], score=pa.float64()))
    job = store.get_historical_features(asked(("a", NOW_MS)), ["profile:score"])
    storage = SavedDatasetFileStorage(str(tmp_path / "saved" / "set.parquet"))
    job.persist(storage)
    assert pq.read_table(tmp_path / "saved" / "set.parquet").column("score").to_pylist() == [1.0]
    with pytest.raises(HistoryError, match="exists"):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)


def test_feasts_own_pulls_take_the_newest_row_of_each_entity_or_all_rows(tmp_path: Path) -> None:
    rows = [
        {"ip": "a", "event_time": NOW_MS, "created": NOW_MS + created, "score": score}
        for created, score in ((5, 1.0), (9, 2.0), (7, 3.0))
    ]
    table = profiles([*rows, {"ip": "b", "event_time": NOW_MS + 1, "score": 4.0}], score=pa.float64())
    store = store_of(tmp_path, table)
    offline, source = store._get_provider().offline_store, store.get_feature_view("profile").batch_source
    common = (store.config, source, ["ip"], ["score"], "event_time", "created")
    latest = offline.pull_latest_from_table_or_query(*common, at(NOW_MS), at(NOW_MS + 1)).to_arrow()
    assert sorted(latest.column("score").to_pylist()) == [2.0, 4.0]
    every = offline.pull_all_from_table_or_query(*common, at(NOW_MS), at(NOW_MS)).to_arrow()
    assert sorted(every.column("score").to_pylist()) == [1.0, 2.0, 3.0]
