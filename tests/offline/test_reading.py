"""History is read only where it is needed, from wherever it lies, and files that disagree are found out."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

from materialize.definitions import StreamView
from materialize.events import Columns
from materialize.offline import HistoryError, open_history, read_history, values_of_view
from materialize.offline._retrieval import ArrowRetrievalJob
from tests.support.object_store import object_store
from tests.support.views import stream_view

DAY_MS = 86_400_000
NOW_MS = 1_760_054_400_000  # 2025-10-10T00:00:00Z
SECONDS = 1_000


def events(times_ms: Sequence[int], amounts: Sequence[float] = (), unit: str = "ms", **columns: Any) -> pa.Table:
    """One event of IP a at each time."""
    per_ms = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
    return pa.table(
        {
            "event_id": [f"e{time_ms}" for time_ms in times_ms],
            "event_time": pa.array([int(time_ms * per_ms) for time_ms in times_ms], pa.timestamp(unit, "UTC")),
            "ip": ["a"] * len(times_ms),
            "amount": pa.array(amounts or [1.0] * len(times_ms)),
            **columns,
        }
    )


def source_at(path: Path | str, **options: Any) -> FileSource:
    return FileSource(name="history", path=str(path), timestamp_field="event_time", **options)


def value(
    source: FileSource, feature: str = "sum_3600000", as_of_ms: int = NOW_MS, view: StreamView | None = None
) -> float | None:
    """One feature of IP a."""
    keys, times = [np.array(["a"], dtype=object)], np.array([as_of_ms])
    found: float | None = (
        values_of_view(view or stream_view(), source, None, [feature], keys, times).columns[0][0].as_py()
    )
    return found


def spoil(path: Path, chunks: Callable[[int, str], bool]) -> None:
    """Overwrite the data of the column chunks that are chosen by (row group, column): who reads them fails."""
    data, footer = bytearray(path.read_bytes()), pq.read_metadata(path)
    for group in range(footer.num_row_groups):
        for place in range(footer.num_columns):
            chunk = footer.row_group(group).column(place)
            if chunks(group, chunk.path_in_schema):
                begin = chunk.dictionary_page_offset or chunk.data_page_offset
                data[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)


def test_columns_that_no_view_needs_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    pq.write_table(events([NOW_MS], [3.0], os=["linux"]), path)
    spoil(path, lambda _, column: column == "os")
    assert value(source_at(path)) == 3.0
    with pytest.raises(HistoryError, match=r"one\.parquet"):
        read_history(source_at(path), None)


def test_row_groups_outside_of_the_span_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    pq.write_table(events([NOW_MS - 30 * DAY_MS, NOW_MS - 1, NOW_MS + 1], [1.0, 2.0, 4.0]), path, row_group_size=1)
    spoil(path, lambda group, _: group != 1)
    assert value(source_at(path)) == 2.0


def test_partitions_of_other_days_are_not_opened_when_the_source_says_which_column_has_the_day(tmp_path: Path) -> None:
    for days in (-20, -1, 0, 1):
        folder = tmp_path / f"date={np.datetime64('2025-10-10') + days}"
        folder.mkdir()
        pq.write_table(events([NOW_MS + days * DAY_MS]), folder / "part.parquet")
    (tmp_path / "date=2025-10-11" / "part.parquet").write_bytes(b"not parquet at all")
    assert value(source_at(tmp_path, tags={"event_date_partition": "date"}), "count_604800000") == 2
    with pytest.raises(HistoryError, match="date=2025-10-11"):
        value(source_at(tmp_path), "count_604800000")
    with pytest.raises(HistoryError, match="event_date_partition"):
        value(source_at(tmp_path, tags={"event_date_partition": "day"}))


def test_what_a_folder_is_named_for_is_a_column(tmp_path: Path) -> None:
    for name, amount in (("a", 1.0), ("b", 2.0)):
        (tmp_path / f"ip={name}").mkdir()
        pq.write_table(events([NOW_MS], [amount]).drop_columns("ip"), tmp_path / f"ip={name}" / "part.parquet")
    assert value(source_at(tmp_path)) == 1.0


def test_an_object_store_is_read_by_range_and_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    written = io.BytesIO()
    times = [NOW_MS - n * DAY_MS for n in range(40, -1, -1)]
    noise = [np.random.default_rng(n).bytes(20_000) for n in range(len(times))]
    pq.write_table(events(times, noise=noise), written, row_group_size=1)
    with object_store() as store:
        store.objects["lake/events/part-0.parquet"] = written.getvalue()
        source = source_at("s3://lake/events", s3_endpoint_override=store.address)
        assert value(source, "count_604800000") == 8
        assert store.sent < len(written.getvalue()) / 4
        storage = SavedDatasetFileStorage("s3://lake/saved.parquet", s3_endpoint_override=store.address)
        job = ArrowRetrievalJob(lambda: pa.table({"x": [1, 2]}), None)
        job.persist(storage)
        assert pq.read_table(io.BytesIO(store.objects["lake/saved.parquet"])).column("x").to_pylist() == [1, 2]
        with pytest.raises(HistoryError, match="exists"):
            job.persist(storage)
        with pytest.raises(HistoryError, match="lake/nothing"):
            value(source_at("s3://lake/nothing", s3_endpoint_override=store.address))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_unit_are_the_millisecond_in_which_they_lie(tmp_path: Path, unit: str) -> None:
    pq.write_table(events([NOW_MS - SECONDS, NOW_MS, NOW_MS + SECONDS], unit=unit), tmp_path / "one.parquet")
    for as_of_ms, count in ((NOW_MS - 1, 1), (NOW_MS, 2), (NOW_MS + 999, 2), (NOW_MS + SECONDS, 3)):
        assert value(source_at(tmp_path), "count_300000", as_of_ms) == count


def test_files_may_hold_numbers_and_times_in_different_widths(tmp_path: Path) -> None:
    narrow = events([NOW_MS - 2]).set_column(3, "amount", pa.array([3], pa.int32()))
    pq.write_table(narrow, tmp_path / "0.parquet")
    fine = pa.array([(NOW_MS - 1) * 1_000_000 + 999_999], pa.timestamp("ns", "UTC"))
    pq.write_table(events([NOW_MS - 1], [0.5]).set_column(1, "event_time", fine), tmp_path / "1.parquet")
    assert value(source_at(tmp_path)) == 3.5
    assert value(source_at(tmp_path), as_of_ms=NOW_MS - 2) == 3.0
    assert open_history(source_at(tmp_path), None, NOW_MS - 1, NOW_MS).count() == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: table.drop_columns("amount"), r"1\.parquet has no column amount"),
        (lambda table: table.set_column(3, "amount", pa.array(["7"])), r"1\.parquet has string in 'amount'"),
        (lambda table: table.set_column(1, "event_time", table.column(1).cast(pa.timestamp("ms"))), "UTC"),
        (lambda table: table.set_column(0, "event_id", pa.array([None], pa.string())), "without 'event_id'"),
        (lambda table: table.set_column(2, "ip", pa.array([7])), r"1\.parquet has int64 in 'ip'"),
    ],
    ids=["a column less", "another type", "no zone", "no identity", "another type of key"],
)
def test_files_that_disagree_are_an_error_that_names_the_file(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], told: str
) -> None:
    pq.write_table(events([NOW_MS - 1]), tmp_path / "0.parquet")
    pq.write_table(change(events([NOW_MS])), tmp_path / "1.parquet")
    with pytest.raises(HistoryError, match=told):
        value(source_at(tmp_path))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="no file"):
        value(source_at(tmp_path))


def doubled(columns: Columns) -> Columns:
    return {"amount": columns["amount"] * 2}


def by_a_made_up_name(columns: Columns) -> Columns:
    return {"amount": columns["am" + "".join(["ount"])] + columns["".join(["fe", "e"])]}


def of_all_numbers(columns: Columns) -> Columns:
    return {"amount": np.sum([column for column in columns.values() if column.dtype == np.float64], axis=0)}


def where_there_is_one(columns: Columns) -> Columns:
    return {"amount": columns["amount"] + columns.get("".join(["f", "ee"]), 0) + columns.get("tip", 0)}


@pytest.mark.parametrize(
    ("transform", "total"),
    [(doubled, 4.0), (by_a_made_up_name, 7.0), (of_all_numbers, 7.0), (where_there_is_one, 7.0)],
)
def test_a_transformation_sees_every_column_however_it_looks_at_it(
    tmp_path: Path, transform: Callable[[Columns], Columns], total: float
) -> None:
    pq.write_table(events([NOW_MS], [2.0], fee=[5.0]), tmp_path / "one.parquet")
    assert value(source_at(tmp_path), view=replace(stream_view(), transform=transform)) == total
