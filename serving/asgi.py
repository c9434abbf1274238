"""The HTTP API as a plain ASGI application: no framework between a request and its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import resources

import msgspec

from materialize.events import TOPICS, json_schema
from serving.access import Gate, LoopbackGate
from serving.clock import Clock
from serving.decision import Health, ModelList, Readiness
from serving.edge import SCORE, Door
from serving.entity_features import EntityFeaturesApi
from serving.errors import (
    EventRejectedError,
    EventsUnconfirmedError,
    MethodNotAllowedError,
    TooManyRequestsError,
    UnknownPathError,
)
from serving.events import EventIntake
from serving.feast_api import NOT_HERE, FeastApi
from serving.first_answers import FirstAnswers
from serving.http import (
    HTML,
    NO_CONTENT,
    WHOLE_ANSWER,
    ClientGoneError,
    Receive,
    Response,
    Scope,
    Send,
    header,
    path_of,
    raw_path_of,
    read_body,
    require_json,
    respond,
    run_lifespan,
)
from serving.open_inference import OpenInference, is_ours, refusal
from serving.openapi import openapi_document
from serving.ports import DecisionFinder
from serving.problems import KINDS, PROBLEM_JSON, headers_of, kind_of, log_if_unforeseen, problem_of
from serving.routing import PATH_PARAMS, Found, Handler, Routes
from serving.score_api import CLIENT, ScoreApi
from serving.scoring import BEYOND_CAPACITY, ScoringService

EVENTS_PATH = "/v1/events"
FEATURES_PATH = "/get-online-features"
SCHEMA_JSON = "application/schema+json"
OTHER_ROUTE = "other"
CLIENT_GONE = 499

_NO_STORE = (("cache-control", "no-store"),)
_DOCS_HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'",
    ),
    ("x-content-type-options", "nosniff"),
)


class ScoringApp:
    """The ASGI application. It holds no state of its own but its counters."""

    def __init__(
        self,
        service: ScoringService,
        clock: Clock,
        *,
        body_bytes_max: int,
        notes: Sequence[str] = (),
        shut_down: Callable[[], Awaitable[None]],
        feast: FeastApi | None = None,
        intake: EventIntake | None = None,
        gate: Gate | None = None,
        first_answers: FirstAnswers | None = None,
        finder: DecisionFinder | None = None,
        entities: EntityFeaturesApi | None = None,
    ) -> None:
        """`notes` are shown by /readyz beside the service's own; `shut_down` runs when the server stops. With `feast`
        Feast's clients are answered too, with `intake` events are taken. Without `gate` only this machine is answered,
        without `first_answers` idempotency keys are not looked at, without `finder` no decision is found. With
        `entities` is told what is stored of them.
        """
        self._service = service
        self._clock = clock
        self._body_bytes_max = body_bytes_max
        self._notes = list(notes)
        self._shut_down = shut_down
        self._gate = gate or LoopbackGate()
        self._telemetry = service.telemetry
        self._tracing = service.tracing
        self._encoder = msgspec.json.Encoder()
        self._openapi = self._encoder.encode(
            openapi_document(
                with_feast=feast is not None, with_events=intake is not None, with_entities=entities is not None
            )
        )
        self._docs = resources.files("serving").joinpath("docs.html").read_bytes()
        scoring = ScoreApi(service, clock, self._gate, body_bytes_max, first_answers, finder)
        self._routes = Routes()
        add = self._routes.add
        add("/v1/score", POST=scoring.score)
        add("/v1/score:batch", POST=scoring.score_batch)
        add("/v1/explain", POST=scoring.explain)
        add("/v1/decisions/{id}", GET=scoring.decision)
        inference = OpenInference(service, clock, self._gate, body_bytes_max)
        for path, handlers in inference.routes().items():
            add(path, **handlers)
        add("/v1/models", GET=self._list_models)
        add("/healthz", GET=self._healthz)
        add("/readyz", GET=self._readyz)
        add("/metrics", GET=self._metrics)
        add("/openapi.json", GET=self._openapi_json)
        add("/docs", GET=self._docs_page)
        for topic in TOPICS:
            add(f"{EVENTS_PATH}/schemas/{topic}", GET=_fixed(self._encoder.encode(json_schema(topic))))
        if intake is not None:
            add(EVENTS_PATH, POST=partial(self._take_events, intake))
        if entities is not None:
            add("/v1/features/{entity}/{key}", GET=entities.features)
        if feast is not None:
            add(FEATURES_PATH, POST=partial(self._get_online_features, feast))
            add("/health", GET=self._healthz)

    @property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """Template of a path → methods, without HEAD and OPTIONS, which follow from them.

        Not called `routes`: Ray Serve would look through those of an application at every request.
        """
        return self._routes.methods

    def stand_at(self, door: Door) -> None:
        """Let scores beyond capacity be refused at the door, where it costs least, as they would be here."""
        error = TooManyRequestsError(BEYOND_CAPACITY)
        problem = problem_of(error)
        door.refusal = Response(problem.status, self._encoder.encode(problem), PROBLEM_JSON, headers_of(error))
        door.sheds = self._sheds
        door.capacity = lambda: self._service.capacity
        door.hears_refused = self._count_refused

    def _sheds(self) -> bool:
        is_shed = self._service.is_full
        if is_shed:
            self._count_refused(1)
        return is_shed

    def _count_refused(self, count: int) -> None:
        """Count scores that were refused at the door, or on the way to it."""
        kind = KINDS[TooManyRequestsError]
        self._service.count_refused(count)
        self._telemetry.count_problem(kind.word, count)
        self._telemetry.count_request(SCORE, kind.status, count)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request, or the lifespan. Every failure becomes problem details."""
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, self._shut_down)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        await self.answer(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer one HTTP request; the status."""
        path = path_of(scope)
        found = self._routes.find(path, raw_path_of(scope))
        route = OTHER_ROUTE if found is None else found.template
        if self._tracing is None:
            return await self._serve(path, found, route, scope, receive, send)
        with self._tracing.request(scope, route) as answered:
            status = await self._serve(path, found, route, scope, receive, send)
            answered(status)
            return status

    async def _serve(
        self, path: str, found: Found | None, route: str, scope: Scope, receive: Receive, send: Send
    ) -> int:
        """Answer one request; the status."""
        try:
            scope[CLIENT] = self._gate.admit(scope, path)  # before anything is read, or said of the path
            response = await self._answer(path, found, scope, receive)
        except ClientGoneError:
            self._telemetry.count_request(route, CLIENT_GONE)
            return CLIENT_GONE
        except Exception as error:  # the outermost edge: whatever happened, the client gets an answer
            response = self._problem(error, path)
        self._telemetry.count_request(route, response.status)
        answer_whole = scope.get(WHOLE_ANSWER)
        if answer_whole is None or response.parts is not None:
            await respond(send, response, with_body=scope["method"] != "HEAD")
        else:
            answer_whole(response)
        return response.status

    async def _answer(self, path: str, found: Found | None, scope: Scope, receive: Receive) -> Response:
        if found is None:
            told = NOT_HERE.get(path, f"the paths are {', '.join(self.paths)}")
            raise UnknownPathError(f"nothing lives at {path!r}; {told}")
        handlers, method = found.handlers, str(scope["method"])
        scope[PATH_PARAMS] = found.params
        handler = handlers.get("GET" if method == "HEAD" else method)
        if handler is not None:
            return await handler(scope, receive)
        allow = (*handlers, *(["HEAD"] if "GET" in handlers else []), "OPTIONS")
        if method == "OPTIONS":
            return Response(NO_CONTENT, headers=(("allow", ", ".join(allow)),))
        raise MethodNotAllowedError(method, path, allow)

    def _problem(self, error: Exception, path: str) -> Response:
        self._telemetry.count_problem(kind_of(error).word)
        log_if_unforeseen(error)
        if is_ours(path):
            return refusal(error)
        problem = problem_of(error)
        return Response(problem.status, self._encoder.encode(problem), PROBLEM_JSON, headers_of(error))

    async def _take_events(self, intake: EventIntake, scope: Scope, receive: Receive) -> Response:
        require_json(scope)
        body = await read_body(scope, receive, self._body_bytes_max)
        try:
            answer = await intake.take(body, self._clock.now_ms())
        except (EventRejectedError, EventsUnconfirmedError) as error:
            self._telemetry.count_events(error.results)
            raise
        self._telemetry.count_events(answer.results)
        return Response(200, self._encoder.encode(answer), headers=_NO_STORE)

    async def _get_online_features(self, feast: FeastApi, scope: Scope, receive: Receive) -> Response:
        require_json(scope)
        body = await read_body(scope, receive, self._body_bytes_max)
        answer = await feast.get_online_features(body, self._clock.now_ms())
        return Response(200, self._encoder.encode(answer), headers=_NO_STORE)

    async def _list_models(self, _scope: Scope, _receive: Receive) -> Response:
        return Response(200, self._encoder.encode(ModelList(self._service.cards())))

    async def _healthz(self, _scope: Scope, _receive: Receive) -> Response:
        return Response(200, self._encoder.encode(Health("ok")), headers=_NO_STORE)

    async def _readyz(self, _scope: Scope, _receive: Receive) -> Response:
        own = await self._service.readiness()
        readiness = Readiness(
            ready=own.ready, reasons=own.reasons, notes=[*own.notes, *self._notes, *self._gate.notes()]
        )
        return Response(200 if own.ready else 503, self._encoder.encode(readiness), headers=_NO_STORE)

    async def _metrics(self, scope: Scope, _receive: Receive) -> Response:
        page, content_type = self._telemetry.render(self._service.state(), header(scope, b"accept") or "")
        return Response(200, page, content_type, _NO_STORE)

    async def _openapi_json(self, _scope: Scope, _receive: Receive) -> Response:
        return Response(200, self._openapi)

    async def _docs_page(self, _scope: Scope, _receive: Receive) -> Response:
        return Response(200, self._docs, HTML, _DOCS_HEADERS)


def _fixed(schema: bytes) -> Handler:
    """Answers with a JSON Schema."""

    async def answer(_scope: Scope, _receive: Receive) -> Response:
        return Response(200, schema, SCHEMA_JSON)

    return answer
