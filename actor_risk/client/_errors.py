"""What can go wrong for a caller, each with what to do about it.

ClientError
├── ProblemError           the server said what is wrong: change the request, or wait and try again
├── ConnectionFailedError  nobody answers, or the connection broke: it may have been answered or not
├── DeadlineError          no answer within the time that was allowed
└── UnexpectedAnswerError  an answer that is not the scoring application's, or of another version of it
"""

from __future__ import annotations

from serving.decision import Problem
from serving.event_results import EventResult, EventsProblem


class ClientError(Exception):
    """Base of every error of the client."""


class ProblemError(ClientError):
    """The server answered with problem details (RFC 9457)."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        where = f" ({problem.field})" if problem.field else ""
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}{where}")
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def kind(self) -> str:
        """The stable word of the kind of problem: `unknown-model`."""
        return self.problem.type.rpartition("#problem-")[2]

    @property
    def field(self) -> str | None:
        """The part of the request at fault, in dots."""
        return self.problem.field

    @property
    def results(self) -> list[EventResult]:
        """What became of each event, when events were published; else empty."""
        return self.problem.results if isinstance(self.problem, EventsProblem) else []


class ConnectionFailedError(ClientError):
    """There was no answer, or not all of it."""


class DeadlineError(ClientError):
    """There was no answer in time."""


class UnexpectedAnswerError(ClientError):
    """The answer cannot be read."""
