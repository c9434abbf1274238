"""The protocol in the OpenAPI document: its paths, with examples, and its schemas."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.http import JSON
from serving.open_inference.api import MODEL_PATH, OCTETS, SERVER_PATH, VERSION_PATH
from serving.open_inference.contract import (
    InferenceAnswer,
    InferenceError,
    InferenceRequest,
    InputTensor,
    ModelMetadata,
    ModelReady,
    OutputTensor,
    RequestParameters,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from serving.open_inference.model_tensors import PLATFORM
from serving.open_inference.tensors import HEADER_LENGTH

JsonObject = dict[str, Any]

_ERRORS = {
    400: ("The request cannot be answered as it is", "inputs[0].shape[0]: Expected `int` <= 1000"),
    401: ("A valid key or token is needed", "send a valid API key or token"),
    403: ("The key or token does not allow this", "the key or token does not have the scope 'score'"),
    404: ("No such model, or no such version of it", "model: no model 'click_risk' is served here"),
    405: ("The path has no such method", "/v2 does not take POST; it takes GET, HEAD, OPTIONS"),
    408: ("The body does not come", "a request body must be there within 10 s"),
    413: ("The body is too large", "a request body may have at most 1048576 bytes"),
    415: ("The body must not be compressed", "send the body uncompressed, without `content-encoding: gzip`"),
    429: ("More requests than are taken now", "more requests wait than can be answered soon; try again in 1 s"),
    500: ("The server failed", "the failure is in the server's log"),
    503: ("There is no answer now", "Redis did not answer in time: try again"),
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
_LENGTH_HEADER = {"schema": {"type": "integer"}, "description": "bytes of the body that are JSON; tensors follow them"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_NAME = "ad_click_risk"
_KEYS = {"ip": "203.0.113.9", "device_id": "dev-1009", "creator_id": "cre-7", "advertiser_id": "adv-42"}
_INPUTS = [InputTensor(name, [1], "BYTES", data=[value]) for name, value in _KEYS.items()]
_TYPES = (
    InferenceAnswer,
    InferenceError,
    InferenceRequest,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)


def inference_paths() -> JsonObject:
    """Path → its operations."""
    server = ServerMetadata("actor-risk", "0.1.0", ["binary_tensor_data"])
    paths = {
        SERVER_PATH: {"get": _get("inferenceServer", "Name, version and extensions of the server", server)},
        f"{SERVER_PATH}/health/live": {"get": _get("inferenceLive", "The process lives", ServerLive(True))},
        f"{SERVER_PATH}/health/ready": {"get": _readiness("inferenceReady", ServerReady(True), ServerReady(False))},
    }
    for path, of in ((MODEL_PATH, "Model"), (VERSION_PATH, "ModelVersion")):
        ready = _readiness(f"inference{of}Ready", ModelReady(_NAME, True), ModelReady(_NAME, False))
        paths[path] = {"get": _get(f"inference{of}", "Inputs and outputs of a model", _example_metadata())}
        paths[f"{path}/ready"] = {"get": ready}
        paths[f"{path}/infer"] = {"post": _infer(f"infer{of}")}
        for operation in (paths[path]["get"], ready, paths[f"{path}/infer"]["post"]):
            operation["parameters"] = [*_path_parameters(path), *operation.get("parameters", [])]
            operation["responses"]["404"] = inference_error(404)
    return paths


def inference_schemas() -> JsonObject:
    """Name → schema, of what the paths refer to."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return schemas


def inference_error(status: int) -> JsonObject:
    """An answer in the protocol's own form of errors."""
    told, example = _ERRORS[status]
    return {"description": told, "content": {JSON: _json(InferenceError(example))}}


def _get(operation_id: str, summary: str, answer: msgspec.Struct) -> JsonObject:
    answers = {"200": {"description": summary, "content": {JSON: _json(answer)}}, "405": inference_error(405)}
    return {"operationId": operation_id, "summary": summary, "responses": answers}


def _readiness(operation_id: str, ready: msgspec.Struct, not_ready: msgspec.Struct) -> JsonObject:
    operation = _get(operation_id, "Requests can be answered", ready)
    content = {JSON: _json(not_ready)}
    operation["responses"]["503"] = {"description": "Requests cannot be answered", "content": content}
    return operation


def _infer(operation_id: str) -> JsonObject:
    shown = {
        "Score, margin and verdict": InferenceRequest(_INPUTS),
        "Everything of an explanation": InferenceRequest(_INPUTS, parameters=RequestParameters(explain="full")),
    }
    examples = {name: {"value": msgspec.to_builtins(request)} for name, request in shown.items()}
    answers: JsonObject = {str(status): inference_error(status) for status in (400, 408, 413, 415, 429, 500, 503)}
    answers["429"]["headers"] = answers["503"]["headers"] = _RETRY_AFTER
    answers["200"] = {
        "description": "The outputs, row after row",
        "headers": {HEADER_LENGTH: _LENGTH_HEADER},
        "content": {JSON: _json(_example_answer()), OCTETS: _BINARY},
    }
    return {
        "operationId": operation_id,
        "summary": "Score many actors, and say why, as tensors",
        "description": "Each row is an actor: its features are read now, it is scored as `POST /v1/score` does, and is "
        "a decision of its own. All rows are answered or none. Request fields may be left out; a NaN or null counts as "
        "missing. Outputs of an explanation are answered when they are named, or with the parameter `explain`.",
        "parameters": [{"name": HEADER_LENGTH, "in": "header", "required": False, **_LENGTH_HEADER}],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": _ref(InferenceRequest), "examples": examples}, OCTETS: _BINARY},
        },
        "responses": dict(sorted(answers.items())),
    }


def _path_parameters(path: str) -> list[JsonObject]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _example_metadata() -> ModelMetadata:
    outputs = [TensorMetadata("score", "FP64", [-1]), TensorMetadata("attributions", "FP64", [-1, 62])]
    inputs = [TensorMetadata(name, "BYTES", [-1]) for name in _KEYS]
    return ModelMetadata(_NAME, ["9c1e5b7a20d34f68"], PLATFORM, inputs, outputs)


def _example_answer() -> InferenceAnswer:
    outputs = [
        OutputTensor("score", [1], "FP64", data=[0.9168273]),
        OutputTensor("margin", [1], "FP64", data=[2.4]),
        OutputTensor("verdict", [1], "BYTES", data=["block"]),
    ]
    return InferenceAnswer(_NAME, "9c1e5b7a20d34f68", outputs)


def _json(example: msgspec.Struct) -> JsonObject:
    return {"schema": _ref(type(example)), "example": msgspec.to_builtins(example)}


def _ref(schema: type) -> JsonObject:
    return {"$ref": f"#/components/schemas/{schema.__name__}"}
