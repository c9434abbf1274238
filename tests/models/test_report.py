"""The report has every section, says what its JSON says, and its figures are those of plain arithmetic."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_auc_score

from models import Bundle, ModelStore, TrainingError
from models.report import HTML_FILE, JSON_FILE, Report, page, write_report
from models.report._statistics import roc_auc, share_of, stability_index
from models.train import TrainSettings, publish_trained, train
from models.training_set import TrainingSet
from tests.models.builders import training_set

SECTIONS = (
    *("summary", "spans", "ranking", "calibration", "thresholds", "explanations", "stability", "slices"),
    *("features", "provenance"),
)


def rows() -> TrainingSet:
    drawn = training_set()
    rng = np.random.default_rng(2)
    groups = {
        "os": rng.choice(["android", "<ios>", ""], len(drawn.labels)).astype(object),
        "advertiser_id": np.array([f"a{i}" for i in rng.integers(0, 3_000, len(drawn.labels))], object),
    }
    return dataclasses.replace(drawn, groups=groups, descriptions=("what <b>it</b> is",) * 5, share=0.5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    store = ModelStore(tmp_path_factory.mktemp("models"))
    model = train(rows(), settings=TrainSettings(trees=20, leaf_rows_min=20, threads=1))
    return store.load("m", publish_trained(store, model, model_name="m", service="s", service_fingerprint="f"))


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(bundle, rows(), tmp_path_factory.mktemp("report") / "m").parent


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return msgspec.json.decode((folder / JSON_FILE).read_bytes(), type=Report)


class _Ids(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]


def test_the_page_has_every_section_and_needs_nothing_else(folder: Path) -> None:
    text = (folder / HTML_FILE).read_text()
    parsed = _Ids(text)
    assert tuple(parsed.ids) == SECTIONS
    assert parsed.tags.count("svg") == 9
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", text)
    assert "nan" not in re.sub(r"<[^>]*>", " ", text).lower().split()


def test_the_page_is_made_of_the_numbers_in_the_json(folder: Path, report: Report) -> None:
    text = (folder / HTML_FILE).read_text()
    assert page(report) == text
    for shown in (
        f"{report.quality.roc_auc.value:.4f}",
        f"{report.quality.pr_auc:.4f}",
        f"{report.quality.calibration_error:.4f}",
        *(f"{part.mean_score:.4f}" for part in report.reliability),
        *(f"{row.threshold:.4f}" for row in report.thresholds),
        *(f"{part.mean_size:.4f}" for part in report.explanations.importances),
        *(f"{part.psi:.3f}" for part in report.stability if part.psi is not None),
        *(f"{part.mean_score:.4f}" for part in report.slices),
    ):
        assert f"{shown}" in text


def test_texts_of_the_data_stay_texts(folder: Path) -> None:
    text = (folder / HTML_FILE).read_text()
    assert "&lt;ios&gt;" in text
    assert "<b>it</b>" not in text


def test_equal_models_and_rows_give_equal_bytes(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    write_report(bundle, rows(), tmp_path)
    for name in (HTML_FILE, JSON_FILE):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_quality_and_spans_are_those_of_the_manifest(bundle: Bundle, report: Report) -> None:
    metrics = bundle.manifest.metrics
    assert metrics is not None
    assert report.quality.roc_auc.value == pytest.approx(metrics.roc_auc, abs=1e-12)
    assert (report.quality.pr_auc, report.quality.log_loss) == (metrics.pr_auc, metrics.log_loss)
    assert (report.quality.rows, report.quality.positives) == (metrics.rows, metrics.positives)
    assert [span.name for span in report.spans] == ["fit", "tune", "test"]
    assert sum(span.rows for span in report.spans) == len(rows().labels)


def test_confusions_are_counted_rows(bundle: Bundle, report: Report) -> None:
    data, training = rows(), bundle.manifest.training
    assert training is not None
    test = data.times_ms >= training.test_ms
    labels, scores = data.labels[test], bundle.score(bundle.vector(data.matrix[test])).score
    days = (training.end_ms - training.test_ms) / 86_400_000
    for row in (row for row in report.thresholds if row.span == "test"):
        (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= row.threshold)
        found = (row.true_negatives, row.false_positives, row.false_negatives, row.true_positives)
        assert found == (tn, fp, fn, tp)
        assert row.per_day == pytest.approx(2 * (tp + fp) / days)  # the rows are half of all


def test_parts_of_the_test_span_add_up_to_it(report: Report) -> None:
    whole = report.quality.rows
    assert sum(part.rows for part in report.reliability) == whole
    assert sum(part.negatives + part.positives for part in report.scores) == whole
    assert sum(part.rows for part in report.stability) == whole
    assert len(report.stability) >= 6
    by_group: dict[str, int] = {}
    for part in report.slices:
        by_group[part.group] = by_group.get(part.group, 0) + part.rows
    assert by_group == {"os": whole, "advertiser_id": whole}
    assert {part.value for part in report.slices if part.group == "os"} == {"android", "<ios>", "(missing)"}
    assert {part.value for part in report.slices if part.group == "advertiser_id"} == {"new", "seen before"}


def test_attributions_are_those_of_the_bundle_and_rank_the_features(bundle: Bundle, report: Report) -> None:
    explained = report.explanations
    assert explained.base_value == bundle.manifest.explanation.base_value
    assert {part.ref for part in explained.importances} == set(rows().refs)
    assert sum(part.share for part in explained.importances) == pytest.approx(1.0)
    for part, swarm in zip(explained.importances, explained.swarms, strict=True):
        assert (part.ref, len(swarm.attributions)) == (swarm.ref, explained.rows)
        assert part.mean_size == pytest.approx(np.abs(swarm.attributions).mean())
        assert all(rank is None or 0 <= rank <= 1 for rank in swarm.ranks)
    assert [row.ref for row in report.features] == [part.ref for part in explained.importances]
    assert all(0.05 < row.missing_fit < 0.15 for row in report.features)


def test_other_rows_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not the rows"):
        write_report(bundle, training_set(seed=3), tmp_path)
    assert not list(tmp_path.iterdir())


SCORED = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.4, 0.5, 0.9])), min_size=4, max_size=40)


@given(SCORED)
def test_the_area_is_scikit_learns_and_its_interval_holds_it(scored: list[tuple[int, float]]) -> None:
    labels, scores = np.array([s[0] for s in scored], np.int8), np.array([s[1] for s in scored])
    assume(2 <= labels.sum() <= labels.size - 2)
    found = roc_auc(labels, scores)
    assert found.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_the_areas_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    truth, covered = 0.7602499389065233, 0  # of two normal distributions one standard deviation apart: Φ(1/√2)
    for _ in range(400):
        labels = (rng.random(200) < 0.3).astype(np.int8)
        found = roc_auc(labels, rng.normal(size=200) + labels)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / 400 <= 0.98


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_share_lies_in_its_interval(count: int, more: int) -> None:
    found = share_of(count, count + more)
    if not count + more:
        assert found.value is None
    else:
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_equal_populations_have_no_index_and_others_a_large_one() -> None:
    values = np.random.default_rng(1).normal(size=5_000)
    assert stability_index(values, values) == pytest.approx(0.0, abs=1e-9)
    assert stability_index(values, values + 1.0) > 0.5
    assert stability_index(values, np.full(100, np.nan)) > 1.0
    assert stability_index(values, np.empty(0)) is None
