"""Where values come from: the event topics with their history, profile tables, and what comes with a request."""

import os
from pathlib import Path

from feast import FileSource, KafkaSource, RequestSource
from feast.data_format import JsonFormat
from feast.field import Field
from feast.types import Float64

DATA = Path(os.environ.get("ACTOR_RISK_DATA", Path(__file__).resolve().parent.parent / ".local" / "data"))
BROKERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")


def _topic(name: str, schema: str, description: str) -> KafkaSource:
    """A topic of the event log (Kafka, or Redis Streams on one machine) and the Parquet history of the same events."""
    return KafkaSource(
        name=name,
        topic=name,
        kafka_bootstrap_servers=BROKERS,
        message_format=JsonFormat(schema_json=schema),
        timestamp_field="event_time",
        description=description,
        batch_source=FileSource(
            name=f"{name}_history",
            path=str(DATA / name),
            timestamp_field="event_time",
            created_timestamp_column="created",
        ),
    )


def _profiles(entity: str, *columns: str) -> FileSource:
    """A daily table of an entity; its columns are named for the entity, since a service mixes several."""
    return FileSource(
        name=f"{entity}_profiles",
        description=f"What is known of each {entity}, once a day.",
        path=str(DATA / "profiles" / f"{entity}_profiles.parquet"),
        field_mapping={column: f"{entity}_{column}" for column in columns},
        timestamp_field="event_time",
        created_timestamp_column="created",
    )


ad_events = _topic(
    "ad_events",
    "event_id string, event_time timestamp, event_type string, advertiser_id string, creator_id string, ip string, "
    "device_id string, os string, country string, amount_usd double, ms_since_impression long",
    "Impressions, clicks and conversions.",
)
account_events = _topic(
    "account_events",
    "event_id string, event_time timestamp, event_type string, actor_type string, actor_id string, ip string, "
    "device_id string, country string, amount_usd double",
    "What accounts do: sign up, log in, pay, submit ads, appeal.",
)

advertiser_profiles = _profiles(
    "advertiser",
    "account_age_days",
    "verified",
    "country",
    "payment_methods",
    "lifetime_spend_usd",
    "prior_rejections",
)
creator_profiles = _profiles("creator", "account_age_days", "verified", "followers", "country", "lifetime_payout_usd")
ip_profiles = _profiles("ip", "is_datacenter", "is_vpn", "country", "first_seen_days")
device_profiles = _profiles("device", "is_emulator", "is_rooted", "os_version", "first_seen_days")

click = RequestSource(
    name="click",
    schema=[
        Field(name="amount_usd", dtype=Float64, description="What the click costs the advertiser."),
        Field(name="ms_since_impression", dtype=Float64, description="From the ad being shown to the click."),
    ],
    description="The click that is being scored; taken from the event when the request carries one.",
)
