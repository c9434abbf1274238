"""A calibrated score means what it says, keeps the order, and is what the graph computes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from models import ModelStore, Scorer, TrainingError
from models.calibration import NO_CALIBRATION, Platt, Steps, fit_calibration
from models.export import export_trees
from models.train import TrainSettings, publish_trained, train
from tests.models.builders import Floats, ensembles, margins, matrices, training_set


def drawn(seed: int, slope: float = 0.5, intercept: float = -1.0) -> tuple[Floats, np.ndarray]:
    """Margins that overstate: the truth is logistic(slope · margin + intercept)."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(scale=3.0, size=20_000)
    truth = 1 / (1 + np.exp(-slope * margin - intercept))
    return margin, (rng.random(margin.size) < truth).astype(np.int8)


def test_platt_finds_slope_and_intercept_again() -> None:
    found = fit_calibration("platt", *drawn(1))
    assert isinstance(found, Platt)
    assert (found.slope, found.intercept) == pytest.approx((0.5, -1.0), abs=0.05)


def test_isotonic_pools_as_scikit_learn_does_and_never_says_0_or_1() -> None:
    margin, labels = drawn(2)
    found = fit_calibration("isotonic", margin, labels)
    assert isinstance(found, Steps)
    bound = 1 / (labels.size + 2)
    expected = IsotonicRegression(y_min=bound, y_max=1 - bound).fit(margin, labels).predict(margin)
    np.testing.assert_allclose(found.apply(margin)[1], expected, rtol=0, atol=1e-9)
    assert 0 < found.scores[0] < found.scores[-1] < 1


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_calibrated_scores_agree_with_the_rate_and_keep_the_order(kind: str) -> None:
    calibration = fit_calibration(kind, *drawn(3))
    margin, labels = drawn(4)
    _, score = calibration.apply(margin)
    assert score.mean() == pytest.approx(labels.mean(), abs=0.01)
    assert np.all(np.diff(score[np.argsort(margin)]) >= 0)


@given(
    ensembles(),
    matrices(rows=6),
    st.lists(st.floats(-3, 3), min_size=0, max_size=40, unique=True).map(sorted),
)
@settings(max_examples=40, deadline=None)
def test_the_graph_computes_the_steps_exactly_and_leaves_the_margin(
    ensemble, matrix: Floats, ends: list[float]
) -> None:
    steps = Steps(tuple(ends), tuple(np.linspace(0.01, 0.99, len(ends) + 1).tolist()))
    found = Scorer(export_trees(ensemble, steps)).score(matrix)
    np.testing.assert_allclose(found.margin, margins(ensemble, matrix), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.score, steps.apply(found.margin)[1])


@given(ensembles(), matrices(rows=6), st.floats(0.1, 3), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_the_graph_computes_platts_margin(ensemble, matrix: Floats, slope: float, intercept: float) -> None:
    platt = Platt(slope, intercept)
    found = Scorer(export_trees(ensemble, platt)).score(matrix)
    margin, score = platt.apply(margins(ensemble, matrix))
    np.testing.assert_allclose(found.margin, margin, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.score, score, rtol=0, atol=1e-12)


def test_a_step_belongs_to_its_end() -> None:
    steps = Steps((0.0, 1.0), (0.1, 0.5, 0.9))
    _, score = steps.apply(np.array([-5.0, 0.0, np.nextafter(0.0, 1), 1.0, np.nextafter(1.0, 2)]))
    assert score.tolist() == [0.1, 0.1, 0.5, 0.5, 0.9]


@pytest.mark.parametrize(("kind", "space"), [("none", "log_odds"), ("platt", "log_odds"), ("isotonic", "raw_margin")])
def test_a_published_model_is_calibrated_and_explains_its_margin_in_full(kind: str, space: str, tmp_path: Path) -> None:
    rows = training_set()
    chosen = TrainSettings(trees=20, leaf_rows_min=20, threads=1, positive_weight="balanced", calibration=kind)
    model = train(rows, settings=chosen)
    store = ModelStore(tmp_path)
    bundle = store.load("m", publish_trained(store, model, model_name="m", service="s", service_fingerprint="f"))
    explanation, scores = bundle.explain(rows.matrix[:100]), bundle.score(rows.matrix[:100])
    np.testing.assert_allclose(explanation.base_value + explanation.attributions.sum(axis=1), scores.margin, atol=1e-9)
    assert explanation.output_space == bundle.manifest.explanation.output_space == space
    assert bundle.manifest.settings["calibration"] == kind
    gap = abs(model.metrics.mean_score - model.metrics.base_rate)
    assert gap > 0.05 if kind == "none" else gap < 0.05
    assert ("not a probability" in bundle.manifest.calibration) == (kind == "none")


def test_calibration_does_not_change_how_platt_ranks() -> None:
    chosen = TrainSettings(trees=20, leaf_rows_min=20, threads=1)
    plain, calibrated = (
        train(training_set(), settings=msgspec.structs.replace(chosen, calibration=kind)) for kind in ("none", "platt")
    )
    assert calibrated.metrics.roc_auc == pytest.approx(plain.metrics.roc_auc, abs=1e-12)
    assert calibrated.metrics.review.flagged == plain.metrics.review.flagged


def test_too_few_rows_and_margins_that_mean_nothing_are_refused() -> None:
    margin, labels = drawn(5)
    with pytest.raises(TrainingError, match="raise tune_share"):
        fit_calibration("isotonic", margin[:50], labels[:50])
    with pytest.raises(TrainingError, match="learned"):
        fit_calibration("platt", -margin, labels)
    assert fit_calibration("none", margin[:1], labels[:1]) is NO_CALIBRATION
