"""The event log on Apache Kafka: the only module that imports kafka. See `materialize.stream.log`."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

import kafka
from kafka import errors as kafka_errors
from kafka.structs import MemberState, OffsetAndMetadata

from materialize.stream.errors import (
    CommitRejectedError,
    LogUnavailableError,
    ProduceError,
    RecordsLostError,
    StreamError,
    UnknownTopicError,
)
from materialize.stream.log import (
    INCARNATION_MAX,
    KafkaLogSettings,
    Record,
    Start,
    TopicPartition,
    check_topic_name,
)

_FETCH_WAIT_MS = 50  # the broker answers at once when there are records; this bounds an idle fetch
_FETCH_BYTES_MAX = 4 * 1024 * 1024
_RECORD_BYTES_MAX = 1024 * 1024  # the default `message.max.bytes` of a broker, which refuses more
_HEARTBEATS_PER_SESSION = 3
_DELETED_POLL_S = 0.01


class KafkaLog:
    """See `EventLog`."""

    def __init__(self, settings: KafkaLogSettings) -> None:
        """Connects at first use."""
        self._settings = settings

    def ensure_topics(self, names: Sequence[str], partitions: int | None = None) -> dict[str, int]:
        """See `EventLog.ensure_topics`. Raises ValueError for a name that is none."""
        for name in names:
            check_topic_name(name)
        wanted = {
            "num_partitions": partitions or self._settings.partitions,
            "replication_factor": self._settings.replication_factor,
            "configs": {"retention.ms": str(self._settings.retention_ms)},
        }
        with _translated(), closing(self._admin()) as admin:
            missing = set(names).difference(admin.list_topics())
            with suppress(kafka_errors.TopicAlreadyExistsError):  # somebody was faster
                if missing:
                    admin.create_topics(dict.fromkeys(sorted(missing), wanted), wait_for_metadata=True)
            described = admin.describe_topics(list(names))
        return {topic["name"]: len(topic["partitions"]) for topic in described}

    def delete_topics(self, names: Sequence[str]) -> None:
        """See `EventLog.delete_topics`."""
        with _translated(), closing(self._admin()) as admin:
            existing = set(names).intersection(admin.list_topics())
            with suppress(kafka_errors.UnknownTopicOrPartitionError):  # somebody was faster
                if existing:
                    admin.delete_topics(sorted(existing))
            # A broker lists them for a moment longer: whoever would make them anew would find them made, and lose them.
            deadline_s = time.monotonic() + self._settings.timeout_ms / 1000
            while existing.intersection(admin.list_topics()):
                if time.monotonic() >= deadline_s:
                    raise LogUnavailableError(f"Kafka still lists topics {self._settings.timeout_ms} ms after deletion")
                time.sleep(_DELETED_POLL_S)

    def consumer(self, topics: Sequence[str], group: str, start: Start = "earliest") -> KafkaConsumer:
        """See `EventLog.consumer`."""
        incarnations = self._incarnations(topics)
        client = self._client(group, start)
        try:
            for topic in topics:
                _partitions_of(client, topic)
        except StreamError:
            client.close()
            raise
        return KafkaConsumer(client, topics, incarnations, start, self._settings.timeout_ms)

    def producer(self) -> KafkaProducer:
        """See `EventLog.producer`. Raises LogUnavailableError."""
        return KafkaProducer(self._settings)

    def async_publisher(self) -> KafkaAsyncPublisher:
        """See `EventLog.async_publisher`."""
        return KafkaAsyncPublisher(self._settings)

    def size(self, topic: str) -> int:
        """See `EventLog.size`."""
        with closing(self._client(None, "earliest")) as client:
            return sum(end - begin for begin, end in _spans(client, topic).values())

    def tail(self, topic: str, max_records: int) -> list[Record]:
        """See `EventLog.tail`."""
        with closing(self._client(None, "earliest")) as client:
            spans = {p: span for p, span in _spans(client, topic).items() if span[0] < span[1]}
            records = _read_spans(client, spans, max_records, self._settings.timeout_ms)
        records.sort(key=lambda record: (record.timestamp_ms, record.partition, record.offset))
        return records[-max_records:]

    def close(self) -> None:
        """See `EventLog.close`: nothing is held."""

    def _admin(self) -> Any:
        return kafka.KafkaAdminClient(
            bootstrap_servers=self._settings.bootstrap_servers, **_timeouts(self._settings.timeout_ms)
        )

    def _incarnations(self, topics: Sequence[str]) -> dict[str, int]:
        """From the id that Kafka gives a topic when it is made (KIP-516). Raises UnknownTopicError."""
        with _translated(), closing(self._admin()) as admin:
            missing = set(topics).difference(admin.list_topics())
            if missing:
                raise UnknownTopicError(min(missing))
            described = admin.describe_topics(list(topics))
        return {topic["name"]: zlib.crc32(str(topic["topic_id"]).encode()) & INCARNATION_MAX for topic in described}

    def _client(self, group: str | None, start: Start) -> Any:
        with _translated():
            return kafka.KafkaConsumer(
                bootstrap_servers=self._settings.bootstrap_servers,
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="latest" if start == "latest" else "earliest",
                allow_auto_create_topics=False,
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                fetch_max_bytes=self._settings.poll_bytes_max,
                max_partition_fetch_bytes=min(_FETCH_BYTES_MAX, self._settings.poll_bytes_max),
                session_timeout_ms=self._settings.session_timeout_ms,
                max_poll_interval_ms=max(self._settings.poll_interval_ms_max, self._settings.session_timeout_ms),
                heartbeat_interval_ms=self._settings.session_timeout_ms // _HEARTBEATS_PER_SESSION,
                metrics_enabled=False,
                bootstrap_timeout_ms=self._settings.timeout_ms,
            )


class KafkaConsumer:
    """See `EventLogConsumer`."""

    def __init__(
        self, client: Any, topics: Sequence[str], incarnations: Mapping[str, int], start: Start, timeout_ms: int
    ) -> None:
        self._client = client
        self._incarnations = dict(incarnations)
        self._start = start
        self._timeout_ms = timeout_ms
        self._committed: dict[TopicPartition, int] = {}
        self._expected: dict[TopicPartition, int] = {}
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._generation: int | None = None
        self._regained: dict[TopicPartition, int] = {}  # since the last poll: where others had committed meanwhile
        self._polled: dict[TopicPartition, Sequence[Any]] = {}  # the client gives it once; kept if we then fail
        client.subscribe(list(topics))

    def poll(self, max_records: int, timeout_ms: int) -> list[Record]:
        """See `EventLogConsumer.poll`."""
        if not self._polled:
            with _translated():
                batches = self._poll(timeout_ms, max_records)
            self._polled = {_ours(partition): batch for partition, batch in batches.items()}
        self._note_assignment()
        self._regained = {}
        for partition, batch in self._polled.items():
            self._check_not_overtaken(partition, batch[0].offset, batch[-1].offset + 1)
        polled, self._polled = self._polled, {}
        return [record for batch in polled.values() for record in _records_of(batch)]

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `EventLogConsumer.commit`."""
        owned = {
            partition: offset
            for partition, offset in offsets.items()
            if partition in self._assigned and offset >= self._regained.get(partition, 0)
        }
        try:
            if owned:
                self._commit(owned)
        except CommitRejectedError:
            raise CommitRejectedError(offsets.keys()) from None
        if len(owned) < len(offsets):
            raise CommitRejectedError(offsets.keys() - owned.keys())

    def keep_alive(self, timeout_ms: int) -> None:
        """See `EventLogConsumer.keep_alive`.

        The client's own thread keeps the session while we work or wait; but a rebalance, and the time between two
        polls, wait for our thread. So poll with all partitions paused, and put back what comes from a new one.
        """
        self._put_back(self._polled)
        self._polled = {}
        with _translated():
            self._client.pause(*self._client.assignment())
            try:
                found = self._poll(timeout_ms, 1)
                self._put_back({_ours(partition): batch for partition, batch in found.items()})
            finally:
                self._client.resume(*self._client.paused())
        self._note_assignment()

    def assignment(self) -> frozenset[TopicPartition]:
        """See `EventLogConsumer.assignment`."""
        return self._assigned

    def incarnation(self, topic: str) -> int:
        """See `EventLogConsumer.incarnation`."""
        return self._incarnations[topic]

    def lag(self) -> dict[TopicPartition, int]:
        """See `EventLogConsumer.lag`."""
        theirs = [_theirs(partition) for partition in sorted(self._assigned)]
        if not theirs:
            return {}
        with _translated():
            ends = self._client.end_offsets(theirs, timeout_ms=self._timeout_ms)
            begins = self._client.beginning_offsets(theirs, timeout_ms=self._timeout_ms)
        return {_ours(p): ends[p] - max(begins[p], self._committed.get(_ours(p), 0)) for p in theirs}

    def close(self) -> None:
        """See `EventLogConsumer.close`."""
        with suppress(LogUnavailableError), _translated():  # the session of a lost consumer ends by itself
            self._client.close(autocommit=False, timeout_ms=self._timeout_ms)
        self._assigned = frozenset()

    def _poll(self, timeout_ms: int, max_records: int) -> Mapping[Any, Sequence[Any]]:
        """The client's own poll, which is to take the end of a join that came since the last one."""
        coordinator = self._client._coordinator
        join = getattr(coordinator, "_join_task", None)  # private: another client may have none, or no need of this
        if join is not None:
            coordinator._join_task = _UntakenJoin(join)
        found: Mapping[Any, Sequence[Any]] = self._client.poll(timeout_ms=timeout_ms, max_records=max_records)
        return found

    def _put_back(self, batches: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """The next poll gives these again."""
        for partition, batch in batches.items():
            if _theirs(partition) in self._client.assignment():
                self._client.seek(_theirs(partition), batch[0].offset)

    def _note_assignment(self) -> None:
        """Learn the commits of partitions that are new to us, so that lag and gaps can be told.

        In the middle of a rebalance the client still names the old partitions, and the broker answers no question
        before its end, for which it may wait for a member that waits for us: what we had is ours until we know more.
        Whoever is given records is in no rebalance, whatever the client says of itself: after a stall it may say so
        for long.
        """
        membership = self._client.group_metadata()
        if membership.state is not MemberState.STABLE and not self._polled:
            return
        assigned = frozenset(_ours(partition) for partition in self._client.assignment())
        stays = assigned if membership.generation_id == self._generation else frozenset()  # others may have had it
        self._generation = membership.generation_id
        for partition in self._assigned - stays:
            self._committed.pop(partition, None)
            self._expected.pop(partition, None)
        self._assigned &= stays
        for partition in sorted(assigned - self._assigned):
            with _translated():
                committed = self._client.committed(_theirs(partition), timeout_ms=self._timeout_ms)
            if committed is not None:
                self._committed[partition] = self._expected[partition] = self._regained[partition] = committed
            elif self._start != "earliest":
                self._pin_start(partition)
            self._assigned |= {partition}

    def _pin_start(self, partition: TopicPartition) -> None:
        """Commit where the group begins, lest a crash before the first commit begins elsewhere."""
        start = self._latest(partition) if isinstance(self._start, str) else self._seek_to_time(partition, self._start)
        with suppress(CommitRejectedError):  # the next owner pins it
            self._commit({partition: start})

    def _latest(self, partition: TopicPartition) -> int:
        """Where "latest" was."""
        if partition in self._polled:
            return int(self._polled[partition][0].offset)
        with _translated():
            return int(self._client.position(_theirs(partition), timeout_ms=self._timeout_ms))

    def _seek_to_time(self, partition: TopicPartition, time_ms: int) -> int:
        """Read on from the first record of that time, or from the end if there is none yet; where that is."""
        theirs = _theirs(partition)
        with _translated():
            found = self._client.offsets_for_times({theirs: time_ms}, timeout_ms=self._timeout_ms)[theirs]
            end = self._client.end_offsets([theirs], timeout_ms=self._timeout_ms)[theirs] if found is None else 0
        offset = int(end if found is None else found.offset)
        self._polled.pop(partition, None)  # it may be older
        self._client.seek(theirs, offset)
        return offset

    def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        wanted = {_theirs(partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
        with _translated():
            self._client.commit(wanted, timeout_ms=self._timeout_ms)
        self._committed.update(offsets)

    def _check_not_overtaken(self, partition: TopicPartition, first: int, following: int) -> None:
        expected = self._expected.get(partition)
        if expected is not None and first > expected:
            with _translated():
                begins = self._client.beginning_offsets([_theirs(partition)], timeout_ms=self._timeout_ms)
            if begins[_theirs(partition)] > expected:  # else a gap of compaction or of a transaction's marker
                self._expected[partition] = first
                raise RecordsLostError(partition, expected, first)
        self._expected[partition] = following


class _UntakenJoin:
    """A join of kafka-python 3.0 that goes on behind the polls, and is not over before one of them has taken its end.

    The client throws away a join that it finds ended and begins another, for which all others must join again too:
    members that work between their polls, or stand still on a busy machine, may go on so for ever. One that failed is
    rightly thrown away.
    """

    def __init__(self, join: Any) -> None:
        self.failed = join.failed
        self.add_callback = join.add_callback
        self.add_errback = join.add_errback

    @property
    def is_done(self) -> bool:
        """Whether the client is to begin another."""
        return bool(self.failed())


class KafkaProducer:
    """See `EventLogProducer`. Idempotent, acknowledged by all replicas in sync, batched over 5 ms."""

    def __init__(self, settings: KafkaLogSettings) -> None:
        self._timeout_ms = settings.timeout_ms
        self._client = _producer(settings, linger_ms=5)
        self._sent = 0
        self._acknowledged = 0
        self._causes: list[BaseException] = []

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """See `EventLogProducer.send`. Blocks up to the settings' `timeout_ms` when the buffer is full."""
        self._sent += 1
        try:
            future = self._client.send(topic, key=key, value=value)
        except kafka_errors.KafkaError as error:
            self._causes.append(_cause(topic, error))
            return
        future.add_callback(self._note_acknowledged)
        future.add_errback(lambda error: self._causes.append(_cause(topic, error)))

    def flush(self, timeout_ms: int) -> None:
        """See `EventLogProducer.flush`. Records still under way at the deadline count as not acknowledged."""
        try:
            self._client.flush(timeout=timeout_ms / 1000)
        except kafka_errors.KafkaTimeoutError as error:
            self._causes.append(error)
        missing, causes = self._sent - self._acknowledged, self._causes
        self._sent, self._acknowledged, self._causes = 0, 0, []
        if missing > 0:
            raise ProduceError(missing, causes[0])

    def close(self) -> None:
        """See `EventLogProducer.close`."""
        try:
            self.flush(self._timeout_ms)
        finally:
            self._client.close(timeout=self._timeout_ms / 1000)

    def _note_acknowledged(self, _metadata: object) -> None:
        self._acknowledged += 1  # only ever called by the client's one sending thread


class KafkaAsyncPublisher:
    """See `AsyncEventLogPublisher`. The client's own thread sends; its acknowledgements wake the event loop."""

    def __init__(self, settings: KafkaLogSettings) -> None:
        self._settings = settings
        self._opening: asyncio.Task[Any] | None = None

    async def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """See `AsyncEventLogPublisher.publish`."""
        client = await self._opened()
        loop = asyncio.get_running_loop()
        acknowledged: asyncio.Future[None] = loop.create_future()

        def settle(cause: BaseException | None) -> None:
            if not acknowledged.done():  # its caller may have been cancelled
                acknowledged.set_exception(cause) if cause else acknowledged.set_result(None)

        try:
            future = await asyncio.to_thread(client.send, topic, key=key, value=value)
        except kafka_errors.KafkaError as error:
            raise _publish_error(topic, error) from error
        future.add_callback(lambda _: loop.call_soon_threadsafe(settle, None))
        future.add_errback(lambda error: loop.call_soon_threadsafe(settle, _publish_error(topic, error)))
        await acknowledged

    async def close(self) -> None:
        """See `AsyncEventLogPublisher.close`; what is under way is sent first."""
        if self._opening is not None:
            with suppress(StreamError):  # it was never opened
                client = await self._opening
                await asyncio.to_thread(client.close, timeout=self._settings.timeout_ms / 1000)

    async def _opened(self) -> Any:
        """The client. Who gives up waiting does not end its opening, which may take longer than any one of them."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = asyncio.create_task(asyncio.to_thread(_producer, self._settings, 1))
        return await asyncio.shield(self._opening)


def _timeouts(timeout_ms: int) -> dict[str, int]:
    return {"bootstrap_timeout_ms": timeout_ms, "request_timeout_ms": timeout_ms}


def _producer(settings: KafkaLogSettings, linger_ms: int) -> Any:
    with _translated():
        return kafka.KafkaProducer(
            bootstrap_servers=settings.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=linger_ms,
            batch_size=64 * 1024,
            max_request_size=_RECORD_BYTES_MAX,
            max_block_ms=settings.timeout_ms,
            request_timeout_ms=settings.timeout_ms,
            delivery_timeout_ms=2 * settings.timeout_ms,
            bootstrap_timeout_ms=settings.timeout_ms,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )


def _cause(topic: str, error: BaseException) -> BaseException:
    is_unknown = isinstance(error, kafka_errors.UnknownTopicOrPartitionError)
    return UnknownTopicError(topic) if is_unknown else error


def _publish_error(topic: str, error: BaseException) -> StreamError:
    cause = _cause(topic, error)
    return cause if isinstance(cause, StreamError) else ProduceError(1, cause)


def _partitions_of(client: Any, topic: str) -> list[Any]:
    with _translated():
        numbers = client.partitions_for_topic(topic)
    if not numbers:
        raise UnknownTopicError(topic)
    return [kafka.TopicPartition(topic, number) for number in sorted(numbers)]


def _spans(client: Any, topic: str) -> dict[Any, tuple[int, int]]:
    """Per partition the first offset and the one after the last."""
    partitions = _partitions_of(client, topic)
    with _translated():
        begins, ends = client.beginning_offsets(partitions), client.end_offsets(partitions)
    return {partition: (begins[partition], ends[partition]) for partition in partitions}


def _read_spans(
    client: Any,
    spans: Mapping[Any, tuple[int, int]],
    max_records: int,
    timeout_ms: int,
    clock: Callable[[], float] = time.monotonic,
) -> list[Record]:
    """The newest `max_records` of each span. Raises LogUnavailableError if the ends are not reached in time."""
    client.assign(list(spans))
    for partition, (begin, end) in spans.items():
        client.seek(partition, max(begin, end - max_records))
    records: list[Record] = []
    deadline = clock() + timeout_ms / 1000
    while any(client.position(partition) < end for partition, (_, end) in spans.items()):
        if clock() >= deadline:
            raise LogUnavailableError(f"Kafka did not deliver the records within {timeout_ms} ms: try again")
        with _translated():
            found = client.poll(timeout_ms=_FETCH_WAIT_MS)
        records.extend(record for batch in found.values() for record in _records_of(batch))
    return records


def _records_of(batch: Sequence[Any]) -> list[Record]:
    """Of one partition; a tombstone is an empty value."""
    topic, number = batch[0].topic, batch[0].partition
    return [Record(topic, number, r.offset, r.key, b"" if r.value is None else r.value, r.timestamp) for r in batch]


def _ours(partition: Any) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)


def _theirs(partition: TopicPartition) -> Any:
    return kafka.TopicPartition(partition.topic, partition.partition)


_REJECTIONS = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownMemberIdError,
)


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the client as ours: what may pass is LogUnavailableError, a lost membership CommitRejectedError."""
    try:
        yield
    except _REJECTIONS as error:
        raise CommitRejectedError(()) from error
    except kafka_errors.KafkaError as error:
        if isinstance(error, kafka_errors.RetriableError):
            raise LogUnavailableError(f"Kafka cannot be reached or is too slow: {error}") from error
        raise StreamError(f"Kafka refused a request of the event log: {error}") from error
