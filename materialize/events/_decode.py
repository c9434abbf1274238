"""From the bytes of a log record to a valid event, or to the reason why it is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from materialize.events._schemas import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, TOPICS, AccountEvent, AdEvent

Event = AdEvent | AccountEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

DEFAULT_SKEW_MS = 60_000
"""How far an event's time may lie ahead of our clock before it counts as an event from the future."""


class InvalidEventError(ValueError):
    """An event that cannot be used. `reason` is a stable word for counting, `field` the field at fault, if known."""

    def __init__(self, reason: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.field = field


def decode_event(topic: str, data: bytes, now_ms: int, skew_ms: int = DEFAULT_SKEW_MS) -> Event:
    """Decode and validate one JSON event of `topic`.

    `now_ms` is the clock against which an event from the future is told.
    Raises InvalidEventError with reason `unknown_topic`, `malformed_json`, `invalid` or `from_the_future`.
    """
    try:
        event = _decoder(topic).decode(data)
    except msgspec.ValidationError as error:
        detail = str(error)
        raise InvalidEventError("invalid", detail, _field_of(detail)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEventError("malformed_json", str(error)) from error
    time_ms = event_time_ms(event)
    if not EVENT_TIME_MS_MIN <= time_ms <= EVENT_TIME_MS_MAX:
        raise InvalidEventError("invalid", f"event_time {event.event_time} is not between 2000 and 3000", "event_time")
    ahead_ms = time_ms - now_ms
    if ahead_ms > skew_ms:
        raise InvalidEventError(
            "from_the_future",
            f"event_time is {ahead_ms} ms ahead of the clock; at most {skew_ms} ms are allowed",
            "event_time",
        )
    return event


def event_time_ms(event: Event) -> int:
    """The event's time in whole milliseconds UTC; a finer time is cut, as it is when history is read."""
    when = event.event_time
    return (when - _EPOCH) // _MILLISECOND if isinstance(when, datetime) else when


def partition_key(event: Event) -> bytes:
    """What chooses the event's partition in the log: its IP for an ad event, its account for an account event."""
    return (event.ip if isinstance(event, AdEvent) else event.actor_id).encode()


def json_schema(topic: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one topic's events."""
    return msgspec.json.schema(_struct(topic))


def _struct(topic: str) -> type[Event]:
    try:
        return TOPICS[topic]
    except KeyError:
        raise InvalidEventError("unknown_topic", f"no topic {topic!r}; the topics are {sorted(TOPICS)}") from None


@lru_cache
def _decoder(topic: str) -> msgspec.json.Decoder[Event]:
    return msgspec.json.Decoder(_struct(topic))


def _field_of(detail: str) -> str | None:
    """The field that a msgspec message names: "… - at `$.ip`" or "… missing required field `ip`"."""
    if "`$." in detail:
        return detail.rsplit("`$.", 1)[1].rstrip("`")
    if "required field `" in detail:
        return detail.rsplit("required field `", 1)[1].split("`", 1)[0]
    return None
