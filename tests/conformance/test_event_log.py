"""What both kinds of event log promise, as one suite over Redis Streams and Kafka."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

import msgspec
import pytest

from actor_risk.local import wait_until
from materialize.stream.dead_letters import DeadLetter, DeadLetters
from materialize.stream.errors import CommitRejectedError, ProduceError, StreamError, UnknownTopicError
from materialize.stream.log import (
    INCARNATION_MAX,
    EventLog,
    EventLogConsumer,
    EventLogSettings,
    KafkaLogSettings,
    Record,
    RedisLogSettings,
    TopicPartition,
    next_offsets,
)
from materialize.stream.open_log import open_event_log

DEADLINE_S = 60.0
FLUSH_MS = 10_000


@pytest.fixture(params=["redis", pytest.param("kafka", marks=pytest.mark.kafka)])
def settings(request: pytest.FixtureRequest) -> EventLogSettings:
    if request.param == "redis":
        url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_namespace")
        return RedisLogSettings(url=url, prefix=prefix, lease_ms=12_000)
    bootstrap_servers = request.getfixturevalue("kafka_bootstrap")
    return KafkaLogSettings(bootstrap_servers=bootstrap_servers, session_timeout_ms=30_000)


def impatient(settings: EventLogSettings) -> EventLogSettings:
    """The same log for consumers whose coming and going is to be noticed soon; others outlast a stalled machine."""
    if isinstance(settings, RedisLogSettings):
        return replace(settings, lease_ms=5_000)
    return replace(settings, session_timeout_ms=6_000)


def hasty(settings: EventLogSettings) -> EventLogSettings:
    """The same log for a producer that waits in vain: for a topic that does not exist."""
    return replace(settings, timeout_ms=4_000)


@pytest.fixture
def log(settings: EventLogSettings) -> Iterator[EventLog]:
    with closing(open_event_log(settings)) as opened:
        yield opened


@pytest.fixture
def topic(log: EventLog) -> Iterator[str]:
    name = f"events-{uuid.uuid4().hex}"
    log.ensure_topics([name])
    yield name
    log.delete_topics([name, f"{name}.dead-letters", f"{name}.dead-letters.replayed"])


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex}"


@pytest.fixture
def join(log: EventLog, topic: str, group: str) -> Iterator[Callable[[], EventLogConsumer]]:
    """Opens consumers of one group; they are closed at the end, also when the test fails."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(log.consumer([topic], group)))


def append(log: EventLog, topic: str, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    with closing(log.producer()) as producer:
        for key, value in pairs:
            producer.send(topic, key, value)
        producer.flush(FLUSH_MS)


def numbered(count: int, keys: int = 20, first: int = 0) -> list[tuple[bytes, bytes]]:
    return [(b"key-%d" % (i % keys), b"%d" % i) for i in range(first, first + count)]


def read(consumer: EventLogConsumer, count: int) -> list[Record]:
    """Poll until `count` records have come; more than that fails."""
    records: list[Record] = []

    def poll() -> bool:
        records.extend(consumer.poll(100, 200))
        return len(records) >= count

    wait_until(poll, DEADLINE_S, f"{count} records have been read", interval_s=0)
    assert len(records) == count
    return records


def read_nothing(consumer: EventLogConsumer) -> None:
    """Poll until the consumer owns all four partitions, then once more: nothing comes."""
    records: list[Record] = []

    def poll() -> bool:
        records.extend(consumer.poll(100, 100))
        return len(consumer.assignment()) == 4

    wait_until(poll, DEADLINE_S, "the partitions are assigned", interval_s=0)
    assert [*records, *consumer.poll(100, 500)] == []


def share(first: EventLogConsumer, second: EventLogConsumer) -> bool:
    """Whether each of the two has two of the four partitions."""
    ours, theirs = first.assignment(), second.assignment()
    return len(ours) == len(theirs) == 2 and not ours & theirs


def by_partition(records: Sequence[Record]) -> dict[TopicPartition, list[Record]]:
    found = defaultdict(list)
    for record in records:
        found[record.topic_partition].append(record)
    return found


def test_a_partition_is_read_in_order_and_offsets_strictly_increase(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    append(log, topic, numbered(1_000))
    records = read(join(), 1_000)
    assert sorted(int(r.value) for r in records) == list(range(1_000))
    for partition in by_partition(records).values():
        values, offsets = [int(r.value) for r in partition], [r.offset for r in partition]
        assert values == sorted(values)
        assert offsets == sorted(set(offsets))
        assert 0 <= offsets[0] < 2**63


def test_a_key_always_goes_to_the_same_partition(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    append(log, topic, numbered(200))
    append(log, topic, numbered(200, first=200))
    records = read(join(), 400)
    assert len({(r.key, r.partition) for r in records}) == 20
    assert len({r.partition for r in records}) > 1


def test_records_carry_their_key_and_the_time_they_were_taken(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    before_ms = time.time_ns() // 1_000_000
    append(log, topic, [(b"k", b"v")])
    (record,) = read(join(), 1)
    assert (record.topic, record.key, record.value) == (topic, b"k", b"v")
    assert before_ms - 1_000 <= record.timestamp_ms <= time.time_ns() // 1_000_000 + 1_000


def test_a_new_group_starts_at_the_beginning(log: EventLog, topic: str, join: Callable[[], EventLogConsumer]) -> None:
    append(log, topic, numbered(50))
    assert len(read(join(), 50)) == 50


def test_a_partition_with_far_more_records_does_not_hold_the_others_up(
    settings: EventLogSettings, log: EventLog, topic: str, group: str
) -> None:
    many, few = 4_000, 100
    append(log, topic, numbered(few, keys=few))
    placed = {record.key: record.partition for record in log.tail(topic, few)}
    hot = placed[b"key-0"]
    others = sum(partition != hot for partition in placed.values())
    append(log, topic, [(b"key-0", b"hot" * 100)] * many)
    append(log, topic, numbered(few, keys=few))
    seen = {True: 0, False: 0}
    in_small_parts = open_event_log(replace(settings, poll_bytes_max=200_000))
    with closing(in_small_parts), closing(in_small_parts.consumer([topic], group)) as consumer:

        def poll() -> bool:
            for record in consumer.poll(200, 200):
                seen[record.partition == hot] += 1
            return seen[False] == 2 * others

        wait_until(poll, DEADLINE_S, "the others have been read", interval_s=0)
    assert seen[True] < many * 0.75


def test_a_group_that_starts_at_the_latest_keeps_that_place_through_a_restart(
    log: EventLog, topic: str, group: str
) -> None:
    append(log, topic, numbered(50))
    with closing(log.consumer([topic], group, start="latest")) as consumer:
        read_nothing(consumer)
    append(log, topic, numbered(10, first=50))
    with closing(log.consumer([topic], group, start="latest")) as consumer:
        assert sorted(int(r.value) for r in read(consumer, 10)) == list(range(50, 60))


def test_a_group_that_starts_at_a_time_reads_what_the_log_took_from_then_on(
    log: EventLog, topic: str, group: str
) -> None:
    append(log, topic, numbered(50))
    between_ms = max(record.timestamp_ms for record in log.tail(topic, 50)) + 1
    wait_until(lambda: time.time_ns() // 1_000_000 > between_ms, DEADLINE_S, "the log's clock has moved on")
    append(log, topic, numbered(10, first=50))
    with closing(log.consumer([topic], group, start=between_ms)) as consumer:
        assert sorted(int(r.value) for r in read(consumer, 10)) == list(range(50, 60))
    with closing(log.consumer([topic], group, start=between_ms)) as again:
        assert sorted(int(r.value) for r in read(again, 10)) == list(range(50, 60))
    with closing(log.consumer([topic], f"{group}-of-all", start=1)) as of_all:
        assert len(read(of_all, 60)) == 60


def test_a_group_that_starts_at_a_time_to_come_keeps_that_place_through_a_restart(
    log: EventLog, topic: str, group: str
) -> None:
    append(log, topic, numbered(50))
    later_ms = time.time_ns() // 1_000_000 + 3_600_000
    with closing(log.consumer([topic], group, start=later_ms)) as consumer:
        read_nothing(consumer)
    append(log, topic, numbered(10, first=50))
    with closing(log.consumer([topic], group, start=later_ms)) as consumer:
        assert sorted(int(r.value) for r in read(consumer, 10)) == list(range(50, 60))


def test_reading_resumes_after_the_commit(log: EventLog, topic: str, group: str) -> None:
    append(log, topic, numbered(100))
    with closing(log.consumer([topic], group)) as consumer:
        consumer.commit(next_offsets(read(consumer, 100)))
    append(log, topic, numbered(10, first=100))
    with closing(log.consumer([topic], group)) as consumer:
        assert sorted(int(r.value) for r in read(consumer, 10)) == list(range(100, 110))


def test_a_commit_in_the_middle_of_a_partition_resumes_right_there(log: EventLog, topic: str, group: str) -> None:
    append(log, topic, [(b"one key", b"%d" % i) for i in range(10)])
    with closing(log.consumer([topic], group)) as consumer:
        consumer.commit(next_offsets(read(consumer, 10)[:4]))
    with closing(log.consumer([topic], group)) as consumer:
        assert [int(r.value) for r in read(consumer, 6)] == [4, 5, 6, 7, 8, 9]


def test_what_was_not_committed_is_delivered_again(log: EventLog, topic: str, group: str) -> None:
    append(log, topic, numbered(100))
    with closing(log.consumer([topic], group)) as consumer:
        first = read(consumer, 100)
    with closing(log.consumer([topic], group)) as consumer:
        assert set(read(consumer, 100)) == set(first)


def test_groups_do_not_disturb_each_other(log: EventLog, topic: str, join: Callable[[], EventLogConsumer]) -> None:
    append(log, topic, numbered(20))
    ours = join()
    ours.commit(next_offsets(read(ours, 20)))
    with closing(log.consumer([topic], f"other-{uuid.uuid4().hex}")) as other:
        assert len(read(other, 20)) == 20


def test_a_poll_gives_at_most_what_was_asked_for(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    append(log, topic, numbered(100))
    consumer, seen = join(), []

    def poll() -> bool:
        records = consumer.poll(3, 200)
        assert len(records) <= 3
        seen.extend(int(r.value) for r in records)
        return len(seen) >= 100

    wait_until(poll, DEADLINE_S, "all records have been read", interval_s=0)
    assert sorted(seen) == list(range(100))


def test_two_consumers_share_the_partitions_and_never_read_the_same_one(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    consumers = [join(), join()]
    seen: list[Record] = []

    def poll_both() -> bool:
        for consumer in consumers:
            records = consumer.poll(100, 200)
            seen.extend(records)
            assert {r.topic_partition for r in records} <= consumer.assignment()
            consumer.commit(next_offsets(records))
        return share(*consumers)

    wait_until(poll_both, DEADLINE_S, "each consumer has two partitions", interval_s=0)
    append(log, topic, numbered(400))
    wait_until(lambda: poll_both() and len(seen) >= 400, DEADLINE_S, "all is read", interval_s=0)
    assert sorted(int(r.value) for r in seen) == list(range(400))


def test_a_consumer_that_is_kept_alive_reads_nothing_twice_and_leaves_nothing_out(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    append(log, topic, numbered(200))
    consumer = join()
    records: list[Record] = []

    def poll_now_and_then() -> bool:
        for _ in range(2):
            consumer.keep_alive(20)
        records.extend(consumer.poll(30, 200))
        return len(records) >= 200

    wait_until(poll_now_and_then, DEADLINE_S, "all records have been read", interval_s=0)
    append(log, topic, numbered(50, first=200))
    consumer.keep_alive(20)
    records.extend(read(consumer, 50))
    for partition in by_partition(records).values():
        offsets = [r.offset for r in partition]
        assert offsets == sorted(set(offsets))
    assert sorted(int(r.value) for r in records) == list(range(250))


def test_a_consumer_that_is_only_kept_alive_lets_others_have_their_share(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    append(log, topic, numbered(100))
    waiting, newcomer = join(), join()
    records = read(waiting, 100)

    def is_shared() -> bool:
        waiting.keep_alive(50)
        newcomer.poll(100, 50)
        return share(waiting, newcomer)

    wait_until(is_shared, DEADLINE_S, "each consumer has two partitions", interval_s=0)
    theirs = {p: offset for p, offset in next_offsets(records).items() if p in newcomer.assignment()}
    with pytest.raises(CommitRejectedError):
        waiting.commit(theirs)
    waiting.commit({p: offset for p, offset in next_offsets(records).items() if p in waiting.assignment()})


def test_consumers_of_one_thread_that_poll_for_a_moment_do_not_wait_for_each_other(
    settings: EventLogSettings, log: EventLog, topic: str, group: str
) -> None:
    """A rebalance takes many such polls: whoever stood still in the middle of one would keep the others from it."""
    with closing(open_event_log(impatient(settings))) as soon, ExitStack() as stack:
        first, second = (stack.enter_context(closing(soon.consumer([topic], group))) for _ in range(2))
        append(log, topic, numbered(100))
        records = read(first, 100)

        def is_shared() -> bool:
            first.keep_alive(1)
            records.extend(second.poll(100, 1))
            return share(first, second)

        wait_until(is_shared, DEADLINE_S, "each consumer has two partitions", interval_s=0)
    assert {int(record.value) for record in records} == set(range(100))


def test_consumers_that_work_between_their_polls_come_to_an_end_with_sharing(
    settings: EventLogSettings, topic: str, group: str
) -> None:
    """What the log says to a consumer that works meanwhile is not lost."""
    with closing(open_event_log(impatient(settings))) as soon, ExitStack() as stack:
        first, second = (stack.enter_context(closing(soon.consumer([topic], group))) for _ in range(2))

        def is_shared() -> bool:
            for consumer in (first, second):
                consumer.poll(100, 1)
                time.sleep(0.1)  # its work
            return share(first, second)

        wait_until(is_shared, DEADLINE_S, "each consumer has two partitions", interval_s=0)


def test_a_consumer_that_leaves_hands_over_its_partitions(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    leaver = join()
    append(log, topic, numbered(100))
    leaver.commit(next_offsets(read(leaver, 100)))
    leaver.close()
    append(log, topic, numbered(50, first=100))
    assert sorted(int(r.value) for r in read(join(), 50)) == list(range(100, 150))


CRASHING_CONSUMER = """
import sys
import msgspec
from materialize.stream.log import KafkaLogSettings, RedisLogSettings
from materialize.stream.open_log import open_event_log

settings, topic, group, count = sys.argv[1:]
kind = KafkaLogSettings if "bootstrap_servers" in settings else RedisLogSettings
consumer = open_event_log(msgspec.json.decode(settings, type=kind)).consumer([topic], group)
seen = 0
while True:
    seen += len(consumer.poll(100, 100))
    if seen == int(count):
        print("read", flush=True)
"""


def test_the_partitions_of_a_killed_consumer_are_read_by_another(
    log: EventLog, settings: EventLogSettings, topic: str, group: str, join: Callable[[], EventLogConsumer]
) -> None:
    append(log, topic, numbered(100))
    told = msgspec.json.encode(impatient(settings)).decode()
    command = [sys.executable, "-c", CRASHING_CONSUMER, told, topic, group, "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        try:
            assert killed.stdout is not None
            assert killed.stdout.readline() == b"read\n"
        finally:
            killed.kill()
    assert sorted(int(r.value) for r in read(join(), 100)) == list(range(100))


def test_a_commit_for_a_partition_that_is_not_owned_is_rejected(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    owner, stranger = join(), join()
    append(log, topic, [(b"k", b"v")])
    records = read(owner, 1)
    with pytest.raises(CommitRejectedError) as rejected:
        stranger.commit(next_offsets(records))
    assert rejected.value.partitions == {records[0].topic_partition}


def test_lag_is_the_number_of_records_after_the_commit(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    append(log, topic, [(b"one key", b"%d" % i) for i in range(1_200)])
    consumer = join()
    records = read(consumer, 1_200)
    wait_until(lambda: not consumer.poll(1, 50) and len(consumer.assignment()) == 4, DEADLINE_S, "all is assigned")
    partition = records[0].topic_partition
    assert consumer.lag() == {p: 1_200 if p == partition else 0 for p in consumer.assignment()}
    consumer.commit(next_offsets(records[:300]))
    assert consumer.lag()[partition] == 900
    consumer.commit(next_offsets(records))
    assert set(consumer.lag().values()) == {0}


def test_large_and_binary_values_come_back_as_they_were(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    values = [bytes(range(256)) * 3_000, b"", b"\x00", b"\xff\xfe\r\n", "ä€𝄞".encode()]
    append(log, topic, [(bytes([i, 0, 255]), value) for i, value in enumerate(values)])
    records = {r.key: r.value for r in read(join(), len(values))}
    assert records == {bytes([i, 0, 255]): value for i, value in enumerate(values)}


def test_a_record_that_cannot_be_written_is_an_error_at_flush_and_the_others_are_written(
    log: EventLog, settings: EventLogSettings, topic: str
) -> None:
    with closing(open_event_log(hasty(settings))) as producing, closing(producing.producer()) as producer:
        producer.send(topic, b"k", b"good")
        producer.send("no-such-topic", b"k", b"lost")
        with pytest.raises(ProduceError) as failed:
            producer.flush(FLUSH_MS)
    assert failed.value.count == 1
    assert [r.value for r in log.tail(topic, 10)] == [b"good"]


def test_reading_a_topic_that_does_not_exist_is_an_error(log: EventLog) -> None:
    with pytest.raises(UnknownTopicError, match="ensure_topics"):
        log.consumer(["no-such-topic"], "group")
    with pytest.raises(UnknownTopicError):
        log.tail("no-such-topic", 1)


def test_topics_are_made_once_and_keep_their_partitions(log: EventLog, topic: str) -> None:
    assert log.ensure_topics([topic], partitions=7) == {topic: 4}
    with pytest.raises(ValueError, match="topic name"):
        log.ensure_topics(["no spaces, please"])


def test_the_tail_is_the_newest_records_and_the_size_counts_all(log: EventLog, topic: str) -> None:
    assert log.tail(topic, 5) == []
    append(log, topic, [(b"one key", b"%d" % i) for i in range(30)])
    assert [r.value for r in log.tail(topic, 3)] == [b"27", b"28", b"29"]
    assert log.size(topic) == 30


def test_many_records_published_from_an_event_loop_are_all_in_the_log(log: EventLog, topic: str) -> None:
    async def publish_all() -> None:
        publisher = log.async_publisher()
        try:
            await asyncio.gather(*(publisher.publish(topic, key, value) for key, value in numbered(200)))
        finally:
            await publisher.close()

    asyncio.run(publish_all())
    assert sorted(int(r.value) for r in log.tail(topic, 500)) == list(range(200))


def test_publishing_to_a_topic_that_does_not_exist_is_an_error(settings: EventLogSettings) -> None:
    async def publish(log: EventLog) -> None:
        publisher = log.async_publisher()
        try:
            await publisher.publish("no-such-topic", b"k", b"v")
        finally:
            await publisher.close()

    with closing(open_event_log(hasty(settings))) as log, pytest.raises(StreamError):
        asyncio.run(publish(log))


def test_dead_letters_come_back_with_their_reason_and_their_bytes(log: EventLog, topic: str) -> None:
    letters = DeadLetters(log)
    odd = Record(topic, 3, 12_345, b"\xff\x00", bytes(range(256)), 1_700_000_000_000)
    letters.put(odd, "malformed", "not JSON: \udcff", at_ms=1_700_000_000_500)
    letters.put(Record(topic, 0, 1, None, b"", 0), "invalid", "no field `ip`", at_ms=1_700_000_000_501)
    letters.flush(FLUSH_MS)
    assert letters.list(topic) == [
        DeadLetter(
            reason="malformed",
            detail="not JSON: ?",
            topic=topic,
            partition=3,
            offset=12_345,
            at_ms=1_700_000_000_500,
            key=b"\xff\x00",
            value=bytes(range(256)),
            value_bytes=256,
        ),
        DeadLetter(
            reason="invalid",
            detail="no field `ip`",
            topic=topic,
            partition=0,
            offset=1,
            at_ms=1_700_000_000_501,
            key=None,
            value=b"",
            value_bytes=0,
        ),
    ]
    assert letters.count(topic) == 2
    letters.close()


def test_a_dead_letter_that_is_too_large_for_the_log_is_cut_and_says_so(log: EventLog, topic: str) -> None:
    letters = DeadLetters(log)
    letters.put(Record(topic, 0, 1, b"k" * 100_000, b"\xff" * 5_000_000, 0), "invalid", "x" * 9_999, at_ms=1)
    letters.close()
    (letter,) = letters.list(topic)
    assert letter.is_cut
    assert letter.value_bytes == 5_000_000
    assert letter.value == b"\xff" * len(letter.value)


def test_a_dead_letter_in_pieces_comes_back_whole_and_is_replayed_whole(log: EventLog, topic: str) -> None:
    letters = DeadLetters(log)
    large = random.Random(7).randbytes(1_000_000)  # about the largest record that Kafka takes
    for _ in range(2):  # a worker that crashed puts it down again
        letters.put(Record(topic, 0, 1, b"k", large, 0), "malformed", "why", at_ms=1)
        letters.put(Record(topic, 0, 2, b"k", b"small", 0), "malformed", "why", at_ms=1)
    letters.flush(FLUSH_MS)
    found = letters.list(topic)
    assert [(letter.offset, letter.value) for letter in found] == [(1, large), (2, b"small")]
    letters.replay(found)
    assert [record.value for record in log.tail(topic, 10)] == [large, b"small"]
    (half,) = (letter for letter in letters.list(topic, 2) if letter.offset == 1)  # its beginning is out of sight
    assert not half.can_be_replayed
    letters.close()


def test_replayed_letters_come_to_their_topic_as_they_were_and_are_remembered(log: EventLog, topic: str) -> None:
    letters = DeadLetters(log)
    originals = [(b"key \xff", b"value \x00"), (b"other", b"{}")]
    for offset, (key, value) in enumerate(originals):
        letters.put(Record(topic, 2, offset, key, value, 0), "invalid", "why", at_ms=1)
    letters.flush(FLUSH_MS)
    assert letters.replayed(topic) == set()
    told: list[int] = []
    letters.replay(letters.list(topic), told.append)
    assert told == [2]
    assert letters.replayed(topic) == {letter.identity for letter in letters.list(topic)}
    assert sorted((record.key, record.value) for record in log.tail(topic, 10)) == sorted(originals)
    assert letters.count(topic) == 2
    letters.close()


def test_a_letter_without_its_whole_original_is_never_replayed(log: EventLog, topic: str) -> None:
    letters = DeadLetters(log)
    letters.put(Record(topic, 0, 1, b"k", b"\xff" * 5_000_000, 0), "invalid", "why", at_ms=1)
    letters.flush(FLUSH_MS)
    with pytest.raises(ValueError, match="original"):
        letters.replay(letters.list(topic))
    assert log.size(topic) == 0
    letters.close()


def test_a_record_among_the_dead_letters_that_is_none_is_shown_as_unreadable(log: EventLog, topic: str) -> None:
    letters = DeadLetters(log)
    assert letters.list(topic) == []
    assert letters.count(topic) == 0
    log.ensure_topics([f"{topic}.dead-letters"], partitions=1)
    append(log, f"{topic}.dead-letters", [(b"k", b"\xff not a letter")])
    (letter,) = letters.list(topic)
    assert (letter.reason, letter.value) == ("unreadable_letter", b"\xff not a letter")
    assert letters.count(topic) == 1


def test_a_topic_that_is_made_again_is_another_incarnation(
    log: EventLog, topic: str, join: Callable[[], EventLogConsumer]
) -> None:
    first, again = join(), join()
    assert first.incarnation(topic) == again.incarnation(topic)
    assert 0 < first.incarnation(topic) <= INCARNATION_MAX
    first.close()
    again.close()
    log.delete_topics([topic])
    assert log.ensure_topics([topic], 4) == {topic: 4}
    assert join().incarnation(topic) != first.incarnation(topic)


def test_topics_that_were_deleted_can_be_made_again_at_once(log: EventLog, topic: str) -> None:
    topics = [topic, f"{topic}.dead-letters"]
    for turn in range(30):
        partitions = 4 + turn % 2
        log.delete_topics(topics)
        assert log.ensure_topics(topics, partitions) == dict.fromkeys(topics, partitions)
