"""The schema of each event topic, as msgspec structs: the types, the bounds and the JSON Schema come from here.

A new topic is one struct and one line in `TOPICS`. A field may be added with a default; it is never renamed or
given another meaning: that is a new topic.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

AD_EVENTS = "ad_events"
ACCOUNT_EVENTS = "account_events"

EVENT_TIME_MS_MIN = 946_684_800_000  # 2000-01-01: anything older is seconds taken for milliseconds
EVENT_TIME_MS_MAX = 32_503_680_000_000  # 3000-01-01

Key = Annotated[str, Meta(min_length=1, max_length=256)]
Word = Annotated[str, Meta(max_length=64)]
EventTime = (
    Annotated[
        int,
        Meta(
            ge=EVENT_TIME_MS_MIN,
            le=EVENT_TIME_MS_MAX,
            description="milliseconds since 1970-01-01 UTC",
        ),
    ]
    | Annotated[datetime, Meta(tz=True, description="RFC 3339, with a zone")]
)
AmountUsd = Annotated[float, Meta(ge=0, le=1e9)]
Milliseconds = Annotated[int, Meta(ge=0, le=10**12)]


class AdEvent(Struct, frozen=True, kw_only=True):
    """Something that happened to an ad: it was shown, clicked, or the click led to a conversion."""

    event_id: Key
    event_time: EventTime
    event_type: Literal["impression", "click", "conversion"]
    advertiser_id: Key
    creator_id: Key
    ip: Key
    device_id: Key
    os: Word | None = None
    country: Word | None = None
    amount_usd: AmountUsd | None = None
    ms_since_impression: Milliseconds | None = None
    schema_version: Annotated[int, Meta(ge=1, le=1)] = 1


class AccountEvent(Struct, frozen=True, kw_only=True):
    """Something that an advertiser's or a creator's account did."""

    event_id: Key
    event_time: EventTime
    event_type: Literal[
        "signup",
        "login",
        "login_failed",
        "payment",
        "payment_failed",
        "chargeback",
        "ad_submitted",
        "ad_rejected",
        "follow",
        "appeal",
    ]
    actor_type: Literal["advertiser", "creator"]
    actor_id: Key
    ip: Key
    device_id: Key
    country: Word | None = None
    amount_usd: AmountUsd | None = None
    schema_version: Annotated[int, Meta(ge=1, le=1)] = 1


TOPICS: dict[str, type[AdEvent] | type[AccountEvent]] = {
    AD_EVENTS: AdEvent,
    ACCOUNT_EVENTS: AccountEvent,
}
