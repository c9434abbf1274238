"""What is wrong with the new version by itself: it cannot be imported, or a definition in it cannot be computed."""

from __future__ import annotations

from collections.abc import Iterator

from actor_risk.changes.described import Problem, RepoDefinition
from actor_risk.changes.findings import CODES, Finding

INSTEAD = {
    "AR001": "Mend the line that is named; `python -m compileall feature_repo` says the same.",
    "AR002": "Run `python <the file>` inside feature_repo/ and mend what it says. Files there import each other by "
    "bare name: `from entities import ip`.",
    "AR003": "Leave nothing at the top of a module but definitions: no reading of data, no waiting, no training.",
    "AR004": "Take the call out: write what it gave into a file of the repository, or into an environment variable of "
    "whoever applies it.",
    "AR005": "Take the `print` out; what a module has to say belongs in a description.",
    "AR006": "Do what the message asks for; docs/howto/add-a-feature.md shows each form.",
}


def find_problems(new: RepoDefinition) -> Iterator[Finding]:
    """AR001 to AR006, from the problems that the compile reports."""
    for problem in new.problems:
        if problem.code in INSTEAD:
            yield as_finding(problem, INSTEAD[problem.code])


def as_finding(problem: Problem, instead: str) -> Finding:
    """A problem with what to write instead."""
    about = problem.subject or problem.place.partition(":")[0] or "feature_repo"
    message = problem.message or CODES[problem.code].title
    return Finding(code=problem.code, subject=about, message=message, instead=instead, place=problem.place)
