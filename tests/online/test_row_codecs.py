"""Rows survive their bytes unchanged, and bytes that are no row are refused with a reason."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.protos.feast.types.Value_pb2 import DoubleList, StringList
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from materialize.kernel import AggregationSpec, Row, ViewSpec, Window, empty_row
from materialize.online import (
    NUMERIC_KINDS,
    BatchRow,
    FeatureStatus,
    ReadCounts,
    RowRefusedError,
    StreamRow,
    decode_batch_row,
    decode_stream_row,
    encode_batch_columns,
    encode_batch_row,
    encode_stream_row,
    view_reader,
)
from materialize.online._header import BATCH_ROW, STREAM_ROW, seal
from tests.support.views import NOW_MS, SPEC, batch_view, rows, stream_view

REASONS = {"too_short", "not_a_row", "other_format", "other_kind", "damaged", "other_schema", "bad_shape"}
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "DOUBLE": st.floats(allow_nan=False),
    "FLOAT": st.floats(width=32, allow_nan=False),
    "INT64": INT64,
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "BOOL": st.booleans(),
    "UNIX_TIMESTAMP": INT64,
    "STRING": st.text(max_size=40),
    "BYTES": st.binary(max_size=40),
    "DOUBLE_LIST": st.lists(st.floats(allow_nan=False), max_size=5).map(
        lambda v: ValueProto(double_list_val=DoubleList(val=v))
    ),
    "STRING_LIST": st.lists(st.text(max_size=8), max_size=5).map(
        lambda v: ValueProto(string_list_val=StringList(val=v))
    ),
}


@st.composite
def batch_rows(draw: st.DrawFn) -> tuple[list[str], BatchRow]:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=70))
    values = tuple(draw(st.none() | VALUES[kind]) for kind in kinds)
    return kinds, BatchRow(draw(INT64), draw(INT64), values)


def stream_bytes(state: Row, version: int = 5) -> bytes:
    return encode_stream_row(SPEC, StreamRow(state, version, {0: 3, 7: 2**62}))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(batch_rows())
def test_a_batch_row_is_read_as_it_was_written(given_row: tuple[list[str], BatchRow]) -> None:
    kinds, row = given_row
    view = batch_view(kinds)
    assert decode_batch_row(view, encode_batch_row(view, row)) == row


@settings(max_examples=60, deadline=None)
@given(rows(), st.integers(0, 2**64 - 1), st.dictionaries(st.integers(0, 2**32 - 1), INT64, max_size=20))
def test_a_stream_row_is_read_as_it_was_written(state: Row, version: int, applied: dict[int, int]) -> None:
    data = encode_stream_row(SPEC, StreamRow(state, version, applied))
    row = decode_stream_row(SPEC, data)
    assert (row.version, dict(row.applied)) == (version, applied)
    assert (row.state.batch_end_ms, row.state.tiles_newest_ms) == (state.batch_end_ms, state.tiles_newest_ms)
    assert encode_stream_row(SPEC, row) == data
    np.testing.assert_array_equal(row.state.head.times, state.head.times)
    assert len(data) % 8 == 0


@settings(max_examples=150, deadline=None)
@given(rows(), st.randoms(use_true_random=False))
def test_a_damaged_stream_row_is_refused_and_read_as_not_found(state: Row, chance: random.Random) -> None:
    data = damaged(stream_bytes(state), chance)
    assert_refused(lambda: decode_stream_row(SPEC, data))
    counts = ReadCounts()
    read = view_reader(stream_view(), [0, 1]).read(data, NOW_MS, counts)
    assert set(read.statuses) == {FeatureStatus.NOT_FOUND}
    assert sum(counts.rows_refused.values()) == 1


@settings(max_examples=200, deadline=None)
@given(batch_rows(), st.randoms(use_true_random=False))
def test_a_damaged_batch_row_is_refused_and_read_as_not_found(
    given_row: tuple[list[str], BatchRow], chance: random.Random
) -> None:
    kinds, row = given_row
    view = batch_view(kinds)
    data = damaged(encode_batch_row(view, row), chance)
    assert_refused(lambda: decode_batch_row(view, data))
    counts = ReadCounts()
    read = view_reader(view, range(len(kinds))).read(data, NOW_MS, counts)
    assert set(read.statuses) <= {FeatureStatus.NOT_FOUND}
    assert sum(counts.rows_refused.values()) == 1


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes cut, with one bit turned, with something appended, or replaced by random ones."""
    kind = chance.randrange(4)
    if kind == 0:
        return data[: chance.randrange(len(data))]
    if kind == 1:
        bit = chance.randrange(len(data) * 8)
        turned = bytearray(data)
        turned[bit // 8] ^= 1 << bit % 8
        return bytes(turned)
    if kind == 2:
        return data + chance.randbytes(chance.randrange(1, 40))
    return chance.randbytes(chance.randrange(200))


def assert_refused(read: Callable[[], object]) -> None:
    with pytest.raises(RowRefusedError) as refusal:
        read()
    assert refusal.value.reason in REASONS


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 3), st.integers(0, 40), st.integers(0, 3))
def test_a_well_sealed_stream_row_with_any_body_is_read_or_refused_and_nothing_else(
    body: bytes, version: int, items: int, partitions: int
) -> None:
    header = struct.pack("<QqqqHHI", version, NOW_MS, 0, 0, items, partitions, 0)
    for rest in (header + body, body):
        data = seal(STREAM_ROW, SPEC.fingerprint, rest)
        with suppress(RowRefusedError):
            decode_stream_row(SPEC, data)
        view_reader(stream_view(), [0, 8]).read(data, NOW_MS, ReadCounts())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 15))
def test_a_well_sealed_batch_row_with_any_body_is_read_or_refused_and_nothing_else(body: bytes, flags: int) -> None:
    view = batch_view(["STRING", "DOUBLE_LIST", "BYTES", "INT64", "FLOAT"])
    data = seal(BATCH_ROW | flags << 4, view.fingerprint, body)
    with suppress(RowRefusedError):
        decode_batch_row(view, data)
    view_reader(view, range(5)).read(data, NOW_MS, ReadCounts())


def test_a_row_of_another_definition_is_not_found_and_counted() -> None:
    before, after = batch_view(["DOUBLE"], fingerprint=1), batch_view(["DOUBLE"], fingerprint=2)
    data = encode_batch_row(before, BatchRow(NOW_MS, 0, (1.5,)))
    counts = ReadCounts()
    read = view_reader(after, [0]).read(data, NOW_MS, counts)
    assert (list(read.values), list(read.statuses)) == ([None], [FeatureStatus.NOT_FOUND])
    assert counts.rows_refused == {"other_schema": 1}


@pytest.mark.parametrize(
    "changed",
    [
        ViewSpec(SPEC.name, SPEC.aggregations, "another transformation"),
        ViewSpec(SPEC.name, SPEC.aggregations[:-1]),
        ViewSpec(SPEC.name, (*SPEC.aggregations[1:], SPEC.aggregations[0])),
        ViewSpec(
            SPEC.name,
            (
                AggregationSpec(SPEC.aggregations[0].feature, "amount", "count", Window(300_000, 60_000)),
                *SPEC.aggregations[1:],
            ),
        ),
    ],
)
def test_every_change_of_meaning_refuses_the_stream_rows_of_before(changed: ViewSpec) -> None:
    with pytest.raises(RowRefusedError) as refusal:
        decode_stream_row(changed, encode_stream_row(SPEC, StreamRow(empty_row(SPEC), 1, {})))
    assert refusal.value.reason == "other_schema"


def test_a_row_of_the_other_kind_is_refused() -> None:
    view = batch_view([], fingerprint=SPEC.fingerprint)
    with pytest.raises(RowRefusedError) as refusal:
        decode_stream_row(SPEC, encode_batch_row(view, BatchRow(0, 0, ())))
    assert refusal.value.reason == "other_kind"


@pytest.mark.parametrize("kind", ["STRING", "DOUBLE_LIST"])
def test_a_well_sealed_value_that_is_none_of_its_type_is_refused(kind: str) -> None:
    view = batch_view([kind])
    body = struct.pack("<qII8s", NOW_MS, 0, 2, b"\x01") + b"\xff\xff"
    data = seal(BATCH_ROW, view.fingerprint, body)
    with pytest.raises(RowRefusedError) as refusal:
        decode_batch_row(view, data)
    assert refusal.value.reason == "bad_value"
    counts = ReadCounts()
    assert view_reader(view, [0]).read(data, NOW_MS, counts).statuses == [FeatureStatus.NOT_FOUND]
    assert counts.rows_refused == {"bad_value": 1}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch_rows(), st.integers(1, 4))
def test_rows_laid_out_together_are_the_rows_laid_out_alone(given_row: tuple[list[str], BatchRow], count: int) -> None:
    kinds, row = given_row
    view = batch_view(kinds)
    columns: list[Any] = []
    for field, value in zip(view.fields, row.values, strict=True):
        arrow = {"DOUBLE": pa.float64(), "FLOAT": pa.float32(), "INT64": pa.int64(), "INT32": pa.int32()}
        if field.kind in NUMERIC_KINDS:
            columns.append(pa.array([value] * count, arrow.get(field.kind, pa.bool_())))
        else:
            columns.append([value] * count)
    times, created = np.full(count, row.event_time_ms), np.full(count, row.created_ms)
    assert encode_batch_columns(view, columns, times, created) == [encode_batch_row(view, row)] * count
