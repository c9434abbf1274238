"""A training set is the same in one part or in many, and written part by part."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import types
from feast.field import Field
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import OnDemandFeatureView
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.definitions import BatchView, FeatureField, JoinKey
from materialize.offline import HistoryError, Limits, PointInTime, ViewQuery
from tests.kernel.oracle import OracleEvent, oracle_values
from tests.support.small_store import file_source, ip, profiles, small_store, view_over
from tests.support.views import SPEC, stream_view

NOW_MS = 1_760_000_000_000
HOUR_MS = 3_600_000
NO_REDIS = "redis://127.0.0.1:1/0"
LIMITS = (Limits(), Limits(rows=3), Limits(events_bytes=300), Limits(rows=4, events_bytes=2_000))
FEATURES = tuple(spec.feature for spec in SPEC.aggregations)
PROFILE = BatchView("profile", (JoinKey("ip", "STRING"),), (FeatureField("score", "DOUBLE"),), 1, 30 * HOUR_MS)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 400 * HOUR_MS), st.none() | st.integers(0, 48 * HOUR_MS)),
        max_size=40,
    ),
    st.lists(
        st.tuples(st.sampled_from(("a", "b", "c", "?", None)), st.integers(0, 420 * HOUR_MS)), min_size=1, max_size=15
    ),
    st.booleans(),
)
def test_any_parts_give_the_values_of_the_oracle(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[str, int, int | None]],
    queries: list[tuple[str | None, int]],
    known_as_of: bool,
) -> None:
    directory = tmp_path_factory.mktemp("parts")
    rows = [
        {
            "event_id": f"e{i:02d}",
            "ip": name,
            "event_time": NOW_MS + after,
            "created": None if late is None else NOW_MS + after + late,
            "amount": float(i),
            "score": float(i),
        }
        for i, (name, after, late) in enumerate(events)
    ]
    table = profiles(rows, event_id=pa.string(), amount=pa.float64(), score=pa.float64())
    source = file_source(directory, "source", table, created_timestamp_column="created")
    names = np.array([name for name, _ in queries], dtype=object)
    times = np.array([NOW_MS + after for _, after in queries], dtype=np.int64)
    for limits in LIMITS:
        asked = PointInTime(
            (
                ViewQuery(stream_view(), source, FEATURES, [names]),
                ViewQuery(PROFILE, source, ("score",), [names]),
                ViewQuery(stream_view(ttl_ms=HOUR_MS), source, FEATURES[:1], [names]),
            ),
            times,
            directory,
            known_as_of,
            limits,
        )
        parts = list(asked.parts())
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(times)))
        assert all(len(part) <= limits.rows for part in parts)
        for part in parts:
            windows, profile, brief = asked.values(part)
            for place, row in enumerate(part.tolist()):
                seen = [
                    one
                    for one in rows
                    if one["ip"] == names[row]
                    and one["event_time"] <= times[row]
                    and (not known_as_of or one["created"] is None or one["created"] <= times[row])
                ]
                own = [
                    OracleEvent(e["event_id"], e["event_time"], {"amount": e["amount"], "ip": e["ip"]}) for e in seen
                ]
                wanted = oracle_values(SPEC, own, int(times[row])) or [None] * len(FEATURES)
                got = [column[place].as_py() for column in windows.columns]
                np.testing.assert_allclose(as_floats(got), as_floats(wanted), rtol=1e-9, atol=1e-9)
                ages = [times[row] - one["event_time"] for one in seen]
                assert brief.columns[0][place].as_py() == (got[0] if ages and min(ages) <= HOUR_MS else None)
                assert profile.columns[0][place].as_py() == newest(seen, int(times[row]))


def newest(seen: list[dict[str, Any]], as_of_ms: int) -> float | None:
    if not seen:
        return None
    last = max(seen, key=lambda one: (one["event_time"], one["created"] or one["event_time"], one["event_id"]))
    return None if as_of_ms - last["event_time"] > PROFILE.ttl_ms else last["score"]


def as_floats(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def test_a_part_reads_no_further_back_than_its_own_windows(tmp_path: Path) -> None:
    times = [NOW_MS + day * 24 * HOUR_MS for day in range(120)]
    rows = [{"event_id": f"e{t}", "ip": "a", "event_time": t, "amount": 1.0} for t in times]
    source = file_source(tmp_path, "source", profiles(rows, event_id=pa.string(), amount=pa.float64()))
    keys = [np.array(["a"] * len(times), dtype=object)]
    query = ViewQuery(stream_view(), source, ("count_604800000",), keys)
    asked = PointInTime((query,), np.array(times), tmp_path, limits=Limits(events_bytes=1_000))
    parts = list(asked.parts())
    read = [asked.open([query], asked.times[part]).count() for part in parts]
    assert len(parts) >= 8
    assert max(read) <= 8 + 15 + 2  # the windows' reach, and as much again
    counts = [count for part in parts for count in asked.values(part)[0].columns[0].to_pylist()]
    assert counts == [min(n + 1, 8) for n in range(120)]


def store_in_parts(tmp_path: Path) -> Any:
    rows = [{"ip": "a", "event_time": NOW_MS + n, "score": float(n)} for n in range(20)]
    source = file_source(tmp_path, "source", profiles(rows, score=pa.float64()), created_timestamp_column="created")
    view = view_over(source, {"score": types.Float64}, ttl=timedelta(0))
    store = small_store(tmp_path, "parts", NO_REDIS, [ip, view, half_of(view)])
    store.config.offline_store.rows_at_once = 6
    return store


def half_of(view: Any) -> OnDemandFeatureView:
    def half(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"half": [None if value is None else value / 2 for value in inputs["score"]]}

    return OnDemandFeatureView(
        name="halves",
        sources=[view],
        schema=[Field(name="half", dtype=types.Float64)],
        udf=half,
        udf_string="half",
        mode="python",
    )


def frame_of(count: int) -> pd.DataFrame:
    order = np.random.default_rng(1).permutation(count)
    times = pd.to_datetime(NOW_MS + order - 2, unit="ms", utc=True)
    return pd.DataFrame({"ip": "a", "event_timestamp": times, "row": np.arange(count)})


def test_a_file_is_written_part_by_part_in_order_of_time_with_the_values_of_the_whole(tmp_path: Path) -> None:
    store, frame = store_in_parts(tmp_path), frame_of(20)
    job = store.get_historical_features(frame, ["profile:score", "halves:half"])
    whole = job.to_df()
    assert whole["row"].tolist() == list(range(20))
    parts = [part.num_rows for part in job.to_arrow_parts()]
    assert sum(parts) == 20
    assert max(parts) <= 6
    job.persist(SavedDatasetFileStorage(str(tmp_path / "saved" / "set.parquet")))
    saved = pq.ParquetFile(tmp_path / "saved" / "set.parquet")
    assert saved.num_row_groups == len(parts)
    rows = saved.read().to_pandas()
    assert rows["event_timestamp"].is_monotonic_increasing
    pd.testing.assert_frame_equal(rows.sort_values("row", ignore_index=True), whole)
    assert whole["half"].dropna().tolist() == (whole["score"].dropna() / 2).tolist()


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    store = store_in_parts(tmp_path)
    storage = SavedDatasetFileStorage(str(tmp_path / "set.parquet"))
    store.get_historical_features(frame_of(20), ["profile:score"]).persist(storage)
    before = (tmp_path / "set.parquet").read_bytes()
    (tmp_path / "source.parquet").unlink()
    with pytest.raises(HistoryError):
        store.get_historical_features(frame_of(20), ["profile:score"]).persist(storage, allow_overwrite=True)
    assert (tmp_path / "set.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.glob("*set.parquet*")] == ["set.parquet"]


def test_a_saved_dataset_is_read_back_by_feast(tmp_path: Path) -> None:
    store, frame = store_in_parts(tmp_path), frame_of(20)
    job = store.get_historical_features(frame, ["profile:score"])
    storage = SavedDatasetFileStorage(str(tmp_path / "dataset.parquet"))
    store.create_saved_dataset(from_=job, name="june", storage=storage)
    again = store.get_saved_dataset("june").to_df().sort_values("event_timestamp", ignore_index=True)
    wanted = job.to_df().sort_values("event_timestamp", ignore_index=True)
    assert again["score"].tolist()[2:] == wanted["score"].tolist()[2:]
    assert len(again) == 20
