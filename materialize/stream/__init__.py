"""The event log (Kafka, or Redis Streams on one machine), dead letters, and the worker that folds events into rows.

The worker is imported by its own name, `materialize.stream.worker`: it brings Feast along, which publishers need not.
"""

from materialize.stream.dead_letters import DeadLetter, DeadLetters, dead_letter_topic
from materialize.stream.errors import (
    CommitRejectedError,
    DefinitionsSupersededError,
    InvalidOffsetError,
    LogUnavailableError,
    ProduceError,
    RecordsLostError,
    StreamError,
    UnknownTopicError,
)
from materialize.stream.log import (
    AsyncEventLogPublisher,
    EventLog,
    EventLogConsumer,
    EventLogProducer,
    EventLogSettings,
    KafkaLogSettings,
    Record,
    RedisLogSettings,
    TopicPartition,
    next_offsets,
)
from materialize.stream.open_log import log_settings, open_event_log

__all__ = [
    "AsyncEventLogPublisher",
    "CommitRejectedError",
    "DeadLetter",
    "DeadLetters",
    "DefinitionsSupersededError",
    "EventLog",
    "EventLogConsumer",
    "EventLogProducer",
    "EventLogSettings",
    "InvalidOffsetError",
    "KafkaLogSettings",
    "LogUnavailableError",
    "ProduceError",
    "Record",
    "RecordsLostError",
    "RedisLogSettings",
    "StreamError",
    "TopicPartition",
    "UnknownTopicError",
    "dead_letter_topic",
    "log_settings",
    "next_offsets",
    "open_event_log",
]
