"""How the event log lies in Redis: key names, offsets as entry ids, the partition of a key, and errors translated.

<prefix>:log:topics                                 hash: topic → number of partitions
<prefix>:log:incarnations                           hash: topic → a number that it got when it was made
<prefix>:log:{<topic>:<partition>}                  stream: entries with the fields `key` and `value`
<prefix>:log:{<topic>:<partition>}:position:<group> string: id of the last entry that the group has processed
<prefix>:log:{<topic>:<partition>}:lease:<group>    string: the consumer that reads it; expires
<prefix>:log:{<topic>}:members:<group>              sorted set: consumer → when its membership ends, server ms
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from materialize.personal import told_by_redis
from materialize.stream.errors import InvalidOffsetError, LogUnavailableError, StreamError
from materialize.stream.log import Record, RedisLogSettings, TopicPartition

SEQUENCE_BITS = 20
_SEQUENCE_MAX = (1 << SEQUENCE_BITS) - 1
_OFFSET_MAX = (1 << 63) - 1
_GLOB = re.compile(r"([\\*?\[\]^-])")


@dataclass(frozen=True, slots=True)
class Layout:
    """Key names under one prefix."""

    prefix: str

    @property
    def topics(self) -> str:
        """The hash of topics."""
        return f"{self.prefix}:log:topics"

    @property
    def incarnations(self) -> str:
        """The hash of the topics' incarnations."""
        return f"{self.prefix}:log:incarnations"

    @property
    def idle(self) -> str:
        """A stream that is never written: what a consumer without partitions waits on."""
        return f"{self.prefix}:log:idle"

    def stream(self, partition: TopicPartition) -> str:
        """The entries of one partition."""
        return f"{self.prefix}:log:{{{partition.topic}:{partition.partition}}}"

    def position(self, partition: TopicPartition, group: str) -> str:
        """The commit of a group."""
        return f"{self.stream(partition)}:position:{group}"

    def lease(self, partition: TopicPartition, group: str) -> str:
        """Who reads the partition for a group."""
        return f"{self.stream(partition)}:lease:{group}"

    def members(self, topic: str, group: str) -> str:
        """Who reads the topic for a group."""
        return f"{self.prefix}:log:{{{topic}}}:members:{group}"

    def pattern(self, topic: str) -> str:
        """A SCAN pattern for all keys of one topic and of no other."""
        return _GLOB.sub(r"\\\1", f"{self.prefix}:log:{{{topic}") + "[:}]*"


def connect(settings: RedisLogSettings) -> redis.Redis:
    """A client for one server. It never repeats a command by itself: an XADD sent twice would be two records."""
    return redis.Redis.from_url(settings.url, retry=Retry(NoBackoff(), 0), **client_options(settings))


def client_options(settings: RedisLogSettings) -> dict[str, object]:
    """Options shared by the plain and the asyncio client. A blocking read lasts at most a third of a lease."""
    timeout_s = (settings.timeout_ms + settings.lease_ms / 3) / 1000
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": settings.timeout_ms / 1000,
        "protocol": 2,  # replies of XREAD come as lists; RESP3 would make them maps
        "decode_responses": False,
    }


def connect_async(settings: RedisLogSettings) -> redis.asyncio.Redis:
    """The same for asyncio."""
    return redis.asyncio.Redis.from_url(settings.url, retry=AsyncRetry(NoBackoff(), 0), **client_options(settings))


def partition_of(key: bytes, partitions: int) -> int:
    """CRC-32 of the key modulo the number of partitions: any client in any language can do the same."""
    return zlib.crc32(key) % partitions


def offset_of(entry_id: bytes) -> int:
    """`ms-seq` as one integer in the same order: `ms << 20 | seq`.

    Raises InvalidOffsetError if seq needs more than 20 bits or the whole more than 63.
    """
    ms, _, sequence = entry_id.partition(b"-")
    try:
        offset = int(ms) << SEQUENCE_BITS | int(sequence)
    except ValueError:
        raise InvalidOffsetError(f"{entry_id!r} is not a stream entry id (`ms-seq`)") from None
    if int(sequence) > _SEQUENCE_MAX or offset > _OFFSET_MAX:
        raise InvalidOffsetError(
            f"stream entry id {entry_id!r} does not fit 43 + {SEQUENCE_BITS} bits: let the server choose ids (XADD *)"
        )
    return offset


def entry_id_of(offset: int) -> str:
    """The inverse of `offset_of`. Raises InvalidOffsetError outside of 0 … 2**63 - 1."""
    if not 0 <= offset <= _OFFSET_MAX:
        raise InvalidOffsetError(f"offset {offset} is not within 0 … 2**63 - 1")
    return f"{offset >> SEQUENCE_BITS}-{offset & _SEQUENCE_MAX}"


def record_of(partition: TopicPartition, entry_id: bytes, fields: dict[bytes, bytes]) -> Record:
    """The record of one entry. An entry that somebody wrote without `value` becomes an empty one, for dead letters."""
    return Record(
        topic=partition.topic,
        partition=partition.partition,
        offset=offset_of(entry_id),
        key=fields.get(b"key"),
        value=fields.get(b"value", b""),
        timestamp_ms=int(entry_id.partition(b"-")[0]),
    )


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the client as ours: what cannot be reached is LogUnavailableError, a refusal StreamError."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise LogUnavailableError(f"Redis cannot be reached or is too slow: {told_by_redis(error)}") from error
    except redis.RedisError as error:
        raise StreamError(f"Redis refused a command of the event log: {told_by_redis(error)}") from error
