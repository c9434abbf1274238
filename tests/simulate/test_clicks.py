"""Real clicks through the same path."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actor_risk.simulate import InvalidClicksFileError, Simulation, json_lines, load_clicks, shift_to, write
from materialize.events import decode_event

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "ad_clicks.parquet"
needs_real_clicks = pytest.mark.skipif(
    not REAL.is_file(), reason="no ../shared/data/ad_clicks.parquet beside the repository"
)


def clicks_file(directory: Path, **changes: object) -> Path:
    columns = {
        "ip": pa.array([9, 8, 9], pa.int32()),
        "app": pa.array([3, 3, 4], pa.int16()),
        "device": pa.array([1, 1, 2], pa.int16()),
        "os": pa.array([19, 20, 21], pa.int16()),
        "channel": pa.array([480, 481, 480], pa.int16()),
        "click_time": pa.array([datetime(2017, 11, 6, 16, 0, s) for s in (5, 0, 9)], pa.timestamp("ns")),
        "attributed_time": pa.array([None, None, datetime(2017, 11, 6, 17)], pa.timestamp("ns")),
        "is_attributed": pa.array([0, 0, 1], pa.int8()),
    }
    path = directory / "clicks.parquet"
    pq.write_table(pa.table({**columns, **changes}), path)
    return path


def test_columns_become_the_fields_of_an_ad_event(tmp_path: Path) -> None:
    event = load_clicks(clicks_file(tmp_path), shift_ms=1_000).ad_events.to_pylist()[0]
    assert event["event_id"] == "click-1"
    assert event["event_time"] == datetime(2017, 11, 6, 16, 0, 1, tzinfo=UTC)
    assert (event["advertiser_id"], event["creator_id"], event["ip"]) == ("app-3", "channel-481", "ip-8")
    assert (event["device_id"], event["os"], event["event_type"]) == ("8:1:20", "20", "click")
    assert event["amount_usd"] is None


def test_labels_say_that_they_mean_installed(tmp_path: Path) -> None:
    labels = load_clicks(clicks_file(tmp_path)).ad_click_labels
    assert labels["label"].to_pylist() == [0, 0, 1]
    assert labels["event_id"].to_pylist() == ["click-1", "click-0", "click-2"]
    assert b"install" in labels.schema.metadata[b"label"]


def test_the_time_of_the_install_is_never_passed_on(tmp_path: Path) -> None:
    simulation = load_clicks(clicks_file(tmp_path))
    for table in (simulation.ad_events, simulation.ad_click_labels):
        assert not [name for name in table.column_names if "attributed" in name]


def test_the_last_click_falls_where_it_is_wanted(tmp_path: Path) -> None:
    path = clicks_file(tmp_path)
    shifted = load_clicks(path, shift_to(path, 1_763_596_800_000))
    assert shifted.ad_events["event_time"].cast(pa.int64()).to_pylist()[-1] == 1_763_596_800_000


def test_clicks_have_the_tables_of_a_simulation_and_can_be_written(tmp_path: Path, small: Simulation) -> None:
    clicks = load_clicks(clicks_file(tmp_path))
    assert clicks.account_events.num_rows == 0
    for name in ("ad_events", "account_events", "ad_click_labels", "advertiser_labels", "device_profiles"):
        assert getattr(clicks, name).schema.equals(getattr(small, name).schema)
    write(clicks, tmp_path / "out")


def test_a_missing_file_is_told_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(InvalidClicksFileError, match=r"no file at .*nowhere\.parquet.*click_time"):
        load_clicks(tmp_path / "nowhere.parquet")


def test_another_file_is_told_with_what_it_lacks(tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"ip": [1], "app": [2]}), other)
    with pytest.raises(InvalidClicksFileError, match="lacks the columns device, os, channel"):
        load_clicks(other)
    other.write_text("no parquet")
    with pytest.raises(InvalidClicksFileError, match="is no Parquet file"):
        load_clicks(other)


def test_nulls_in_a_key_are_refused(tmp_path: Path) -> None:
    path = clicks_file(tmp_path, ip=pa.array([1, None, 3], pa.int32()))
    with pytest.raises(InvalidClicksFileError, match="nulls in ip"):
        load_clicks(path)


@needs_real_clicks
def test_the_real_clicks_are_valid_events_in_order() -> None:
    clicks = load_clicks(REAL, shift_to(REAL, 1_763_596_800_000))
    assert clicks.ad_events.num_rows == 100_000
    assert sum(clicks.ad_click_labels["label"].to_pylist()) == 227
    lines = list(json_lines(clicks.ad_events.slice(0, 5_000), "ad_events"))
    events = [decode_event("ad_events", line, now_ms=1_763_596_800_000) for line in lines]
    assert [event.event_id for event in events] == clicks.ad_events["event_id"].to_pylist()[:5_000]
