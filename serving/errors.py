"""What can go wrong between a request and its answer, each with what to do about it.

ServingError
├── SettingsError              the environment does not describe a server
├── ModelLoadError             a model cannot be served as asked: what was served before stays
├── EventsUnconfirmedError     the log did not acknowledge events: they may be there or not
├── DecisionsUnavailableError  kept decisions cannot be read now: try again
├── TooManyRequestsError       more than is taken now: come back in `retry_after_s` seconds
├── AnswerUnderWayError        a request of the same idempotency key is being answered right now
├── LateError                  there is no answer within the request's own deadline
├── ModelOffError              the model is switched off, and its policy has no score instead
├── UnauthorizedError          no key or token, or none that is valid: which of them is not said
├── ForbiddenError             a valid key or token, without the scope that the path needs
└── RequestError               the request cannot be answered as it is; `field` is the part at fault, if one is
    ├── MalformedBodyError       no JSON
    ├── EventRejectedError       JSON, but the one event in it is not valid
    ├── InvalidFieldError        JSON, but a field is missing, unknown or of a wrong type or value
    ├── UnknownModelError        no such model here
    ├── UnknownEntityError       no such entity in the feature registry
    ├── UnknownDecisionError     no such decision in the log
    ├── UnknownPathError         nothing lives at this path
    ├── MethodNotAllowedError    the path has no such method
    ├── UnsupportedMediaError    the body is not declared as plain JSON
    ├── BodyTooLargeError        more bytes than one request may have
    └── BodyTooSlowError         the body takes longer to come than it may
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from serving.event_results import EventResult


class ServingError(Exception):
    """Base of every error raised by this package."""


class SettingsError(ServingError):
    """The environment does not describe a server."""


class ModelLoadError(ServingError):
    """A model cannot be served as asked; what was served before stays."""


class EventsUnconfirmedError(ServingError):
    """The log did not acknowledge `count` events: they may be there or not. `results` says what became of each."""

    def __init__(self, count: int, results: Sequence[EventResult]) -> None:
        super().__init__(
            f"the event log did not acknowledge {count} of {len(results)} events: send them again, or all of them; an "
            "event that is sent twice counts once"
        )
        self.results = list(results)


class DecisionsUnavailableError(ServingError):
    """Kept decisions cannot be read now: whether there is this one is not known."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"decisions cannot be read now, try again: {cause}")


class TooManyRequestsError(ServingError):
    """More requests than are taken now; `retry_after_s` is when to come back, in whole seconds from 1 on."""

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(f"{detail}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class AnswerUnderWayError(ServingError):
    """A request of the same idempotency key is being answered right now."""

    def __init__(self) -> None:
        super().__init__("a request of the same idempotency-key is being answered: send it again for the same answer")


class LateError(ServingError):
    """There is no answer within the request's deadline, and the policy has none instead."""

    def __init__(self) -> None:
        super().__init__("no answer within the request's deadline: ask again, and allow more time")


class ModelOffError(ServingError):
    """The model is switched off, and its policy has no score instead."""

    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model!r} is switched off: decide without it until it is on again")


class UnauthorizedError(ServingError):
    """No valid key or token. It says nothing of why, so that every such answer is the same."""

    def __init__(self) -> None:
        super().__init__("send a valid API key or token, as `authorization: Bearer …` or `x-api-key: …`")


class ForbiddenError(ServingError):
    """The key or token is valid, and does not have the scope that the path needs."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"the key or token does not have the scope {scope!r}")


class RequestError(ServingError):
    """The request cannot be answered as it is. `field` names the part at fault in dots (`entities.ip`), or is None."""

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class MalformedBodyError(RequestError):
    """The body is not JSON."""


class EventRejectedError(RequestError):
    """The one event of a request is not valid; `results` has the one result, which says why."""

    def __init__(self, results: Sequence[EventResult]) -> None:
        super().__init__(results[0].detail or "", results[0].field)
        self.results = list(results)


class InvalidFieldError(RequestError):
    """A field is missing, unknown or of a wrong type or value."""


class UnknownModelError(RequestError):
    """No such model is served here."""

    def __init__(self, model: str, served: Iterable[str]) -> None:
        super().__init__(f"no model {model!r} is served here; the models are {sorted(served)}", "model")


class UnknownEntityError(RequestError):
    """No such entity in the feature registry."""

    def __init__(self, entity: str, known: Iterable[str]) -> None:
        super().__init__(f"no entity {entity[:64]!r} in the registry; the entities are {sorted(known)}", "entity")


class UnknownDecisionError(RequestError):
    """No such decision in the log, or not any more."""

    def __init__(self, decision_id: str) -> None:
        super().__init__(f"no decision {decision_id[:64]!r} in the log: it was not made, was not kept, or is too old")


class UnknownPathError(RequestError):
    """Nothing lives at this path."""


class MethodNotAllowedError(RequestError):
    """The path exists, but not with this method; `allow` are those that it has."""

    def __init__(self, method: str, path: str, allow: tuple[str, ...]) -> None:
        super().__init__(f"{path} does not take {method}; it takes {', '.join(allow)}")
        self.allow = allow


class UnsupportedMediaError(RequestError):
    """The body is not declared as plain JSON."""


class BodyTooLargeError(RequestError):
    """The body has more bytes than one request may have."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"a request body may have at most {bytes_max} bytes")


class BodyTooSlowError(RequestError):
    """The body takes longer to come than it may: a place that others wait for is not kept for it."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"a request body must be there within {timeout_s:g} s")
