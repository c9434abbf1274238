"""What `actor-risk test` does, apart from how it is called."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from actor_risk.errors import ActorRiskError
from actor_risk.feature_tests.binding import BoundCase, bind
from actor_risk.feature_tests.cases import Case, files_of, read_cases
from actor_risk.feature_tests.errors import CaseError
from actor_risk.feature_tests.repo import RepoUnderTest


def chosen_cases(paths: Sequence[Path], word: str | None) -> list[Case]:
    """The cases of the files at these paths whose names, subjects or files have the word in them.

    Raises ActorRiskError, with every error of every file, and for nothing to run.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise ActorRiskError(f"there is no {missing[0]}: name files or folders of tests, or start with --new VIEW")
    cases: list[Case] = []
    errors: list[str] = []
    for file in files_of(paths):
        try:
            cases += read_cases(file)
        except CaseError as error:
            errors.append(str(error))
    if errors:
        raise ActorRiskError("\n".join(errors))
    named = [case for case in cases if word is None or _has(case, word)]
    if not named:
        there = ", ".join(map(str, paths))
        told = f"no test in {there}" if not cases else f"none of the {len(cases)} tests in {there} has {word!r} in it"
        raise ActorRiskError(f"{told}: start with `actor-risk test --new VIEW`")
    return named


def bound_cases(cases: Sequence[Case], repo: RepoUnderTest) -> list[BoundCase]:
    """The cases with the repository's definitions. Raises ActorRiskError with the error of every case."""
    bound: list[BoundCase] = []
    errors: list[str] = []
    for case in cases:
        try:
            bound.append(bind(case, repo))
        except CaseError as error:
            errors.append(str(error))
    if errors:
        raise ActorRiskError("\n".join(dict.fromkeys(errors)))
    return bound


@contextmanager
def repo_under_test(repo_path: Path, environ: Mapping[str, str]) -> Iterator[tuple[RepoUnderTest, Path]]:
    """The repository, and a folder for what its tests write; both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="actor-risk-test-") as folder:
        work = Path(folder) / "work"
        work.mkdir()
        yield RepoUnderTest(repo_path, Path(folder), environ), work


def _has(case: Case, word: str) -> bool:
    return any(word.lower() in text.lower() for text in (case.name, case.subject.text, str(case.file)))
