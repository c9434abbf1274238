"""The event log behind one protocol: topics of partitions, records in order, consumers that commit.

Both kinds promise the same:

- One partition is read by one consumer of a group at a time, in offset order. Partitions, never single records, are
  shared out among the consumers of a group, and move when a consumer joins, leaves or dies.
- A group resumes at its last commit: every record is delivered at least once. Whoever writes the results makes that
  exactly once, by remembering the offsets that it applied.
- The key chooses the partition by a stable hash: records of one key stay in order. The hash differs between the kinds.

Where they differ:

| | Redis Streams | Kafka |
|---|---|---|
| offsets | strictly increase, with gaps (`ms << 20 \\| seq`) | dense but for compaction and transactions |
| retention | by number of records per partition, approximate | by time |
| lag | exact up to 20,000 records, then an estimate | exact |
| a dead consumer's partitions | move after `lease_ms` | move after the session timeout |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import msgspec

Start = Literal["earliest", "latest"] | int
"""Where a group begins that has never committed. A number is a time, milliseconds UTC: each partition begins at the
first record that the log took then or later."""

DEFAULT_PARTITIONS = 4

INCARNATION_MAX = (1 << 31) - 1

POLL_BYTES_MAX = 16 * 1024 * 1024
"""What a consumer takes from the log at a time, in bytes: bounds its memory when records are large."""

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the log. `timestamp_ms` is when the log, or its producer, took it: milliseconds UTC."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    timestamp_ms: int

    @property
    def topic_partition(self) -> TopicPartition:
        """Where the record stands."""
        return TopicPartition(self.topic, self.partition)


def next_offsets(records: Sequence[Record]) -> dict[TopicPartition, int]:
    """What to commit after all of `records` are processed: per partition the highest offset plus one."""
    newest: dict[tuple[str, int], int] = {}
    for record in records:
        partition = (record.topic, record.partition)
        if record.offset >= newest.get(partition, 0):
            newest[partition] = record.offset + 1
    return {TopicPartition(*partition): offset for partition, offset in newest.items()}


def check_topic_name(name: str) -> None:
    """Raise ValueError unless `name` is a topic name for every kind of log: Kafka's rule."""
    if not _TOPIC_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no topic name: use 1 to 249 letters, digits, dots, underscores and hyphens")


class EventLogConsumer(Protocol):
    """Reads some topics as a member of a group. For one thread. Membership lives by `poll`: call it often."""

    def poll(self, max_records: int, timeout_ms: int) -> list[Record]:
        """Up to `max_records` new records, at once if there are any, else after at most about `timeout_ms`, empty.

        Records of one partition are in offset order; several partitions may be mixed. Raises LogUnavailableError, and
        RecordsLostError when retention overtook the group.
        """
        ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember the next offset to read per partition; call it after processing.

        Raises CommitRejectedError for partitions that this consumer no longer owns, LogUnavailableError.
        """
        ...

    def keep_alive(self, timeout_ms: int) -> None:
        """Stay a member of the group while what was polled is not done with: call it instead of `poll`, as often.

        Takes part in rebalances for at most about `timeout_ms`; no record is delivered and none is passed over. What
        was polled stays the caller's to finish and to commit: a partition that has moved meanwhile refuses the commit.
        Raises LogUnavailableError.
        """
        ...

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this consumer reads now, as of its last poll."""
        ...

    def incarnation(self, topic: str) -> int:
        """Which making of the topic this is, 0 to INCARNATION_MAX: another one after it was deleted and made again."""
        ...

    def lag(self) -> dict[TopicPartition, int]:
        """Per assigned partition the number of records after the group's commit."""
        ...

    def close(self) -> None:
        """Leave the group, so that others take over at once. Commits nothing."""
        ...


class EventLogProducer(Protocol):
    """Appends records in batches. For one thread."""

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Queue one record. May write when the queue is full; what goes wrong is raised by `flush`."""
        ...

    def flush(self, timeout_ms: int) -> None:
        """Return when all sent records are acknowledged. Raises ProduceError with the number of those that are not."""
        ...

    def close(self) -> None:
        """Flush, then free the connections. Raises as `flush` does."""
        ...


class AsyncEventLogPublisher(Protocol):
    """Appends single records from an event loop."""

    async def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Return when the record is acknowledged. Raises ProduceError, UnknownTopicError, LogUnavailableError."""
        ...

    async def close(self) -> None:
        """Free the connections."""
        ...


class EventLog(Protocol):
    """One event log: the way to its consumers and producers, and what an operator needs."""

    def ensure_topics(self, names: Sequence[str], partitions: int | None = None) -> dict[str, int]:
        """Make the topics that do not exist (with the settings' partitions unless told); how many each has now."""
        ...

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics with their records; then they can be made anew. Topics that do not exist are passed over.

        Raises LogUnavailableError when they are not gone within the settings' `timeout_ms`.
        """
        ...

    def consumer(self, topics: Sequence[str], group: str, start: Start = "earliest") -> EventLogConsumer:
        """A new member of `group`. Raises UnknownTopicError."""
        ...

    def producer(self) -> EventLogProducer:
        """A producer of its own."""
        ...

    def async_publisher(self) -> AsyncEventLogPublisher:
        """A publisher of its own, for the event loop that first uses it."""
        ...

    def size(self, topic: str) -> int:
        """How many records the topic holds. Raises UnknownTopicError."""
        ...

    def tail(self, topic: str, max_records: int) -> list[Record]:
        """The newest records, oldest first by time, read outside of any group. Raises UnknownTopicError."""
        ...

    def close(self) -> None:
        """Free what the log itself holds; consumers and producers are closed by who opened them."""
        ...


@dataclass(frozen=True, kw_only=True)
class RedisLogSettings:
    """An event log on Redis Streams, for one Redis or Valkey server (not Cluster: one poll reads many streams).

    Each partition keeps at least `retention_records`, or up to about a hundred more (MAXLEN ~). A consumer that
    stops polling for `lease_ms` loses its partitions. One poll takes about `poll_bytes_max` at most, told by the size
    of the records before: where records suddenly grow, one poll may take more.
    """

    url: str
    prefix: str = "actor-risk"
    partitions: int = DEFAULT_PARTITIONS
    retention_records: int = 500_000
    lease_ms: int = 10_000
    timeout_ms: int = 5_000
    poll_bytes_max: int = POLL_BYTES_MAX

    @property
    def kind(self) -> Literal["redis"]:
        """The word for messages."""
        return "redis"


@dataclass(frozen=True, kw_only=True)
class KafkaLogSettings:
    """An event log on Apache Kafka. `replication_factor` -1 takes the broker's default.

    A consumer whose process is stuck or dead for `session_timeout_ms` loses its partitions, as does one that neither
    polls nor keeps alive for `poll_interval_ms_max`. One fetch takes `poll_bytes_max` at most, as the broker stores
    records (compressed or not), or the one batch of records that is larger.
    """

    bootstrap_servers: str
    partitions: int = DEFAULT_PARTITIONS
    retention_ms: int = 7 * 24 * 3_600_000
    replication_factor: int = -1
    session_timeout_ms: int = 10_000
    timeout_ms: int = 10_000
    poll_interval_ms_max: int = 60_000
    poll_bytes_max: int = POLL_BYTES_MAX

    @property
    def kind(self) -> Literal["kafka"]:
        """The word for messages."""
        return "kafka"


EventLogSettings = RedisLogSettings | KafkaLogSettings
"""The settings choose the kind of log."""
