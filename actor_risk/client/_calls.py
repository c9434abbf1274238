"""What each method asks and how its answer is read: no network here, so that both clients share all of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw, Struct

from actor_risk.client._errors import ConnectionFailedError, ProblemError, UnexpectedAnswerError
from serving.decision import (
    BATCH_MAX,
    BatchRequest,
    Decision,
    Explain,
    ModelCard,
    ModelList,
    Problem,
    Question,
    Readiness,
    ScoreRequest,
    StoredFeatures,
)
from serving.event_results import EventItem, EventsAnswer, EventsProblem

T = TypeVar("T")

Entities = Mapping[str, str | int]
"""Join key → value."""
Event = Mapping[str, Any] | Struct
"""An event, as a mapping of its fields or as one of `materialize.events`."""

JSON, NDJSON = "application/json", "application/x-ndjson"
OK, NOT_READY = 200, 503
_TOLD_MAX = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `retry_after_s`: what the server says about trying again."""

    status: int
    body: bytes
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how its answer is read.

    is_repeatable: sending it twice does no more than sending it once. takes_deadline: the server is told by when.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    is_repeatable: bool = True
    takes_deadline: bool = False
    statuses: tuple[int, ...] = (OK,)

    def result(self, answer: Answer) -> T:
        """What was answered. Raises ProblemError or UnexpectedAnswerError."""
        if answer.status not in self.statuses:
            raise error_of(answer)
        return _read(self.read, answer)


def question(
    entities: Entities | None = None,
    event: Event | None = None,
    *,
    event_topic: str | None = None,
    request: Mapping[str, Any] | None = None,
    trace_id: str | None = None,
) -> Question:
    """One actor to be scored: its join keys, the event that is scored, and what is known only now."""
    return Question(
        entities={name: _raw(value) for name, value in (entities or {}).items()},
        event=_raw(event),
        event_topic=event_topic,
        request={name: _raw(value) for name, value in (request or {}).items()},
        trace_id=trace_id,
    )


def score(model: str, asked: Question, explain: Explain, *, publish_event: bool, key: str | None) -> Call[Decision]:
    """`POST /v1/score`; with an idempotency key it can be repeated."""
    request = _score_request(model, asked, explain, publish_event=publish_event)
    headers = {} if key is None else {"idempotency-key": key}
    return _post("/v1/score", request, _decision, headers, is_repeatable=key is not None, takes_deadline=True)


def new_key() -> str:
    """An idempotency key that nobody has used."""
    return uuid.uuid4().hex


def explain(model: str, asked: Question) -> Call[Decision]:
    """`POST /v1/explain`: it publishes nothing, so it can be repeated."""
    request = _score_request(model, asked, "full", publish_event=False)
    return _post("/v1/explain", request, _decision, takes_deadline=True)


def score_batch(
    model: str, asked: Sequence[Question], explain: Explain, *, publish_event: bool
) -> Call[list[Decision | Problem]]:
    """`POST /v1/score:batch`."""
    return _batch(model, asked, explain, _batch_answers, JSON, publish_event=publish_event)


def score_lines(
    model: str, asked: Sequence[Question], explain: Explain, *, publish_event: bool
) -> Call[Decision | Problem]:
    """The same, answered line by line; `read` reads one line."""
    return _batch(model, asked, explain, decision_or_problem, NDJSON, publish_event=publish_event)


def parts_of(asked: Iterable[Question]) -> Iterator[list[Question]]:
    """As many as one request may have, and so on."""
    rest = iter(asked)
    while part := list(islice(rest, BATCH_MAX)):
        yield part


def publish_events(events: Sequence[Event], topic: str | None) -> Call[EventsAnswer]:
    """`POST /v1/events`: an event counts once, by its id, however often it is sent."""
    items = [EventItem(event=_raw(event), event_topic=topic) for event in events]
    return _post("/v1/events", items, msgspec.json.Decoder(EventsAnswer).decode)


def features(entity: str, key: str | int, service: str | None, refs: Sequence[str] | None) -> Call[StoredFeatures]:
    """`GET /v1/features/{entity}/{key}`."""
    given = {"service": service, "features": None if refs is None else ",".join(refs)}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    path = f"/v1/features/{_segment(entity)}/{_segment(str(key))}"
    return Call("GET", f"{path}?{query}" if query else path, msgspec.json.Decoder(StoredFeatures).decode)


def models() -> Call[list[ModelCard]]:
    """`GET /v1/models`."""
    return Call("GET", "/v1/models", lambda body: msgspec.json.decode(body, type=ModelList).models)


def decision(decision_id: str) -> Call[Decision]:
    """`GET /v1/decisions/{id}`."""
    return Call("GET", f"/v1/decisions/{_segment(decision_id)}", _decision)


def ready() -> Call[Readiness]:
    """`GET /readyz`: not being ready is an answer."""
    return Call("GET", "/readyz", msgspec.json.Decoder(Readiness).decode, statuses=(OK, NOT_READY))


def decision_or_problem(body: bytes | Raw) -> Decision | Problem:
    """One answer of a batch."""
    try:
        return _decision(body)
    except msgspec.ValidationError:
        return msgspec.json.decode(body, type=Problem)


def error_of(answer: Answer) -> ProblemError | UnexpectedAnswerError:
    """The error that an answer tells, or that it is none of the scoring application's."""
    for kind in (EventsProblem, Problem):
        try:
            return ProblemError(msgspec.json.decode(answer.body, type=kind), answer.retry_after_s)
        except msgspec.DecodeError:
            continue
    return _unexpected(answer)


def whole_line(line: bytes) -> bytes:
    """A line that came. Raises ConnectionFailedError for one that was cut off, or is none."""
    if not line.endswith(b"\n"):
        raise ConnectionFailedError("the answer ended before all of it had come")
    return line


def read_line(call: Call[T], line: bytes) -> T:
    """One line of an answer. Raises UnexpectedAnswerError."""
    return _read(call.read, Answer(OK, line))


def _read(read: Callable[[bytes], T], answer: Answer) -> T:
    try:
        return read(answer.body)
    except msgspec.DecodeError as error:
        raise _unexpected(answer) from error


def _unexpected(answer: Answer) -> UnexpectedAnswerError:
    told = answer.body[:_TOLD_MAX].decode(errors="replace")
    return UnexpectedAnswerError(f"{answer.status}, and no answer of this client's version: {told!r}")


def _post(
    path: str,
    body: object,
    read: Callable[[bytes], T],
    headers: Mapping[str, str] | None = None,
    *,
    is_repeatable: bool = True,
    takes_deadline: bool = False,
) -> Call[T]:
    sent = {"content-type": JSON, **(headers or {})}
    encoded = msgspec.json.encode(body)
    return Call("POST", path, read, encoded, sent, is_repeatable=is_repeatable, takes_deadline=takes_deadline)


def _batch(
    model: str,
    asked: Sequence[Question],
    explain: Explain,
    read: Callable[[bytes], T],
    accept: str,
    *,
    publish_event: bool,
) -> Call[T]:
    request = BatchRequest(model=model, explain=explain, publish_event=publish_event, requests=list(asked))
    headers = {"accept": accept}
    return _post("/v1/score:batch", request, read, headers, is_repeatable=False, takes_deadline=True)


def _batch_answers(body: bytes) -> list[Decision | Problem]:
    return [decision_or_problem(raw) for raw in msgspec.json.decode(body, type=_BatchAnswer).decisions]


class _BatchAnswer(Struct):
    decisions: list[Raw]


def _score_request(model: str, asked: Question, explain: Explain, *, publish_event: bool) -> ScoreRequest:
    fields: dict[str, Any] = {name: getattr(asked, name) for name in Question.__struct_fields__}
    return ScoreRequest(model=model, explain=explain, publish_event=publish_event, **fields)


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def _segment(value: str) -> str:
    return quote(value, safe="")


_decision: Callable[[bytes | Raw], Decision] = msgspec.json.Decoder(Decision).decode
