"""Attributions against the definition of the Shapley value, and against the shap library."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st

from models import InputError, Scorer, UnsupportedModelError
from models.admission import read_graph
from models.explain import LOG_ODDS, TREES, InterventionalTrees, explainer_of
from models.export import export_trees
from models.trees import LEAF, Ensemble, TreeBuilder, read_trees
from tests.models.builders import Floats, ensembles, margins, matrices, stump


def shapley(ensemble: Ensemble, row: Floats, background: Floats) -> Floats:
    """The definition: every coalition takes its values from the row, the others from each background row."""
    count = ensemble.feature_count

    def worth(coalition: tuple[int, ...]) -> float:
        mixed = background.copy()
        mixed[:, list(coalition)] = row[list(coalition)]
        return float(margins(ensemble, mixed).mean())

    values = np.zeros(count)
    for feature in range(count):
        others = [other for other in range(count) if other != feature]
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for coalition in combinations(others, size):
                values[feature] += weight * (worth((*coalition, feature)) - worth(coalition))
    return values


@given(ensembles(), matrices(rows=2), matrices(rows=3))
@settings(max_examples=50, deadline=None)
def test_attributions_are_shapley_values_with_missing_values_on_both_sides(
    ensemble: Ensemble, matrix: Floats, background: Floats
) -> None:
    explanation = InterventionalTrees.of(ensemble, background, "drawn").explain(matrix)
    expected = np.array([shapley(ensemble, row, background) for row in matrix])
    np.testing.assert_allclose(explanation.attributions, expected, rtol=1e-9, atol=1e-12)


@given(ensembles(depth=7), matrices(rows=5), matrices(rows=5), st.sampled_from([0, 500, 2**20]))
@settings(max_examples=50, deadline=None)
def test_leaves_beyond_the_tables_give_the_same_values(
    ensemble: Ensemble, matrix: Floats, background: Floats, table_bytes_max: int
) -> None:
    plain = InterventionalTrees.of(ensemble, background, "r", table_bytes_max=0).explain(matrix)
    mixed = InterventionalTrees.of(ensemble, background, "r", table_bytes_max=table_bytes_max).explain(matrix)
    np.testing.assert_allclose(mixed.attributions, plain.attributions, rtol=1e-12, atol=1e-13)
    assert mixed.base_value == pytest.approx(plain.base_value, rel=1e-12, abs=1e-13)


@given(ensembles(), matrices(rows=8), matrices(rows=8))
@settings(max_examples=60, deadline=None)
def test_base_value_and_attributions_add_up_to_the_scored_margin(
    ensemble: Ensemble, matrix: Floats, background: Floats
) -> None:
    content = export_trees(ensemble)
    scorer = Scorer(content)
    chosen = explainer_of(read_graph(content), background, "r", scorer.margin)
    explanation = chosen.explainer.explain(matrix)
    margin = scorer.score(matrix).margin
    assert (chosen.method, chosen.preparation) == (TREES, ())
    np.testing.assert_allclose(explanation.base_value + explanation.attributions.sum(axis=1), margin, 1e-9, 1e-12)
    assert explanation.base_value == pytest.approx(float(margins(ensemble, background).mean()), rel=1e-9, abs=1e-12)


def grown(seed: int, *, feature_count: int = 12, depth: int = 6) -> Ensemble:
    """Full random trees, deeper and wider than the definition can check."""
    rng = np.random.default_rng(seed)
    built = []
    for _ in range(20):
        builder = TreeBuilder()
        waiting = [(builder.reserve(), depth)]
        while waiting:
            node, left_over = waiting.pop()
            if not left_over:
                builder.set_leaf(node, float(rng.normal()))
                continue
            left, right = builder.reserve(), builder.reserve()
            builder.set_split(
                node, int(rng.integers(feature_count)), float(rng.normal()), bool(rng.integers(2)), left, right
            )
            waiting += [(left, left_over - 1), (right, left_over - 1)]
        built.append(builder.build())
    return Ensemble(feature_count, tuple(built))


def shap_values(ensemble: Ensemble, matrix: Floats, background: Floats) -> Floats:
    raw = [
        {
            "children_left": tree.left,
            "children_right": tree.right,
            "children_default": np.where(tree.missing_left, tree.left, tree.right),
            "features": np.where(tree.feature == LEAF, -2, tree.feature),
            "thresholds": tree.threshold.copy(),
            "values": tree.value.reshape(-1, 1).copy(),
            "node_sample_weight": np.ones(tree.feature.size),
        }
        for tree in ensemble.trees
    ]
    explainer = shap.TreeExplainer({"trees": raw}, data=background, feature_perturbation="interventional")
    return np.asarray(explainer.shap_values(matrix, check_additivity=False)).reshape(matrix.shape)


def test_the_shap_library_gives_the_same_values() -> None:
    rng = np.random.default_rng(2)
    ensemble, matrix, background = grown(1), rng.normal(size=(20, 12)), rng.normal(size=(100, 12))
    ours = InterventionalTrees.of(ensemble, background, "r").explain(matrix).attributions
    np.testing.assert_allclose(ours, shap_values(ensemble, matrix, background), rtol=1e-6, atol=1e-6)


def test_the_order_of_background_rows_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    matrix, background = rng.normal(size=(5, 12)), rng.normal(size=(250, 12))
    ours = InterventionalTrees.of(grown(4), background, "r").explain(matrix).attributions
    other = InterventionalTrees.of(grown(4), background[::-1], "r").explain(matrix).attributions
    np.testing.assert_allclose(ours, other, rtol=1e-9, atol=1e-12)


def test_a_feature_that_no_tree_reads_gets_nothing() -> None:
    explanation = InterventionalTrees.of(stump(3), np.zeros((1, 3)), "r").explain(np.array([[1.0, 9.0, np.nan]]))
    np.testing.assert_array_equal(explanation.attributions, [[3.0, 0.0, 0.0]])
    assert (explanation.base_value, explanation.reference, explanation.output_space) == (-1.0, "r", LOG_ODDS)


def test_a_constant_model_explains_everything_by_its_base_value() -> None:
    builder = TreeBuilder()
    builder.set_leaf(builder.reserve(), 0.25)
    graph = read_trees(read_graph(export_trees(Ensemble(2, (builder.build(),)))))
    explanation = InterventionalTrees.of(graph, np.zeros((1, 2)), "r").explain(np.array([[1.0, np.nan]]))
    assert explanation.base_value == 0.25
    np.testing.assert_array_equal(explanation.attributions, [[0.0, 0.0]])


def test_an_empty_background_is_refused() -> None:
    with pytest.raises(InputError, match="at least one row"):
        InterventionalTrees.of(stump(), np.empty((0, 2)), "r")


def test_a_path_over_too_many_features_is_refused() -> None:
    builder = TreeBuilder()
    node = builder.reserve()
    for feature in range(63):
        left, right = builder.reserve(), builder.reserve()
        builder.set_split(node, feature, 0.0, True, left, right)
        node = right
    with pytest.raises(UnsupportedModelError, match="limit the depth"):
        InterventionalTrees.of(Ensemble(63, (builder.build(),)), np.zeros((1, 63)), "r")


def test_a_path_over_sixty_features_is_explained_exactly() -> None:
    builder = TreeBuilder()
    node = builder.reserve()
    for feature in range(60):
        left, right = builder.reserve(), builder.reserve()
        builder.set_split(node, feature, 0.0, True, left, right)
        node = right
    builder.set_leaf(node, 6.0)
    explanation = InterventionalTrees.of(Ensemble(60, (builder.build(),)), np.zeros((1, 60)), "r").explain(
        np.ones((1, 60))
    )
    np.testing.assert_allclose(explanation.attributions, np.full((1, 60), 0.1), rtol=1e-9)


def test_rows_read_from_a_buffer_are_explained_like_any_other() -> None:
    ensemble, background = grown(5), np.zeros((3, 12))
    rows = np.random.default_rng(6).normal(size=(4, 12))
    explainer = InterventionalTrees.of(ensemble, background, "r")
    frozen = np.frombuffer(b"x" + rows.tobytes(), np.float64, offset=1).reshape(rows.shape)
    np.testing.assert_array_equal(explainer.explain(frozen).attributions, explainer.explain(rows).attributions)
    np.testing.assert_array_equal(
        explainer.explain(np.asfortranarray(rows)).attributions, explainer.explain(rows).attributions
    )
