"""`actor-risk train`: from labels in a folder to a champion and a report, from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from actor_risk.cli import main
from actor_risk.feast_repo import apply_repo
from actor_risk.simulate import simulate, write
from models import Bundle, ModelStore
from models.report import HTML_FILE, JSON_FILE, Report, page
from tests.support.world import SETTINGS

MODEL, ROWS, TREES = "ad_click_risk", 1_500, 8


@dataclass(frozen=True)
class Trained:
    """What one run printed and left."""

    output: str
    bundle: Bundle
    reports: Path

    @property
    def report(self) -> Report:
        return msgspec.json.decode((self.reports / MODEL / JSON_FILE).read_bytes(), type=Report)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("home")
    repo = Path(__file__).resolve().parents[2] / "feature_repo"
    write(simulate(SETTINGS), home / "data")
    apply_repo(repo, home / "registry.db", {"ACTOR_RISK_DATA": str(home / "data")})
    environment = {
        "ACTOR_RISK_HOME": str(home),
        "ACTOR_RISK_FEATURE_REPO": str(repo),
        "REDIS_URL": "redis://127.0.0.1:1/0",  # training reads history only: nobody listens there
        "COLUMNS": "250",
    }
    words = ["train", "--model", MODEL, "--rows", str(ROWS), "--trees", str(TREES)]
    done = CliRunner().invoke(main, words, env=environment)
    assert done.exit_code == 0, done.output
    return Trained(done.output, ModelStore(home / "models").load(MODEL), home / "reports")


def test_the_champion_and_its_report_are_told(trained: Trained) -> None:
    assert trained.bundle.version in trained.output
    assert f"report: {trained.reports / MODEL / HTML_FILE}" in trained.output
    assert trained.bundle.manifest.settings["trees"] == TREES


def test_the_report_is_of_the_published_version_and_its_rows(trained: Trained) -> None:
    metrics, report = trained.bundle.manifest.metrics, trained.report
    assert metrics is not None
    assert (report.model, report.version) == (MODEL, trained.bundle.version)
    assert sum(span.rows for span in report.spans) == ROWS
    assert report.quality.roc_auc.value == pytest.approx(metrics.roc_auc, abs=1e-12)
    flagged = {
        row.threshold_name: (row.threshold, row.true_positives + row.false_positives)
        for row in report.thresholds
        if row.span == "test"
    }
    assert flagged == {
        name: (point.threshold, point.flagged) for name, point in (("review", metrics.review), ("block", metrics.block))
    }


def test_the_page_shows_the_numbers_of_the_json_and_runs_nothing(trained: Trained) -> None:
    text = (trained.reports / MODEL / HTML_FILE).read_text(encoding="utf-8")
    assert text == page(trained.report)
    assert trained.bundle.version in text
    assert "<script" not in text
