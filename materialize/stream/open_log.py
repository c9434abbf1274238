"""The composition root of the event log: from settings to the log of that kind."""

from __future__ import annotations

from materialize.stream.log import EventLog, EventLogSettings, KafkaLogSettings, RedisLogSettings
from materialize.stream.redis_streams import RedisStreams


def log_settings(redis_url: str, kafka_servers: str | None) -> EventLogSettings:
    """The settings of the log: Kafka where there is one, else streams on the same Redis as the online store."""
    if kafka_servers:
        return KafkaLogSettings(bootstrap_servers=kafka_servers)
    return RedisLogSettings(url=redis_url)


def open_event_log(settings: EventLogSettings) -> EventLog:
    """The event log that `settings` describe. It connects at first use."""
    if isinstance(settings, KafkaLogSettings):
        # Imported where there is a Kafka: the client takes a while to import, and warns.
        from materialize.stream.kafka_log import KafkaLog

        return KafkaLog(settings)
    return RedisStreams(settings)
