"""`actor-risk plan` as a person runs it: a real plan, without Redis, that leaves everything as it was."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actor_risk.cli._main import main
from actor_risk.feast_repo import apply_repo
from tests.changes.repos import edit, small_repo
from tests.changes.small_sample import write_sample

NO_REDIS = "redis://127.0.0.1:1/0"


def everything_below(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, when it was written and what is in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """A committed repository with a registry, edited since: a window is cut in half."""
    root = tmp_path / "work"
    repo = small_repo(root)
    write_sample(root / "home" / "data")
    apply_repo(repo, root / "home" / "registry.db", {"ACTOR_RISK_DATA": str(root / "home" / "data")})
    (root / ".gitignore").write_text("home/\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "as it is")
    edit(repo, "definitions.py", 'time_window=DAY, name="clicks_24h"', 'time_window=DAY / 2, name="clicks_24h"')
    return root


def test_a_plan_needs_no_redis_and_writes_nowhere_but_to_its_reports(edited: Path, tmp_path: Path) -> None:
    scratch, reports = tmp_path / "scratch", tmp_path / "reports"
    scratch.mkdir()
    reports.mkdir()
    environment = {
        "ACTOR_RISK_HOME": str(edited / "home"),
        "ACTOR_RISK_FEATURE_REPO": str(edited / "feature_repo"),
        "ACTOR_RISK_DATA": None,
        "REDIS_URL": NO_REDIS,
        "TMPDIR": str(scratch),
        "COLUMNS": "200",
    }
    registry = edited / "home" / "registry.db"
    registry.chmod(0o444)
    before = everything_below(edited)
    files = {form: reports / f"plan.{form}" for form in ("markdown", "json", "html")}
    options = [word for form, file in files.items() for word in (f"--{form}", str(file))]
    done: Result = CliRunner(env=environment).invoke(main, ["plan", "--against", "HEAD", *options])
    assert done.exit_code == 1, done.output
    assert everything_below(edited) == before
    told: dict[str, Any] = json.loads(files["json"].read_bytes())
    assert {finding["code"] for finding in told["plan"]["findings"]} >= {"AR102"}
    assert told["plan"]["values"]["queries"] > 0
    assert told["plan"]["costs"]["new_views"]
    assert "AR102" in files["markdown"].read_text()
    assert "clicks_24h" in files["html"].read_text()
