"""A settings file says how to train, and a wrong one says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from actor_risk.cli import main
from models import TrainingError
from models.metrics import NEVER, threshold_for_capacity
from models.settings import TrainSettings, models_named, read_settings
from models.train import train
from tests.models.builders import training_set

YAML = """
trainer: xgboost
trees: 40
categorical: [view:a]
models:
  ad_click_risk: {trees: 60, positive_weight: balanced}
"""
TOML = """
trainer = "xgboost"
trees = 40
categorical = ["view:a"]
[models.ad_click_risk]
trees = 60
positive_weight = "balanced"
"""
JSON = (
    '{"trainer": "xgboost", "trees": 40, "categorical": ["view:a"],'
    ' "models": {"ad_click_risk": {"trees": 60, "positive_weight": "balanced"}}}'
)


@pytest.mark.parametrize(("name", "content"), [("a.yaml", YAML), ("a.yml", YAML), ("a.toml", TOML), ("a.json", JSON)])
def test_each_format_says_the_same(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    own = read_settings(path, "ad_click_risk")
    assert (own.trainer, own.trees, own.positive_weight, own.categorical) == ("xgboost", 60, "balanced", ("view:a",))
    assert read_settings(path, "another") == TrainSettings(trainer="xgboost", trees=40, categorical=("view:a",))
    assert read_settings(path, "ad_click_risk", trees=5).trees == 5
    assert models_named(path) == ("ad_click_risk",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("tres: 3", "no setting tres; did you mean 'trees'"),
        ("model: {}", "did you mean 'models'"),
        ("models: {m: {learn_rate: 1}}", r"models\.m\.learn_rate; did you mean 'learning_rate'"),
        ("models: {m: {models: {}}}", "no setting models.m.models"),
        ("qqqq: 1", "there are trainer,"),
        ("trees: many", r"Expected `int`, got `str` - at `\$.trees`"),
        ("trainer: catboost", "Invalid enum value 'catboost'"),
        ("trees: 0", "at least 1"),
        ("learning_rate: 2", "at most 1"),
        ("review_per_day: 0", "how many cases"),
        ("review_per_day: .inf", "finite"),
        ("l1: .inf", "finite"),
        ("block_precision: .nan", "finite"),
        ("positive_weight: -1", "balanced"),
        ("depth: 100", "1 to 64"),
        ("models: [a]", "maps names"),
        ("- a", "no keys"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(content)
    with pytest.raises(TrainingError, match=f"(?s)train.yaml.*{reason}"):
        read_settings(path, "m")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("# nothing\n")
    assert read_settings(path) == TrainSettings()


def test_a_file_that_is_not_there_and_one_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot read"):
        read_settings(tmp_path / "no.toml")
    with pytest.raises(TrainingError, match="the ending says"):
        read_settings(tmp_path / "train.ini")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("tres: 3", "no setting tres; did you mean 'trees'?"),
        ("models: {ad_clik_risk: {trees: 3}}", "there is no model 'ad_clik_risk'; there are ad_click_risk"),
    ],
)
def test_the_command_refuses_a_wrong_file_before_it_does_anything(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(content)
    result = CliRunner().invoke(main, ["train", "--config", str(path)], env={"ACTOR_RISK_HOME": str(tmp_path)})
    assert result.exit_code == 1
    assert f"Error: train.yaml: {reason}" in result.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["train.yaml"]


SCORES = st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), max_size=30)


@given(SCORES, st.integers(0, 30), st.sampled_from([0.7, 1.0, np.inf]))
def test_the_threshold_of_a_capacity_is_the_lowest_that_keeps_it(scores: list[float], most: int, below: float) -> None:
    given_scores = np.array(scores, np.float64)
    found = threshold_for_capacity(given_scores, most, below)
    kept = [t for t in set(scores) if t < below and np.sum((given_scores >= t) & (given_scores < below)) <= most]
    assert found == (min(kept) if kept else min(below, NEVER))


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_capacity_counts_every_row_there_is_and_only_what_is_not_blocked(share: float) -> None:
    rows = training_set()
    few = type(rows)(rows.refs, rows.matrix, rows.labels, rows.times_ms, share=share)
    chosen = TrainSettings(trees=20, leaf_rows_min=20, threads=1, review_per_day=100)
    model = train(few, settings=chosen)
    days = (model.training.test_ms - model.training.tune_ms) / 86_400_000
    tune = (rows.times_ms >= model.training.tune_ms) & (rows.times_ms < model.training.test_ms)
    scores = model.fitted.score(rows.matrix[tune])
    cases = np.sum((scores >= model.thresholds.review) & (scores < model.thresholds.block))
    assert 0 < cases <= 100 * days * share
    assert cases > 100 * days * share - 2
    assert (model.thresholds.review_per_day, model.thresholds.review_precision) == (100, None)
