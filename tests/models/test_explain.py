"""Attributions against the definition of the Shapley value, and against the shap library."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import factorial

import lightgbm
import numpy as np
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st

from models import InputError, Scorer, UnsupportedModelError
from models._operators import DEPTH_MAX
from models.admission import read_graph
from models.explain import LOG_ODDS, TREES, InterventionalTrees, PathDependentTrees, explainer_of
from models.explain._fill import Longs, quadrature
from models.explain._plain import interventional_shares, path_dependent_shares
from models.explain._trees import interventional_tables, path_dependent_tables
from models.export import export_lightgbm, export_trees
from models.trees import LEAF, Ensemble, Tree, TreeBuilder, read_trees
from tests.models.builders import (
    Floats,
    ensembles,
    grown,
    margins,
    matrices,
    shap_trees,
    stump,
    training_set,
    with_holes,
)


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


def shap_values(ensemble: Ensemble, matrix: Floats, background: Floats | None, model_output: str = "raw") -> Floats:
    kind = "tree_path_dependent" if background is None else "interventional"
    model = {"trees": shap_trees(ensemble), "tree_output": "log_odds", "objective": "binary_crossentropy"}
    explainer = shap.TreeExplainer(model, data=background, feature_perturbation=kind, model_output=model_output)
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


def test_an_empty_background_is_refused_with_tables_and_without() -> None:
    with pytest.raises(InputError, match="at least one row"):
        InterventionalTrees.of(stump(), np.empty((0, 2)), "r")
    with pytest.raises(InputError, match="at least one row"):
        InterventionalTrees(interventional_tables(stump(), np.zeros((1, 2))), np.empty((0, 2)), "r")


def ascending(_: np.random.Generator, size: int) -> Floats:
    return np.arange(size) / 100 - 2


def drawn(rng: np.random.Generator, size: int) -> Floats:
    return rng.normal(size=size)


def few(rng: np.random.Generator, size: int) -> Floats:
    return rng.choice([-np.inf, -1.0, 0.0, 0.5, np.inf], size)


def equal(_: np.random.Generator, size: int) -> Floats:
    return np.full(size, 0.5)


THRESHOLDS = (ascending, drawn, few, equal)
Thresholds = Callable[[np.random.Generator, int], Floats]


def chain(splits: int, features: int, thresholds: Thresholds, seed: int = 0) -> Ensemble:
    """One way down past `splits` splits on the features in turn, a leaf on either side of each."""
    rng = np.random.default_rng(seed)
    builder = TreeBuilder()
    node = builder.reserve()
    for i, threshold in enumerate(thresholds(rng, splits).tolist()):
        left, right = builder.reserve(), builder.reserve()
        builder.set_split(node, i % features, threshold, bool(rng.integers(2)), left, right)
        leaf, node = (left, right) if rng.integers(2) else (right, left)
        builder.set_leaf(leaf, float(rng.normal()), float(rng.integers(1, 9)))
    builder.set_leaf(node, 6.0, 1.0)
    return Ensemble(features, (builder.build(),))


def chain_rows(features: int, count: int, seed: int) -> Floats:
    """Rows on, beside and between the thresholds of chains, and missing values."""
    values = [*np.linspace(-2.5, 2.5, 11), *np.arange(-2, 2, 0.37), -np.inf, np.inf, np.nan]
    return np.random.default_rng(seed).choice(values, size=(count, features))


@given(st.integers(1, 3), st.sampled_from(THRESHOLDS), st.integers(0, 2**16), st.sampled_from([0, 2**20]))
@settings(max_examples=25, deadline=None)
def test_a_long_way_past_few_features_is_a_game_of_few_players(
    features: int, thresholds: Thresholds, seed: int, table_bytes_max: int
) -> None:
    ensemble = chain(200, features, thresholds, seed)
    matrix, background = chain_rows(features, 3, seed), chain_rows(features, 4, seed + 1)
    ours = InterventionalTrees.of(ensemble, background, "r", table_bytes_max=table_bytes_max).explain(matrix)
    expected = np.array([shapley(ensemble, row, background) for row in matrix])
    np.testing.assert_allclose(ours.attributions, expected, rtol=1e-9, atol=1e-12)
    tables = path_dependent_tables(ensemble, table_bytes_max=table_bytes_max)
    by_cover = PathDependentTrees(tables, "covers").explain(matrix)
    expected = np.array([shapley_by_covers(ensemble, row) for row in matrix])
    np.testing.assert_allclose(by_cover.attributions, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("splits", "thresholds"), [(DEPTH_MAX, drawn), *[(500, kind) for kind in THRESHOLDS]])
def test_one_feature_gets_all_of_the_margin_however_deep_the_tree(splits: int, thresholds: Thresholds) -> None:
    ensemble = chain(splits, 1, thresholds)
    matrix, background = chain_rows(1, 20, 1), chain_rows(1, 5, 2)
    content = export_trees(ensemble)
    scorer = Scorer(content)
    margin = scorer.margin(matrix)
    one = explainer_of(read_graph(content), background, "r", scorer.margin).explainer.explain(matrix)
    by_cover = PathDependentTrees(path_dependent_tables(ensemble, table_bytes_max=0), "covers").explain(matrix)
    assert one.base_value == pytest.approx(scorer.margin(background).mean(), rel=1e-12)
    for explanation in (one, by_cover):
        np.testing.assert_allclose(explanation.attributions[:, 0], margin - explanation.base_value, rtol=0, atol=1e-12)


def test_as_many_features_as_a_way_down_can_have_are_explained_in_full() -> None:
    ensemble = chain(DEPTH_MAX, DEPTH_MAX, drawn)
    matrix, background = chain_rows(DEPTH_MAX, 3, 1), chain_rows(DEPTH_MAX, 5, 2)
    explanation = InterventionalTrees.of(ensemble, background, "r").explain(matrix)
    sums = explanation.base_value + explanation.attributions.sum(axis=1)
    np.testing.assert_allclose(sums, margins(ensemble, matrix), rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def rules() -> tuple[Floats, Floats, Longs]:
    """For up to 2,000 conditions."""
    return quadrature(2_000)


@pytest.mark.parametrize("conditions", [*range(1, 40), 255, 256, 1_999, 2_000])
def test_the_integral_of_a_leaf_is_exact_for_any_number_of_conditions(
    conditions: int, rules: tuple[Floats, Floats, Longs]
) -> None:
    points, weights, spans = rules
    rule = slice(*spans[conditions])
    assert rule.stop - rule.start <= 2 + conditions * 9 // 16
    for power in {0, 1, conditions // 2, conditions - 1} - {conditions}:
        assert weights[rule] @ points[rule] ** power == pytest.approx(1 / (power + 1), rel=1e-12)


@pytest.mark.parametrize("depth", [13, 60, 300])
def test_there_is_no_limit_on_depth(depth: int) -> None:
    """A path of `depth` features that all must be high: by symmetry each has the same share."""
    builder = TreeBuilder()
    node = builder.reserve()
    for feature in range(depth):
        left, right = builder.reserve(), builder.reserve()
        builder.set_split(node, feature, 0.0, True, left, right)
        builder.set_leaf(left, 0.0, 1.0)
        node = right
    builder.set_leaf(node, 6.0, 1.0)
    ensemble = Ensemble(depth, (builder.build(),))
    one = InterventionalTrees.of(ensemble, np.zeros((1, depth)), "r").explain(np.ones((1, depth)))
    np.testing.assert_allclose(one.attributions, np.full((1, depth), 6.0 / depth), rtol=1e-9)
    by_cover = PathDependentTrees(path_dependent_tables(ensemble), "covers").explain(np.ones((1, depth)))
    assert by_cover.base_value + by_cover.attributions.sum() == pytest.approx(6.0, rel=1e-9)


def test_rows_read_from_a_buffer_are_explained_like_any_other() -> None:
    ensemble, background = grown(5), np.zeros((3, 12))
    rows = np.random.default_rng(6).normal(size=(4, 12))
    explainer = InterventionalTrees.of(ensemble, background, "r")
    frozen = np.frombuffer(b"x" + rows.tobytes(), np.float64, offset=1).reshape(rows.shape)
    np.testing.assert_array_equal(explainer.explain(frozen).attributions, explainer.explain(rows).attributions)
    np.testing.assert_array_equal(
        explainer.explain(np.asfortranarray(rows)).attributions, explainer.explain(rows).attributions
    )


def expected_value(tree: Tree, node: int, row: Floats, known: frozenset[int]) -> float:
    """What a tree gives when only some features are known: children weigh by their covers at the others."""
    assert tree.cover is not None
    feature, left, right = int(tree.feature[node]), int(tree.left[node]), int(tree.right[node])
    if feature == LEAF:
        return float(tree.value[node])
    if feature in known:
        x = row[feature]
        holds = tree.members[node].holds(float(x)) if node in tree.members else x <= tree.threshold[node]
        goes_left = bool(tree.missing_left[node]) if np.isnan(x) else bool(holds)
        return expected_value(tree, left if goes_left else right, row, known)
    parts = [float(tree.cover[child]) * expected_value(tree, child, row, known) for child in (left, right)]
    return sum(parts) / float(tree.cover[node])


def shapley_by_covers(ensemble: Ensemble, row: Floats) -> Floats:
    count = ensemble.feature_count
    values = np.zeros(count)
    for feature in range(count):
        others = [other for other in range(count) if other != feature]
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for coalition in map(frozenset, combinations(others, size)):
                for tree in ensemble.trees:
                    gain = expected_value(tree, 0, row, coalition | {feature}) - expected_value(tree, 0, row, coalition)
                    values[feature] += weight * gain
    return values


@given(ensembles(sets=True), matrices(rows=2), matrices(rows=3), st.sampled_from([0, 2**20]))
@settings(max_examples=40, deadline=None)
def test_sets_of_categories_are_explained_like_thresholds(
    ensemble: Ensemble, matrix: Floats, background: Floats, table_bytes_max: int
) -> None:
    explainer = InterventionalTrees.of(ensemble, background, "drawn", table_bytes_max=table_bytes_max)
    expected = np.array([shapley(ensemble, row, background) for row in matrix])
    np.testing.assert_allclose(explainer.explain(matrix).attributions, expected, rtol=1e-9, atol=1e-12)


@given(ensembles(sets=True, covers=True, depth=4), matrices(rows=2), st.sampled_from([0, 300, 2**20]))
@settings(max_examples=40, deadline=None)
def test_path_dependent_attributions_are_shapley_values_of_the_covers(
    ensemble: Ensemble, matrix: Floats, table_bytes_max: int
) -> None:
    tables = path_dependent_tables(ensemble, table_bytes_max=table_bytes_max)
    explanation = PathDependentTrees(tables, "covers").explain(matrix)
    expected = np.array([shapley_by_covers(ensemble, row) for row in matrix])
    np.testing.assert_allclose(explanation.attributions, expected, rtol=1e-9, atol=1e-12)
    sums = explanation.base_value + explanation.attributions.sum(axis=1)
    np.testing.assert_allclose(sums, margins(ensemble, matrix), rtol=1e-9, atol=1e-12)


def test_the_plain_form_gives_the_same_values_of_wider_and_deeper_trees() -> None:
    rng = np.random.default_rng(8)
    ensemble, matrix, background = grown(9, trees=3), with_holes(rng, 4), with_holes(rng, 25)
    ours = InterventionalTrees.of(ensemble, background, "r").explain(matrix).attributions
    np.testing.assert_allclose(ours, interventional_shares(ensemble, background, matrix), rtol=1e-9, atol=1e-12)
    by_cover = PathDependentTrees(path_dependent_tables(ensemble), "c").explain(matrix).attributions
    np.testing.assert_allclose(by_cover, path_dependent_shares(ensemble, matrix), rtol=1e-9, atol=1e-12)


def test_the_shap_library_gives_the_same_path_dependent_values() -> None:
    matrix = with_holes(np.random.default_rng(12), 20)
    ours = PathDependentTrees(path_dependent_tables(grown(13)), "c").explain(matrix).attributions
    np.testing.assert_allclose(ours, shap_values(grown(13), matrix, None), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_shap_library_gives_the_same_probabilities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ensemble, matrix, background = grown(14), with_holes(rng, 5), with_holes(rng, 30)
    ours = InterventionalTrees.of(ensemble, background, "r").explain_probability(matrix)
    theirs = shap_values(ensemble, matrix, background, model_output="probability")
    np.testing.assert_allclose(ours.attributions, theirs, rtol=1e-6, atol=1e-9)
    score = 1 / (1 + np.exp(-margins(ensemble, matrix)))
    np.testing.assert_allclose(ours.base_value + ours.attributions.sum(axis=1), score, rtol=1e-9)
    assert ours.output_space == "probability"


def test_only_log_odds_become_a_probability() -> None:
    tables = interventional_tables(stump(), np.zeros((1, 2)))
    with pytest.raises(UnsupportedModelError, match="only log-odds"):
        InterventionalTrees(tables, np.zeros((1, 2)), "r", "value").explain_probability(np.zeros((1, 2)))


def test_lightgbm_gives_the_same_path_dependent_values() -> None:
    rows = training_set(1500)
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_leaves": 31, "num_threads": 1},
        lightgbm.Dataset(rows.matrix, rows.labels),
        20,
    )
    ensemble = read_trees(read_graph(export_lightgbm(booster)))
    ours = PathDependentTrees(path_dependent_tables(ensemble), "covers").explain(rows.matrix[:50])
    theirs = booster.predict(rows.matrix[:50], pred_contrib=True)
    np.testing.assert_allclose(ours.attributions, theirs[:, :-1], rtol=0, atol=1e-9)
    assert ours.base_value == pytest.approx(theirs[0, -1], rel=1e-9)


def test_trees_without_covers_have_no_path_dependent_explanation() -> None:
    with pytest.raises(InputError, match="leaf_covers"):
        path_dependent_tables(stump())


@pytest.mark.parametrize("count", [1, 7, 8, 11, 12, 13, 31, 64, 65, 130])
def test_a_row_gives_the_same_bytes_alone_and_in_company(count: int) -> None:
    rng = np.random.default_rng(15)
    matrix = with_holes(rng, count)
    explainer = InterventionalTrees.of(grown(16), with_holes(rng, 50), "r")
    together = explainer.explain(matrix).attributions
    alone = np.concatenate([explainer.explain(row[None]).attributions for row in matrix])
    assert together.tobytes() == alone.tobytes()
