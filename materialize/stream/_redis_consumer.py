"""The consumer of an event log on Redis Streams: who reads which partition, and from where.

Consumer groups of Redis (XREADGROUP) spread the entries of one stream over consumers, which breaks order. So a
partition belongs to one consumer by a lease, and is read with plain XREAD from the group's position:

1. Every consumer renews its membership of the group, in server time, and learns who else is there.
2. Sorted by name, member r of m wants the partitions p with p mod m = r.
3. It claims them (SET with NX and PX, its name as the value) and renews those that it has. A partition that another
   one still holds is asked for again soon.
4. A partition that it no longer wants is read no more, and released when all that was polled is committed, or after
   one lease.
5. A commit is written only while the lease is held: a consumer that slept too long cannot move the group back.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

import redis

from materialize.stream._redis_layout import Layout, entry_id_of, offset_of, record_of, translated
from materialize.stream._redis_scripts import CLAIM, COMMIT, COUNT_PAGE, FIRST_IDS, JOIN, RELEASE, SPAN
from materialize.stream.errors import CommitRejectedError, LogUnavailableError, RecordsLostError
from materialize.stream.log import Record, Start, TopicPartition, next_offsets

LAG_EXACT_MAX = 20_000
"""Up to so many records per partition the lag is counted; beyond, it is estimated from the clock in the ids."""

_LAG_PAGE = 500  # bounds how long one count keeps the server from others
_CLAIM_RETRY_MS = 100
_FIRST_RECORDS = 200  # of the first poll, when nothing is known of their size


@dataclass(slots=True)
class _Reading:
    """A partition that we hold: what to read next, what the group committed, and until when we drain it, if we do."""

    next_offset: int
    committed: int
    drain_until_ms: int | None = None

    @property
    def is_processed(self) -> bool:
        return self.next_offset == self.committed


class RedisConsumer:
    """See `EventLogConsumer`."""

    def __init__(
        self,
        client: redis.Redis,
        layout: Layout,
        topics: Mapping[str, int],
        incarnations: Mapping[str, int],
        group: str,
        *,
        start: Start,
        lease_ms: int,
        poll_bytes_max: int,
        clock_ms: Callable[[], int],
    ) -> None:
        """`topics` says how many partitions each has, `incarnations` which making of each it is.

        `clock_ms` is monotonic and measures only our own pauses.
        """
        self._client = client
        self._layout = layout
        self._topics = dict(topics)
        self._incarnations = dict(incarnations)
        self._group = group
        self._start_after = _start_after(start)
        self._lease_ms = lease_ms
        self._poll_bytes_max = poll_bytes_max
        self._record_bytes = poll_bytes_max / _FIRST_RECORDS
        self._renew_every_ms = max(1, lease_ms // 3)
        self._clock_ms = clock_ms
        self._name = uuid.uuid4().hex
        self._readings: dict[TopicPartition, _Reading] = {}
        self._renew_at_ms: int | None = None
        self._turn = 0

    def poll(self, max_records: int, timeout_ms: int) -> list[Record]:
        """See `EventLogConsumer.poll`."""
        deadline_ms = self._clock_ms() + timeout_ms
        while True:
            self._keep_membership()
            records = self._read(max_records)
            left_ms = deadline_ms - self._clock_ms()
            if records or left_ms <= 0:
                return records
            self._wait(left_ms)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `EventLogConsumer.commit`."""
        ids = {partition: entry_id_of(max(offset - 1, 0)) for partition, offset in offsets.items()}
        pipeline = self._client.pipeline(transaction=False)
        for partition, entry_id in ids.items():
            keys = self._lease_key(partition), self._layout.position(partition, self._group)
            pipeline.eval(COMMIT, 2, *keys, self._name, entry_id)
        with translated():
            done = dict(zip(ids, pipeline.execute(), strict=True))
        for partition, is_done in done.items():
            if not is_done:
                self._readings.pop(partition, None)
            elif partition in self._readings:
                self._readings[partition].committed = offsets[partition]
        rejected = [partition for partition, is_done in done.items() if not is_done]
        if rejected:
            raise CommitRejectedError(rejected)

    def keep_alive(self, timeout_ms: int) -> None:  # noqa: ARG002 - the client's own time limit bounds it
        """See `EventLogConsumer.keep_alive`."""
        self._keep_membership()

    def assignment(self) -> frozenset[TopicPartition]:
        """See `EventLogConsumer.assignment`."""
        return frozenset(self._assigned())

    def incarnation(self, topic: str) -> int:
        """See `EventLogConsumer.incarnation`."""
        return self._incarnations[topic]

    def lag(self) -> dict[TopicPartition, int]:
        """See `EventLogConsumer.lag`: exact up to `LAG_EXACT_MAX`, then an estimate that assumes an even rate."""
        with translated():
            return {p: self._lag_of(self._layout.stream(p), self._readings[p].committed) for p in self._assigned()}

    def close(self) -> None:
        """See `EventLogConsumer.close`."""
        with suppress(LogUnavailableError):  # what cannot be told now expires by itself
            self._release(list(self._readings))
            with translated():
                for topic in self._topics:
                    self._client.zrem(self._layout.members(topic, self._group), self._name)
        self._readings.clear()

    def _assigned(self) -> list[TopicPartition]:
        return sorted(partition for partition, r in self._readings.items() if r.drain_until_ms is None)

    def _lease_key(self, partition: TopicPartition) -> str:
        return self._layout.lease(partition, self._group)

    # Membership

    def _keep_membership(self) -> None:
        now_ms = self._clock_ms()
        if self._renew_at_ms is not None and now_ms < self._renew_at_ms:
            return
        wanted = self._wanted()
        self._claim(wanted | self._readings.keys())
        self._drain(wanted, now_ms)
        is_settled = self._readings.keys() == wanted
        self._renew_at_ms = now_ms + (
            self._renew_every_ms if is_settled else min(_CLAIM_RETRY_MS, self._renew_every_ms)
        )

    def _wanted(self) -> set[TopicPartition]:
        with translated():
            return {partition for topic in self._topics for partition in self._share_of(topic)}

    def _share_of(self, topic: str) -> list[TopicPartition]:
        key = self._layout.members(topic, self._group)
        members = sorted(self._client.eval(JOIN, 1, key, self._name, self._lease_ms))
        rank = members.index(self._name.encode())
        return [TopicPartition(topic, p) for p in range(rank, self._topics[topic], len(members))]

    def _claim(self, partitions: Collection[TopicPartition]) -> None:
        """Renew what we hold and take what is free; what another one holds by now is dropped."""
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            position, stream = self._layout.position(partition, self._group), self._layout.stream(partition)
            keys = self._lease_key(partition), position, stream
            pipeline.eval(CLAIM, 3, *keys, self._name, self._lease_ms, self._start_after)
        with translated():
            answers = pipeline.execute()
        for partition, answer in zip(partitions, answers, strict=True):
            self._note_claim(partition, answer)

    def _note_claim(self, partition: TopicPartition, answer: list[bytes] | None) -> None:
        if answer is None:
            self._readings.pop(partition, None)
            return
        was_held, position = answer
        if not was_held or partition not in self._readings:
            committed = offset_of(position) + 1
            self._readings[partition] = _Reading(next_offset=committed, committed=committed)

    def _drain(self, wanted: Collection[TopicPartition], now_ms: int) -> None:
        for partition in wanted & self._readings.keys():
            self._readings[partition].drain_until_ms = None
        released = []
        for partition in self._readings.keys() - wanted:
            reading = self._readings[partition]
            if reading.drain_until_ms is None:
                reading.drain_until_ms = now_ms + self._lease_ms
            if reading.is_processed or now_ms >= reading.drain_until_ms:
                released.append(partition)
        self._release(released)

    def _release(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            with translated():
                self._client.eval(RELEASE, 1, self._lease_key(partition), self._name)
            del self._readings[partition]

    # Reading

    def _read(self, max_records: int) -> list[Record]:
        """One round trip: the first ids, to see whether retention overtook us, and new entries of all partitions."""
        partitions = self._in_turn()
        if not partitions:
            return []
        streams = {self._layout.stream(p): entry_id_of(max(self._readings[p].next_offset - 1, 0)) for p in partitions}
        pipeline = self._client.pipeline(transaction=True)
        pipeline.eval(FIRST_IDS, len(streams), *streams)
        pipeline.xread(streams, count=max(1, self._records_max(max_records) // len(partitions)))
        with translated():
            first_ids, found = pipeline.execute()
        for partition, first_id in zip(partitions, first_ids, strict=True):
            self._check_not_overtaken(partition, first_id)
        by_stream = {stream.encode(): partition for stream, partition in zip(streams, partitions, strict=True)}
        records = [record_of(by_stream[stream], i, fields) for stream, entries in found for i, fields in entries]
        return self._deliver(records[:max_records])

    def _records_max(self, wanted: int) -> int:
        """As many as take about `poll_bytes_max`, if they are like those before."""
        return min(wanted, int(self._poll_bytes_max / self._record_bytes))

    def _in_turn(self) -> list[TopicPartition]:
        """The assigned partitions, beginning with another one each time, so that none starves the others."""
        partitions = self._assigned()
        self._turn += 1
        first = self._turn % len(partitions) if partitions else 0
        return partitions[first:] + partitions[:first]

    def _check_not_overtaken(self, partition: TopicPartition, first_id: bytes) -> None:
        """The entry read last stands before the first that is left only if it was removed, and others after it too."""
        reading = self._readings[partition]
        expected, first = reading.next_offset, offset_of(first_id) if first_id else 0
        if expected > 1 and first > expected:
            reading.next_offset = first
            reading.committed = max(reading.committed, first)  # nothing older can be read again
            raise RecordsLostError(partition, expected, first)

    def _deliver(self, records: list[Record]) -> list[Record]:
        for partition, following in next_offsets(records).items():
            self._readings[partition].next_offset = following
        if records:
            self._record_bytes = 1 + sum(len(record.value) for record in records) / len(records)
        return records

    def _wait(self, timeout_ms: int) -> None:
        """Block until one of our partitions has a new entry, it is time to renew, or `timeout_ms` is over."""
        due_ms = (self._renew_at_ms or 0) - self._clock_ms()
        block_ms = max(1, min(timeout_ms, due_ms))
        streams = {
            self._layout.stream(p): entry_id_of(max(self._readings[p].next_offset - 1, 0)) for p in self._assigned()
        }
        with translated():
            self._client.xread(streams or {self._layout.idle: "$"}, count=1, block=block_ms)

    def _lag_of(self, stream: str, committed: int) -> int:
        length, first_id, last_id = self._client.eval(SPAN, 1, stream)
        first, last = offset_of(first_id), offset_of(last_id)
        if committed <= first:
            return int(length)
        counted = 0
        after = entry_id_of(committed - 1)
        while counted < LAG_EXACT_MAX:
            found, after_bytes = self._client.eval(COUNT_PAGE, 1, stream, after, _LAG_PAGE)
            counted += int(found)
            after = after_bytes.decode()
            if found < _LAG_PAGE:
                return counted
        share_left = (last - committed) / max(1, last - first)
        return max(counted, round(int(length) * share_left))


def _start_after(start: Start) -> str:
    """The end of the range of entries that a group which has never committed passes over, as XREVRANGE has it."""
    if isinstance(start, int):
        return f"({start}-0"
    return "+" if start == "latest" else "-"
