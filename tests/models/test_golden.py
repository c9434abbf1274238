"""Golden rows and backgrounds come back from their files as they were, and other Parquet files are refused unread."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import BundleCorruptError, InputError, ModelStore, Scores
from models.golden import Golden, decode_background, decode_golden, encode_background, encode_golden
from tests.models.builders import draft

REFS = ["a:x", "b:y"]


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def golden(rows: int) -> Golden:
    numbers = np.random.default_rng(rows).normal(size=(6, rows))
    return Golden(numbers[:2].T, Scores(numbers[2], numbers[3]), numbers[4:].T)


def test_golden_rows_come_back_as_they_were() -> None:
    before = golden(3)
    before.values[0, 1] = np.nan
    after = decode_golden(encode_golden(before, REFS), REFS)
    np.testing.assert_array_equal(after.values, before.values)
    np.testing.assert_array_equal(after.attributions, before.attributions)
    np.testing.assert_array_equal(
        [after.scores.margin, after.scores.score], [before.scores.margin, before.scores.score]
    )


def test_a_draft_without_golden_rows_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give at least one row"):
        ModelStore(tmp_path).publish(dataclasses.replace(draft(), golden_rows=np.empty((0, 2))))
    assert ModelStore(tmp_path).models() == []


def test_a_file_of_no_golden_rows_is_refused() -> None:
    with pytest.raises(BundleCorruptError, match="proves nothing"):
        decode_golden(encode_golden(golden(0), REFS), REFS)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["one", "two"]),
        pa.array(["one", "two"]).dictionary_encode(),
        pa.array([b"1", b"2"]),
        pa.array([1, 2]),
        pa.array([1.0, 2.0], pa.float32()),
        pa.array([[1.0], [2.0]]),
        pa.array([{"a": 1.0}, {"a": 2.0}]),
        pa.array([None, None]),
    ],
    ids=lambda values: str(values.type),
)
def test_a_column_that_is_not_float64_is_refused(values: pa.Array) -> None:
    content = parquet(pa.table({"a:x": values, "b:y": pa.array([1.0, 2.0])}))
    with pytest.raises(BundleCorruptError, match=r"not float64, \['a:x'\]"):
        decode_background(content, REFS)
    with pytest.raises(BundleCorruptError, match=r"not float64, \['a:x'\]"):
        decode_golden(content, REFS)


def test_two_columns_of_one_name_are_refused() -> None:
    content = parquet(pa.table([pa.array([1.0])] * 3, ["a:x", "b:y", "b:y"]))
    with pytest.raises(BundleCorruptError, match="same name"):
        decode_background(content, REFS)


def test_a_column_whose_name_is_no_text_is_refused() -> None:
    content = parquet(pa.table({"a:x": [1.0], "b:y": [1.0]})).replace(b"b:y", b"b:\xff")
    with pytest.raises(BundleCorruptError):
        decode_background(content, REFS)


@pytest.mark.parametrize(("rows", "columns"), [(100_001, 2), (100_000, 168)])
def test_a_file_of_too_many_values_is_refused(rows: int, columns: int) -> None:
    values = pa.array(np.zeros(rows))
    content = parquet(pa.table([values] * columns, [f"c:{i}" for i in range(columns)]))
    assert len(content) < 200_000
    with pytest.raises(BundleCorruptError, match=f"{rows:,} rows of {columns} columns"):
        decode_background(content, ["c:0"])
    with pytest.raises(BundleCorruptError, match="fewer rows"):
        decode_golden(content, ["c:0"])


def test_more_rows_than_a_file_may_hold_are_not_written() -> None:
    with pytest.raises(InputError, match="give fewer rows"):
        encode_background(np.zeros((100_001, 2)), REFS)
    assert len(decode_background(encode_background(np.zeros((100_000, 2)), REFS), REFS)) == 100_000


@pytest.mark.parametrize("cut", [0, 4, 100, -8, -1])
def test_a_file_that_was_cut_is_refused(cut: int) -> None:
    with pytest.raises(BundleCorruptError, match="no Parquet"):
        decode_golden(encode_golden(golden(3), REFS)[:cut], REFS)
