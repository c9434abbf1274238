"""What can go wrong between us and the event log; each message says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from materialize.personal import told_by_redis

if TYPE_CHECKING:
    from collections.abc import Collection

    from materialize.stream.log import TopicPartition


class StreamError(Exception):
    """Anything that goes wrong in `materialize.stream`."""


class LogUnavailableError(StreamError):
    """The log cannot be reached, or did not answer in time: nothing was read or committed; try again."""


class UnknownTopicError(StreamError):
    """A topic that was never made."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"there is no topic {topic!r}: make it with ensure_topics() first")
        self.topic = topic


class ProduceError(StreamError):
    """`count` records were not acknowledged; `first_cause` is why the first was not. Send them again."""

    def __init__(self, count: int, first_cause: BaseException) -> None:
        because = told_by_redis(first_cause)
        super().__init__(f"{count} records were not acknowledged, send them again; the first because: {because}")
        self.count = count
        self.first_cause = first_cause


class CommitRejectedError(StreamError):
    """Partitions that this consumer no longer owns: their offsets were not committed, all others were.

    Another consumer reads those records again from the last commit. Drop what was polled from them and go on polling.
    """

    def __init__(self, partitions: Collection[TopicPartition]) -> None:
        named = ", ".join(f"{p.topic}:{p.partition}" for p in sorted(partitions))
        super().__init__(f"no longer owner of {named}: drop what was polled from there and go on polling")
        self.partitions = frozenset(partitions)


class RecordsLostError(StreamError):
    """Retention removed records before this group read them. The next poll goes on at `resume_offset`.

    Kafka tells for sure. Redis Streams cannot tell when everything up to the last record read is gone and nothing
    more, since its ids have gaps: then this is a false alarm.
    """

    def __init__(self, partition: TopicPartition, expected_offset: int, resume_offset: int) -> None:
        super().__init__(
            f"{partition.topic}:{partition.partition}: records between offset {expected_offset} and {resume_offset} "
            "were removed by retention before they were read: backfill that time, and raise retention or add workers"
        )
        self.partition = partition
        self.expected_offset = expected_offset
        self.resume_offset = resume_offset


class DefinitionsSupersededError(StreamError):
    """Workers with other, newer definitions of the views are at work; what was not committed is theirs to do."""

    def __init__(self) -> None:
        super().__init__(
            "workers with newer definitions of the views are at work: start this one again with the registry that they "
            "read (`actor-risk apply`), or with --take-over if its own registry is the right one"
        )


class InvalidOffsetError(StreamError, ValueError):
    """A number or an entry id that cannot stand for a position in the log."""
