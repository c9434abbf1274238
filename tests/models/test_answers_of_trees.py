"""What operators of trees answer with beside a plain sum: other aggregates, links, and the first of two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from models import ModelStore
from models.admission import read_graph
from models.conformance import Expected, check_model
from models.explain import SAMPLING, TREES, Chosen, explainer_of
from models.export import export_trees
from models.graph import normalise
from models.importing import features_of, import_model
from models.scorer import Scorer
from tests.models.builders import Floats, graph_of, stump, tree_classifier
from tests.models.conformance.zoo import CASES
from tests.models.test_importing import spec
from tests.models.test_linear_and_sampling import shapley

ROWS = np.array([[a, b] for a in (0.0, 1.0) for b in (-2.0, 0.0, 2.0)])
TWO_TREES: dict[str, object] = {
    "nodes_treeids": [0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2] * 2,
    "nodes_featureids": [0, 0, 0, 1, 1, 1],
    "nodes_values": [0.5, 0.0, 0.0, -1.0, 0.0, 0.0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
    "nodes_truenodeids": [1, 0, 0] * 2,
    "nodes_falsenodeids": [2, 0, 0] * 2,
}


def regressor(**parts: object) -> onnx.ModelProto:
    """Two trees: 0.1 or 0.4 by feature 0, 0.3 or 0.2 by feature 1."""
    leaves = {"target_treeids": [0, 0, 1, 1], "target_nodeids": [1, 2] * 2, "target_ids": [0] * 4, "n_targets": 1}
    weights = {"target_weights": [0.1, 0.4, 0.3, 0.2]}
    given = TWO_TREES | leaves | weights | parts
    return graph_of(helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **given))


def classifier(**parts: object) -> onnx.ModelProto:
    """The same trees, the first for class 0, the second for class 1."""
    leaves = {"class_treeids": [0, 0, 1, 1], "class_nodeids": [1, 2] * 2, "class_ids": [0, 0, 1, 1]}
    return tree_classifier(**(TWO_TREES | leaves | {"class_weights": [0.1, 0.4, 0.3, 0.2]} | parts))


def explained(model: onnx.ModelProto, background: Floats = ROWS, target: str | None = None) -> tuple[Chosen, Scorer]:
    served = normalise(model, target=target)
    scorer = Scorer(served.SerializeToString())
    return explainer_of(served, background, "r", scorer.margin), scorer


NO_SUMS = {
    "the least tree": (regressor(aggregate_function="MIN"), [0.1, 0.1, 0.1, 0.3, 0.2, 0.2]),
    "the greatest tree": (regressor(aggregate_function="MAX"), [0.3, 0.2, 0.2, 0.4, 0.4, 0.4]),
    "a probit": (regressor(post_transform="PROBIT"), [-0.2533, -0.5244, -0.5244, 0.5244, 0.2533, 0.2533]),
    "a softmax": (classifier(post_transform="SOFTMAX_ZERO"), [0.5498, 0.525, 0.525, 0.475, 0.4502, 0.4502]),
}


@pytest.mark.parametrize("name", NO_SUMS)
def test_trees_whose_answer_is_no_sum_are_scored_and_explained_by_sampling(name: str) -> None:
    model, scores = NO_SUMS[name]
    report = check_model(model.SerializeToString(), rows=ROWS)
    assert not report.failures
    chosen, scorer = explained(model)
    assert chosen.method == SAMPLING
    np.testing.assert_allclose(scorer.score(ROWS).score, scores, atol=1e-4)
    exact = np.array([shapley(scorer.margin, row, ROWS) for row in ROWS])
    explanation = chosen.explainer.explain(ROWS)
    assert explanation.standard_errors is not None
    assert (np.abs(explanation.attributions - exact) <= 4 * explanation.standard_errors).all()


def test_a_mean_of_trees_is_explained_exactly() -> None:
    chosen, scorer = explained(regressor(aggregate_function="AVERAGE"))
    assert chosen.method == TREES
    np.testing.assert_allclose(scorer.score(ROWS).score, [0.2, 0.15, 0.15, 0.35, 0.3, 0.3], atol=1e-7)
    exact = np.array([shapley(scorer.margin, row, ROWS) for row in ROWS])
    np.testing.assert_allclose(chosen.explainer.explain(ROWS).attributions, exact, atol=1e-7)


FIRST_OF_TWO = [
    *("lightgbm", "lightgbm constant", "xgboost", "catboost", "sklearn forest", "sklearn boosting in double"),
    *("sklearn scaled boosting", "sklearn logistic", "sklearn logistic in double", "sklearn network"),
]


@pytest.mark.parametrize("name", FIRST_OF_TWO)
def test_the_first_of_two_classes_is_scored_and_explained_as_the_second_is(name: str) -> None:
    case = CASES[name]()
    report = check_model(case.content, expected=Expected(case.rows, 1 - case.scores), target="0")
    assert not report.failures, report.failures
    assert report.facts is not None
    assert report.facts.output_space == case.output_space
    (first, _), (second, _) = (explained(onnx.load_model_from_string(case.content), case.rows[:9], t) for t in "01")
    assert (first.method, first.preparation) == (second.method, case.preparation) == (case.method, case.preparation)
    ours, theirs = (chosen.explainer.explain(case.rows[:5]) for chosen in (first, second))
    np.testing.assert_allclose(ours.attributions, -theirs.attributions, atol=1e-6)
    assert ours.base_value == pytest.approx((case.output_space == "probability") - theirs.base_value, abs=1e-6)


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.25, 0.75], [0.0, 0.0]], ids=["both signs", "positive", "nothing"])
def test_one_score_stands_for_both_classes_whatever_its_signs(weights: list[float]) -> None:
    model = tree_classifier(class_weights=weights)
    for target, sign in (("0", -1), ("1", 1)):
        report = check_model(model.SerializeToString(), target=target)
        assert not report.failures
        np.testing.assert_allclose(explained(model, target=target)[1].margin(ROWS)[[0, 3]], np.multiply(sign, weights))


def test_a_class_that_has_no_score_is_refused_with_advice() -> None:
    model = tree_classifier(class_ids=[1, 1])
    assert not check_model(model.SerializeToString(), target="1").failures
    report = check_model(model.SerializeToString(), target="0")
    assert "ONNX Runtime has no score of '0': score '1'" in report.failures[0].detail


def test_a_file_in_the_served_form_scores_no_other_target_than_its_own() -> None:
    served = normalise(tree_classifier(), target="1")
    assert normalise(served, target="1") is normalise(served) is served
    for model in (served, read_graph(export_trees(stump()))):
        report = check_model(model.SerializeToString(), target="0")
        assert "served form already, and not made for the target '0'" in report.failures[0].detail


def test_a_bundle_of_the_first_class_loads_and_explains_it(tmp_path: Path) -> None:
    case, told = CASES["xgboost"](), spec(target="0")
    done = import_model(case.content, told, features_of(case.content, told), case.rows)
    store = ModelStore(tmp_path)
    bundle = store.load("imported", store.publish(done.draft))
    assert (bundle.manifest.graph.target, bundle.manifest.explanation.method) == (0, TREES)
    scores, explanation = bundle.score(case.rows[:9]), bundle.explain(case.rows[:9])
    np.testing.assert_allclose(scores.score, 1 - case.scores[:9], atol=1e-6)
    np.testing.assert_allclose(explanation.base_value + explanation.attributions.sum(axis=1), scores.margin, atol=1e-5)
