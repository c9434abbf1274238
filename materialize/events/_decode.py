"""From the bytes of a log record to a valid event, or to the reason why it is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, Protocol

import msgspec

from materialize.events._schemas import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, TOPICS, AccountEvent, AdEvent

Event = AdEvent | AccountEvent

Reason = Literal["unknown_topic", "malformed", "unknown_schema", "invalid", "from_the_future"]
"""Why bytes are no event, whatever their format: a stable word for counting.

unknown_topic     events of this topic are not known here
malformed         the bytes are not of the topic's format
unknown_schema    they name a schema that is not here
invalid           a field is missing, of a wrong type, or out of its bounds (NaN and infinity always are)
from_the_future   the event's time lies too far ahead of our clock
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

DEFAULT_SKEW_MS = 60_000
"""How far an event's time may lie ahead of our clock before it counts as an event from the future."""


class InvalidEventError(ValueError):
    """An event that cannot be used. `field` is the field at fault, if known."""

    def __init__(self, reason: Reason, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail
        self.field = field


class EventDecoder(Protocol):
    """Reads the events of one topic from bytes of one format."""

    def decode(self, data: bytes) -> Event:
        """The event, its fields within the bounds of the topic's struct; its time is not compared with any clock.

        Raises InvalidEventError, and nothing else whatever the bytes are, after a time bounded by their number.
        """
        ...


class JsonEventDecoder:
    """See `EventDecoder`: one JSON object. Fields that the struct does not have are passed over."""

    def __init__(self, topic: str) -> None:
        """Raises InvalidEventError, `unknown_topic`."""
        self._decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(event_struct(topic))

    def decode(self, data: bytes) -> Event:
        """See `EventDecoder.decode`."""
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise invalid_field(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidEventError("malformed", str(error)) from error


def decode_event(topic: str, data: bytes, now_ms: int, skew_ms: int = DEFAULT_SKEW_MS) -> Event:
    """Decode and validate one JSON event of `topic`.

    `now_ms` is the clock against which an event from the future is told. Raises InvalidEventError.
    """
    event = json_decoder(topic).decode(data)
    check_time(event, now_ms, skew_ms)
    return event


def check_time(event: Event, now_ms: int, skew_ms: int) -> None:
    """Raise InvalidEventError for a time that no event has, or that lies more than `skew_ms` after `now_ms`."""
    time_ms = event_time_ms(event)
    if time_ms - now_ms <= skew_ms and EVENT_TIME_MS_MIN <= time_ms <= EVENT_TIME_MS_MAX:
        return
    if not EVENT_TIME_MS_MIN <= time_ms <= EVENT_TIME_MS_MAX:
        raise InvalidEventError("invalid", f"event_time {event.event_time} is not between 2000 and 3000", "event_time")
    raise InvalidEventError(
        "from_the_future",
        f"event_time is {time_ms - now_ms} ms ahead of the clock; at most {skew_ms} ms are allowed",
        "event_time",
    )


def event_time_ms(event: Event) -> int:
    """The event's time in whole milliseconds UTC; a finer time is cut, as it is when history is read."""
    when = event.event_time
    return (when - _EPOCH) // _MILLISECOND if isinstance(when, datetime) else when


def partition_key(event: Event) -> bytes:
    """What chooses the event's partition in the log: its IP for an ad event, its account for an account event."""
    return (event.ip if isinstance(event, AdEvent) else event.actor_id).encode()


def event_struct(topic: str) -> type[Event]:
    """The struct of a topic's events. Raises InvalidEventError, `unknown_topic`."""
    try:
        return TOPICS[topic]
    except KeyError:
        raise InvalidEventError("unknown_topic", f"no topic {topic!r}; the topics are {sorted(TOPICS)}") from None


def event_of(struct: type[Event], fields: dict[str, Any]) -> Event:
    """The event with these fields, held against the struct's bounds. Raises InvalidEventError, `invalid`."""
    try:
        return msgspec.convert(fields, struct)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from error


def invalid_field(error: msgspec.ValidationError) -> InvalidEventError:
    """What msgspec says of a value that does not fit, with the field at fault."""
    detail = str(error)
    return InvalidEventError("invalid", detail, _field_of(detail))


@lru_cache
def json_decoder(topic: str) -> JsonEventDecoder:
    """The one JSON decoder of a topic. Raises InvalidEventError, `unknown_topic`."""
    return JsonEventDecoder(topic)


def _field_of(detail: str) -> str | None:
    """The field that a msgspec message names: "… - at `$.ip`" or "… missing required field `ip`"."""
    if "`$." in detail:
        return detail.rsplit("`$.", 1)[1].rstrip("`")
    if "required field `" in detail:
        return detail.rsplit("required field `", 1)[1].split("`", 1)[0]
    return None
