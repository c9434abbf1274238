"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1), built from the contract's types."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import msgspec

from materialize.events import TOPICS, schema_version
from serving import examples
from serving.access import ANY_KEY, OPEN, need_of
from serving.decision import (
    BATCH_MAX,
    BatchRequest,
    Decision,
    Health,
    ModelList,
    Problem,
    Question,
    Readiness,
    ScoreRequest,
    StoredFeatures,
)
from serving.errors import (
    EventRejectedError,
    EventsUnconfirmedError,
    ForbiddenError,
    TooManyRequestsError,
    UnauthorizedError,
    UnknownDecisionError,
    UnknownEntityError,
)
from serving.event_results import EVENTS_MAX, EventItem, EventResult, EventsAnswer, EventsProblem
from serving.feast_api import FeatureColumn, FeaturesAnswer, FeaturesMetadata, FeaturesRequest
from serving.open_inference import inference_error, inference_paths, inference_schemas, is_ours
from serving.problems import INTERNAL, KINDS, PROBLEM_JSON, ProblemKind, problem_of

JsonObject = dict[str, Any]

_REF = "#/components/schemas/{name}"
_SCORE_STATUSES = (400, 404, 408, 413, 415, 422, 500, 503)
_EVENTS_STATUSES = (400, 408, 413, 415, 500)
_FEATURES_STATUSES = (400, 408, 413, 415, 422, 500, 503)
_FIELDS_AT_FAULT = {404: "model", 422: "entities.ip"}
_DETAILS = {
    400: "not valid JSON: Input data was truncated",
    401: str(UnauthorizedError()),
    403: str(ForbiddenError("score")),
    404: "no model 'click_risk' is served here; the models are ['ad_click_risk', 'advertiser_risk']",
    405: "/v1/score does not take GET; it takes POST, OPTIONS",
    408: "a request body must be there within 10 s",
    409: "a request of the same idempotency-key is being answered: send it again for the same answer",
    413: "a request body may have at most 1048576 bytes",
    415: "send the header `content-type: application/json`, not 'text/plain'",
    422: "missing: give entities.ip, or an event that carries 'ip'",
    429: str(TooManyRequestsError("this client sends more than 1000 requests a second")),
    500: "the failure is in the server's log",
    503: "Redis did not answer in time: try again",
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT with the scopes in `scope`"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key"},
}
_FEATURES_ENTITIES = {
    "ip": ["203.0.113.9"],
    "device_id": ["dev-1009"],
    "creator_id": ["cre-7"],
    "advertiser_id": ["adv-42"],
    "amount_usd": [0.4],
    "ms_since_impression": [180],
}
_TRACEPARENT: JsonObject = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "W3C trace context: gives the trace id when the body has none; ignored when not valid",
}
_TIMEOUT: JsonObject = {
    "name": "x-request-timeout-seconds",
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 60},
    "description": "By when the answer must be there. Left out for it, in this order, and told in `degraded`: the "
    "explanation, the stored features (the score is that of an unknown actor), the model (the policy's fallback model "
    "answers, or its fallback score)",
}
_IDEMPOTENCY_KEY: JsonObject = {
    "name": "idempotency-key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "A request that is sent again with its key within ten minutes gets the first answer, byte by byte",
}
_DESCRIPTION = (
    "Scores actors in advertising (advertisers, creators, and the IPs and devices that link them) from features that "
    "are fresh to the last event, and says why. Errors are problem details (RFC 9457); `field` names the part of the "
    "request at fault. A server that only its own machine can reach may ask for no key."
)


def openapi_document(*, with_feast: bool = False, with_events: bool = False, with_entities: bool = False) -> JsonObject:
    """The whole document, ready to be encoded as JSON; `with_feast` what Feast's clients ask is in it, `with_events`
    that events are taken, `with_entities` that it is told what is stored of them."""
    document = _document()
    document["paths"] |= inference_paths()
    document["components"]["schemas"] |= inference_schemas()
    if with_events:
        document["paths"]["/v1/events"] = {"post": _events_operation()}
        document["components"]["schemas"] |= _event_schemas()
    if with_entities:
        document["paths"]["/v1/features/{entity}/{key}"] = {"get": _entity_operation()}
        _, schemas = msgspec.json.schema_components([StoredFeatures], ref_template=_REF)
        document["components"]["schemas"] |= schemas
    if with_feast:
        health = _get("health", "The process lives", {200: _json(Health, examples.example_health())})
        document["paths"] |= {"/get-online-features": {"post": _features_operation()}, "/health": {"get": health}}
        _, schemas = msgspec.json.schema_components([FeaturesRequest, FeaturesAnswer], ref_template=_REF)
        document["components"]["schemas"] |= schemas
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _say_who_may_ask(operation, need_of(path), inference_error if is_ours(path) else _problem_answer)
    return document


def _say_who_may_ask(operation: JsonObject, need: str | None, answer: Callable[[int], JsonObject]) -> None:
    """Which keys the operation takes, and what is answered to others and to those who ask too often."""
    if need is OPEN:
        operation["security"] = []
        return
    scopes = [] if need == ANY_KEY else [need]
    operation["security"] = [{scheme: scopes} for scheme in _SECURITY_SCHEMES]
    statuses = (401, 403, 429) if scopes else (401, 429)
    answers = {str(status): answer(status) for status in statuses}
    answers["401"]["headers"] = {"WWW-Authenticate": {"schema": {"const": "Bearer"}}}
    answers["429"]["headers"] = _RETRY_AFTER
    operation["responses"] = dict(sorted((operation["responses"] | answers).items()))


def _document() -> JsonObject:
    return {
        "openapi": "3.1.0",
        "info": {"title": "Actor Risk", "version": metadata.version("actor-risk"), "description": _DESCRIPTION},
        "paths": {
            "/v1/score": {"post": _score_operation()},
            "/v1/score:batch": {"post": _batch_operation()},
            "/v1/explain": {"post": _explain_operation()},
            "/v1/decisions/{id}": {"get": _decision_operation()},
            "/v1/models": {
                "get": _get("listModels", "The served models", {200: _json(ModelList, examples.example_models())})
            },
            **{f"/v1/events/schemas/{topic}": {"get": _schema_operation(topic)} for topic in TOPICS},
            "/healthz": {"get": _get("healthz", "The process lives", {200: _json(Health, examples.example_health())})},
            "/readyz": {"get": _readiness_operation()},
            "/metrics": {"get": _get("metrics", "Prometheus metrics of this process", {200: _text("text/plain")})},
            "/openapi.json": {"get": _get("openapi", "This document", {200: _text("application/json")})},
            "/docs": {"get": _get("docs", "This document, to read and to try", {200: _text("text/html")})},
        },
        "components": {"schemas": _schemas(), "securitySchemes": _SECURITY_SCHEMES},
        "x-problems": [msgspec.to_builtins(_problem(kind)) for kind in (*KINDS.values(), INTERNAL)],
    }


def _score_operation() -> JsonObject:
    answers = {
        "200": {
            "description": "The decision record",
            "content": {"application/json": _json(Decision, examples.example_decision())},
        }
    }
    answers |= {str(status): _problem_answer(status) for status in (*_SCORE_STATUSES, 409)}
    answers["503"]["headers"] = answers["409"]["headers"] = _RETRY_AFTER
    shown = {name: {"value": body} for name, body in examples.example_requests().items()}
    return {
        "operationId": "score",
        "summary": "Score an actor now, and say why",
        "description": "Reads the features as of now, merges the event into them, scores, explains, and publishes the "
        "event. An actor of whom nothing is known is scored too: `actor_known` is false, its statuses are NOT_FOUND.",
        "parameters": [_TRACEPARENT, _TIMEOUT, _IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(ScoreRequest), "examples": shown}},
        },
        "responses": answers,
    }


def _explain_operation() -> JsonObject:
    operation = _score_operation()
    del operation["responses"]["409"]
    return operation | {
        "operationId": "explain",
        "summary": "Score an actor now, and list the share of every feature",
        "description": "As `/v1/score` with `explain: full`, whatever is asked for, and the event is not published.",
        "parameters": [_TRACEPARENT, _TIMEOUT],
    }


def _batch_operation() -> JsonObject:
    record, problem = _ref(Decision), _ref(Problem)
    either = {"anyOf": [record, problem]}
    example = {"decisions": [msgspec.to_builtins(examples.example_decision())]}
    whole = {
        "type": "object",
        "properties": {"decisions": {"type": "array", "items": either}},
        "required": ["decisions"],
        "examples": [example],
    }
    answers = {
        "200": {
            "description": "In the order of the requests, a decision record of each, or problem details in its place; "
            "line by line, as they are made, for who accepts `application/x-ndjson`",
            "content": {
                "application/json": {"schema": whole},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        }
    }
    answers |= {str(status): _problem_answer(status) for status in _SCORE_STATUSES}
    answers["503"]["headers"] = _RETRY_AFTER
    return {
        "operationId": "scoreBatch",
        "summary": f"Score up to {BATCH_MAX:,} actors",
        "description": "Single requests go first. What is wrong with one actor is told in its place.",
        "parameters": [_TRACEPARENT, _TIMEOUT],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(BatchRequest), "example": examples.example_batch()}},
        },
        "responses": answers,
    }


def _decision_operation() -> JsonObject:
    answers = {
        "200": {
            "description": "The decision record, as it was answered",
            "content": {"application/json": _json(Decision, examples.example_decision())},
        }
    }
    answers |= {str(status): _problem_answer(status) for status in (500, 503)}
    answers["404"] = _told(UnknownDecisionError("019a1f3e-5e00-7c3b-9d52-0c8f4e6a1b27"))
    answers["503"]["headers"] = _RETRY_AFTER
    return {
        "operationId": "decision",
        "summary": "A decision made before",
        "description": "Looked for in the decision log of the machine that answers, then in the archive.",
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}],
        "responses": answers,
    }


def _events_operation() -> JsonObject:
    shown = {name: {"value": body} for name, body in examples.example_event_requests().items()}
    item = _ref(EventItem)
    many = {"type": "array", "items": item, "maxItems": EVENTS_MAX}
    answers = {
        "200": {
            "description": "What became of each event, in order: of a list also when some, or all, are rejected",
            "content": {"application/json": _json(EventsAnswer, examples.example_events_answer())},
        }
    }
    answers |= {str(status): _problem_answer(status) for status in _EVENTS_STATUSES}
    invalid = f"The one event is not valid, or the body is neither an item nor a list of at most {EVENTS_MAX}"
    answers["422"] = _events_problem(invalid, EventRejectedError(_rejected()))
    told = EventsUnconfirmedError(1, examples.example_unconfirmed())
    answers["503"] = _events_problem("The log did not acknowledge all events: send them again", told)
    answers["503"]["headers"] = _RETRY_AFTER
    return {
        "operationId": "takeEvents",
        "summary": "Publish events to the stream",
        "description": "Validates each event as the stream worker does, and publishes what is valid, keyed by IP (ad "
        "events) or account. Accepted means that the log has acknowledged it. An event that is sent again counts once, "
        "by its `event_id`; after a 503, or no answer, send the same body again.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"anyOf": [item, many]}, "examples": shown}},
        },
        "responses": answers,
    }


def _rejected() -> list[EventResult]:
    return [result for result in examples.example_events_answer().results if result.status == "rejected"]


def _events_problem(told: str, error: Exception) -> JsonObject:
    """An answer whose body says what became of each event; a 422 about the body as a whole has no `results`."""
    example = msgspec.to_builtins(problem_of(error))
    return {
        "description": told,
        "content": {PROBLEM_JSON: {"schema": {"anyOf": [_ref(EventsProblem), _ref(Problem)]}, "example": example}},
    }


def _event_schemas() -> JsonObject:
    _, schemas = msgspec.json.schema_components([EventItem, EventsAnswer, EventsProblem], ref_template=_REF)
    asked = schemas[EventItem.__name__]["properties"]
    asked["event"] |= {"anyOf": [_ref(schema) for schema in TOPICS.values()]}
    asked["event_topic"] |= {"enum": [*TOPICS, None]}
    return schemas


def _schema_operation(topic: str) -> JsonObject:
    told = f"JSON Schema of {topic}, version {schema_version(topic)}"
    return _get(f"schemaOf_{topic}", told, {200: _text("application/schema+json")})


def _entity_operation() -> JsonObject:
    answers = {
        "200": {
            "description": "Each feature with its status and age",
            "content": {"application/json": _json(StoredFeatures, examples.example_features())},
        }
    }
    answers |= {str(status): _problem_answer(status) for status in (422, 500, 503)}
    answers["404"] = _told(UnknownEntityError("seller", ["advertiser", "creator", "device", "ip"]))
    answers["503"]["headers"] = _RETRY_AFTER
    named = {"required": True, "in": "path", "schema": {"type": "string"}}
    chosen = {"required": False, "in": "query", "schema": {"type": "string"}}
    return {
        "operationId": "entityFeatures",
        "summary": "What is stored of one entity",
        "description": "The features of all views that are keyed by the entity alone, or some of them. Views of "
        "several entities and on-demand views are read by `POST /get-online-features`.",
        "parameters": [
            {"name": "entity", "description": "name of an entity in the feature registry", **named},
            {"name": "key", "description": "value of its join key", **named},
            {"name": "service", "description": "only what this feature service reads of it", **chosen},
            {"name": "features", "description": "only these: view:feature, with commas", **chosen},
        ],
        "responses": answers,
    }


def _features_operation() -> JsonObject:
    answers = {
        "200": {"description": "A column per join key and feature", "content": {"application/json": _features_answer()}}
    }
    answers |= {str(status): _problem_answer(status) for status in _FEATURES_STATUSES}
    shown = {
        "A feature service": {"feature_service": "ad_click_risk", "entities": _FEATURES_ENTITIES},
        "Some features": {"features": ["ip_ad_stats:ip_clicks_5m"], "entities": {"ip": ["203.0.113.9", "nobody"]}},
    }
    return {
        "operationId": "getOnlineFeatures",
        "summary": "Read features of many entities now, as Feast's feature server answers it",
        "description": "For Feast's `remote` online store and every other client of Feast's feature server.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _ref(FeaturesRequest),
                    "examples": {name: {"value": body} for name, body in shown.items()},
                }
            },
        },
        "responses": answers,
    }


def _features_answer() -> JsonObject:
    key = FeatureColumn(["203.0.113.9", "nobody"], ["PRESENT"] * 2, ["1970-01-01T00:00:00Z"] * 2)
    clicks = FeatureColumn([212, None], ["PRESENT", "NOT_FOUND"], ["2026-11-18T11:06:39.820Z", "1970-01-01T00:00:00Z"])
    return _json(FeaturesAnswer, FeaturesAnswer(FeaturesMetadata(["ip", "ip_clicks_5m"]), [key, clicks]))


def _readiness_operation() -> JsonObject:
    operation = _get("readyz", "Requests can be answered", {200: _json(Readiness, examples.example_ready())})
    operation["responses"]["503"] = {
        "description": "Requests cannot be answered, and why",
        "content": {"application/json": _json(Readiness, examples.example_not_ready())},
    }
    return operation


def _get(operation_id: str, summary: str, answers: dict[int, JsonObject]) -> JsonObject:
    return {
        "operationId": operation_id,
        "summary": summary,
        "responses": {
            **{
                str(status): {"description": summary, "content": {body.pop("x-media", "application/json"): body}}
                for status, body in answers.items()
            },
            "405": _problem_answer(405),
        },
    }


def _json(schema: type, example: msgspec.Struct) -> JsonObject:
    return {"schema": _ref(schema), "example": msgspec.to_builtins(example)}


def _text(media: str) -> JsonObject:
    return {"schema": {"type": "object" if media.endswith("json") else "string"}, "x-media": media}


def _problem_answer(status: int) -> JsonObject:
    kinds = [kind for kind in (*KINDS.values(), INTERNAL) if kind.status == status]
    return {
        "description": kinds[0].title,
        "content": {PROBLEM_JSON: {"schema": _ref(Problem), "example": msgspec.to_builtins(_problem(kinds[0]))}},
    }


def _told(error: Exception) -> JsonObject:
    """An answer that tells an error as it is."""
    problem = problem_of(error)
    example = msgspec.to_builtins(problem)
    return {"description": problem.title, "content": {PROBLEM_JSON: {"schema": _ref(Problem), "example": example}}}


def _problem(kind: ProblemKind) -> Problem:
    return Problem(
        type=kind.uri,
        title=kind.title,
        status=kind.status,
        detail=_DETAILS[kind.status],
        field=_FIELDS_AT_FAULT.get(kind.status),
    )


def _ref(schema: type) -> JsonObject:
    return {"$ref": _REF.format(name=schema.__name__)}


def _schemas() -> JsonObject:
    types = [ScoreRequest, BatchRequest, Decision, ModelList, Health, Readiness, Problem, *TOPICS.values()]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    events = [*(_ref(schema) for schema in TOPICS.values()), {"type": "null"}]
    for kind in (ScoreRequest, Question):
        asked = schemas[kind.__name__]["properties"]
        # Raw JSON has no schema of its own: these are decoded by the model's entities, request fields and topics.
        asked["entities"]["additionalProperties"] = {"type": ["string", "integer"]}
        asked["request"]["additionalProperties"] = {"type": ["string", "number", "boolean", "null"]}
        asked["event"] |= {"anyOf": events, "default": None}
        asked["event_topic"] |= {"enum": [*TOPICS, None]}
    return schemas
