"""Training is honest about time, reproducible, and ends in a bundle that can be served."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from models import ExportMismatchError, ModelStore, TrainingError
from models.export import export_trees
from models.metrics import NEVER, operating_point, threshold_for_precision
from models.train import TrainedModel, TrainSettings, publish_trained, train
from models.training_set import TrainingSet, split_by_time
from tests.models.builders import stump, training_set

SETTINGS = TrainSettings(trees=20, leaf_rows_min=20, threads=1)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return train(training_set(), settings=SETTINGS)


def test_the_same_rows_and_seed_give_the_same_bytes_and_version(trained: TrainedModel, tmp_path: Path) -> None:
    again = train(training_set(), settings=SETTINGS)
    assert again.onnx == trained.onnx
    versions = {
        publish_trained(ModelStore(tmp_path / name), model, model_name="m", service="s", service_fingerprint="f")
        for name, model in (("a", trained), ("b", again))
    }
    assert len(versions) == 1


def test_another_seed_gives_another_model(trained: TrainedModel) -> None:
    assert train(training_set(), settings=msgspec.structs.replace(SETTINGS, seed=8)).onnx != trained.onnx


def test_the_three_spans_follow_each_other_in_time() -> None:
    rows = training_set()
    spans = split_by_time(rows, tune_share=0.1, test_share=0.2)
    fit, tune, test = (rows.times_ms[part] for part in (spans.fit, spans.tune, spans.test))
    assert fit.max() < spans.data.tune_ms <= tune.min() <= tune.max() < spans.data.test_ms <= test.min()
    assert len(fit) + len(tune) + len(test) == len(rows.labels)
    assert len(test) == pytest.approx(0.2 * len(rows.labels), rel=0.01)


def test_labels_of_the_test_span_do_not_reach_the_model(trained: TrainedModel) -> None:
    rows = training_set()
    spans = split_by_time(rows, tune_share=0.1, test_share=0.2)
    labels = rows.labels.copy()
    labels[spans.test] = 1 - labels[spans.test]
    flipped = train(dataclasses.replace(rows, labels=labels), settings=SETTINGS)
    assert (flipped.onnx, flipped.thresholds) == (trained.onnx, trained.thresholds)
    assert flipped.metrics.roc_auc == pytest.approx(1 - trained.metrics.roc_auc)


def test_metrics_describe_the_test_span(trained: TrainedModel) -> None:
    rows = training_set()
    spans = split_by_time(rows, tune_share=0.1, test_share=0.2)
    metrics = trained.metrics
    assert (metrics.rows, metrics.positives) == (int(spans.test.sum()), int(rows.labels[spans.test].sum()))
    assert 0.8 < metrics.roc_auc < 1.0
    assert metrics.base_rate < metrics.pr_auc < 1.0
    assert 0 < metrics.log_loss < 0.6
    assert metrics.review.recall >= metrics.block.recall


def test_a_published_model_keeps_everything_that_training_knew(trained: TrainedModel, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = publish_trained(store, trained, model_name="abuse", service="s", service_fingerprint="f")
    bundle = store.load("abuse", version)
    manifest = bundle.manifest
    assert (manifest.training, manifest.metrics, manifest.label) == (trained.training, trained.metrics, "abuse")
    assert (manifest.service.name, manifest.service.fingerprint) == ("s", "f")
    assert manifest.settings["trees"] == 20
    assert set(manifest.libraries) == {"lightgbm", "numpy", "onnx", "onnxruntime", "scikit-learn"}
    rows = training_set().matrix[:50]
    native = trained.fitted.margin(rows)
    np.testing.assert_allclose(bundle.score(bundle.vector(rows)).margin, native, rtol=0, atol=1e-12)


def test_explanations_of_a_trained_model_add_up(trained: TrainedModel, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = publish_trained(store, trained, model_name="abuse", service="s", service_fingerprint="f")
    bundle = store.load("abuse", version)
    rows = bundle.vector(training_set(seed=9).matrix[:200])
    explanation = bundle.explain(rows)
    total = explanation.base_value + explanation.attributions.sum(axis=1)
    np.testing.assert_allclose(total, bundle.score(rows).margin, rtol=1e-9, atol=1e-12)


def test_a_graph_that_is_not_the_fitted_model_is_not_published(trained: TrainedModel, tmp_path: Path) -> None:
    forged = dataclasses.replace(trained, onnx=export_trees(stump(5)))
    with pytest.raises(ExportMismatchError):
        publish_trained(ModelStore(tmp_path), forged, model_name="m", service="s", service_fingerprint="f")
    assert ModelStore(tmp_path).models() == []


def test_replacements_of_missing_values_are_trained_on_and_published(tmp_path: Path) -> None:
    rows = dataclasses.replace(training_set(), missing=(0.0, None, -1.0, None, None))
    store = ModelStore(tmp_path)
    model = train(rows, settings=SETTINGS)
    version = publish_trained(store, model, model_name="m", service="s", service_fingerprint="f")
    bundle = store.load("m", version)
    np.testing.assert_array_equal(bundle.vector(rows.matrix), rows.filled())
    assert not np.isnan(model.background[:, [0, 2]]).any()


def test_progress_counts_every_tree() -> None:
    seen: list[tuple[int, int]] = []
    train(training_set(), settings=SETTINGS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 20) for i in range(20)]


def test_a_span_with_one_class_is_refused_with_its_bounds() -> None:
    rows = training_set()
    labels = np.where(rows.times_ms > rows.times_ms.max() * 0.75, 0, rows.labels).astype(np.int8)
    with pytest.raises(TrainingError, match=r"test span has .* 0 of them positive"):
        train(dataclasses.replace(rows, labels=labels), settings=SETTINGS)


def test_rows_of_one_instant_are_refused() -> None:
    rows = training_set()
    with pytest.raises(TrainingError, match="longer time range"):
        train(dataclasses.replace(rows, times_ms=np.zeros_like(rows.times_ms)), settings=SETTINGS)


def test_no_rows_are_refused() -> None:
    empty = TrainingSet(("a:b",), np.empty((0, 1)), np.empty(0, np.int8), np.empty(0, np.int64))
    with pytest.raises(TrainingError, match="no rows"):
        train(empty, settings=SETTINGS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"refs": ("one",)}, "do not fit"),
        ({"labels": np.full(3000, 2, np.int8)}, "0 or 1"),
        ({"missing": (0.0,)}, "or none"),
        ({"times_ms": np.zeros(3, np.int64)}, "do not fit"),
    ],
)
def test_training_sets_that_do_not_fit_together_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        dataclasses.replace(training_set(), **changes)


@pytest.mark.parametrize("changes", [{"test_share": 0.0}, {"test_share": 0.95}, {"block_precision": 0.1}, {"trees": 0}])
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        TrainSettings(**changes)


SCORED = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9])), min_size=1, max_size=40)


@given(SCORED, st.floats(0.05, 1.0))
def test_the_threshold_is_the_lowest_that_keeps_the_precision(rows: list[tuple[int, float]], target: float) -> None:
    labels, scores = np.array([r[0] for r in rows], np.int8), np.array([r[1] for r in rows])
    assume(labels.any())
    precision, _, thresholds = precision_recall_curve(labels, scores)
    good = thresholds[precision[:-1] >= target - 1e-12]
    assert threshold_for_precision(labels, scores, target, 1) == (good.min() if good.size else NEVER)


def test_a_precision_on_too_few_rows_is_no_promise() -> None:
    labels, scores = np.array([1, 0, 0, 0], np.int8), np.array([0.9, 0.8, 0.7, 0.6])
    assert threshold_for_precision(labels, scores, 1.0, 1) == 0.9
    assert threshold_for_precision(labels, scores, 1.0, 2) == NEVER


def test_flagging_nothing_has_no_precision() -> None:
    point = operating_point(np.array([1, 0], np.int8), np.array([0.1, 0.2]), 0.5)
    assert (point.flagged, point.precision, point.recall) == (0, None, 0.0)


def test_serving_imports_neither_lightgbm_nor_sklearn_nor_shap() -> None:
    check = "import models, sys; sys.exit(any(m in sys.modules for m in ('lightgbm', 'sklearn', 'shap')))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
