"""Attributions of models that are no trees: exact where they can be, else estimates that say how good they are."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models import InputError
from models.explain import LINEAR, SAMPLING, SamplingExplainer, explainer_of
from models.explain._sampling import PAIRS_MIN
from models.graph import normalise
from models.scorer import Scorer

Floats = NDArray[np.float64]
FEATURES = 5


def shapley(margin: object, row: Floats, background: Floats) -> Floats:
    """The definition: every coalition takes its values from the row, the others from each background row."""

    def worth(coalition: tuple[int, ...]) -> float:
        mixed = background.copy()
        mixed[:, list(coalition)] = row[list(coalition)]
        return float(margin(mixed).mean())  # type: ignore[operator]

    values = np.zeros(row.size)
    for feature in range(row.size):
        others = [other for other in range(row.size) if other != feature]
        for size in range(row.size):
            weight = factorial(size) * factorial(row.size - size - 1) / factorial(row.size)
            for coalition in combinations(others, size):
                values[feature] += weight * (worth((*coalition, feature)) - worth(coalition))
    return values


def curved(rows: Floats) -> Floats:
    """Depends on every feature but the last. Interactions of three, since pairs of orders get those of two exactly."""
    return np.tanh(rows[:, 0]) * rows[:, 1] * rows[:, 3] + rows[:, 2] ** 2 - np.abs(rows[:, 3] - rows[:, 0])


def drawn(seed: int, count: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, FEATURES))


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(PAIRS_MIN, 30))
@settings(max_examples=40, deadline=None)
def test_base_value_and_shares_add_up_to_the_margin_whatever_the_number_of_pairs(
    seed: int, background: int, pairs: int
) -> None:
    explainer = SamplingExplainer(curved, drawn(seed, background), "r", "value", pairs=pairs)
    rows = drawn(seed + 1, 3)
    explanation = explainer.explain(rows)
    np.testing.assert_allclose(
        explanation.base_value + explanation.attributions.sum(axis=1), curved(rows), rtol=1e-12, atol=1e-12
    )
    assert explanation.base_value == pytest.approx(float(curved(drawn(seed, background)).mean()), abs=1e-12)
    assert (explanation.attributions[:, -1] == 0).all()
    assert explanation.pairs is not None
    assert explanation.pairs.tolist() == [pairs] * 3


def test_estimates_come_to_the_shapley_values_within_their_standard_errors() -> None:
    background, rows = drawn(1, 20), drawn(2, 20)
    exact = np.array([shapley(curved, row, background) for row in rows])
    few, many = (SamplingExplainer(curved, background, "r", "value", pairs=n).explain(rows) for n in (40, 4_000))
    assert np.abs(many.attributions - exact).max() < 0.05
    assert np.abs(many.attributions - exact).mean() < np.abs(few.attributions - exact).mean() / 4
    assert few.standard_errors is not None
    moving = few.standard_errors > 0
    sizes = (np.abs(few.attributions - exact) / np.where(moving, few.standard_errors, 1))[moving]
    assert (sizes < 2).mean() > 0.9
    assert sizes.max() < 6


def test_the_same_row_gets_the_same_answer_alone_in_company_and_with_another_zero() -> None:
    explainer = SamplingExplainer(curved, drawn(3, 10), "r", "value", pairs=20)
    rows = drawn(4, 3)
    rows[1, 2] = 0.0
    together = explainer.explain(rows).attributions
    np.testing.assert_array_equal(explainer.explain(rows[1:2]).attributions, together[1:2])
    rows[1, 2] = -0.0
    np.testing.assert_array_equal(explainer.explain(rows[1:2]).attributions, together[1:2])


def test_whole_rounds_of_pairs_get_interactions_of_two_features_exactly() -> None:
    def products(rows: Floats) -> Floats:
        return rows[:, 0] * rows[:, 1] - np.maximum(rows[:, 2], rows[:, 3]) + rows[:, 4]

    background, rows = drawn(9, 8), drawn(10, 3)
    explanation = SamplingExplainer(products, background, "r", "value", pairs=8).explain(rows)
    exact = np.array([shapley(products, row, background) for row in rows])
    np.testing.assert_allclose(explanation.attributions, exact, atol=1e-12)


def test_a_row_like_its_background_gets_exactly_nothing() -> None:
    explainer = SamplingExplainer(curved, np.ones((1, FEATURES)), "r", "value")
    explanation = explainer.explain(np.ones((1, FEATURES)))
    np.testing.assert_array_equal(explanation.attributions, np.zeros((1, FEATURES)))
    np.testing.assert_array_equal(explanation.standard_errors, np.zeros((1, FEATURES)))


class SlowModel:
    """A margin whose every row takes a millisecond of a clock that only it moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def margin(self, rows: Floats) -> Floats:
        self.now_s += len(rows) / 1000
        return curved(rows)

    def clock(self) -> float:
        return self.now_s


@pytest.mark.parametrize("deadline_ms", [0, 50, 200, 1_000])
def test_a_deadline_ends_the_sampling_and_the_answer_says_so(deadline_ms: float) -> None:
    slow = SlowModel()
    explainer = SamplingExplainer(slow.margin, drawn(5, 30), "r", "value", pairs=1_000, clock=slow.clock)
    started_s = slow.now_s
    explanation = explainer.explain(drawn(6, 1), deadline_ms)
    took_ms = (slow.now_s - started_s) * 1000
    pair_ms = 2 * (FEATURES - 1)
    assert explanation.pairs is not None
    assert PAIRS_MIN <= explanation.pairs[0] < 1_000
    assert took_ms <= max(deadline_ms, PAIRS_MIN * pair_ms) + 1
    assert explanation.pairs[0] >= deadline_ms / pair_ms / 3
    total = explanation.base_value + explanation.attributions.sum()
    assert total == pytest.approx(float(curved(drawn(6, 1))[0]), abs=1e-12)


def test_rows_share_one_deadline() -> None:
    slow = SlowModel()
    explainer = SamplingExplainer(slow.margin, drawn(5, 30), "r", "value", pairs=1_000, clock=slow.clock)
    started_s = slow.now_s
    explanation = explainer.explain(drawn(6, 4), 800)
    assert slow.now_s - started_s <= 0.81
    assert explanation.pairs is not None
    assert explanation.pairs.min() >= 8


def test_a_pair_of_orders_does_not_depend_on_how_many_follow() -> None:
    background = drawn(7, 4)
    one, two = (SamplingExplainer(curved, background, "r", "value", pairs=n) for n in (4, 8))
    rows = drawn(8, 1)
    moves = two._moves(rows[0], float(curved(rows)[0]), None)
    np.testing.assert_array_equal(moves[:4], one._moves(rows[0], float(curved(rows)[0]), None))


def test_an_empty_background_and_a_single_pair_are_refused() -> None:
    with pytest.raises(InputError, match="at least one row"):
        SamplingExplainer(curved, np.empty((0, FEATURES)), "r", "value")
    with pytest.raises(InputError, match="at least 2 pairs"):
        SamplingExplainer(curved, drawn(1, 2), "r", "value", pairs=1)


# Linear models


def graph(*nodes: onnx.NodeProto, width: int = 3, **constants: object) -> onnx.ModelProto:
    held = [
        helper.make_tensor(name, TensorProto.DOUBLE, np.shape(values), np.ravel(values).tolist())  # type: ignore[call-overload]
        for name, values in constants.items()
    ]
    built = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N", 1])],
        held,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return normalise(helper.make_model(built, opset_imports=opsets, ir_version=8))


NODE = helper.make_node
WEIGHTS = [[2.0], [-1.0], [0.5]]
LINEAR_GRAPHS = {
    "product": graph(NODE("MatMul", ["x", "w"], ["y"]), w=WEIGHTS),
    "product and sum": graph(NODE("MatMul", ["x", "w"], ["m"]), NODE("Add", ["m", "b"], ["y"]), w=WEIGHTS, b=[3.0]),
    "sum first": graph(NODE("MatMul", ["x", "w"], ["m"]), NODE("Add", ["b", "m"], ["y"]), w=WEIGHTS, b=[[3.0]]),
    "gemm": graph(NODE("Gemm", ["x", "w", "b"], ["y"], alpha=2.0, beta=0.5), w=WEIGHTS, b=[3.0]),
    "gemm of rows": graph(NODE("Gemm", ["x", "w"], ["y"], transB=1), w=[[2.0, -1.0, 0.5]]),
    "sigmoid behind": graph(NODE("MatMul", ["x", "w"], ["m"]), NODE("Sigmoid", ["m"], ["y"]), w=WEIGHTS),
    "steps before": graph(
        NODE("Sub", ["x", "a"], ["c"]), NODE("Div", ["c", "s"], ["d"]), NODE("Tanh", ["d"], ["t"]),
        NODE("MatMul", ["t", "w"], ["y"]), w=WEIGHTS, a=[1.0, 2.0, 3.0], s=[[2.0, 2.0, 4.0]],
    ),
    "negated": graph(NODE("MatMul", ["x", "w"], ["m"]), NODE("Neg", ["m"], ["y"]), w=WEIGHTS),
    "the rest to a number": graph(
        NODE("MatMul", ["x", "w"], ["m"]), NODE("Sub", ["b", "m"], ["n"]), NODE("Neg", ["n"], ["y"]), w=WEIGHTS, b=[3.0]
    ),
    "constant minus": graph(NODE("Sub", ["a", "x"], ["c"]), NODE("MatMul", ["c", "w"], ["y"]), w=WEIGHTS, a=[1.0]),
}  # fmt: skip
SAMPLED_GRAPHS = {
    "rows mixed before": graph(
        NODE("MatMul", ["x", "m"], ["c"]), NODE("MatMul", ["c", "w"], ["y"]), w=WEIGHTS, m=np.eye(3)[::-1]
    ),
    "curved behind": graph(NODE("MatMul", ["x", "w"], ["m"]), NODE("Exp", ["m"], ["y"]), w=WEIGHTS),
    "a factor for each row": graph(
        NODE("MatMul", ["x", "w"], ["m"]), NODE("Mul", ["x", "m"], ["c"]), NODE("MatMul", ["c", "w"], ["y"]), w=WEIGHTS
    ),
}


@pytest.mark.parametrize("name", LINEAR_GRAPHS)
def test_a_linear_model_is_recognised_and_explained_exactly(name: str) -> None:
    model = LINEAR_GRAPHS[name]
    scorer = Scorer(model.SerializeToString())
    background, rows = drawn(1, 6)[:, :3], drawn(2, 4)[:, :3]
    chosen = explainer_of(model, background, "r", scorer.margin)
    explanation = chosen.explainer.explain(rows)
    assert chosen.method == LINEAR
    exact = np.array([shapley(scorer.margin, row, background) for row in rows])
    np.testing.assert_allclose(explanation.attributions, exact, atol=1e-12)
    assert explanation.base_value == pytest.approx(float(scorer.margin(background).mean()), abs=1e-12)
    assert explanation.standard_errors is None


@pytest.mark.parametrize("name", SAMPLED_GRAPHS)
def test_what_only_looks_linear_is_sampled(name: str) -> None:
    model = SAMPLED_GRAPHS[name]
    scorer = Scorer(model.SerializeToString())
    background, rows = drawn(1, 6)[:, :3], drawn(2, 4)[:, :3]
    chosen = explainer_of(model, background, "r", scorer.margin)
    assert (chosen.method, chosen.preparation) == (SAMPLING, ())
    explanation = chosen.explainer.explain(rows)
    exact = np.array([shapley(scorer.margin, row, background) for row in rows])
    assert explanation.standard_errors is not None
    gaps = np.abs(explanation.attributions - exact)
    assert (gaps <= 6 * explanation.standard_errors + 1e-9).all()
