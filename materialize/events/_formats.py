"""Which format each topic has: `ad_events=avro:schemas/ad.avsc`, JSON where nothing is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from materialize.events._decode import (
    DEFAULT_SKEW_MS,
    Event,
    EventDecoder,
    InvalidEventError,
    check_time,
    json_decoder,
)
from materialize.events._errors import EventFormatError
from materialize.events._schemas import TOPICS

JSON_FORMAT = "json"
AVRO_FORMAT = "avro"


class EventFormats:
    """Decodes the events of every topic, each in its format."""

    def __init__(self, decoders: Mapping[str, EventDecoder] | None = None) -> None:
        """`decoders` by topic; the others are JSON."""
        self._decoders: dict[str, EventDecoder] = {topic: json_decoder(topic) for topic in TOPICS}
        self._decoders.update(decoders or {})

    def decode(self, topic: str, data: bytes, now_ms: int, skew_ms: int = DEFAULT_SKEW_MS) -> Event:
        """The event of a record of `topic`, at most `skew_ms` ahead of the clock, which stands at `now_ms`.

        Raises InvalidEventError, and nothing else whatever the bytes are.
        """
        decoder = self._decoders.get(topic)
        if decoder is None:
            raise InvalidEventError("unknown_topic", f"no topic {topic!r}; the topics are {sorted(TOPICS)}")
        event = decoder.decode(data)
        check_time(event, now_ms, skew_ms)
        return event


def open_formats(specs: Iterable[str]) -> EventFormats:
    """The formats that `specs` describe, each as `topic=json`, `topic=avro:FILE.avsc` or `topic=avro:FOLDER`.

    A file is the one schema of bare Avro data; a folder holds `<id>.avsc` for Confluent's wire format. A topic that is
    named twice has the last format. Raises EventFormatError.
    """
    return EventFormats(dict(_decoder(spec) for spec in specs))


def _decoder(spec: str) -> tuple[str, EventDecoder]:
    topic, equals, described = spec.partition("=")
    kind, _, path = described.partition(":")
    if topic not in TOPICS:
        raise EventFormatError(f"{spec!r}: no topic {topic!r}; the topics are {sorted(TOPICS)}")
    if described == JSON_FORMAT:
        return topic, json_decoder(topic)
    if equals and kind == AVRO_FORMAT and path:
        return topic, _avro_decoder(topic, Path(path))
    raise EventFormatError(f"{spec!r} is no format: write {topic}=json, {topic}=avro:FILE.avsc or {topic}=avro:FOLDER")


def _avro_decoder(topic: str, path: Path) -> EventDecoder:
    try:
        # Imported where there are Avro events: fastavro is an extra.
        from materialize.events import _avro
    except ImportError as error:
        raise EventFormatError(f"Avro needs the extra `avro`: pip install 'actor-risk[avro]' ({error})") from error
    if path.is_dir():
        return _avro.ConfluentEventDecoder(topic, _avro.SchemaFolder(path))
    return _avro.AvroEventDecoder(topic, _avro.load_schema(path))
