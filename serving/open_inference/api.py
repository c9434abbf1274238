"""The protocol's paths. Each row is a question of its own: it shares rounds, and is a decision in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib import metadata

import msgspec

from serving.access import Gate
from serving.clock import Clock
from serving.deadlines import until_ns_after
from serving.decision import Decision, ScoreRequest
from serving.errors import InvalidFieldError, RequestError, UnknownPathError
from serving.http import JSON, Receive, Response, Scope, header, read_body, require_uncompressed
from serving.loading import ServedModel
from serving.open_inference.contract import (
    InferenceAnswer,
    InferenceError,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from serving.open_inference.model_tensors import OUTPUTS, explain_for, metadata_of, questions_of, wanted_outputs
from serving.open_inference.tensors import HEADER_LENGTH, decode_body, encode_body, tensor_of
from serving.problems import headers_of, problem_of
from serving.routing import PATH_PARAMS, Handler
from serving.score_api import CLIENT, NO_STORE, until_ns_of
from serving.scoring import ScoringService

SERVER_PATH = "/v2"
MODEL_PATH = "/v2/models/{model}"
VERSION_PATH = f"{MODEL_PATH}/versions/{{version}}"
SERVER_NAME = "actor-risk"
EXTENSIONS = ["binary_tensor_data"]
OCTETS = "application/octet-stream"

_US_PER_S = 1e6


def is_ours(path: str) -> bool:
    """Whether a path is the protocol's, whose errors are told in its own form."""
    return path == SERVER_PATH or path.startswith(f"{SERVER_PATH}/")


def refusal(error: Exception) -> Response:
    """An error in the protocol's form. What is wrong with a request is 400, however well-formed it is."""
    problem = problem_of(error)
    status = HTTPStatus.BAD_REQUEST if problem.status == HTTPStatus.UNPROCESSABLE_ENTITY else problem.status
    told = problem.detail if problem.field is None else f"{problem.field}: {problem.detail}"
    return Response(int(status), msgspec.json.encode(InferenceError(told)), JSON, headers_of(error))


class OpenInference:
    """Answers what clients of KServe and Triton ask."""

    def __init__(self, service: ScoringService, clock: Clock, gate: Gate, body_bytes_max: int) -> None:
        """Whoever asks is charged at the `gate` for each row."""
        self._service = service
        self._clock = clock
        self._gate = gate
        self._body_bytes_max = body_bytes_max

    def routes(self) -> Mapping[str, Mapping[str, Handler]]:
        """Path → method → handler."""
        routes: dict[str, Mapping[str, Handler]] = {
            SERVER_PATH: {"GET": self._server},
            f"{SERVER_PATH}/health/live": {"GET": self._live},
            f"{SERVER_PATH}/health/ready": {"GET": self._ready},
        }
        for path in (MODEL_PATH, VERSION_PATH):
            routes[path] = {"GET": self._model}
            routes[f"{path}/ready"] = {"GET": self._model_ready}
            routes[f"{path}/infer"] = {"POST": self._infer}
        return routes

    async def _server(self, _scope: Scope, _receive: Receive) -> Response:
        return _json(ServerMetadata(SERVER_NAME, metadata.version("actor-risk"), EXTENSIONS))

    async def _live(self, _scope: Scope, _receive: Receive) -> Response:
        return _json(ServerLive(True))

    async def _ready(self, _scope: Scope, _receive: Receive) -> Response:
        ready = (await self._service.readiness()).ready
        return _json(ServerReady(ready), 200 if ready else 503)

    async def _model(self, scope: Scope, _receive: Receive) -> Response:
        return _json(metadata_of(self._served(scope)))

    async def _model_ready(self, scope: Scope, _receive: Receive) -> Response:
        served = self._served(scope)
        ready = (await self._service.readiness()).ready
        return _json(ModelReady(served.card.name, ready), 200 if ready else 503)

    async def _infer(self, scope: Scope, receive: Receive) -> Response:
        self._service.require_capacity()
        require_uncompressed(scope)
        body = await read_body(scope, receive, self._body_bytes_max)
        since_ns = self._clock.monotonic_ns()
        served = self._served(scope)
        request, binary = decode_body(body, header(scope, HEADER_LENGTH.encode()))
        wanted = wanted_outputs(request)
        questions = questions_of(request, binary, served, explain_for(request, wanted))
        self._gate.charge(scope[CLIENT], len(questions) - 1)
        self._service.require(served.card.name, len(questions) - 1)
        _require_readable(served, questions, self._clock.now_ms())
        timeout_us = request.parameters.timeout
        until_ns = (
            until_ns_of(scope, since_ns) if timeout_us is None else until_ns_after(since_ns, timeout_us / _US_PER_S)
        )
        decisions = await self._decisions(questions, since_ns, until_ns, header(scope, b"traceparent"))
        outputs = [
            tensor_of(name, OUTPUTS[name].datatype, OUTPUTS[name].of(decisions, served), binary=as_bytes)
            for name, as_bytes in wanted.items()
        ]
        answer = InferenceAnswer(
            served.card.name, served.card.version, [tensor for tensor, _ in outputs], request.id or None
        )
        encoded, json_bytes = encode_body(answer, [part for _, part in outputs])
        if json_bytes is None:
            return Response(200, encoded, headers=NO_STORE)
        return Response(200, encoded, OCTETS, (*NO_STORE, (HEADER_LENGTH, str(json_bytes))))

    async def _decisions(
        self, questions: Sequence[ScoreRequest], since_ns: int, until_ns: int | None, traceparent: str | None
    ) -> list[Decision]:
        """One decision for each. The first is as urgent as a question alone, the others let everybody go first."""
        score = self._service.score
        tasks = [
            asyncio.create_task(score(question, since_ns, traceparent=traceparent, until_ns=until_ns, patient=n > 0))
            for n, question in enumerate(questions)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # when one fails, or the client has gone, nobody waits for the others
                task.cancel()

    def _served(self, scope: Scope) -> ServedModel:
        params = scope[PATH_PARAMS]
        served = self._service.served(params["model"])
        version = params.get("version", served.card.version)
        if version != served.card.version:
            told = f"no version {version!r} of {served.card.name!r} is served; it is {served.card.version!r}"
            raise UnknownPathError(told)
        return served


def _require_readable(served: ServedModel, questions: Sequence[ScoreRequest], now_ms: int) -> None:
    """Raises InvalidFieldError for the first row that cannot be asked about, before any is decided."""
    for row, question in enumerate(questions):
        try:
            served.inputs.read(question, now_ms)
        except RequestError as error:
            raise InvalidFieldError(f"{error.detail} (row {row})", error.field) from error


def _json(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(body), headers=NO_STORE)
