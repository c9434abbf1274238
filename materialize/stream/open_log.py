"""The composition root of the event log: from settings to the log of that kind."""

from __future__ import annotations

from materialize.stream.kafka_log import KafkaLog
from materialize.stream.log import EventLog, EventLogSettings, KafkaLogSettings
from materialize.stream.redis_streams import RedisStreams


def open_event_log(settings: EventLogSettings) -> EventLog:
    """The event log that `settings` describe. It connects at first use."""
    if isinstance(settings, KafkaLogSettings):
        return KafkaLog(settings)
    return RedisStreams(settings)
