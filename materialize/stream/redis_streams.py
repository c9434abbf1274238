"""The event log on Redis Streams: the embedded default, for one machine. See `materialize.stream.log`."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis
import redis
from redis import exceptions as failures

from materialize.stream._redis_consumer import RedisConsumer
from materialize.stream._redis_layout import (
    Layout,
    connect,
    connect_async,
    partition_of,
    record_of,
    translated,
)
from materialize.stream.errors import LogUnavailableError, ProduceError, StreamError, UnknownTopicError
from materialize.stream.log import (
    INCARNATION_MAX,
    Record,
    RedisLogSettings,
    Start,
    TopicPartition,
    check_topic_name,
)

_BATCH_RECORDS = 1_000
_WAITING_MAX = 10_000
_TURN_RECORDS = 100
"""Records of one write from an event loop, which stands still while they are encoded: some 2 ms."""


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class RedisStreams:
    """See `EventLog`."""

    def __init__(self, settings: RedisLogSettings, clock_ms: Callable[[], int] = _monotonic_ms) -> None:
        """Connects at first use. `clock_ms` is monotonic and only measures how long we ourselves waited."""
        self._settings = settings
        self._clock_ms = clock_ms
        self._layout = Layout(settings.prefix)
        self._client = connect(settings)

    def ensure_topics(self, names: Sequence[str], partitions: int | None = None) -> dict[str, int]:
        """See `EventLog.ensure_topics`. Raises ValueError for a name that is none."""
        for name in names:
            check_topic_name(name)
        with translated():
            for name in names:
                self._client.hsetnx(self._layout.topics, name, partitions or self._settings.partitions)
                self._client.hsetnx(self._layout.incarnations, name, secrets.randbelow(INCARNATION_MAX) + 1)
        return {name: self._partitions(name) for name in names}

    def delete_topics(self, names: Sequence[str]) -> None:
        """See `EventLog.delete_topics`; scans the whole key space."""
        with translated():
            for name in names:
                self._client.hdel(self._layout.topics, name)
                self._client.hdel(self._layout.incarnations, name)
                for key in self._client.scan_iter(match=self._layout.pattern(name), count=1_000):
                    self._client.unlink(key)

    def consumer(self, topics: Sequence[str], group: str, start: Start = "earliest") -> RedisConsumer:
        """See `EventLog.consumer`."""
        return RedisConsumer(
            self._client,
            self._layout,
            {topic: self._partitions(topic) for topic in topics},
            {topic: self._incarnation(topic) for topic in topics},
            group,
            start=start,
            lease_ms=self._settings.lease_ms,
            poll_bytes_max=self._settings.poll_bytes_max,
            clock_ms=self._clock_ms,
        )

    def producer(self) -> RedisProducer:
        """See `EventLog.producer`."""
        return RedisProducer(self._client, self._layout, self._settings.retention_records)

    def async_publisher(self) -> RedisAsyncPublisher:
        """See `EventLog.async_publisher`."""
        return RedisAsyncPublisher(self._settings)

    def size(self, topic: str) -> int:
        """See `EventLog.size`."""
        with translated():
            return sum(int(self._client.xlen(stream)) for stream in self._streams(topic).values())

    def tail(self, topic: str, max_records: int) -> list[Record]:
        """See `EventLog.tail`."""
        records: list[Record] = []
        with translated():
            for partition, stream in self._streams(topic).items():
                entries = self._client.xrevrange(stream, count=max_records)
                records.extend(record_of(partition, entry_id, fields) for entry_id, fields in entries)
        records.sort(key=lambda record: (record.timestamp_ms, record.partition, record.offset))
        return records[-max_records:]

    def close(self) -> None:
        """See `EventLog.close`. Consumers and producers of this log share its connections: close them first."""
        self._client.close()

    def _partitions(self, topic: str) -> int:
        with translated():
            return partitions_in(topic, self._client.hget(self._layout.topics, topic))

    def _incarnation(self, topic: str) -> int:
        with translated():
            return int(self._client.hget(self._layout.incarnations, topic) or 0)

    def _streams(self, topic: str) -> dict[TopicPartition, str]:
        partitions = (TopicPartition(topic, p) for p in range(self._partitions(topic)))
        return {partition: self._layout.stream(partition) for partition in partitions}


def partitions_in(topic: str, stored: bytes | None) -> int:
    """The number of partitions as stored. Raises UnknownTopicError if nothing is."""
    if stored is None:
        raise UnknownTopicError(topic)
    return int(stored)


class RedisProducer:
    """See `EventLogProducer`. Writes pipelines of 1,000 records."""

    def __init__(self, client: redis.Redis, layout: Layout, retention_records: int) -> None:
        self._client = client
        self._layout = layout
        self._retention_records = retention_records
        self._partitions: dict[str, int] = {}
        self._queue: list[tuple[str, bytes, bytes]] = []
        self._failed = 0
        self._first_cause: BaseException | None = None

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """See `EventLogProducer.send`."""
        self._queue.append((topic, key, value))
        if len(self._queue) >= _BATCH_RECORDS:
            self._write()

    def flush(self, timeout_ms: int) -> None:  # noqa: ARG002 - the client's own time limit bounds one write
        """See `EventLogProducer.flush`; lasts at most about the settings' `timeout_ms`."""
        self._write()
        if self._first_cause is not None:
            error = ProduceError(self._failed, self._first_cause)
            self._failed, self._first_cause = 0, None
            raise error

    def close(self) -> None:
        """See `EventLogProducer.close`."""
        self.flush(0)

    def _write(self) -> None:
        queue, self._queue = self._queue, []
        commands: list[bytes] = []
        causes: list[Exception] = []
        try:
            with translated():
                for topic, key, value in queue:
                    try:
                        commands.append(self._command(self._stream_for(topic, key), key, value))
                    except UnknownTopicError as error:
                        causes.append(error)
                causes += self._refusals(commands)
        except StreamError as error:
            self._fail(len(queue), error)
            return
        for cause in causes:
            self._fail(1, cause)

    def _command(self, stream: str, key: bytes, value: bytes) -> bytes:
        limit = ("MAXLEN", "~", self._retention_records)
        return bytes(hiredis.pack_command(("XADD", stream, *limit, "*", "key", key, "value", value)))

    def _refusals(self, commands: Sequence[bytes]) -> list[Exception]:
        """What Redis refuses of these commands, which it gets at once: redis-py's pipeline sends some kilobytes at a
        time, each of which wakes Redis, and lets go of Python's lock for whoever else wants it.
        """
        if not commands:
            return []
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_packed_command([b"".join(commands)])
            answers = [_answer_of(connection) for _ in commands]
        except BaseException:
            connection.disconnect()  # an answer that nobody read would be taken for that of the next command
            raise
        finally:
            pool.release(connection)
        return [answer for answer in answers if answer is not None]

    def _stream_for(self, topic: str, key: bytes) -> str:
        if topic not in self._partitions:
            self._partitions[topic] = partitions_in(topic, self._client.hget(self._layout.topics, topic))
        return self._layout.stream(TopicPartition(topic, partition_of(key, self._partitions[topic])))

    def _fail(self, count: int, cause: BaseException) -> None:
        self._failed += count
        self._first_cause = self._first_cause or cause


def _answer_of(connection: Any) -> Exception | None:
    """The next answer, if it is a refusal."""
    try:
        connection.read_response()
    except failures.ResponseError as error:
        refusal: Exception = error
        return refusal
    return None


@dataclass(frozen=True, slots=True)
class _Waiting:
    stream: str
    key: bytes
    value: bytes
    acknowledged: asyncio.Future[None]


class RedisAsyncPublisher:
    """See `AsyncEventLogPublisher`. Records that wait while a write is under way share the next one."""

    def __init__(self, settings: RedisLogSettings) -> None:
        self._client = connect_async(settings)
        self._layout = Layout(settings.prefix)
        self._retention_records = settings.retention_records
        self._partitions: dict[str, int] = {}
        self._looking_up = asyncio.Lock()
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """See `AsyncEventLogPublisher.publish`; LogUnavailableError also when 10,000 records already wait."""
        stream = await self._stream_for(topic, key)
        if len(self._waiting) >= _WAITING_MAX:
            raise LogUnavailableError(f"{_WAITING_MAX} records already wait for Redis: publish more slowly")
        acknowledged = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(stream, key, value, acknowledged))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        await acknowledged

    async def close(self) -> None:
        """See `AsyncEventLogPublisher.close`; what waits is written first."""
        if self._writer is not None:
            await self._writer
        await self._client.aclose()

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_TURN_RECORDS], self._waiting[_TURN_RECORDS:]
            for waiting, cause in zip(batch, await self._write(batch), strict=True):
                if waiting.acknowledged.done():  # its caller was cancelled
                    continue
                if cause is None:
                    waiting.acknowledged.set_result(None)
                else:
                    waiting.acknowledged.set_exception(cause)

    async def _write(self, batch: list[_Waiting]) -> list[Exception | None]:
        """What went wrong with each record of the batch, None where nothing did."""
        pipeline = self._client.pipeline(transaction=False)
        for one in batch:
            fields = {"key": one.key, "value": one.value}
            pipeline.xadd(one.stream, fields, maxlen=self._retention_records, approximate=True)
        try:
            with translated():
                answers = await pipeline.execute(raise_on_error=False)
        except StreamError as error:
            return [error] * len(batch)
        return [ProduceError(1, answer) if isinstance(answer, Exception) else None for answer in answers]

    async def _stream_for(self, topic: str, key: bytes) -> str:
        if topic not in self._partitions:
            async with self._looking_up:  # one at a time: each takes a connection of its own
                if topic not in self._partitions:
                    with translated():
                        stored = await self._client.hget(self._layout.topics, topic)
                    self._partitions[topic] = partitions_in(topic, stored)
        return self._layout.stream(TopicPartition(topic, partition_of(key, self._partitions[topic])))
