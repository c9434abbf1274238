"""Which values are equal, and how far apart two are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actor_risk.audit.compare import Values, differences, equal_values, relative_differences
from actor_risk.audit.definition import AuditedFeature

numbers = st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-(2**53), 2**53).map(float))


def feature(tolerance: float, kind: str = "DOUBLE") -> AuditedFeature:
    return AuditedFeature("v:f", "f", kind, tolerance, frozenset(), on_demand=False)


def column(*values: float | None) -> Values:
    found = np.array([[math.nan if value is None else value] for value in values])
    return Values(found, np.array([[value is not None] for value in values]), {})


def equal(one: float | None, other: float | None, tolerance: float = 0.0) -> bool:
    return bool(equal_values(column(one), column(other), [feature(tolerance)])[0, 0])


@given(numbers, numbers, st.sampled_from([0.0, 1e-9]))
def test_equality_is_symmetric_and_reflexive_and_a_missing_value_equals_only_a_missing_one(
    one: float | None, other: float | None, tolerance: float
) -> None:
    assert equal(one, one, tolerance)
    assert equal(one, other, tolerance) == equal(other, one, tolerance)
    if one is None or other is None:
        assert equal(one, other, tolerance) == (one is other)
    else:
        assert equal(one, other) == (one == other)


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        (1e12, 1e12 * (1 + 5e-10), True),
        (1e12, 1e12 * (1 + 5e-9), False),
        (1e-12, 5e-10, True),  # absolute below 1
        (0.0, 2e-9, False),
        (0.0, -0.0, True),
        (math.inf, math.inf, True),
        (math.inf, 1e308, False),
        (math.inf, -math.inf, False),
    ],
)
def test_sums_are_equal_within_the_tolerance_relative_and_absolute_below_one(
    one: float, other: float, is_equal: bool
) -> None:
    assert equal(one, other, 1e-9) is is_equal


def test_words_and_large_integers_are_compared_as_they_are() -> None:
    features = [feature(0.0, "STRING"), feature(0.0, "INT64")]
    numbers, there = np.array([[math.nan, 2.0**53]]), np.array([[True, True]])
    online = Values(numbers, there, {(0, 0): "DE", (0, 1): 2**53 + 1})
    assert equal_values(online, Values(numbers, there, {(0, 0): "DE", (0, 1): 2**53 + 1}), features).all()
    assert not equal_values(online, Values(numbers, there, {(0, 0): "FR", (0, 1): 2**53 + 2}), features).any()
    missing = Values(np.full((1, 2), math.nan), np.zeros((1, 2), bool), {})
    assert not equal_values(online, missing, features).any()


@given(numbers, numbers)
def test_the_relative_difference_lies_between_0_and_2_and_is_there_for_two_values_only(
    one: float | None, other: float | None
) -> None:
    found = float(relative_differences(column(one), column(other))[0, 0])
    if one is None or other is None:
        assert math.isnan(found)
    else:
        assert 0 <= found <= 2
        assert (found == 0) == (float(differences(column(one), column(other))[0, 0]) == 0)
