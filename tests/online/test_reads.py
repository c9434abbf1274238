"""A read says when it could not be exact, and leaves to the batch what is the batch's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.kernel import (
    KEEP_SLACK_MS,
    Row,
    empty_row,
    fold_events,
    read_windows,
    replace_batch_side,
)
from materialize.online import (
    BatchRow,
    FeatureStatus,
    ReadCounts,
    StreamRow,
    encode_batch_row,
    encode_stream_row,
    view_reader,
)
from tests.kernel.oracle import OracleEvent, oracle_values
from tests.support.views import DAY_MS, NOW_MS, SPEC, batch_view, block, rows, stream_view

READER = view_reader(stream_view(), range(len(SPEC.aggregations)))
COUNT_7D = [spec.feature for spec in SPEC.aggregations].index("count_604800000")


def folded(ages_ms: Sequence[int]) -> Row:
    """A row of one event of each age as of NOW_MS, folded one after the other, the oldest first."""
    row = empty_row(SPEC)
    for age in sorted(ages_ms, reverse=True):
        row, _ = fold_events(SPEC, row, block([(f"e{age}", NOW_MS - age, 1.0, "a")]))
    return row


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 9 * DAY_MS), max_size=45, unique=True), st.integers(0, 9 * DAY_MS))
def test_a_read_of_the_past_that_calls_itself_exact_is_exact(ages_ms: list[int], ago_ms: int) -> None:
    read = read_windows(SPEC, folded(ages_ms), NOW_MS - ago_ms)
    events = [OracleEvent(f"e{age}", NOW_MS - age, {"amount": 1.0, "ip": "a"}) for age in ages_ms]
    expected = oracle_values(SPEC, events, NOW_MS - ago_ms)
    if read.exact:
        wanted = [np.nan if v is None else v for v in expected or [None] * len(SPEC.aggregations)]
        np.testing.assert_allclose(read.values, wanted, rtol=1e-9, atol=1e-9)


def test_a_read_before_what_the_row_keeps_says_that_it_is_not_exact() -> None:
    row = folded([0, 8 * DAY_MS])
    assert read_windows(SPEC, row, NOW_MS - KEEP_SLACK_MS).exact
    assert not read_windows(SPEC, row, NOW_MS - KEEP_SLACK_MS - 1).exact


def test_a_scored_event_of_the_batchs_time_counts_once() -> None:
    batch_end_ms = NOW_MS // SPEC.batch_step_ms * SPEC.batch_step_ms
    history = block([(f"h{i}", batch_end_ms - 1 - i * 1_000, 1.0, "a") for i in range(60)])
    row = replace_batch_side(SPEC, empty_row(SPEC), history, batch_end_ms)
    oldest = history.take(slice(59, 60))
    assert read_windows(SPEC, row, NOW_MS, oldest).values[COUNT_7D] == 60
    read = READER.read(encode_stream_row(SPEC, StreamRow(row, 1, {})), NOW_MS, ReadCounts(), oldest)
    assert read.values[COUNT_7D] == 60


@pytest.mark.parametrize(("ahead_ms", "is_inexact"), [(0, 0), (1, 1)])
def test_a_batch_row_newer_than_the_as_of_time_is_counted_as_inexact(ahead_ms: int, is_inexact: int) -> None:
    view, counts = batch_view(["DOUBLE"]), ReadCounts()
    row = encode_batch_row(view, BatchRow(NOW_MS + ahead_ms, 0, (1.0,)))
    read = view_reader(view, [0]).read(row, NOW_MS, counts)
    assert (read.age_ms, list(read.statuses), counts.inexact) == (0, [FeatureStatus.PRESENT], is_inexact)


EXTRA = st.lists(
    st.tuples(st.sampled_from(("0-0", "0-1", "1-3", "new", "newer")), st.integers(-DAY_MS, 8 * DAY_MS)),
    max_size=3,
    unique_by=lambda event: event[0],
)


@settings(max_examples=150, deadline=None)
@given(
    rows(),
    st.none() | st.integers(0, 8 * 24),
    st.integers(-DAY_MS, 9 * DAY_MS),
    EXTRA,
    st.dictionaries(st.integers(0, 9), st.integers(0, 2**60), max_size=3),
)
def test_the_compiled_read_of_a_rows_bytes_is_the_plain_read_of_the_row(
    row: Row, batch_hours: int | None, ago_ms: int, given_extra: list[tuple[str, int]], applied: dict[int, int]
) -> None:
    if batch_hours is not None:
        step_ms = SPEC.batch_step_ms
        batch_end_ms = (NOW_MS - batch_hours * 3_600_000) // step_ms * step_ms
        history = block([(f"h{i}", batch_end_ms - 1 - i * 777_777, float(i), "hist") for i in range(60)])
        row = replace_batch_side(SPEC, row, history, batch_end_ms)
    extra = block([(name, NOW_MS - ago, 3.5, "x") for name, ago in given_extra]) if given_extra else None
    counts, as_of_ms = ReadCounts(), NOW_MS - ago_ms
    read = READER.read(encode_stream_row(SPEC, StreamRow(row, 7, applied)), as_of_ms, counts, extra)
    plain = read_windows(SPEC, row, as_of_ms, extra)
    values = np.array([np.nan if value is None else value for value in read.values], dtype=np.float64)
    np.testing.assert_allclose(values, plain.values, rtol=1e-9, atol=1e-6)
    assert (FeatureStatus.NOT_FOUND not in read.statuses) == plain.found
    assert counts.inexact == (not plain.exact)
    if plain.found:
        assert read.age_ms == as_of_ms - plain.newest_ms


@pytest.mark.parametrize("size", [254, 255, 256, 257, 700, 2_000, 9_000])
def test_distinct_counts_of_any_size_are_the_same_compiled_and_plain(size: int) -> None:
    row = empty_row(SPEC)
    for begin in range(0, size, 500):
        many = [(f"e{i}", NOW_MS - (i % 97) * 3_000_000, 1.0, f"ip{i}") for i in range(begin, min(begin + 500, size))]
        row, _ = fold_events(SPEC, row, block(many))
    read = READER.read(encode_stream_row(SPEC, StreamRow(row, 1, {})), NOW_MS, ReadCounts())
    plain = read_windows(SPEC, row, NOW_MS).values
    places = [i for i, spec in enumerate(SPEC.aggregations) if spec.function == "count_distinct"]
    assert [read.values[place] for place in places] == [plain[place] for place in places]
    if size <= 255:
        assert read.values[places[-1]] == size
