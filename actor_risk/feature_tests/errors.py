"""What can be wrong with a file of feature tests."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from actor_risk.errors import ActorRiskError


class CaseError(ActorRiskError):
    """A place in a file of tests that cannot be used; the message says what to write."""

    def __init__(self, file: Path, line: int, what: str) -> None:
        super().__init__(f"{file}:{line}: {what}")
        self.file, self.line = file, line


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to one that nobody knows, as the end of a sentence; else all that are known."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"it is one of {', '.join(names)}" if names else "there is none"
