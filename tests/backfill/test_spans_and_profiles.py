"""Spans add up, and profiles merge to what they would be of everything at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materialize.backfill import Span
from materialize.backfill._profile import drift, merged, profile_table
from materialize.backfill._spans import cut, gaps, holes, union

SPANS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda pair: Span(pair[0], sum(pair))), max_size=8
)


def moments(spans: list[Span]) -> set[int]:
    return {moment for span in spans for moment in range(span.start_ms, span.end_ms)}


@given(SPANS)
def test_a_union_has_the_same_moments_in_separate_spans(spans: list[Span]) -> None:
    joined = union(spans)
    assert moments(joined) == moments(spans)
    assert all(before.end_ms < after.start_ms for before, after in pairwise(joined))


@given(st.integers(0, 40), st.integers(1, 30), SPANS)
def test_holes_are_the_moments_that_nothing_covers(start: int, length: int, spans: list[Span]) -> None:
    span = Span(start, start + length)
    assert moments(holes(span, spans)) == moments([span]) - moments(spans)


@given(SPANS)
def test_gaps_lie_between_the_first_and_the_last_moment(spans: list[Span]) -> None:
    inside = moments(spans)
    whole = set(range(min(inside), max(inside) + 1)) if inside else set()
    assert moments(gaps(spans)) == whole - inside


@given(st.integers(0, 100), st.integers(0, 60), st.integers(1, 20))
def test_pieces_end_at_multiples_of_the_step(start: int, length: int, step: int) -> None:
    pieces = cut(Span(start, start + length), step)
    assert [moment for piece in pieces for moment in range(piece.start_ms, piece.end_ms)] == [
        *range(start, start + length)
    ]
    assert all(piece.end_ms % step == 0 for piece in pieces[:-1])
    assert all(piece.length_ms <= step for piece in pieces)


NUMBERS = st.lists(
    st.one_of(st.none(), st.floats(allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, 1e300])), max_size=40
)
WORDS = st.lists(st.one_of(st.none(), st.text(max_size=2)), max_size=40)


@given(NUMBERS, NUMBERS)
def test_numbers_are_counted_alike_in_parts_and_at_once(first: list[float | None], second: list[float | None]) -> None:
    assert_merges(first, second, pa.float64())


@given(WORDS, WORDS)
def test_words_are_counted_alike_in_parts_and_at_once(first: list[str | None], second: list[str | None]) -> None:
    assert_merges(first, second, pa.string())


def assert_merges(first: list, second: list, kind: pa.DataType) -> None:
    parts = [profile_table(pa.table({"x": pa.array(values, kind)})) for values in (first, second)]
    whole = profile_table(pa.table({"x": pa.array([*first, *second], kind)}))
    assert merged(parts) == whole
    there = [value for value in (*first, *second) if value is not None]
    column = whole["x"]
    assert (column.rows, column.nulls) == (len(first) + len(second), len(first) + len(second) - len(there))
    assert column.distinct == len(set(there))
    assert sum(column.bins.values()) == len(there)
    if kind == pa.float64() and there:
        assert (column.low, column.high) == (min(there), max(there))


@pytest.mark.parametrize("different", [300, 5_000, 200_000])
def test_many_different_values_are_estimated_within_a_fifth(different: int) -> None:
    rng = np.random.default_rng(different)
    column = profile_table(pa.table({"x": rng.permutation(np.repeat(np.arange(float(different)), 2))}))["x"]
    assert column.distinct == pytest.approx(different, rel=0.2)


def test_drift_is_small_between_samples_of_one_distribution_and_large_between_others() -> None:
    rng = np.random.default_rng(3)

    def profile(values: object) -> object:
        return profile_table(pa.table({"x": values}))["x"]

    same = [profile(rng.lognormal(size=5_000)) for _ in range(2)]
    assert drift(*same) < 0.02
    assert drift(same[0], profile(2 * rng.lognormal(size=5_000))) > 0.25
    assert drift(same[0], profile(np.zeros(5_000))) > 1
    words = [profile(rng.choice(["a", "b", "c"], size=5_000, p=p)) for p in ((0.5, 0.3, 0.2), (0.5, 0.3, 0.2))]
    assert drift(*words) < 0.02
    assert drift(words[0], profile(rng.choice(["a", "b", "c"], size=5_000, p=(0.1, 0.3, 0.6)))) > 0.25
    assert drift(same[0], profile(rng.lognormal(size=100))) is None
