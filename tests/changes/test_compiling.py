"""Versions compiled in processes of their own, whatever they do there; and taken out of git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from actor_risk.changes.checkout import commit_of, old_version
from actor_risk.changes.compiling import Compiled, CompileSettings, compile_versions
from actor_risk.changes.described import Problem
from actor_risk.errors import ActorRiskError
from tests.changes.repos import described, edit, small_repo

HOSTILE = {
    "clean": {"zz.py": "import threading\n\nthreading.Thread(target=threading.Event().wait).start()\n"},
    "broken": {"one.py": "x = 1\ndef f(:\n", "two.py": "(\n"},
    "hangs": {"zz.py": "import time\n\ntime.sleep(1_000)\n"},
    "calls": {
        "zz.py": "import socket\n\ntry:\n    socket.create_connection(('192.0.2.1', 80))\nexcept OSError:\n    pass\n"
        "print('hello')\n",
        "yy.py": "import subprocess\n\ntry:\n    subprocess.run(['git', 'status'])\nexcept OSError:\n    pass\n",
    },
    "leaves": {"zz.py": "import os\n\nos._exit(3)\n"},
    "fails": {"aa.py": "import sys\n\nsys.exit(3)\n", "zz.py": "from feast import Entity\n\nip = Entity(name=5)\n"},
    "writes": {
        "yy.py": "open('/no/such/folder/made.txt', 'w')\n",
        "zz.py": "from pathlib import Path\n\nPath(__file__).with_name('made.txt').write_text('')\n",
    },
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compiled]:
    """Every version of HOSTILE, at the same time."""
    folder = tmp_path_factory.mktemp("hostile")
    versions = {name: small_repo(folder / name, files) for name, files in HOSTILE.items()}
    settings = CompileSettings(data=folder / "data", folder=folder / "out", seconds=20)
    return dict(compile_versions(versions, settings))


def problems(compiled: Compiled) -> list[tuple[str, str]]:
    return [(problem.code, problem.place) for problem in compiled.definition.problems]


def message(compiled: Compiled) -> str:
    (problem,) = compiled.definition.problems
    assert isinstance(problem, Problem)
    return problem.message


def test_a_version_is_described_whole_though_a_thread_of_it_never_ends(compiled: dict[str, Compiled]) -> None:
    found = compiled["clean"].definition
    assert found.problems == ()
    assert [view.name for view in found.views] == ["ip_stats", "ip_table", "ratios"]
    assert found.services[0].features[-1] == "ratios:usd_per_click"
    assert found.entities[0].place == "definitions.py:17"


def test_every_file_that_is_not_python_is_told_at_once(compiled: dict[str, Compiled]) -> None:
    assert problems(compiled["broken"]) == [("AR001", "one.py:2"), ("AR001", "two.py:1")]


def test_what_hangs_is_ended_and_its_line_told(compiled: dict[str, Compiled]) -> None:
    assert problems(compiled["hangs"]) == [("AR003", "zz.py:3")]
    assert "longer than 20 s" in message(compiled["hangs"])


def test_a_call_of_the_network_or_of_a_program_is_told_even_if_nobody_minds_that_it_fails(
    compiled: dict[str, Compiled],
) -> None:
    assert problems(compiled["calls"]) == [("AR004", "yy.py:4"), ("AR004", "zz.py:4"), ("AR005", "zz.py:7")]
    assert [one.message for one in compiled["calls"].definition.problems][:2] == [
        "starts a program (git)",
        "calls the network (getaddrinfo 192.0.2.1)",
    ]
    assert compiled["calls"].definition.printed == "hello\n"
    assert len(compiled["calls"].definition.views) == 3


def test_a_module_that_ends_the_process_is_told(compiled: dict[str, Compiled]) -> None:
    assert problems(compiled["leaves"]) == [("AR002", "zz.py:3")]


def test_every_module_that_fails_is_told(compiled: dict[str, Compiled]) -> None:
    assert problems(compiled["fails"]) == [("AR002", "aa.py:3"), ("AR002", "zz.py:3")]


def test_nothing_is_written_into_the_repository_or_anywhere_else(compiled: dict[str, Compiled]) -> None:
    assert problems(compiled["writes"]) == [("AR002", "yy.py:1"), ("AR002", "zz.py:3")]
    assert "/no/such/folder/made.txt is no temporary file" in compiled["writes"].definition.problems[0].message
    for one in compiled.values():
        repo = one.folder.parents[1] / one.folder.name / "feature_repo"
        assert not [path for path in repo.rglob("*") if path.name in ("__pycache__", "made.txt")]


def test_a_function_that_feast_cannot_run_is_told_with_its_line_and_nothing_else_is_compared(tmp_path: Path) -> None:
    repo = small_repo(tmp_path)
    edit(repo, "definitions.py", '    """Divides."""\n', '    """Divides."""\n    1 / 0\n')
    found = described(repo, tmp_path / "registry")
    (problem,) = found.problems
    assert (problem.code, problem.subject) == ("AR006", "ratios")
    assert "ZeroDivisionError" in problem.message
    line = (repo / "definitions.py").read_text().splitlines().index("    1 / 0") + 1
    assert problem.place == f"definitions.py:{line}"
    assert found.is_unreadable


def git(folder: Path, *words: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", str(folder), *names, *words], check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A git work tree on `main` with two commits; the repository came with the second."""
    git(tmp_path, "init", "--initial-branch=main")
    (tmp_path / "README").write_text("first")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    small_repo(tmp_path)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "second")
    return tmp_path


def test_an_edit_on_main_is_compared_with_the_last_commit(tree: Path) -> None:
    repo = tree / "feature_repo"
    (repo / "more.py").write_text("x = 1\n")
    with old_version(repo) as old:
        assert old.name.startswith("HEAD (")
        assert old.folder is not None
        assert sorted(path.name for path in old.folder.iterdir()) == ["definitions.py", "feature_store.yaml"]


def test_main_as_it_is_committed_is_compared_with_the_commit_before(tree: Path) -> None:
    with old_version(tree / "feature_repo") as old:
        assert old.name.startswith("HEAD~1 (")
        assert old.folder is None  # the repository did not exist then


def test_a_branch_is_compared_with_where_it_left_main(tree: Path) -> None:
    repo = tree / "feature_repo"
    git(tree, "checkout", "-b", "edit")
    (repo / "more.py").write_text("x = 1\n")
    git(tree, "add", ".")
    git(tree, "commit", "-m", "third")
    with old_version(repo) as old:
        assert old.name.startswith("where this branch left main (")
        assert old.folder is not None
        assert not (old.folder / "more.py").exists()


def test_another_folder_can_be_compared_with(tree: Path, tmp_path: Path) -> None:
    with old_version(tree / "feature_repo", str(tmp_path / "feature_repo")) as old:
        assert old.folder == (tmp_path / "feature_repo").resolve()


def test_a_name_that_is_no_commit_is_told(tree: Path) -> None:
    with pytest.raises(ActorRiskError, match="'nothing' is no commit"), old_version(tree / "feature_repo", "nothing"):
        pass


def test_what_git_tells_its_hooks_leads_to_no_other_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tree / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/next-index.lock")
    with old_version(tree / "feature_repo", "HEAD") as old:
        assert old.folder is not None
        assert (old.folder / "feature_store.yaml").is_file()
    assert len(commit_of(tree / "feature_repo")) == 40
    (tree / "feature_repo" / "more.py").write_text("x = 1\n")
    assert commit_of(tree / "feature_repo").endswith("+")


@pytest.mark.parametrize("against", [None, "HEAD"])
def test_before_the_first_commit_everything_is_new(tmp_path: Path, against: str | None) -> None:
    git(tmp_path, "init", "--initial-branch=main")
    with old_version(small_repo(tmp_path), against) as old:
        assert old.folder is None


def test_a_folder_outside_of_git_is_told(tmp_path: Path) -> None:
    with pytest.raises(ActorRiskError, match="--against PATH"), old_version(small_repo(tmp_path)):
        pass
