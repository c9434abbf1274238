"""What may be asked of history through Feast: rows of any order and type that can be told, and errors for the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, RequestSource, ValueType, types
from feast.field import Field
from feast.on_demand_feature_view import OnDemandFeatureView

from materialize.offline import HistoryError
from tests.support.small_store import file_source, ip, profiles, small_store, view_over

NOW_MS = 1_760_000_000_000
NO_REDIS = "redis://127.0.0.1:1/0"
account = Entity(name="account", join_keys=["account"], value_type=ValueType.INT64)


def store_of(tmp_path: Path, *more: Any) -> FeatureStore:
    """Scores by ip: a has 1.0, b 2.0; levels by account: 7 has 70."""
    rows = [{"ip": name, "event_time": NOW_MS, "score": score} for name, score in (("a", 1.0), ("b", 2.0), ("7", 3.0))]
    scores = view_over(file_source(tmp_path, "scores", profiles(rows, score=pa.float64())), {"score": types.Float64})
    rows = [{"account": 7, "event_time": NOW_MS, "level": 70}]
    table = profiles(rows, account=pa.int64(), level=pa.int64())
    levels = view_over(file_source(tmp_path, "levels", table), {"level": types.Int64}, entities=[account])
    levels.name = levels.projection.name = "levels"
    return small_store(tmp_path, "frames", NO_REDIS, [ip, account, scores, levels, *(make(scores) for make in more)])


def asked(**keys: Any) -> pd.DataFrame:
    rows = len(next(iter(keys.values())))
    return pd.DataFrame({**keys, "event_timestamp": pd.to_datetime([NOW_MS] * rows, unit="ms", utc=True)})


@pytest.mark.parametrize(
    "column",
    [
        ["a", None, "?", "b", "a"],
        pd.Categorical(["a", None, "?", "b", "a"]),
        pd.array(["a", None, "?", "b", "a"], dtype="string"),
        pd.array(["a", None, "?", "b", "a"], dtype="string[pyarrow]"),
        np.array(["a", np.nan, "?", "b", "a"], dtype=object),
    ],
    ids=["objects", "categories", "strings", "arrow", "nan for null"],
)
def test_keys_of_text_may_come_in_any_of_pandas_forms_and_null_is_nobody(tmp_path: Path, column: Any) -> None:
    found = store_of(tmp_path).get_historical_features(asked(ip=column), ["profile:score"]).to_df()
    assert found["score"].fillna(-1).tolist() == [1.0, -1, -1, 2.0, 1.0]


@pytest.mark.parametrize(
    "column",
    [
        np.array([7, 8, 7], np.int32),
        np.array([7.0, np.nan, 7.0]),
        pd.array([7, None, 7], dtype="Int64"),
        np.array([7, None, 7], dtype=object),
    ],
    ids=["narrow", "floats", "nullable", "objects"],
)
def test_integer_keys_may_come_in_any_of_pandas_forms(tmp_path: Path, column: Any) -> None:
    found = store_of(tmp_path).get_historical_features(asked(account=column), ["levels:level"]).to_arrow()
    assert found.column("level").to_pylist() == [70, None, 70]


@pytest.mark.parametrize(
    ("keys", "feature", "told"),
    [
        ({"ip": [7]}, "profile:score", "astype"),
        ({"ip": ["a", 7]}, "profile:score", "several types"),
        ({"ip": [1.5]}, "profile:score", "'ip', which is STRING"),
        ({"account": ["7"]}, "levels:level", "'account', which is INT64"),
        ({"account": [7.5]}, "levels:level", "no INT64 in 'account'"),
        ({"account": np.array([2**63], np.uint64)}, "levels:level", "no INT64 in 'account'"),
        ({"ip": ["a"], "score": [0.0]}, "profile:score", "score would be there twice"),
    ],
    ids=[
        "a number",
        "a mixture",
        "a fraction",
        "text for a number",
        "a fraction for a number",
        "too large",
        "a name twice",
    ],
)
def test_keys_that_could_be_mistaken_are_an_error_that_says_what_to_do(
    tmp_path: Path, keys: Any, feature: str, told: str
) -> None:
    with pytest.raises(HistoryError, match=told):
        store_of(tmp_path).get_historical_features(asked(**keys), [feature]).to_df()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"entity_df": "SELECT ip FROM rows"}, "not as a query"),
        ({"start_date": datetime(2025, 1, 1, tzinfo=UTC), "end_date": datetime(2025, 2, 1, tzinfo=UTC)}, "as-of time"),
    ],
    ids=["SQL", "no rows"],
)
def test_what_is_no_dataframe_is_refused_clearly(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(HistoryError, match=told):
        store_of(tmp_path).get_historical_features(features=["profile:score"], **options)


def test_times_of_any_unit_and_zone_are_the_millisecond_in_which_they_lie(tmp_path: Path) -> None:
    frame = asked(ip=["a"] * 3)
    times = pd.to_datetime(
        [NOW_MS * 1_000_000 - 1, NOW_MS * 1_000_000, NOW_MS * 1_000_000 + 999_999], unit="ns", utc=True
    )
    for column in (times, times.tz_convert("Asia/Kolkata")):
        found = (
            store_of(tmp_path).get_historical_features(frame.assign(event_timestamp=column), ["profile:score"]).to_df()
        )
        assert found["score"].fillna(-1).tolist() == [-1, 1.0, 1.0]
        assert found["event_timestamp"].tolist() == list(column)


def scaled(scores: Any) -> OnDemandFeatureView:
    def scale(inputs: dict[str, Any]) -> dict[str, Any]:
        return {
            "scaled": [None if s is None else s * f for s, f in zip(inputs["score"], inputs["factor"], strict=True)]
        }

    factor = RequestSource(name="factors", schema=[Field(name="factor", dtype=types.Float64)])
    return OnDemandFeatureView(
        name="scaling",
        sources=[scores, factor],
        schema=[Field(name="scaled", dtype=types.Float64)],
        udf=scale,
        udf_string="scale",
        mode="python",
    )


def test_a_service_gives_renamed_entities_and_what_comes_with_the_request(tmp_path: Path) -> None:
    store = store_of(tmp_path, scaled)
    view = store.get_feature_view("profile")
    of_seller = view.with_name("seller").with_join_key_map({"ip": "seller_ip"})
    of_buyer = view.with_name("buyer").with_join_key_map({"ip": "ip"})
    service = FeatureService(name="both", features=[of_buyer, of_seller, store.get_on_demand_feature_view("scaling")])
    store.apply([service])
    frame = asked(ip=["a", "b"], seller_ip=["b", "?"], factor=[10.0, 100.0])
    job = store.get_historical_features(frame, store.get_feature_service("both"), full_feature_names=True)
    found = job.to_df().fillna(-1)
    assert found["buyer__score"].tolist() == [1.0, 2.0]
    assert found["seller__score"].tolist() == [2.0, -1]
    assert found["scaling__scaled"].tolist() == [10.0, 200.0]
    assert [part.column_names for part in job.to_arrow_parts()] == [list(found.columns)]


def test_the_same_row_twice_is_answered_twice(tmp_path: Path) -> None:
    frame = pd.concat([asked(ip=["a", "b"])] * 2)
    found = store_of(tmp_path).get_historical_features(frame, ["profile:score"]).to_df()
    assert found["score"].tolist() == [1.0, 2.0, 1.0, 2.0]


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(hours=1)])
def test_a_view_of_no_entity_has_one_value_for_all_rows(tmp_path: Path, ttl: timedelta) -> None:
    rows = [{"ip": "", "event_time": NOW_MS - 1, "score": 4.0}, {"ip": "", "event_time": NOW_MS, "score": 5.0}]
    source = file_source(tmp_path, "global", profiles(rows, score=pa.float64()))
    store = small_store(
        tmp_path, "nobody", NO_REDIS, [view_over(source, {"score": types.Float64}, entities=[], ttl=ttl)]
    )
    found = store.get_historical_features(asked(row=[1, 2]), ["profile:score"]).to_df()
    assert found["score"].tolist() == [5.0, 5.0]


def test_rows_that_are_pushed_into_history_are_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"ip": ["a"], "event_time": [datetime.now(UTC)], "created": [datetime.now(UTC)], "score": [1.0]}
    )
    with pytest.raises(HistoryError, match="further file"):
        store_of(tmp_path).write_to_offline_store("profile", frame)
