"""`actor-risk models`: what a person does with a model file and with versions, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from actor_risk.cli import main
from actor_risk.feast_repo import apply_repo
from models import ModelStore
from tests.models.builders import published
from tests.models.conformance.zoo import CASES

REPO = Path(__file__).resolve().parents[2] / "feature_repo"
NAMES = [
    *("ip_is_datacenter", "ip_is_vpn", "ip_first_seen_days"),
    *("device_is_emulator", "device_is_rooted", "device_first_seen_days"),
]


def run(home: Path, *words: str | Path) -> Result:
    environment = {"ACTOR_RISK_HOME": str(home), "ACTOR_RISK_FEATURE_REPO": str(REPO), "COLUMNS": "250"}
    return CliRunner().invoke(main, ["models", *map(str, words)], env=environment)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model.onnx` of CatBoost, and `reference.parquet` with its own scores."""
    folder = tmp_path_factory.mktemp("files")
    case = CASES["catboost"]()
    (folder / "model.onnx").write_bytes(case.content)
    columns = {name: case.rows[:, i] for i, name in enumerate(NAMES)}
    pq.write_table(pa.table(columns | {"score": case.scores}), folder / "reference.parquet")
    pq.write_table(pa.table(columns | {"score": case.scores + 1e-3}), folder / "wrong.parquet")
    (folder / "features.txt").write_text("\n".join(NAMES))
    return folder


def test_check_tells_every_point_and_ends_well(tmp_path: Path, files: Path) -> None:
    done = run(
        tmp_path, "check", files / "model.onnx", "--features", f"@{files / 'features.txt'}",
        "--expected", files / "reference.parquet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for point in ("admitted", "equals the original", "threshold edges", "equals the expected scores", "adds up"):
        assert point in done.output
    assert "✗" not in done.output


def test_check_needs_no_rows(tmp_path: Path, files: Path) -> None:
    assert run(tmp_path, "check", files / "model.onnx").exit_code == 0


def test_who_gives_no_expected_scores_is_told_that_nothing_was_compared(tmp_path: Path, files: Path) -> None:
    apply_repo(REPO, tmp_path / "registry.db", {"ACTOR_RISK_DATA": str(tmp_path / "data")})
    words = ("import", files / "model.onnx", "--service", "ad_click_risk", "--features", ",".join(NAMES))
    alone = run(tmp_path, *words, "--rows", files / "reference.parquet")
    assert alone.exit_code == 0, alone.output
    compared = run(tmp_path, *words, "--expected", files / "reference.parquet")
    assert "warning: not compared with the framework" in alone.stderr
    assert "warning" not in compared.output
    store = ModelStore(tmp_path / "models")
    sources = [store.manifest("ad_click_risk", done.stdout.split()[-1]).source for done in (alone, compared)]
    rows = pq.read_metadata(files / "reference.parquet").num_rows
    assert [source and source.compared_rows for source in sources] == [0, rows]
    assert run(tmp_path, "show", "ad_click_risk").output.count("not compared") == 1
    assert "not compared" in run(tmp_path, "check", files / "model.onnx").stderr


def test_check_ends_with_1_when_something_does_not_hold(tmp_path: Path, files: Path) -> None:
    done = run(
        tmp_path, "check", files / "model.onnx", "--features", ",".join(NAMES), "--expected", files / "wrong.parquet"
    )
    assert done.exit_code == 1
    assert "✗" in done.output


def test_check_tells_of_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("[bold]not a model[/bold]")
    done = run(tmp_path, "check", tmp_path / "text.onnx")
    assert done.exit_code == 1
    assert "no ONNX graph" in done.output


def test_an_imported_model_is_listed_shown_and_made_champion(tmp_path: Path, files: Path) -> None:
    apply_repo(REPO, tmp_path / "registry.db", {"ACTOR_RISK_DATA": str(tmp_path / "data")})
    done = run(
        tmp_path, "import", files / "model.onnx", "--service", "ad_click_risk", "--features",
        f"@{files / 'features.txt'}", "--expected", files / "reference.parquet", "--alias", "champion",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    store = ModelStore(tmp_path / "models")
    version = store.resolve("ad_click_risk", "champion")
    assert f"published ad_click_risk {version}" in done.output
    rows = pq.read_table(files / "reference.parquet")
    matrix = np.column_stack([rows.column(name).to_numpy() for name in NAMES])
    bundle = store.load("ad_click_risk")
    np.testing.assert_allclose(bundle.score(bundle.vector(matrix)).score, rows.column("score").to_numpy(), atol=1e-6)
    assert [feature.ref for feature in bundle.manifest.features][:2] == [
        "ip_profile:ip_is_datacenter",
        "ip_profile:ip_is_vpn",
    ]
    assert f"champion = {version}" in run(tmp_path, "list").output
    shown = run(tmp_path, "show", "ad_click_risk").output
    assert version in shown
    assert "model.onnx (CatBoost" in shown
    refused = run(
        tmp_path, "import", files / "model.onnx", "--service", "ad_click_risk", "--features", ",".join(NAMES),
        "--expected", files / "wrong.parquet",
    )  # fmt: skip
    assert refused.exit_code == 1
    assert "is not imported: equals the expected scores" in refused.output
    assert store.versions("ad_click_risk") == [version]


def test_an_alias_moves_to_a_version_that_is_there_and_the_history_is_shown(tmp_path: Path) -> None:
    store, version, _ = published(tmp_path / "models")
    done = run(tmp_path, "alias", "ad_click_risk", "champion", version, "--by", "on call")
    assert done.exit_code == 0, done.output
    assert store.aliases("ad_click_risk") == {"champion": version}
    assert "on call" in run(tmp_path, "show", "ad_click_risk").output
    assert run(tmp_path, "alias", "ad_click_risk", "champion", "0" * 16).exit_code == 1
    assert store.aliases("ad_click_risk") == {"champion": version}


def test_an_unknown_model_is_named_with_what_there_is(tmp_path: Path) -> None:
    published(tmp_path / "models")
    done = run(tmp_path, "show", "unknown")
    assert done.exit_code == 1
    assert "there are ad_click_risk" in done.output
