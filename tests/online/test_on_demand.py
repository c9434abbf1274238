"""On-demand functions are other people's code: whatever they give or raise, the vector stays sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from materialize.definitions import FeatureField, OnDemandView, RequestField, ServiceDefinition, ServiceView
from materialize.online import BatchRow, FeatureStatus, FeatureVector, compile_plan, encode_batch_row
from tests.support.plain_reads import read_one
from tests.support.views import NOW_MS, batch_view

VIEW = batch_view(["DOUBLE", "STRING"])


def vector(function: Callable[[dict[str, Any]], Any], singleton: bool = True) -> FeatureVector:
    """The vector of a stored 4.0 and "FR", and of what the function makes of them and of a request's 2.0."""
    on_demand = OnDemandView(
        "ratios",
        function,
        singleton,
        ((VIEW.name, "f0"), (VIEW.name, "f1")),
        (RequestField("asked", "DOUBLE"),),
        (FeatureField("out", "DOUBLE"),),
    )
    service = ServiceDefinition(
        "service",
        (ServiceView(VIEW, ("f0", "f1"), ("ip",), VIEW.name),),
        (on_demand,),
        ((VIEW.name, VIEW.fields[0]), ("ratios", FeatureField("out", "DOUBLE"))),
        "fingerprint",
    )
    row = encode_batch_row(VIEW, BatchRow(NOW_MS - 7, 0, (4.0, "FR")))
    plan = compile_plan("project", service)
    return read_one(plan, [row], {"ip": "i"}, NOW_MS, request={"asked": 2.0}).vector(0)


def test_a_function_gets_stored_values_the_request_and_the_keys() -> None:
    seen: dict[str, Any] = {}

    def function(given: dict[str, Any]) -> dict[str, Any]:
        seen.update(given)
        return {"out": given["f0"] / given["asked"]}

    result = vector(function)
    assert result.values.tolist() == [4.0, 2.0]
    assert result.ages_ms.tolist() == [7, 7]
    assert (seen["ip"], seen["f1"], seen["profile__f0"]) == ("i", "FR", 4.0)


def test_a_function_over_lists_gets_lists() -> None:
    assert vector(lambda given: {"out": [given["f0"][0] * 10]}, singleton=False).values[1] == 40.0


@pytest.mark.parametrize(
    "value", [np.int64(3), np.float32(3.0), np.float64(3.0), np.uint8(3), np.array(3.0), np.bool_(True), 3, True]
)
def test_numbers_of_numpy_are_numbers(value: Any) -> None:
    result = vector(lambda _: {"out": value})
    assert result.values[1] == float(value)
    assert result.statuses[1] == FeatureStatus.PRESENT


@pytest.mark.parametrize("value", [None, float("nan"), np.float32("nan")])
def test_no_value_is_null(value: Any) -> None:
    result = vector(lambda _: {"out": value})
    assert result.statuses[1] == FeatureStatus.NULL_VALUE
    assert np.isnan(result.values[1])
    assert result.counts.on_demand_failed == 0


def failing(_: dict[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError("odd values")


@pytest.mark.parametrize(
    "function",
    [
        failing,
        lambda _: None,
        lambda _: [1.0],
        lambda _: {"out": np.array([1.0, 2.0])},
        lambda _: {"out": [1.0]},
        lambda _: {"out": object()},
        lambda _: {"out": "high"},
    ],
)
def test_a_function_that_fails_or_gives_no_number_is_null_and_counted(function: Callable[..., Any]) -> None:
    result = vector(function)
    assert result.statuses.tolist() == [FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE]
    assert np.isnan(result.values[1])
    assert result.counts.on_demand_failed == 1
