"""What a request asks for, held against what a model reads: entities, event, request-time values, as-of time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from materialize.events import TOPICS, AccountEvent, Event, InvalidEventError, decode_event, event_time_ms
from materialize.online import ReadPlan
from serving.decision import ScoreRequest, no_event
from serving.errors import InvalidFieldError, MalformedBodyError
from serving.fields import JOIN_KEY_TYPES, REQUEST_FIELD_TYPES, FieldReader, decode_json, dotted

_REQUEST_DECODER = msgspec.json.Decoder(ScoreRequest)
_NAMES_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EVENT_TIME = "event_time"


class TopicEvent(Struct, frozen=True):
    """A valid event and the topic that it belongs to."""

    topic: str
    event: Event


class Inputs(Struct, frozen=True):
    """Everything that one read of features needs, but the time. `request` has a value, maybe None, for every
    request-time field. event_ms: the event's own time, 0 without one."""

    entities: Mapping[str, str | int]
    scored: TopicEvent | None
    request: Mapping[str, object]
    event_ms: int


class InputReader:
    """Reads the inputs of one feature service out of requests."""

    def __init__(self, plan: ReadPlan) -> None:
        """Raises KeyError, with the name of the type, when the service has a field of a type that JSON cannot give."""
        self._join_keys = [FieldReader(key.name, key.kind, JOIN_KEY_TYPES) for key in plan.join_keys]
        self._request_fields = [FieldReader(f.name, f.kind, REQUEST_FIELD_TYPES) for f in plan.request_fields]

    def read(self, request: ScoreRequest, now_ms: int) -> Inputs:
        """The inputs. An event may be later than now within the allowed skew, and is read as of its own time then.

        Raises InvalidFieldError or MalformedBodyError, naming the field at fault.
        """
        scored = read_event(request.event, request.event_topic, now_ms)
        carried = {} if scored is None else carried_values(scored.event)
        event_ms = 0 if scored is None else event_time_ms(scored.event)
        return Inputs(self._entities(request, carried), scored, self._request(request, carried), event_ms)

    def adopted(self, inputs: Inputs) -> Inputs:
        """The inputs of this service from those of another one that names at least its keys.

        A request-time field that the other does not have is what the event carries, None if that does not fit.
        """
        carried = {} if inputs.scored is None else carried_values(inputs.scored.event)
        given = {**carried, **inputs.request}
        request = {field.name: _fitting(field, given.get(field.name)) for field in self._request_fields}
        return replace(inputs, request=request)

    def _entities(self, request: ScoreRequest, carried: Mapping[str, object]) -> dict[str, str | int]:
        if not carried and len(request.entities) == len(self._join_keys):
            with suppress(KeyError, ValueError, msgspec.DecodeError, RecursionError):  # what is amiss is told below
                return {key.name: key.decoder.decode(request.entities[key.name]) for key in self._join_keys}
        _refuse_unknown("entities", request.entities, [key.name for key in self._join_keys])
        return {key.name: _entity(key, request.entities.get(key.name), carried) for key in self._join_keys}

    def _request(self, request: ScoreRequest, carried: Mapping[str, object]) -> dict[str, object]:
        _refuse_unknown("request", request.request, [field.name for field in self._request_fields])
        return {
            field.name: field.decode(request.request[field.name], f"request.{field.name}")
            if field.name in request.request
            else field.check(carried.get(field.name), f"event.{field.name}")
            for field in self._request_fields
        }


def decode_request(body: bytes) -> ScoreRequest:
    """The request in a body. Raises MalformedBodyError or InvalidFieldError."""
    request: ScoreRequest = decode_json(_REQUEST_DECODER, body)
    return request


def read_event(raw: msgspec.Raw, topic: str | None, now_ms: int) -> TopicEvent | None:
    """The event of a request, or None when there is none.

    Raises InvalidFieldError, also for an event from the future, or MalformedBodyError.
    """
    if raw == no_event():
        return None
    if topic is not None and topic not in TOPICS:
        raise InvalidFieldError(f"no topic {topic!r}; the topics are {sorted(TOPICS)}", "event_topic")
    chosen = topic or topic_of(decode_json(_NAMES_DECODER, raw, "event"))
    try:
        return TopicEvent(chosen, decode_event(chosen, bytes(raw), now_ms))
    except InvalidEventError as error:
        kind = MalformedBodyError if error.reason == "malformed" else InvalidFieldError
        raise kind(f"{error.detail} (read as an event of {chosen!r})", dotted("event", error.field)) from error


def topic_of(names: Mapping[str, object]) -> str:
    """The topic whose schema has the most of these field names. Raises InvalidFieldError when several have as many."""
    shared = {topic: len(names.keys() & set(schema.__struct_fields__)) for topic, schema in TOPICS.items()}
    most = max(shared.values())
    fitting = [topic for topic, count in shared.items() if count == most]
    if len(fitting) > 1:
        raise InvalidFieldError(
            f"the event's fields do not tell its topic: give event_topic, one of {fitting}", "event_topic"
        )
    return fitting[0]


def carried_values(event: Event) -> dict[str, object]:
    """What an event says, by name: its fields, and for an account event also `<actor_type>_id`, the actor's join key.

    `event_time` is in milliseconds UTC.
    """
    values: dict[str, object] = {name: getattr(event, name) for name in event.__struct_fields__}
    values[_EVENT_TIME] = event_time_ms(event)
    if isinstance(event, AccountEvent):
        values[f"{event.actor_type}_id"] = event.actor_id
    return values


def _entity(key: FieldReader, given: msgspec.Raw | None, carried: Mapping[str, object]) -> str | int:
    where = f"entities.{key.name}"
    from_event = carried.get(key.name)
    if given is None:
        if from_event is None:
            raise InvalidFieldError(f"missing: give {where}, or an event that carries {key.name!r}", where)
        value: str | int = key.check(from_event, f"event.{key.name}")
        return value
    value = key.decode(given, where)
    if from_event is not None and from_event != value:
        raise InvalidFieldError(f"{value!r} here, but the event says {from_event!r}: which is meant?", where)
    return value


def _fitting(field: FieldReader, value: object) -> object:
    try:
        return field.check(value, field.name)
    except InvalidFieldError:
        return None


def _refuse_unknown(where: str, given: Mapping[str, object], known: list[str]) -> None:
    for name in given:
        if name not in known:
            raise InvalidFieldError(f"unknown; this model takes {known or 'nothing'} here", dotted(where, name))
