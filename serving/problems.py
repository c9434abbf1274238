"""Errors as problem details (RFC 9457): the one place that maps exceptions to HTTP answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from materialize.online import OnlineStoreUnavailableError
from materialize.personal import trace_of
from serving.decision import Problem
from serving.errors import (
    AnswerUnderWayError,
    BodyTooLargeError,
    BodyTooSlowError,
    DecisionsUnavailableError,
    EventRejectedError,
    EventsUnconfirmedError,
    ForbiddenError,
    InvalidFieldError,
    LateError,
    MalformedBodyError,
    MethodNotAllowedError,
    ModelOffError,
    RequestError,
    TooManyRequestsError,
    UnauthorizedError,
    UnknownDecisionError,
    UnknownEntityError,
    UnknownModelError,
    UnknownPathError,
    UnsupportedMediaError,
)
from serving.event_results import EventsProblem

_LOG = logging.getLogger(__name__)
PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of problem: stable word, title and HTTP status."""

    word: str
    title: str
    status: int

    @property
    def uri(self) -> str:
        """Where the kind is documented: its anchor on the docs page."""
        return f"/docs#problem-{self.word}"


KINDS: dict[type[Exception], ProblemKind] = {
    MalformedBodyError: ProblemKind("malformed-json", "The body is not valid JSON", 400),
    UnauthorizedError: ProblemKind("unauthorized", "A valid key or token is needed", 401),
    ForbiddenError: ProblemKind("forbidden", "The key or token does not allow this", 403),
    UnknownModelError: ProblemKind("unknown-model", "No such model", 404),
    UnknownPathError: ProblemKind("unknown-path", "Nothing lives at this path", 404),
    MethodNotAllowedError: ProblemKind("method-not-allowed", "The path has no such method", 405),
    BodyTooSlowError: ProblemKind("body-too-slow", "The body does not come", 408),
    BodyTooLargeError: ProblemKind("body-too-large", "The body is too large", 413),
    UnsupportedMediaError: ProblemKind("unsupported-media-type", "The body must be plain JSON", 415),
    InvalidFieldError: ProblemKind("invalid-field", "A field is not as it should be", 422),
    EventRejectedError: ProblemKind("event-rejected", "The event is not valid", 422),
    TooManyRequestsError: ProblemKind("too-many-requests", "More requests than are taken now", 429),
    OnlineStoreUnavailableError: ProblemKind("online-store-unavailable", "Features cannot be read now", 503),
    UnknownEntityError: ProblemKind("unknown-entity", "No such entity", 404),
    UnknownDecisionError: ProblemKind("unknown-decision", "No such decision", 404),
    AnswerUnderWayError: ProblemKind("answer-under-way", "The same request is being answered", 409),
    LateError: ProblemKind("deadline-exceeded", "No answer within the deadline", 503),
    ModelOffError: ProblemKind("model-off", "The model is switched off", 503),
    DecisionsUnavailableError: ProblemKind("decisions-unavailable", "Kept decisions cannot be read now", 503),
    EventsUnconfirmedError: ProblemKind("events-unconfirmed", "The event log did not acknowledge events", 503),
}
INTERNAL = ProblemKind("internal-error", "The server failed", 500)


_COME_BACK = (
    *(OnlineStoreUnavailableError, DecisionsUnavailableError, EventsUnconfirmedError, LateError, ModelOffError),
    AnswerUnderWayError,
)


def kind_of(error: Exception) -> ProblemKind:
    """The kind of problem that an exception is, or what it is a kind of; INTERNAL for one that nobody foresaw."""
    return next((KINDS[kind] for kind in type(error).__mro__ if kind in KINDS), INTERNAL)


def log_if_unforeseen(error: Exception) -> None:
    """Where it failed goes to the log, for who is told nothing else."""
    if kind_of(error) is INTERNAL:
        _LOG.error("a request failed for a reason that nobody foresaw: %s", trace_of(error))


def problem_of(error: Exception) -> Problem:
    """The problem details of an exception. One that nobody foresaw tells the caller nothing of our insides."""
    kind = kind_of(error)
    field = error.field if isinstance(error, RequestError) else None
    if isinstance(error, (EventRejectedError, EventsUnconfirmedError)):
        return EventsProblem(
            type=kind.uri, title=kind.title, status=kind.status, detail=str(error), field=field, results=error.results
        )
    return Problem(
        type=kind.uri,
        title=kind.title,
        status=kind.status,
        detail="the failure is in the server's log" if kind is INTERNAL else str(error),
        field=field,
    )


def headers_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """The header fields that go with a problem."""
    if isinstance(error, MethodNotAllowedError):
        return (("allow", ", ".join(error.allow)),)
    if isinstance(error, UnauthorizedError):
        return (("www-authenticate", "Bearer"),)
    if isinstance(error, TooManyRequestsError):
        return (("retry-after", str(error.retry_after_s)),)
    if isinstance(error, _COME_BACK):
        return (("retry-after", str(RETRY_AFTER_S)),)
    return ()
