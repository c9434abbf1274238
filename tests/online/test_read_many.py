"""Reading gives, for any number of entities at once, what decoding each row plainly gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import Int64List
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.definitions import (
    BatchView,
    FeatureField,
    JoinKey,
    OnDemandView,
    RequestField,
    ServiceDefinition,
    ServiceView,
    StreamView,
)
from materialize.online import (
    BatchRow,
    FeatureMatrix,
    FeatureStatus,
    ReadPlan,
    StreamRow,
    assemble,
    compile_plan,
    encode_batch_row,
    encode_stream_row,
    lookup,
)
from tests.support.plain_reads import PlainValue, plain_read
from tests.support.views import DAY_MS, NOW_MS, SPEC, batch_view, rows, stream_view

NUMBERS = ("DOUBLE", "INT64", "BOOL", "FLOAT", "INT32", "UNIX_TIMESTAMP")
ALL_KINDS = ("STRING", "DOUBLE", "INT64", "BYTES", "INT64_LIST")
TTL_MS = DAY_MS
TRAFFIC = stream_view(ttl_ms=6 * DAY_MS)
PLAIN = batch_view(NUMBERS, "plain", TTL_MS)
WORDS = batch_view(ALL_KINDS, "words", TTL_MS, fingerprint=78)
CREATOR = (JoinKey("creator", "INT64"),)
WINDOWS = [spec.feature for spec in SPEC.aggregations]
COUNT = next(name for name in WINDOWS if name.startswith("count_6"))

Entity = dict[str, object]
Stored = dict[bytes, bytes]


def ratio(above: Any, below: Any) -> float | None:
    return None if above is None or below is None else above / below


def ratios(inputs: dict[str, Any]) -> dict[str, Any]:
    """Fails for a row whose request asks to divide by zero."""
    quotients = [ratio(a, b) for a, b in zip(inputs[COUNT], inputs["asked"], strict=True)]
    words = [None if w is None else f"{w}/{ip}" for w, ip in zip(inputs["f0"], inputs["ip"], strict=True)]
    return {"ratio": quotients, "word": words, "unused": [0] * len(words)}


def one_ratio(inputs: dict[str, Any]) -> dict[str, Any]:
    row = ratios({name: [value] for name, value in inputs.items()})
    return {name: column[0] for name, column in row.items()}


def on_demand(name: str, function: Callable[[dict[str, Any]], Any], singleton: bool) -> OnDemandView:
    fields = (FeatureField("ratio", "DOUBLE"), FeatureField("word", "STRING"))
    inputs = (("traffic", COUNT), ("words", "f0"))
    return OnDemandView(name, function, singleton, inputs, (RequestField("asked", "DOUBLE"),), fields)


def plan_of(*computed: OnDemandView) -> ReadPlan:
    """Windows and two profiles by IP, a profile by creator under another name, and on-demand views."""
    by_creator = BatchView("plain", CREATOR, PLAIN.fields, PLAIN.fingerprint, PLAIN.ttl_ms)
    views = (
        ServiceView(TRAFFIC, tuple(WINDOWS), ("ip",), "traffic"),
        ServiceView(PLAIN, ("f1", "f0", "f2", "f5"), ("ip",), "plain"),
        ServiceView(WORDS, ("f0", "f1", "f2", "f3", "f4"), ("ip",), "words"),
        ServiceView(by_creator, ("f0", "f4"), ("maker",), "maker_profile"),
    )
    features: list[tuple[str, FeatureField]] = []
    for view in views:
        fields = {field.name: field for field in view.view.fields}
        features += [(view.called, fields[name]) for name in view.features]
    features += [(view.name, field) for view in computed for field in view.fields]
    return compile_plan("project", ServiceDefinition("service", views, computed, tuple(features), "fingerprint"))


PLAN = plan_of(on_demand("ratios", ratios, False), on_demand("one_ratio", one_ratio, True))


def one_by_one(plan: ReadPlan, stored: Stored, entities: Sequence[Entity], as_of_ms: int) -> list[list[PlainValue]]:
    return [
        plain_read(
            plan,
            [stored.get(row.encoder.key([entity[name] for name in row.key_names])) for row in plan.rows],
            entity,
            as_of_ms,
            request_of(entity),
        )
        for entity in entities
    ]


def request_of(entity: Mapping[str, object]) -> dict[str, object]:
    return {"asked": {"a": 0.0, "b": None}.get(str(entity["ip"]), 2.0)}


def together(plan: ReadPlan, stored: Stored, entities: Sequence[Entity], as_of_ms: int) -> FeatureMatrix:
    found = lookup(plan, entities)
    requests = [request_of(entity) for entity in entities]
    rows = [stored.get(key) for key in found.keys]
    return assemble(plan, found, rows, entities, [as_of_ms] * len(entities), requests)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "DOUBLE": st.floats(allow_nan=False),
    "FLOAT": st.floats(width=32, allow_nan=False),
    "INT64": st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "BOOL": st.booleans(),
    "UNIX_TIMESTAMP": st.integers(0, 2**33),
    "STRING": st.text(max_size=5),
    "BYTES": st.binary(max_size=5),
    "INT64_LIST": st.lists(st.integers(0, 9), max_size=3).map(
        lambda numbers: ValueProto(int64_list_val=Int64List(val=numbers))
    ),
}


def batch_rows(view: BatchView) -> st.SearchStrategy[bytes]:
    values = st.tuples(*(st.none() | VALUES[field.kind] for field in view.fields))
    times = st.integers(NOW_MS - 3 * TTL_MS, NOW_MS + 5)
    return st.builds(lambda time_ms, chosen: encode_batch_row(view, BatchRow(time_ms, 0, chosen)), times, values)


STREAM_ROWS = rows().map(lambda row: encode_stream_row(SPEC, StreamRow(row, 1, {})))
SPOILT = st.sampled_from([b"", b"AR", b"x" * 80])


@st.composite
def stores(draw: st.DrawFn) -> Stored:
    """Some rows of some of the entities, some of them damaged or of another view."""
    stored = {}
    for row, kinds in zip(
        PLAN.rows,
        (STREAM_ROWS, batch_rows(PLAIN), batch_rows(WORDS), batch_rows(PLAIN)),
        strict=True,
    ):
        for entity in draw(st.lists(st.sampled_from(MAKERS if row.key_names == ("maker",) else IPS), max_size=3)):
            wrong = batch_rows(PLAIN) if isinstance(row.view, StreamView) else STREAM_ROWS
            stored[row.encoder.key([entity])] = draw(kinds | kinds | kinds | wrong | SPOILT)
    return stored


IPS: list[Any] = ["a", "b", "c"]
MAKERS: list[Any] = [1, 2]
ENTITIES = st.lists(
    st.fixed_dictionaries({"ip": st.sampled_from(IPS), "maker": st.sampled_from(MAKERS)}), min_size=1, max_size=7
)


@settings(max_examples=60, deadline=None)
@given(stores(), ENTITIES, st.integers(-2, 8 * DAY_MS))
def test_many_entities_read_together_are_those_decoded_alone(
    stored: Stored, entities: list[Entity], later_ms: int
) -> None:
    matrix = together(PLAN, stored, entities, NOW_MS + later_ms)
    for i, expected in enumerate(one_by_one(PLAN, stored, entities, NOW_MS + later_ms)):
        found = matrix.row(i)
        assert matrix.statuses[i].tolist() == [value.status for value in expected]
        assert matrix.ages_ms[i].tolist() == [value.age_ms for value in expected]
        assert [type(value) for value in found] == [type(value.value) for value in expected]
        for position, (value, plain) in enumerate(zip(found, expected, strict=True)):
            assert value == pytest.approx(plain.value, rel=1e-9, abs=1e-9) if type(value) is float else True
            assert value == plain.value if type(value) is not float else True
            number = float(plain.value) if isinstance(plain.value, (int, float)) else np.nan
            np.testing.assert_allclose(matrix.values[i, position], number, rtol=1e-9, atol=1e-9)


def profile(time_ms: int = NOW_MS) -> bytes:
    return encode_batch_row(PLAIN, BatchRow(time_ms, 0, (1.5, 2**60 + 1, True, 2.5, 3, None)))


def key_of(row: int, entity: object) -> bytes:
    return PLAN.rows[row].encoder.key([entity])


def test_a_row_that_entities_share_is_asked_for_once() -> None:
    entities: list[Entity] = [{"ip": ip, "maker": 1} for ip in ("a", "b", "a", "a")]
    found = lookup(PLAN, entities)
    assert len(found.keys) == len(set(found.keys)) == 3 * 2 + 1
    matrix = together(PLAN, {key_of(3, 1): profile(), key_of(1, "a"): profile()}, entities, NOW_MS)
    assert [matrix.vector(i).counts.rows_found for i in range(4)] == [2, 1, 2, 2]
    place = PLAN.features.index("maker_profile:f0")
    assert matrix.values[:, place].tolist() == [1.5] * 4


def test_integers_beyond_float64_stay_exact() -> None:
    matrix = together(PLAN, {key_of(1, "a"): profile()}, [{"ip": "a", "maker": 1}], NOW_MS)
    assert matrix.column(PLAN.features.index("plain:f1")) == [2**60 + 1]


def test_a_function_over_lists_runs_once_over_all_rows() -> None:
    lengths = []

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        lengths.append({len(column) for column in inputs.values()})
        return {"ratio": np.arange(len(inputs["ip"])) / 2, "word": inputs["ip"]}

    plan = plan_of(on_demand("ratios", function, False))
    matrix = together(plan, {}, [{"ip": ip, "maker": 1} for ip in "cbc"], NOW_MS)
    assert lengths == [{3}]
    assert matrix.column(len(plan.features) - 2) == [0.0, 0.5, 1.0]
    assert matrix.column(len(plan.features) - 1) == ["c", "b", "c"]


@pytest.mark.parametrize("odd", [[1.0], [1.0, object(), 2.0], "abc", None])
def test_a_function_that_cannot_do_all_rows_is_tried_row_by_row(odd: Any) -> None:
    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        if len(inputs["ip"]) > 1:
            return {"ratio": odd}
        return {"ratio": [7.0]} if inputs["ip"] != ["b"] else {"ratio": 1 / 0}

    plan = plan_of(on_demand("ratios", function, False))
    matrix = together(plan, {}, [{"ip": ip, "maker": 1} for ip in "abc"], NOW_MS)
    place = len(plan.features) - 2
    assert matrix.column(place) == [7.0, None, 7.0]
    assert matrix.statuses[:, place].tolist() == [
        FeatureStatus.PRESENT,
        FeatureStatus.NULL_VALUE,
        FeatureStatus.PRESENT,
    ]
    assert [matrix.vector(i).counts.on_demand_failed for i in range(3)] == [0, 1, 0]


def test_nobody_asked_for_is_an_empty_matrix() -> None:
    matrix = together(PLAN, {}, [], NOW_MS)
    assert matrix.values.shape == matrix.statuses.shape == matrix.ages_ms.shape == (0, len(PLAN.features))
