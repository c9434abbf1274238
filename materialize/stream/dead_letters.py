"""Dead letters: records that could not be used, kept with the reason in the same log, to be looked at and sent again.

The letters of `<topic>` are the records of the topic `<topic>.dead-letters`: one JSON object each, or several for an
original that is too large for one record. That a letter was sent again is a record of `<topic>.dead-letters.replayed`,
whose key says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import xxhash

from materialize.stream.errors import UnknownTopicError
from materialize.stream.log import EventLog, EventLogProducer, Record

SUFFIX = ".dead-letters"
REPLAYED_SUFFIX = ".replayed"
PIECE_BYTES_MAX = 512 * 1024
"""As much of a value as one record holds: in base64 it must fit (Kafka: 1 MiB)."""

VALUE_BYTES_MAX = 8 * PIECE_BYTES_MAX
"""More of a value is cut off, and marked so."""

UNREADABLE = "unreadable_letter"
"""The reason given for a record of a dead-letter topic that is no letter."""

REPLAYED_MAX = 1_000_000
"""How many of the replayed letters of a topic are remembered."""

REPLAY_BATCH = 500
"""Letters sent again, acknowledged and noted at a time."""

_TEXT_CHARS_MAX = 2_000
_KEY_BYTES_MAX = 4 * 1024


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One letter. `reason` is a stable word, `detail` a sentence; `key` and `value` are the original bytes (base64
    in JSON), cut to `VALUE_BYTES_MAX` of `value_bytes`; `at_ms` is when it was put here, milliseconds UTC. In the log a
    large value is in pieces, each a letter of its own that begins at byte `begin` of the original."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes
    value_bytes: int
    begin: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether `value` is only the beginning of the original."""
        return len(self.value) < self.value_bytes

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the record that the letter is about."""
        return self.partition, self.offset

    @property
    def identity(self) -> bytes:
        """What tells the letter from all others of its topic, also when the topic was deleted and offsets began anew:
        partition, offset and a hash of the original."""
        return b"%d:%d:%s" % (*self.place, xxhash.xxh64_hexdigest(self.value).encode())

    @property
    def can_be_replayed(self) -> bool:
        """Whether the original is here as a whole."""
        key_is_cut = self.key is not None and len(self.key) == _KEY_BYTES_MAX
        return not (self.is_cut or key_is_cut or self.reason == UNREADABLE)


def dead_letter_topic(topic: str) -> str:
    """The topic that holds the dead letters of `topic`."""
    return topic + SUFFIX


class DeadLetters:
    """Puts records aside in their log, and reads them back."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._producer: EventLogProducer | None = None
        self._topics: set[str] = set()

    def put(self, record: Record, reason: str, detail: str, at_ms: int) -> None:
        """Queue a letter about `record`; any bytes will do. It is safe after `flush`, so flush before you commit.

        Makes the dead-letter topic (one partition) at its first letter. Raises LogUnavailableError.
        """
        topic = dead_letter_topic(record.topic)
        if topic not in self._topics:
            self._log.ensure_topics([topic], partitions=1)
            self._topics.add(topic)
        for letter in _pieces(record, reason, detail, at_ms):
            self._open_producer().send(topic, b"%d:%d" % letter.place, msgspec.json.encode(letter))

    def flush(self, timeout_ms: int) -> None:
        """Return when all letters are acknowledged. Raises ProduceError."""
        if self._producer is not None:
            self._producer.flush(timeout_ms)

    def list(self, topic: str, max_letters: int = 100) -> list[DeadLetter]:
        """The newest letters of `topic`, oldest first; a record that is no letter is shown as one, `UNREADABLE`.

        Each is there once, though a worker that crashed between letter and commit has put it down again.
        """
        try:
            records = self._log.tail(dead_letter_topic(topic), max_letters)
        except UnknownTopicError:  # there never was one
            return []
        return _once(_joined(_letter(record) for record in records))

    def count(self, topic: str) -> int:
        """How many records of letters of `topic` the log holds: as many as letters, or a few more, for pieces and
        repetitions."""
        try:
            return self._log.size(dead_letter_topic(topic))
        except UnknownTopicError:
            return 0

    def replay(
        self, letters: Sequence[DeadLetter], on_sent: Callable[[int], None] | None = None, timeout_ms: int = 10_000
    ) -> None:
        """Send the originals to the end of their own topics, with their own keys, and note that they were sent.

        `on_sent` gets the number of those sent and noted so far. A crash between the two sends some of them twice: the
        worker knows an event that is sent twice by its `event_id`, among the newest of its row. Raises ValueError for a
        letter that cannot be replayed, ProduceError, LogUnavailableError.
        """
        odd = [letter.place for letter in letters if not letter.can_be_replayed]
        if odd:
            raise ValueError(f"{len(odd)} letters have not their whole original, the first at {odd[0]}")
        self._log.ensure_topics(sorted({_replayed_topic(letter.topic) for letter in letters}), partitions=1)
        producer = self._open_producer()
        for begin in range(0, len(letters), REPLAY_BATCH):
            batch = letters[begin : begin + REPLAY_BATCH]
            for letter in batch:
                producer.send(letter.topic, letter.key or b"", letter.value)
            producer.flush(timeout_ms)
            for letter in batch:
                producer.send(_replayed_topic(letter.topic), letter.identity, b"{}")
            producer.flush(timeout_ms)
            if on_sent is not None:
                on_sent(begin + len(batch))

    def replayed(self, topic: str) -> set[bytes]:
        """The identities of the letters of `topic` that were sent again."""
        try:
            records = self._log.tail(_replayed_topic(topic), REPLAYED_MAX)
        except UnknownTopicError:
            return set()
        return {record.key for record in records if record.key is not None}

    def close(self) -> None:
        """Flush and free the producer. Raises ProduceError."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _open_producer(self) -> EventLogProducer:
        if self._producer is None:
            self._producer = self._log.producer()
        return self._producer


def _replayed_topic(topic: str) -> str:
    return dead_letter_topic(topic) + REPLAYED_SUFFIX


def _pieces(record: Record, reason: str, detail: str, at_ms: int) -> list[DeadLetter]:
    """The letter about a record, in as many pieces as its value needs: at least one."""
    value = record.value[:VALUE_BYTES_MAX]
    return [
        DeadLetter(
            reason=_text(reason),
            detail=_text(detail),
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            at_ms=at_ms,
            key=None if record.key is None else record.key[:_KEY_BYTES_MAX],
            value=value[begin : begin + PIECE_BYTES_MAX],
            value_bytes=len(record.value),
            begin=begin,
        )
        for begin in range(0, max(len(value), 1), PIECE_BYTES_MAX)
    ]


def _joined(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Letters with their pieces put together, in the order of their first piece. What lacks one is shown as cut."""
    pieces: dict[tuple[int, int, int, str], dict[int, DeadLetter]] = {}
    for letter in letters:
        pieces.setdefault((*letter.place, letter.at_ms, letter.reason), {})[letter.begin] = letter
    return [_whole(found) for found in pieces.values()]


def _whole(pieces: dict[int, DeadLetter]) -> DeadLetter:
    first = pieces.get(0)
    if first is None:  # the log no longer has the beginning
        return msgspec.structs.replace(next(iter(pieces.values())), value=b"", begin=0)
    if len(pieces) == 1:
        return first
    value = b""
    while len(value) in pieces and pieces[len(value)].value:
        value += pieces[len(value)].value
    return msgspec.structs.replace(first, value=value)


def _once(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    return list({letter.identity: letter for letter in letters}.values())


def _text(text: str) -> str:
    """`text` as it can be written in JSON: lone surrogates replaced, and of bounded length."""
    return text[:_TEXT_CHARS_MAX].encode("utf-8", "replace").decode()


def _letter(record: Record) -> DeadLetter:
    try:
        return msgspec.json.decode(record.value, type=DeadLetter)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return DeadLetter(
            reason=UNREADABLE,
            detail=str(error),
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            at_ms=record.timestamp_ms,
            key=record.key,
            value=record.value,
            value_bytes=len(record.value),
        )
