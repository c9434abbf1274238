"""The Arrow schema of every table that a simulation holds, with what its labels mean."""

from __future__ import annotations

import pyarrow as pa

TIME = pa.timestamp("ms", tz="UTC")

AD_EVENTS_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_time", TIME),
        ("created", TIME),
        ("event_type", pa.string()),
        ("advertiser_id", pa.string()),
        ("creator_id", pa.string()),
        ("ip", pa.string()),
        ("device_id", pa.string()),
        ("os", pa.string()),
        ("country", pa.string()),
        ("amount_usd", pa.float64()),
        ("ms_since_impression", pa.int64()),
    ]
)
ACCOUNT_EVENTS_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_time", TIME),
        ("created", TIME),
        ("event_type", pa.string()),
        ("actor_type", pa.string()),
        ("actor_id", pa.string()),
        ("ip", pa.string()),
        ("device_id", pa.string()),
        ("country", pa.string()),
        ("amount_usd", pa.float64()),
    ]
)
AD_CLICK_LABELS_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_time", TIME),
        ("advertiser_id", pa.string()),
        ("creator_id", pa.string()),
        ("ip", pa.string()),
        ("device_id", pa.string()),
        ("os", pa.string()),
        ("amount_usd", pa.float64()),
        ("ms_since_impression", pa.int64()),
        ("label", pa.int64()),
    ],
    metadata={"label": "1 = invalid click (simulated truth, a share of it flipped)"},
)
CONVERSION_LABELS_SCHEMA = AD_CLICK_LABELS_SCHEMA.with_metadata(
    {"label": "1 = the click led to an install: a conversion label, not a fraud label"}
)
ADVERTISER_LABELS_SCHEMA = pa.schema(
    [
        ("event_time", TIME),
        ("advertiser_id", pa.string()),
        ("ip", pa.string()),
        ("device_id", pa.string()),
        ("label", pa.int64()),
    ],
    metadata={"label": "1 = abusive, and the abuse has begun by event_time (simulated truth, a share of it flipped)"},
)
ADVERTISER_PROFILES_SCHEMA = pa.schema(
    [
        ("event_time", TIME),
        ("created", TIME),
        ("advertiser_id", pa.string()),
        ("account_age_days", pa.float64()),
        ("verified", pa.int64()),
        ("country", pa.string()),
        ("payment_methods", pa.int64()),
        ("lifetime_spend_usd", pa.float64()),
        ("prior_rejections", pa.int64()),
    ]
)
CREATOR_PROFILES_SCHEMA = pa.schema(
    [
        ("event_time", TIME),
        ("created", TIME),
        ("creator_id", pa.string()),
        ("account_age_days", pa.float64()),
        ("verified", pa.int64()),
        ("followers", pa.int64()),
        ("country", pa.string()),
        ("lifetime_payout_usd", pa.float64()),
    ]
)
IP_PROFILES_SCHEMA = pa.schema(
    [
        ("event_time", TIME),
        ("created", TIME),
        ("ip", pa.string()),
        ("is_datacenter", pa.int64()),
        ("is_vpn", pa.int64()),
        ("country", pa.string()),
        ("first_seen_days", pa.float64()),
    ]
)
DEVICE_PROFILES_SCHEMA = pa.schema(
    [
        ("event_time", TIME),
        ("created", TIME),
        ("device_id", pa.string()),
        ("is_emulator", pa.int64()),
        ("is_rooted", pa.int64()),
        ("os_version", pa.string()),
        ("first_seen_days", pa.float64()),
    ]
)
