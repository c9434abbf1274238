"""The scoring routes: one actor, many, an explanation, and a decision made before."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from serving.access import Gate
from serving.clock import Clock
from serving.deadlines import RESERVE_S, until_ns_after
from serving.decision import BatchRequest, Decision, Problem, Question, ScoreRequest
from serving.errors import InvalidFieldError, UnknownDecisionError
from serving.fields import decode_json
from serving.first_answers import FirstAnswers, digest_of
from serving.http import Receive, Response, Scope, header, read_body, require_json
from serving.inputs import decode_request
from serving.ports import DecisionFinder
from serving.problems import kind_of, log_if_unforeseen, problem_of
from serving.routing import PATH_PARAMS
from serving.scoring import ScoringService

CLIENT = "actor_risk.client"
"""Where a handler finds in the scope who asks, an `access.Client`."""
NDJSON = "application/x-ndjson"
NO_STORE = (("cache-control", "no-store"),)

IDEMPOTENCY_KEY, TIMEOUT = b"idempotency-key", b"x-request-timeout-seconds"
TIMEOUT_MAX_S = 60.0
LINES_AT_ONCE = 32
_IDEMPOTENCY_KEY_MAX = 255

_BATCH_DECODER = msgspec.json.Decoder(BatchRequest)


class ScoreApi:
    """Handlers for `ScoringApp`."""

    def __init__(
        self,
        service: ScoringService,
        clock: Clock,
        gate: Gate,
        body_bytes_max: int,
        first_answers: FirstAnswers | None = None,
        finder: DecisionFinder | None = None,
    ) -> None:
        """Without `first_answers` idempotency keys are not looked at; without `finder` no decision is found."""
        self._service = service
        self._clock = clock
        self._telemetry = service.telemetry
        self._gate = gate
        self._body_bytes_max = body_bytes_max
        self._first_answers = first_answers
        self._finder = finder
        self._encoder = msgspec.json.Encoder()

    async def score(self, scope: Scope, receive: Receive) -> Response:
        """`POST /v1/score`."""
        self._service.require_capacity()
        body = await self._body(scope, receive)
        since_ns = self._clock.monotonic_ns()
        key, until_ns = header(scope, IDEMPOTENCY_KEY), until_ns_of(scope, since_ns)
        if key is None or self._first_answers is None:
            return await self._score(scope, decode_request(body), since_ns, until_ns)
        if not (key.isascii() and key.isprintable() and 0 < len(key) <= _IDEMPOTENCY_KEY_MAX):
            raise InvalidFieldError(f"an idempotency-key has 1 to {_IDEMPOTENCY_KEY_MAX} visible ASCII characters")
        request = decode_request(body)
        client, digest = scope[CLIENT].name, digest_of(body)
        kept = await self._first_answers.begin(client, key, digest, self._left_s(until_ns))
        if kept.answer is not None:
            self._telemetry.count_repeat()
            return Response(200, kept.answer, headers=NO_STORE)
        async with kept:
            response = await self._score(scope, request, since_ns, until_ns, is_kept=kept.is_held)
            await kept.keep(response.body, self._left_s(until_ns, RESERVE_S))
        return response

    async def explain(self, scope: Scope, receive: Receive) -> Response:
        """`POST /v1/explain`: the same with every feature, and without publishing the event."""
        self._service.require_capacity(patient=1)
        body = await self._body(scope, receive)
        since_ns = self._clock.monotonic_ns()
        request = msgspec.structs.replace(decode_request(body), explain="full", publish_event=False)
        return await self._score(scope, request, since_ns, until_ns_of(scope, since_ns), patient=True)

    async def score_batch(self, scope: Scope, receive: Receive) -> Response:
        """`POST /v1/score:batch`: as one document, or line by line for who accepts NDJSON."""
        body = await self._body(scope, receive)
        since_ns = self._clock.monotonic_ns()
        batch: BatchRequest = decode_json(_BATCH_DECODER, body)
        self._gate.charge(scope[CLIENT], len(batch.requests) - 1)
        self._service.require(batch.model, len(batch.requests))
        until_ns, traceparent = until_ns_of(scope, since_ns), header(scope, b"traceparent")
        answers = [
            asyncio.create_task(self._one_of(batch, question, since_ns, traceparent, until_ns))
            for question in batch.requests
        ]
        if NDJSON in (header(scope, b"accept") or ""):
            return Response(200, content_type=NDJSON, headers=NO_STORE, parts=self._lines(answers))
        try:
            found = [await answer for answer in answers]
        finally:
            _leave(answers)
        return Response(200, self._encoder.encode({"decisions": found}), headers=NO_STORE)

    async def decision(self, scope: Scope, _receive: Receive) -> Response:
        """`GET /v1/decisions/{id}`: the record as it was answered."""
        name = scope[PATH_PARAMS]["id"]
        found = None if self._finder is None else await self._finder.find(name)
        if found is None:
            raise UnknownDecisionError(name)
        return Response(200, found, headers=NO_STORE)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        require_json(scope)
        return await read_body(scope, receive, self._body_bytes_max)

    def _left_s(self, until_ns: int | None, more_s: float = 0.0) -> float | None:
        return None if until_ns is None else max(0.0, self._clock.left_s(until_ns) + more_s)

    async def _score(
        self,
        scope: Scope,
        request: ScoreRequest,
        since_ns: int,
        until_ns: int | None,
        *,
        is_kept: bool = True,
        patient: bool = False,
    ) -> Response:
        decision = await self._service.score(
            request,
            since_ns,
            traceparent=header(scope, b"traceparent"),
            until_ns=until_ns,
            patient=patient,
            degraded=() if is_kept else ("answer_not_kept",),
        )
        return Response(200, self._encoder.encode(decision), headers=NO_STORE)

    async def _one_of(
        self, batch: BatchRequest, question: Question, since_ns: int, traceparent: str | None, until_ns: int | None
    ) -> Decision | Problem:
        """One answer of a batch: what is wrong with one question is no other's affair."""
        fields: dict[str, Any] = {name: getattr(question, name) for name in Question.__struct_fields__}
        request = ScoreRequest(model=batch.model, explain=batch.explain, publish_event=batch.publish_event, **fields)
        try:
            decision = await self._service.score(
                request, since_ns, traceparent=traceparent, until_ns=until_ns, patient=True
            )
        except Exception as error:  # the outermost edge of one answer: it becomes problem details in its place
            self._telemetry.count_problem(kind_of(error).word)
            log_if_unforeseen(error)
            return problem_of(error)
        return decision

    async def _lines(self, answers: Sequence[asyncio.Task[Decision | Problem]]) -> AsyncGenerator[bytes]:
        """The answers in order, as many at once as are scored together."""
        try:
            for begin in range(0, len(answers), LINES_AT_ONCE):
                yield self._encoder.encode_lines([await answer for answer in answers[begin : begin + LINES_AT_ONCE]])
        finally:
            _leave(answers)


def until_ns_of(scope: Scope, since_ns: int) -> int | None:
    """By when an answer must be made, by the request's own header. Raises InvalidFieldError for what is no number."""
    text = header(scope, TIMEOUT)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= TIMEOUT_MAX_S:
        raise InvalidFieldError(f"x-request-timeout-seconds is a number above 0, at most {TIMEOUT_MAX_S:g}")
    return until_ns_after(since_ns, seconds)


def _leave(answers: Sequence[asyncio.Task[Decision | Problem]]) -> None:
    """Who has left does not wait for the rest."""
    for answer in answers:
        answer.cancel()
