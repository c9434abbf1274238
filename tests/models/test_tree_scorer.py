"""Our own loop over trees gives what ONNX Runtime gives, and serves only where that is proven."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from models import ModelStore, Scorer, Scores
from models.admission import read_graph
from models.calibration import NO_CALIBRATION, Calibration, Platt, Steps
from models.export import export_trees
from models.graph import facts_of, normalise
from models.tree_scorer import TreeScorer, fastest_scorer, serving_scorer
from models.trees import Ensemble
from tests.models.builders import (
    Floats,
    draft,
    ensembles,
    graph_of,
    grown,
    matrices,
    stump,
    tree_classifier,
    with_holes,
)

ROWS = np.array([[a, b] for a in (0.0, 1.0, np.nan) for b in (-2.0, 0.1, 2.0)])


def fastest(content: bytes, rows: Floats) -> tuple[Scorer | TreeScorer, Scorer]:
    """What serves a graph, and ONNX Runtime."""
    return serving_scorer(content, rows), Scorer(content)


def assert_same(found: Scores, wanted: Scores) -> None:
    np.testing.assert_array_equal(found.margin, wanted.margin)
    np.testing.assert_allclose(found.score, wanted.score, rtol=0, atol=1e-12)


calibrations: st.SearchStrategy[Calibration] = st.one_of(
    st.just(NO_CALIBRATION),
    st.builds(Platt, st.floats(0.1, 3), st.floats(-3, 3)),
    st.lists(st.floats(-3, 3), min_size=1, max_size=9, unique=True).map(
        lambda ends: Steps(tuple(sorted(ends)), tuple(np.linspace(0.1, 0.9, len(ends) + 1).tolist()))
    ),
)


@given(ensembles(), matrices(rows=6), calibrations)
@settings(max_examples=60, deadline=None)
def test_our_margins_are_those_of_onnx_runtime_bit_for_bit(
    ensemble: Ensemble, matrix: Floats, calibration: Calibration
) -> None:
    ours, runtime = fastest(export_trees(ensemble, calibration), matrix)
    assert isinstance(ours, TreeScorer)
    assert_same(ours.score(matrix), runtime.score(matrix))


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 300])
def test_a_row_gives_the_same_bytes_alone_and_in_a_batch(rows: int) -> None:
    matrix = with_holes(np.random.default_rng(rows), rows)
    ours, runtime = fastest(export_trees(grown(7)), matrix)
    assert isinstance(ours, TreeScorer)
    together = ours.score(matrix)
    assert_same(together, runtime.score(matrix))
    alone = [ours.score(row[None]) for row in matrix]
    assert together.margin.tobytes() == b"".join(one.margin.tobytes() for one in alone)
    assert together.score.tobytes() == b"".join(one.score.tobytes() for one in alone)


@given(st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4), st.floats(-1, 1, width=32), matrices(6, 2))
@settings(max_examples=40, deadline=None)
def test_a_float32_graph_rounds_its_rows_and_every_sum(weights: list[float], base: float, matrix: Floats) -> None:
    model = graph_of(
        helper.make_node(
            "TreeEnsembleRegressor",
            ["x"],
            ["y"],
            domain="ai.onnx.ml",
            nodes_treeids=[0, 0, 0, 1, 1, 1],
            nodes_nodeids=[0, 1, 2] * 2,
            nodes_featureids=[0, 0, 0, 1, 1, 1],
            nodes_values=[0.1, 0.0, 0.0, -1.0, 0.0, 0.0],
            nodes_modes=["BRANCH_LT", "LEAF", "LEAF", "BRANCH_GTE", "LEAF", "LEAF"],
            nodes_truenodeids=[1, 0, 0] * 2,
            nodes_falsenodeids=[2, 0, 0] * 2,
            target_treeids=[0, 0, 1, 1],
            target_nodeids=[1, 2] * 2,
            target_ids=[0] * 4,
            target_weights=weights,
            n_targets=1,
            base_values=[base],
        )
    )
    beside = np.array([[0.1, 0.0], [np.float32(0.1), 0.0], [1e300, -1e300]])
    rows = np.concatenate([matrix, beside])
    ours, runtime = fastest(normalise(model).SerializeToString(), rows)
    assert isinstance(ours, TreeScorer)
    assert_same(ours.score(rows), runtime.score(rows))


def averaging() -> onnx.ModelProto:
    """Three trees whose mean is rounded once, and not as a sum of thirds is."""
    model = onnx.load_from_string(export_trees(grown(3, trees=3)))
    for given_attribute in model.graph.node[0].attribute:
        if given_attribute.name == "aggregate_function":
            given_attribute.i = 0
    return model


def behind_preparation() -> onnx.ModelProto:
    model = onnx.load_from_string(export_trees(stump()))
    model.graph.node[0].input[0] = "scaled"
    model.graph.node.insert(0, helper.make_node("Neg", ["features"], ["scaled"]))
    return model


def with_another_link() -> onnx.ModelProto:
    model = onnx.load_from_string(export_trees(stump()))
    del model.graph.node[1]
    model.graph.node.extend([helper.make_node("Tanh", ["margin"], ["t"]), helper.make_node("Abs", ["t"], ["score"])])
    return model


@pytest.mark.parametrize("build", [averaging, behind_preparation, with_another_link])
def test_what_is_no_plain_sum_of_trees_is_left_to_onnx_runtime(build) -> None:
    content = build().SerializeToString()
    width = facts_of(read_graph(content)).width
    ours, _ = fastest(content, np.random.default_rng(1).normal(size=(50, width)))
    assert isinstance(ours, Scorer)


def test_the_first_of_two_classes_is_left_to_onnx_runtime() -> None:
    content = normalise(tree_classifier(), target="0").SerializeToString()
    ours, _ = fastest(content, ROWS)
    assert isinstance(ours, Scorer)


class OneBitOff(Scorer):
    """An ONNX Runtime that adds up otherwise than ours, in one row of many."""

    def score(self, matrix: Floats) -> Scores:
        scores = super().score(matrix)
        margin = scores.margin.copy()
        margin[-1] = np.nextafter(margin[-1], np.inf)
        return Scores(margin, scores.score)


def test_a_single_bit_of_difference_leaves_the_graph_to_onnx_runtime() -> None:
    content = export_trees(stump())
    graph, runtime = read_graph(content), OneBitOff(content)
    assert fastest_scorer(graph, facts_of(graph), runtime, ROWS) is runtime


def test_without_rows_to_compare_there_is_no_proof(tmp_path) -> None:
    """A path-dependent explanation needs no background, so a bundle may have none."""
    unproven = replace(
        draft(), onnx=export_trees(grown(1, feature_count=2, trees=3)), path_dependent=True, background=np.empty((0, 2))
    )
    store = ModelStore(tmp_path)
    bundle = store.load("ad_click_risk", store.publish(unproven))
    assert_same(bundle.score(ROWS), Scorer(unproven.onnx).score(ROWS))
    assert isinstance(serving_scorer(unproven.onnx, unproven.background), Scorer)


def test_no_rows_have_no_scores() -> None:
    ours, _ = fastest(export_trees(stump()), ROWS)
    assert isinstance(ours, TreeScorer)
    scores = ours.score(np.empty((0, 2)))
    assert scores.margin.shape == scores.score.shape == (0,)


def test_margins_far_out_have_scores_of_0_and_1_without_a_warning() -> None:
    ours, _ = fastest(export_trees(stump(low=-1e4, high=1e4)), ROWS)
    assert isinstance(ours, TreeScorer)
    np.testing.assert_array_equal(ours.score(np.array([[0.0, 0.0], [1.0, 0.0]])).score, [0.0, 1.0])


def test_a_bundle_of_trees_scores_as_its_graph_does(tmp_path) -> None:
    store = ModelStore(tmp_path)
    version = store.publish(draft())
    bundle, runtime = store.load("ad_click_risk", version), Scorer(draft().onnx)
    assert_same(bundle.score(ROWS), runtime.score(ROWS))
