"""What a graph computes, what is read back from it, and what LightGBM computes, are one thing."""

from __future__ import annotations

import lightgbm
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models import ExportMismatchError, InputError, Scorer, TrainingError, UnsupportedModelError
from models._operators import GT, GTE, LT
from models.admission import read_graph
from models.export import EXPORT_TOLERANCE, export_lightgbm, export_trees, probe_rows, verify_export
from models.trees import Ensemble, TreeBuilder, read_trees
from tests.models.builders import Floats, ensembles, margins, matrices, stump


@given(ensembles(), matrices(rows=8))
@settings(max_examples=60, deadline=None)
def test_the_graph_computes_what_the_trees_say(ensemble: Ensemble, matrix: Floats) -> None:
    scores = Scorer(export_trees(ensemble)).score(matrix)
    np.testing.assert_allclose(scores.margin, margins(ensemble, matrix), rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.score, 1 / (1 + np.exp(-scores.margin)), rtol=0, atol=1e-12)


@given(ensembles(), matrices(rows=8))
@settings(max_examples=60, deadline=None)
def test_trees_read_back_from_a_graph_are_those_written(ensemble: Ensemble, matrix: Floats) -> None:
    back = read_trees(read_graph(export_trees(ensemble)))
    assert back.feature_count == ensemble.feature_count
    np.testing.assert_array_equal(margins(back, matrix), margins(ensemble, matrix))


def test_a_single_leaf_beside_a_deep_tree_keeps_its_own_value() -> None:
    constant = TreeBuilder()
    constant.set_leaf(constant.reserve(), 7.0)
    deep = stump()
    ensemble = Ensemble(2, (*deep.trees, constant.build(), *deep.trees))
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(Scorer(export_trees(ensemble)).score(rows).margin, [5.0, 11.0, 5.0])


@pytest.mark.parametrize("mode", [LT, GTE, GT])
@pytest.mark.parametrize("missing_to_true", [0, 1])
def test_other_comparisons_are_read_as_the_runtime_computes_them(mode: int, missing_to_true: int) -> None:
    model = onnx.load_model_from_string(export_trees(stump()))
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "nodes_modes":
            attribute.t.CopyFrom(helper.make_tensor("nodes_modes", TensorProto.UINT8, [1], [mode]))
        if attribute.name == "nodes_missing_value_tracks_true":
            attribute.ints[:] = [missing_to_true]
    rows = np.array([[v, 0.0] for v in (0.5, np.nextafter(0.5, 1), np.nextafter(0.5, 0), np.nan, np.inf, -np.inf)])
    scores = Scorer(model.SerializeToString()).score(rows)
    np.testing.assert_array_equal(margins(read_trees(model), rows), scores.margin)


LIGHTGBM = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 3, "min_data_in_bin": 1}


def noisy(seed: int, rows: int = 300) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 4))
    matrix[:, 1] = rng.integers(-2, 3, rows)
    matrix[:, 2] = 1.7e9 + rng.integers(0, 1_000, rows)
    matrix[rng.random((rows, 4)) < rng.choice([0.0, 0.3])] = np.nan
    labels = (np.isnan(matrix[:, 0]) ^ (np.nan_to_num(matrix[:, 1]) > 0) ^ (rng.random(rows) < 0.2)).astype(float)
    return matrix, labels


@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.sampled_from([1.0, 0.5]))
@settings(max_examples=30, deadline=None)
def test_an_export_equals_lightgbm_at_every_threshold_and_with_holes(
    seed: int, use_missing: bool, zero_as_missing: bool, sigmoid: float
) -> None:
    matrix, labels = noisy(seed)
    options = {"use_missing": use_missing, "zero_as_missing": zero_as_missing, "sigmoid": sigmoid, "max_depth": 4}
    booster = lightgbm.train(LIGHTGBM | options, lightgbm.Dataset(matrix, labels), 5)
    gap = verify_export(lambda rows: sigmoid * booster.predict(rows, raw_score=True), export_lightgbm(booster), matrix)
    assert gap < 1e-12


def test_a_split_of_missing_against_present_sends_infinity_with_the_present() -> None:
    rng = np.random.default_rng(0)
    matrix = np.where(rng.random((500, 1)) < 0.5, np.nan, rng.normal(size=(500, 1)))
    booster = lightgbm.train(LIGHTGBM | {"num_leaves": 2}, lightgbm.Dataset(matrix, np.isnan(matrix[:, 0])), 1)
    rows = np.array([[1e301], [np.inf], [np.nan]])
    exported = Scorer(export_lightgbm(booster)).score(rows).margin
    np.testing.assert_allclose(exported, booster.predict(rows, raw_score=True), rtol=0, atol=1e-12)
    assert exported[1] != exported[2]


def test_a_booster_that_found_no_split_exports_its_constant() -> None:
    matrix, labels = noisy(3)
    booster = lightgbm.train(LIGHTGBM | {"min_data_in_leaf": 1000}, lightgbm.Dataset(matrix, labels), 3)
    assert verify_export(lambda rows: booster.predict(rows, raw_score=True), export_lightgbm(booster), matrix) < 1e-12


def test_the_same_booster_gives_the_same_bytes() -> None:
    matrix, labels = noisy(4)
    booster = lightgbm.train(LIGHTGBM, lightgbm.Dataset(matrix, labels), 5)
    assert export_lightgbm(booster) == export_lightgbm(booster)


def test_a_graph_that_differs_in_one_leaf_is_refused() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ExportMismatchError, match="do not publish"):
        verify_export(lambda probes: margins(stump(), probes), export_trees(stump(high=2.0 + 1e-5)), rows)


def test_a_graph_that_differs_only_at_the_threshold_is_refused() -> None:
    def strict(rows: Floats) -> Floats:
        return np.where(rows[:, 0] >= 0.5, 2.0, -1.0)

    with pytest.raises(ExportMismatchError):
        verify_export(strict, export_trees(stump()), np.array([[0.0, 0.0], [1.0, 0.0]]))


def test_a_graph_that_differs_only_for_missing_values_is_refused() -> None:
    def other_default(rows: Floats) -> Floats:
        return np.where(rows[:, 0] <= 0.5, -1.0, 2.0)

    with pytest.raises(ExportMismatchError):
        verify_export(other_default, export_trees(stump()), np.array([[0.0, 0.0], [1.0, 0.0]]))


def test_a_native_model_that_answers_nan_is_refused() -> None:
    with pytest.raises(ExportMismatchError):
        verify_export(lambda rows: np.full(len(rows), np.nan), export_trees(stump()), np.zeros((1, 2)))


def test_probes_hold_every_threshold_and_both_neighbours() -> None:
    probes = probe_rows(stump(), np.zeros((1, 2)), seed=0)
    assert {0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1)} <= set(probes[:, 0])
    assert EXPORT_TOLERANCE == 1e-6


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"objective": "regression"}, "objective='binary'"),
        ({"linear_tree": True}, "linear_tree=False"),
    ],
)
def test_models_without_an_exact_graph_are_refused_with_advice(options: dict[str, object], advice: str) -> None:
    matrix, labels = noisy(5)
    matrix = np.abs(np.nan_to_num(matrix))
    booster = lightgbm.train(LIGHTGBM | options, lightgbm.Dataset(matrix, labels), 8)
    with pytest.raises(UnsupportedModelError, match=advice):
        export_lightgbm(booster)


def test_an_ensemble_without_trees_is_refused() -> None:
    with pytest.raises(TrainingError, match="no trees"):
        export_trees(Ensemble(2, ()))


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no ONNX graph"):
        read_graph(b"\xff\xff not a graph")


def test_a_graph_with_data_in_other_files_is_refused() -> None:
    model = onnx.load_model_from_string(export_trees(stump()))
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.DOUBLE, [1], [1.0]))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(UnsupportedModelError, match="other files"):
        read_graph(model.SerializeToString())


def attribute_of(model: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    return next(a for a in model.graph.node[0].attribute if a.name == name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("nodes_falsenodeids", [5]),
        ("nodes_featureids", [2]),
        ("tree_roots", [3]),
        ("n_targets", 2),
        ("aggregate_function", 3),
    ],
)
def test_trees_with_parts_that_do_not_fit_are_refused(name: str, values: list[int] | int) -> None:
    model = onnx.load_model_from_string(export_trees(stump()))
    attribute_of(model, name).CopyFrom(helper.make_attribute(name, values))
    with pytest.raises(UnsupportedModelError):
        read_trees(model)


def test_nodes_that_form_a_loop_are_refused() -> None:
    model = onnx.load_model_from_string(export_trees(stump()))
    attribute_of(model, "nodes_truenodeids").ints[:] = [0]
    attribute_of(model, "nodes_trueleafs").ints[:] = [0]
    with pytest.raises(UnsupportedModelError, match="must be trees"):
        read_trees(model)


def test_a_membership_test_without_its_set_is_refused() -> None:
    model = onnx.load_model_from_string(export_trees(stump()))
    attribute_of(model, "nodes_modes").t.CopyFrom(helper.make_tensor("nodes_modes", TensorProto.UINT8, [1], [6]))
    with pytest.raises(UnsupportedModelError, match="a set that is not there"):
        read_trees(model)


def test_a_margin_that_is_no_tree_ensemble_is_refused() -> None:
    model = onnx.load_model_from_string(export_trees(stump()))
    model.graph.node[0].op_type = "Scaler"
    with pytest.raises(UnsupportedModelError, match="TreeEnsemble"):
        read_trees(model)


def test_a_graph_without_a_margin_is_not_served() -> None:
    model = onnx.load_model_from_string(export_trees(stump()))
    del model.graph.output[0]
    with pytest.raises(UnsupportedModelError, match="margin"):
        Scorer(model.SerializeToString())


def test_a_graph_that_the_runtime_rejects_is_not_served() -> None:
    with pytest.raises(UnsupportedModelError, match="does not load"):
        Scorer(b"nothing")


def test_no_rows_give_no_scores() -> None:
    scores = Scorer(export_trees(stump())).score(np.empty((0, 2)))
    assert scores.margin.shape == scores.score.shape == (0,)


@pytest.mark.parametrize("matrix", [np.zeros(2), np.zeros((1, 3)), np.zeros((1, 1, 2))])
def test_rows_of_another_shape_are_refused(matrix: Floats) -> None:
    with pytest.raises(InputError, match="reads 2 features"):
        Scorer(export_trees(stump())).score(matrix)


def test_a_row_scores_the_same_alone_and_in_company() -> None:
    scorer = Scorer(export_trees(Ensemble(2, stump().trees * 200)))
    rows = np.array([[0.0, 0.0], [1.0, 1.0], [np.nan, 3.0]] * 100)
    alone = np.concatenate([scorer.score(row[None]).margin for row in rows])
    np.testing.assert_array_equal(scorer.score(rows).margin, alone)
