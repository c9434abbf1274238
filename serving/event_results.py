"""The contract of `POST /v1/events`: what a caller sends, and what it is told about each event.

These types are the single source of the decoder, the encoder and the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from serving.decision import Problem

EVENTS_MAX = 1_000
"""Events of one request."""

EventStatus = Literal["accepted", "duplicate", "rejected", "unconfirmed"]
Reason = Literal["unknown_topic", "malformed", "unknown_schema", "invalid", "from_the_future"]
"""As `materialize.events` has it, which a client need not load."""


class EventItem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event to be published."""

    event: Annotated[Raw, Meta(description="the event, of one of the topics' schemas")]
    event_topic: Annotated[
        str | None, Meta(description="the topic whose schema the event has; told from its fields when left out")
    ] = None


class EventResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one event.

    accepted: the log has acknowledged it. duplicate: it was accepted a short time ago, or stands twice in this request,
    and was not published again. rejected: it is not valid, and never will be. unconfirmed: the log did not acknowledge
    it, so it may be there or not: send it again.
    """

    status: EventStatus
    topic: str | None = None
    event_id: str | None = None
    reason: Reason | None = None
    detail: str | None = None
    field: Annotated[str | None, Meta(description="the part at fault, in dots: `event.ip`")] = None


class EventsAnswer(Struct, frozen=True, kw_only=True):
    """The results in the order of the events, and how many there are of each kind."""

    accepted: int
    duplicate: int
    rejected: int
    results: list[EventResult]


class EventsProblem(Problem, frozen=True, kw_only=True, omit_defaults=True):
    """A problem with events that were sent, and what became of each of them, in their order."""

    results: list[EventResult]
