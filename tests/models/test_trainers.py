"""Both libraries, through one protocol: what they compute, the graph computes, at every edge."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys

import lightgbm
import msgspec
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from models import ExportMismatchError, Scorer, TrainingError, UnsupportedModelError
from models.admission import read_graph
from models.explain import trees_behind
from models.export import export_trees, probe_rows, verify_export
from models.lightgbm_text import read_lightgbm
from models.train import TrainedModel, TrainSettings, train
from models.trainers import load_trainer
from models.training_set import TrainingSet
from models.trees import LEAF, Ensemble, Tree
from models.xgboost_json import at_most, read_xgboost
from tests.models.builders import Floats, training_set

TRAINERS = ("lightgbm", "xgboost")
CODES = "view:feature_4"


def mixed(rows: int = 1_500) -> TrainingSet:
    """With large numbers, holes, and a feature of 45 categories, in five of which the label is turned around."""
    drawn = training_set(rows)
    rng = np.random.default_rng(5)
    matrix, labels = drawn.matrix.copy(), drawn.labels.copy()
    matrix[:, 3] = 1.7e9 + np.round(np.nan_to_num(matrix[:, 3]) * 1_000, 2)
    matrix[:, 4] = rng.integers(0, 45, rows)
    labels[np.isin(matrix[:, 4], [0, 2, 3, 31, 40])] ^= 1
    matrix[rng.random(rows) < 0.1, 4] = np.nan
    return dataclasses.replace(drawn, matrix=matrix, labels=labels)


def settings_of(trainer: str, **changes: object) -> TrainSettings:
    base = TrainSettings(trainer=trainer, trees=12, leaf_rows_min=5, threads=1, categorical=(CODES,))
    return msgspec.structs.replace(base, **changes)


@pytest.fixture(scope="module", params=TRAINERS)
def trained(request: pytest.FixtureRequest) -> TrainedModel:
    return train(mixed(), settings=settings_of(request.param))


def test_a_model_with_categories_is_exported_exactly_and_learns_from_them(trained: TrainedModel) -> None:
    ensemble = trained.fitted.trees()
    assert any(tree.members for tree in ensemble.trees)
    assert trained.export_gap < 1e-6
    assert trained.metrics.roc_auc > 0.8


def test_margins_equal_the_librarys_own_at_edges_with_holes_and_for_unseen_categories(trained: TrainedModel) -> None:
    ensemble = trained.fitted.trees()
    probes = probe_rows(ensemble, mixed().matrix[:200], seed=3)
    codes = probes[:, 4]
    assert {-1.0, 2.0, 40.0} <= set(codes)  # no category, and two that are in sets
    assert np.any((codes > 1e6) & (codes < 1e7))  # never seen
    assert np.any(codes != np.trunc(codes))
    gaps = np.abs(Scorer(trained.onnx).score(probes).margin - trained.fitted.margin(probes))
    assert gaps.max() < 1e-9


def test_scores_equal_the_librarys_own_probabilities(trained: TrainedModel) -> None:
    rows = mixed().matrix
    np.testing.assert_allclose(Scorer(trained.onnx).score(rows).score, trained.fitted.score(rows), rtol=0, atol=1e-6)


def test_the_graph_carries_how_many_fitting_rows_came_by_each_node(trained: TrainedModel) -> None:
    rows = mixed()
    fit = rows.matrix[rows.times_ms < trained.training.tune_ms]
    back = trees_behind(read_graph(trained.onnx))
    assert back is not None
    assert back.has_covers
    for tree in back.trees[:3]:
        assert tree.cover is not None
        np.testing.assert_array_equal(tree.cover, counted(tree, fit))


def counted(tree: Tree, rows: Floats) -> Floats:
    """Every row walked down by itself."""
    counts = np.zeros(tree.feature.size)
    for row in rows:
        node = 0
        counts[node] += 1
        while tree.feature[node] != LEAF:
            x = row[tree.feature[node]]
            if np.isnan(x):
                left = bool(tree.missing_left[node])
            else:
                left = tree.members[node].holds(x) if node in tree.members else x <= tree.threshold[node]
            node = int(tree.left[node] if left else tree.right[node])
            counts[node] += 1
    return counts


def drawn_hash(trainer: str) -> str:
    """Of a graph into which everything goes that is drawn or fitted."""
    chosen = settings_of(trainer, calibration="platt", positive_weight="balanced", row_share=0.8)
    return hashlib.sha256(train(mixed(), settings=chosen).onnx).hexdigest()


def test_another_process_makes_the_same_bytes() -> None:
    program = (
        "from tests.models.test_trainers import TRAINERS, drawn_hash\n"
        "for trainer in TRAINERS: print(drawn_hash(trainer))"
    )
    made = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert made.stdout.split() == [drawn_hash(trainer) for trainer in TRAINERS]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_weighted_positives_raise_every_score(trainer: str) -> None:
    rows = training_set(1_500)
    scores = [
        Scorer(train(rows, settings=settings_of(trainer, categorical=(), positive_weight=weight)).onnx)
        .score(rows.matrix)
        .score.mean()
        for weight in (1.0, "balanced")
    ]
    assert scores[0] < 0.3 < scores[1]


@pytest.mark.parametrize("values", [[0.5], [-1.0], [2.0**24]])
def test_a_categorical_feature_without_codes_is_refused(values: list[float]) -> None:
    rows = mixed()
    rows.matrix[0, 4] = values[0]
    with pytest.raises(TrainingError, match="other values than codes"):
        train(rows, settings=settings_of("lightgbm"))


def test_an_unknown_categorical_feature_and_an_unknown_trainer_are_refused() -> None:
    with pytest.raises(TrainingError, match="no feature 'view:x'"):
        train(mixed(), settings=settings_of("lightgbm", categorical=("view:x",)))
    with pytest.raises(TrainingError, match="choose from lightgbm, xgboost"):
        load_trainer("catboost")


FLOATS32 = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1e-45, 3.4028234663852886e38, -3.4028234663852886e38, np.inf, 1.7e9]),
).filter(lambda value: value != -np.inf)


@given(FLOATS32)
def test_a_threshold_in_double_decides_as_float32_does(value: float) -> None:
    threshold = np.float32(value)
    end = at_most(threshold)
    near = [end, np.nextafter(end, np.inf), np.nextafter(end, -np.inf), float(threshold), np.inf, -np.inf]
    with np.errstate(over="ignore"):
        for x in near:
            assert (x <= end) == bool(np.float32(x) < threshold)


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([None, 0.01]))
@settings(max_examples=12, deadline=None)
def test_any_xgboost_model_equals_its_graph(seed: int, holes: bool, base: float | None) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(300, 3)) * 10.0 ** rng.integers(-40, 30, 3)
    matrix[:, 1] = 1.7e9 + rng.integers(0, 500, 300)
    matrix[rng.random(matrix.shape) < 0.3 * holes] = np.nan
    labels = (rng.random(300) < 0.2 + 0.5 * np.isnan(matrix[:, 0]) + 0.2 * (matrix[:, 1] > 1.7e9 + 250)).astype(np.int8)
    chosen = settings_of("xgboost", trees=5, categorical=(), leaf_rows_min=1, depth=4)
    fitted = load_trainer("xgboost").fit(matrix, labels, None, chosen, (), None)
    content = export_trees(fitted.trees())
    assert verify_export(fitted.margin, content, matrix, native_score=fitted.score) < 1e-6
    if base is not None:  # a base score that is given and not estimated
        options = {"objective": "binary:logistic", "base_score": base, "nthread": 1}
        booster = xgboost.train(options, xgboost.DMatrix(matrix, labels), 3)
        own = Scorer(export_trees(read_xgboost(bytes(booster.save_raw("json"))))).score(matrix).margin
        theirs = booster.predict(xgboost.DMatrix(matrix), output_margin=True)
        np.testing.assert_allclose(own, theirs, rtol=1e-6, atol=1e-6)


def test_small_sets_of_lightgbm_compare_by_the_integer_part_as_it_does() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 6, 400).astype(float)[:, None]
    options = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_per_group": 1, "cat_smooth": 1}
    data = lightgbm.Dataset(codes, np.isin(codes[:, 0], [0, 2]), categorical_feature=[0])
    booster = lightgbm.train(options, data, 2)
    rows = np.array([[v] for v in (-2.0, -1.0, -0.5, 0.0, 0.9, 1.0, 2.0, 2.99, 3.0, 31.0, 99.0, 1e300, np.nan, np.inf)])
    exported = Scorer(export_trees(read_lightgbm(booster.model_to_string()))).score(rows).margin
    np.testing.assert_allclose(exported, booster.predict(rows, raw_score=True), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "reg:squarederror"},
        {"objective": "binary:logistic", "booster": "dart"},
        {"objective": "multi:softprob", "num_class": 2},
    ],
)
def test_other_models_of_xgboost_are_refused(options: dict[str, object]) -> None:
    rows = training_set(300)
    booster = xgboost.train(options | {"nthread": 1}, xgboost.DMatrix(rows.matrix, rows.labels), 2)
    with pytest.raises(UnsupportedModelError, match="binary:logistic"):
        read_xgboost(bytes(booster.save_raw("json")))


def test_a_graph_with_one_category_too_few_is_refused(trained: TrainedModel) -> None:
    ensemble = trained.fitted.trees()
    place, tree = next((i, tree) for i, tree in enumerate(ensemble.trees) if tree.members)
    node, members = next(iter(tree.members.items()))
    fewer = dataclasses.replace(tree, members=dict(tree.members) | {node: dataclasses.replace(members, values=())})
    forged = dataclasses.replace(ensemble, trees=(*ensemble.trees[:place], fewer, *ensemble.trees[place + 1 :]))
    with pytest.raises(ExportMismatchError):
        verify_export(trained.fitted.margin, export_trees(forged), mixed().matrix)


def test_trees_that_round_their_input_are_not_exported_as_if_they_did_not(trained: TrainedModel) -> None:
    single: Ensemble = dataclasses.replace(trained.fitted.trees(), single_precision=True)
    with pytest.raises(UnsupportedModelError, match="float32"):
        export_trees(single)
