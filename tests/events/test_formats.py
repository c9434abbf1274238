"""Every format gives the same event, or refuses it for the same reason, whatever the bytes are."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from materialize.events import (
    ACCOUNT_EVENTS,
    AD_EVENTS,
    DEFAULT_SKEW_MS,
    TOPICS,
    AdEvent,
    Event,
    EventFormatError,
    EventFormats,
    InvalidEventError,
    JsonEventDecoder,
    Reason,
    avro_schema,
    columns_from_events,
    decode_event,
    event_time_ms,
    json_schema,
    open_formats,
    partition_key,
    schema_documents,
    schema_version,
)

NOW_MS = 1_795_000_000_000
MIB = 1 << 20

CLICK: dict[str, Any] = {
    "event_id": "click-1",
    "event_time": NOW_MS - 1_000,
    "event_type": "click",
    "advertiser_id": "adv-1",
    "creator_id": "cre-1",
    "ip": "203.0.113.9",
    "device_id": "dev-1",
}
FULL_CLICK = {**CLICK, "os": "android", "country": "DE", "amount_usd": 0.25, "ms_since_impression": 180}
LOGIN: dict[str, Any] = {
    "event_id": "login-1",
    "event_time": NOW_MS - 2_000,
    "event_type": "login",
    "actor_type": "creator",
    "actor_id": "cre-1",
    "ip": "203.0.113.9",
    "device_id": "dev-1",
}
SAMPLES = {AD_EVENTS: FULL_CLICK, ACCOUNT_EVENTS: {**LOGIN, "country": "FR", "amount_usd": 3.5}}

Fields = Mapping[str, Any]


def varint(number: int) -> bytes:
    """A long of 64 bits as Avro writes it."""
    left, out = (number << 1) ^ (number >> 63), bytearray()
    while left & ~0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    """An Avro record."""
    return {"type": "record", "name": "Event", "fields": [{"name": name, "type": kind} for name, kind in fields]}


def datum(schema: Any, fields: Fields) -> bytes:
    """The bytes of one Avro datum, without its schema."""
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), fields)
    return stream.getvalue()


def schema_of(fields: Fields) -> dict[str, Any]:
    """A schema that has just these fields, each of its value's type: what a careless producer might register."""
    kinds = {str: "string", bool: "boolean", int: "long", float: "double", type(None): "null", bytes: "bytes"}
    return record(*((name, kinds[type(value)]) for name, value in fields.items()))


class Wire(Protocol):
    """One format on its way: fields go in at the producer's end, an event comes out at ours."""

    def carry(self, topic: str, fields: Fields) -> Event: ...


class JsonWire:
    def carry(self, topic: str, fields: Fields) -> Event:
        return open_formats([f"{topic}=json"]).decode(topic, json.dumps(fields).encode(), NOW_MS)


@dataclass
class AvroWire:
    """Bare data: each schema is a file, and opened anew."""

    folder: Path

    def carry(self, topic: str, fields: Fields) -> Event:
        path, schema = self.folder / "event.avsc", schema_of(fields)
        path.write_text(json.dumps(schema))
        return open_formats([f"{topic}=avro:{path}"]).decode(topic, datum(schema, fields), NOW_MS)


@dataclass
class ConfluentWire:
    """Confluent's wire format: each schema has a number."""

    folder: Path
    registered: int = field(default=0)

    def register(self, schema: Any) -> int:
        self.registered += 1
        (self.folder / f"{self.registered}.avsc").write_text(json.dumps(schema))
        return self.registered

    def write(self, schema: Any, fields: Fields) -> bytes:
        return b"\x00" + self.register(schema).to_bytes(4, "big") + datum(schema, fields)

    def carry(self, topic: str, fields: Fields) -> Event:
        data = self.write(schema_of(fields), fields)
        return open_formats([f"{topic}=avro:{self.folder}"]).decode(topic, data, NOW_MS)


@pytest.fixture(params=["json", "avro", "confluent"])
def wire(request: pytest.FixtureRequest, tmp_path: Path) -> Wire:
    """Each format in turn."""
    made: dict[str, Wire] = {"json": JsonWire(), "avro": AvroWire(tmp_path), "confluent": ConfluentWire(tmp_path)}
    return made[request.param]


@pytest.fixture
def confluent(tmp_path: Path) -> ConfluentWire:
    return ConfluentWire(tmp_path)


def refusal(decode: Callable[[], object]) -> InvalidEventError:
    with pytest.raises(InvalidEventError) as caught:
        decode()
    return caught.value


@pytest.mark.parametrize(
    ("topic", "fields"),
    [
        (AD_EVENTS, CLICK),
        (AD_EVENTS, FULL_CLICK),
        (AD_EVENTS, {**FULL_CLICK, "os": None, "amount_usd": None, "schema_version": 1}),
        (AD_EVENTS, {**CLICK, "amount_usd": 3}),
        (AD_EVENTS, {**CLICK, "amount_usd": 1e9, "ms_since_impression": 10**12}),
        (AD_EVENTS, {**CLICK, "event_time": "2026-11-18T11:06:39.820Z"}),
        (AD_EVENTS, {**CLICK, "event_time": NOW_MS + DEFAULT_SKEW_MS}),
        (AD_EVENTS, {**CLICK, "event_id": "ж" * 256, "ip": "\x00"}),
        (ACCOUNT_EVENTS, LOGIN),
        (ACCOUNT_EVENTS, SAMPLES[ACCOUNT_EVENTS]),
    ],
)
def test_the_same_event_comes_out_of_every_format(wire: Wire, topic: str, fields: Fields) -> None:
    event = wire.carry(topic, fields)
    assert event == decode_event(topic, json.dumps(fields).encode(), NOW_MS)
    assert {name: getattr(event, name) for name in fields if name != "event_time"} == {
        name: value for name, value in fields.items() if name != "event_time"
    }


def test_a_field_that_nobody_knows_is_passed_over(wire: Wire) -> None:
    assert wire.carry(AD_EVENTS, {**CLICK, "campaign": "summer"}) == wire.carry(AD_EVENTS, CLICK)


@pytest.mark.parametrize("topic", list(TOPICS))
def test_a_missing_required_field_is_named(wire: Wire, topic: str) -> None:
    needed = CLICK if topic == AD_EVENTS else LOGIN
    for missing in needed:
        error = refusal(lambda: wire.carry(topic, {k: v for k, v in needed.items() if k != missing}))  # noqa: B023
        assert (error.reason, error.field) == ("invalid", missing)


UNFIT: list[tuple[str, Any, Reason]] = [
    ("ip", 5, "invalid"),
    ("ip", None, "invalid"),
    ("ip", "", "invalid"),
    ("event_id", "x" * 257, "invalid"),
    ("os", "x" * 65, "invalid"),
    ("event_type", "teleport", "invalid"),
    ("event_type", "login", "invalid"),
    ("amount_usd", "1", "invalid"),
    ("amount_usd", True, "invalid"),
    ("amount_usd", -0.01, "invalid"),
    ("amount_usd", 1e300, "invalid"),
    ("ms_since_impression", 180.0, "invalid"),
    ("ms_since_impression", -1, "invalid"),
    ("ms_since_impression", 2**63 - 1, "invalid"),
    ("event_time", NOW_MS // 1_000, "invalid"),
    ("event_time", -(2**63), "invalid"),
    ("event_time", 2**63 - 1, "invalid"),
    ("event_time", 1.795e12, "invalid"),
    ("event_time", "yesterday", "invalid"),
    ("event_time", "2026-11-18T11:06:39", "invalid"),
    ("event_time", "1999-12-31T23:59:59Z", "invalid"),
    ("event_time", "3000-01-02T00:00:00Z", "invalid"),
    ("event_time", "0001-01-01T00:00:00+23:59", "invalid"),
    ("event_time", NOW_MS + DEFAULT_SKEW_MS + 1, "from_the_future"),
    ("event_time", "2126-11-18T11:06:40Z", "from_the_future"),
    ("schema_version", 2, "invalid"),
    ("schema_version", 0, "invalid"),
]


@pytest.mark.parametrize(("name", "value", "reason"), UNFIT)
def test_a_value_out_of_bounds_is_refused_for_the_same_reason_by_every_format(
    wire: Wire, name: str, value: Any, reason: Reason
) -> None:
    error = refusal(lambda: wire.carry(AD_EVENTS, {**CLICK, name: value}))
    assert (error.reason, error.field) == (reason, name)
    assert error.detail


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_avro_numbers_that_json_does_not_have_are_refused(confluent: ConfluentWire, number: float) -> None:
    error = refusal(lambda: confluent.carry(AD_EVENTS, {**CLICK, "amount_usd": number}))
    assert (error.reason, error.field) == ("invalid", "amount_usd")


@pytest.mark.parametrize("topic", ["", "nobody", "ad_events.dead-letters"])
def test_an_unknown_topic_is_refused_and_the_known_ones_named(topic: str) -> None:
    for decode in (lambda: EventFormats().decode(topic, b"{}", NOW_MS), lambda: JsonEventDecoder(topic)):
        error = refusal(decode)
        assert error.reason == "unknown_topic"
        assert "ad_events" in error.detail


def test_writers_of_older_and_newer_schemas_share_a_topic(confluent: ConfluentWire) -> None:
    ours = avro_schema(AD_EVENTS)
    older = {**ours, "fields": ours["fields"][:7]}
    newer_fields: list[dict[str, Any]] = [
        {"name": "campaign", "type": ["null", "string"], "default": None},
        {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "long"}}},
        {"name": "place", "type": {"type": "record", "name": "Place", "fields": [{"name": "x", "type": "float"}]}},
        {"name": "back", "type": ["null", "Place"]},
        {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 4}},
    ]
    newer = {**ours, "fields": [*newer_fields, *ours["fields"]]}
    added = {"campaign": "s", "tags": {"a": [1, 2]}, "place": {"x": 1.0}, "back": {"x": 2.0}, "digest": b"abcd"}
    formats = open_formats([f"{AD_EVENTS}=avro:{confluent.folder}"])

    def read(data: bytes) -> Event:
        return formats.decode(AD_EVENTS, data, NOW_MS)

    old, new, own = (
        confluent.write(older, CLICK),
        confluent.write(newer, {**FULL_CLICK, **added}),
        confluent.write(ours, FULL_CLICK),
    )
    wanted = {**FULL_CLICK, "schema_version": 1}
    for _ in range(2):
        assert msgspec.to_builtins(read(own)) == msgspec.to_builtins(read(new)) == wanted
        assert read(old) == decode_event(AD_EVENTS, json.dumps(CLICK).encode(), NOW_MS)


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("long", NOW_MS),
        ({"type": "long", "logicalType": "timestamp-millis"}, NOW_MS),
        (["null", {"type": "long", "logicalType": "timestamp-millis"}], NOW_MS),
        ({"type": "long", "logicalType": "timestamp-micros"}, NOW_MS * 1_000 + 999),
        ("string", "2026-11-18T11:06:40Z"),
    ],
)
def test_an_avro_time_may_be_written_in_several_ways(confluent: ConfluentWire, kind: Any, written: Any) -> None:
    schema = record(*((name, kind if name == "event_time" else "string") for name in CLICK))
    data = confluent.write(schema, {**CLICK, "event_time": written})
    event = open_formats([f"{AD_EVENTS}=avro:{confluent.folder}"]).decode(AD_EVENTS, data, NOW_MS)
    assert event_time_ms(event) == NOW_MS


@pytest.mark.parametrize(
    ("name", "kind", "written", "read"),
    [
        ("event_type", {"type": "enum", "name": "Kind", "symbols": ["view", "click"]}, "click", "click"),
        ("event_id", {"type": "string", "logicalType": "uuid"}, "0" * 32, "0" * 32),
        ("amount_usd", {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}, "1.25", 1.25),
        ("amount_usd", "float", 0.25, 0.25),
    ],
)
def test_avro_types_that_mean_the_same_are_read_as_such(
    confluent: ConfluentWire, name: str, kind: Any, written: Any, read: Any
) -> None:
    fields = {**CLICK, name: Decimal(written) if name == "amount_usd" and isinstance(written, str) else written}
    kinds = {n: "long" if n == "event_time" else "string" for n in CLICK} | {name: kind}
    data = confluent.write(record(*kinds.items()), fields)
    event = open_formats([f"{AD_EVENTS}=avro:{confluent.folder}"]).decode(AD_EVENTS, data, NOW_MS)
    assert getattr(event, name) == read


def test_a_schema_may_be_added_while_events_are_read(confluent: ConfluentWire) -> None:
    formats = open_formats([f"{AD_EVENTS}=avro:{confluent.folder}"])
    path = confluent.folder / "1.avsc"
    data = b"\x00\x00\x00\x00\x01" + datum(schema_of(CLICK), CLICK)
    error = refusal(lambda: formats.decode(AD_EVENTS, data, NOW_MS))
    assert error.reason == "unknown_schema"
    assert str(path) in error.detail
    path.write_text(json.dumps(schema_of(CLICK)))
    assert formats.decode(AD_EVENTS, data, NOW_MS).event_id == "click-1"


BROKEN_SCHEMAS: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "is not JSON"),
    "bytes": ("\x00\x01", "is not JSON"),
    "a word": ('"string"', "must be a record"),
    "a list": ("[]", "must be a record"),
    "an enum": ('{"type": "enum", "name": "E", "symbols": ["a"]}', "must be a record"),
    "no name": ('{"type": "record", "fields": []}', "no Avro schema"),
    "a field without a type": (json.dumps(record(("a", ...)) | {"fields": [{"name": "a"}]}, default=str), "no Avro"),
    "fields that are none": ('{"type": "record", "name": "R", "fields": 5}', "no Avro schema"),
    "an unknown type": (json.dumps(record(("a", "nosuch"))), "nosuch"),
    "a size that is a word": (json.dumps(record(("a", {"type": "fixed", "name": "F", "size": "x"}))), "no Avro schema"),
    "a record in itself": (json.dumps(record(("a", ["null", "Event"]))), "refers to itself"),
    "an error in itself": (
        json.dumps(
            record(("a", {"type": "error", "name": "E", "fields": [{"name": "n", "type": ["null", "E"]}]})),
        ),
        "refers to itself",
    ),
    "two records in each other": (
        json.dumps(
            record(
                (
                    "a",
                    {"type": "record", "name": "B", "fields": [{"name": "b", "type": {"type": "map", "values": "B"}}]},
                )
            )
        ),
        "refers to itself",
    ),
    "a list of nulls": (json.dumps(record(("a", {"type": "array", "items": "null"}))), "takes no bytes"),
    "a list of empty records": (
        json.dumps(record(("a", {"type": "array", "items": {"type": "record", "name": "N", "fields": []}}))),
        "takes no bytes",
    ),
    "a list of empty errors": (
        json.dumps(record(("a", {"type": "array", "items": {"type": "error", "name": "N", "fields": []}}))),
        "takes no bytes",
    ),
    "a list of fixed values of no size": (
        json.dumps(record(("a", {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}))),
        "takes no bytes",
    ),
}


@pytest.mark.parametrize("case", BROKEN_SCHEMAS)
def test_a_schema_that_is_broken_or_not_safe_is_refused_by_name(tmp_path: Path, case: str) -> None:
    written, told = BROKEN_SCHEMAS[case]
    path = tmp_path / "7.avsc"
    path.write_text(written)
    with pytest.raises(EventFormatError, match=told) as caught:
        open_formats([f"{AD_EVENTS}=avro:{path}"])
    assert str(path) in str(caught.value)
    formats = open_formats([f"{AD_EVENTS}=avro:{tmp_path}"])
    error = refusal(lambda: formats.decode(AD_EVENTS, b"\x00\x00\x00\x00\x07rest", NOW_MS))
    assert (error.reason, str(path) in error.detail) == ("unknown_schema", True)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("", "the topics are"),
        ("nobody=json", "the topics are"),
        ("=json", "the topics are"),
        ("ad_events", "write ad_events=json, ad_events=avro:FILE.avsc or ad_events=avro:FOLDER"),
        ("ad_events=", "write ad_events=json"),
        ("ad_events=yaml", "write ad_events=json"),
        ("ad_events=JSON", "write ad_events=json"),
        ("ad_events=json:file", "write ad_events=json"),
        ("ad_events=avro", "write ad_events=json"),
        ("ad_events=avro:", "write ad_events=json"),
        ("ad_events=avro:no/such/file.avsc", "there is no schema at no/such/file.avsc"),
    ],
)
def test_a_format_that_is_none_says_what_to_write(spec: str, told: str) -> None:
    with pytest.raises(EventFormatError) as caught:
        open_formats([spec])
    assert told in str(caught.value)


def test_a_topic_without_a_format_is_json_and_the_last_format_of_a_topic_counts(tmp_path: Path) -> None:
    path = tmp_path / "login.avsc"
    path.write_text(json.dumps(schema_of(LOGIN)))
    formats = open_formats([f"{ACCOUNT_EVENTS}=json", f"{ACCOUNT_EVENTS}=avro:{path}"])
    assert formats.decode(AD_EVENTS, json.dumps(CLICK).encode(), NOW_MS).event_id == "click-1"
    assert formats.decode(ACCOUNT_EVENTS, datum(schema_of(LOGIN), LOGIN), NOW_MS).event_id == "login-1"


def test_without_fastavro_avro_says_which_extra_it_needs_and_json_works(tmp_path: Path, project_root: Path) -> None:
    program = (
        "import sys; sys.modules['fastavro'] = None\n"
        "from materialize.events import EventFormatError, open_formats\n"
        "open_formats(['ad_events=json'])\n"
        "try: open_formats(['ad_events=avro:' + sys.argv[1]])\n"
        "except EventFormatError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=project_root, capture_output=True, text=True, check=True
    )
    assert "extra `avro`" in done.stdout


# What is published over HTTP is JSON, also into a topic whose other records are Avro.


@pytest.fixture
def avro_topic(tmp_path: Path) -> EventFormats:
    """Ad events as bare Avro whose first field is a number, account events in Confluent's wire format."""
    schema = record(("spare", "long"), *((name, "long" if name == "event_time" else "string") for name in CLICK))
    (tmp_path / "first.avsc").write_text(json.dumps(schema))
    (tmp_path / "1.avsc").write_text(json.dumps(avro_schema(ACCOUNT_EVENTS)))
    return open_formats([f"{AD_EVENTS}=avro:{tmp_path / 'first.avsc'}", f"{ACCOUNT_EVENTS}=avro:{tmp_path}"])


@pytest.mark.parametrize("topic", list(TOPICS))
def test_json_is_read_in_an_avro_topic(avro_topic: EventFormats, topic: str) -> None:
    data = json.dumps(SAMPLES[topic]).encode()
    assert avro_topic.decode(topic, data, NOW_MS) == decode_event(topic, data, NOW_MS)
    error = refusal(lambda: avro_topic.decode(topic, b"{}", NOW_MS))
    assert (error.reason, error.field) == ("invalid", "event_id")
    assert refusal(lambda: avro_topic.decode(topic, b"{", NOW_MS)).reason == "malformed"


def test_bare_avro_that_begins_like_json_is_read_as_avro(avro_topic: EventFormats) -> None:
    schema = record(("spare", "long"), *((name, "long" if name == "event_time" else "string") for name in CLICK))
    data = datum(schema, {**CLICK, "spare": -62})
    assert data[:1] == b"{"
    assert avro_topic.decode(AD_EVENTS, data, NOW_MS).event_id == "click-1"


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x01abc", b"[]", b"\xff" * 9])
def test_bytes_without_the_head_of_the_wire_format_are_malformed(avro_topic: EventFormats, data: bytes) -> None:
    assert refusal(lambda: avro_topic.decode(ACCOUNT_EVENTS, data, NOW_MS)).reason == "malformed"


@pytest.mark.parametrize("number", [0, 2, 2**31, 2**32 - 1])
def test_a_schema_that_is_not_here_is_unknown(avro_topic: EventFormats, number: int) -> None:
    data = b"\x00" + number.to_bytes(4, "big") + datum(avro_schema(ACCOUNT_EVENTS), LOGIN)
    error = refusal(lambda: avro_topic.decode(ACCOUNT_EVENTS, data, NOW_MS))
    assert (error.reason, f"{number}.avsc" in error.detail) == ("unknown_schema", True)


@dataclass(frozen=True)
class Target:
    """Formats under attack, with a valid message of each topic."""

    formats: EventFormats
    valid: dict[str, bytes]

    def try_on(self, topic: str, data: bytes) -> Event | None:
        """The event, or None when the bytes are refused; anything else is a failure."""
        try:
            event = self.formats.decode(topic, data, NOW_MS)
        except InvalidEventError:
            return None
        assert event == decode_event(topic, msgspec.json.encode(event), NOW_MS), "only what JSON may say comes through"
        assert partition_key(event)
        assert len(columns_from_events([event])["event_id"]) == 1
        return event


WIDE: list[dict[str, Any]] = [
    {"name": "words", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "sizes", "type": {"type": "map", "values": ["null", "double"]}, "default": {}},
    {"name": "grid", "type": {"type": "array", "items": {"type": "array", "items": "boolean"}}, "default": []},
    {"name": "raw", "type": "bytes", "default": ""},
]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    """Every format, Avro with fields beside ours that hold lists, maps and bytes."""
    folder = tmp_path_factory.mktemp("schemas")
    schemas = {topic: {**avro_schema(topic), "fields": [*avro_schema(topic)["fields"], *WIDE]} for topic in TOPICS}
    for number, (topic, schema) in enumerate(schemas.items(), start=1):
        for name in (topic, number):
            (folder / f"{name}.avsc").write_text(json.dumps(schema))
    wide = {"words": ["a", "bc"], "sizes": {"x": 1.0, "y": None}, "grid": [[True], []], "raw": b"\x00\x01"}
    data = {topic: datum(schema, {**SAMPLES[topic], **wide}) for topic, schema in schemas.items()}
    numbers = dict(zip(TOPICS, (b"\x00\x00\x00\x00\x01", b"\x00\x00\x00\x00\x02"), strict=True))
    return {
        "json": Target(EventFormats(), {topic: json.dumps(fields).encode() for topic, fields in SAMPLES.items()}),
        "avro": Target(open_formats(f"{topic}=avro:{folder}/{topic}.avsc" for topic in TOPICS), data),
        "confluent": Target(
            open_formats(f"{topic}=avro:{folder}" for topic in TOPICS),
            {topic: numbers[topic] + data[topic] for topic in TOPICS},
        ),
    }


FORMATS = st.sampled_from(["json", "avro", "confluent"])


@pytest.mark.parametrize("kind", ["json", "avro", "confluent"])
@pytest.mark.parametrize("topic", list(TOPICS))
def test_no_beginning_of_a_message_is_a_message(targets: dict[str, Target], kind: str, topic: str) -> None:
    target, whole = targets[kind], targets[kind].valid[topic]
    assert target.try_on(topic, whole) == decode_event(topic, json.dumps(SAMPLES[topic]).encode(), NOW_MS)
    for length in range(len(whole)):
        reason = refusal(lambda: target.formats.decode(topic, whole[:length], NOW_MS)).reason  # noqa: B023
        assert reason == "malformed" or (kind, reason) == ("json", "invalid"), "half a number may be out of bounds"
    assert refusal(lambda: target.formats.decode(topic, whole + b"x", NOW_MS)).reason == "malformed"


@settings(deadline=None, max_examples=300)
@given(kind=FORMATS, topic=st.sampled_from(list(TOPICS)), data=st.binary(max_size=300), headed=st.booleans())
def test_any_bytes_are_a_valid_event_or_refused(
    targets: dict[str, Target], kind: str, topic: str, data: bytes, headed: bool
) -> None:
    targets[kind].try_on(topic, targets[kind].valid[topic][:5] + data if headed else data)


@settings(deadline=None, max_examples=600)
@given(kind=FORMATS, topic=st.sampled_from(list(TOPICS)), data=st.data())
def test_a_message_with_flipped_bits_is_a_valid_event_or_refused(
    targets: dict[str, Target], kind: str, topic: str, data: st.DataObject
) -> None:
    message = bytearray(targets[kind].valid[topic])
    for bit in data.draw(st.lists(st.integers(0, len(message) * 8 - 1), min_size=1, max_size=4)):
        message[bit // 8] ^= 1 << bit % 8
    targets[kind].try_on(topic, bytes(message))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(name=st.sampled_from(list(FULL_CLICK)), value=json_values)
def test_any_json_in_a_field_is_a_valid_event_or_refused(targets: dict[str, Target], name: str, value: object) -> None:
    targets["json"].try_on(AD_EVENTS, json.dumps({**FULL_CLICK, name: value}).encode())


@pytest.mark.parametrize("kind", ["avro", "confluent"])
def test_a_length_that_is_a_lie_costs_no_memory(targets: dict[str, Target], kind: str) -> None:
    target, whole = targets[kind], targets[kind].valid[AD_EVENTS]
    head = 0 if kind == "avro" else 5
    tracemalloc.start()
    try:
        for length in (2**31, 2**40, 2**62, 2**63 - 1, -1, -(2**62), -(2**63)):
            for place in range(head, len(whole)):
                target.try_on(AD_EVENTS, whole[:place] + varint(length) + whole[place:])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < MIB


def test_json_that_is_nested_without_end_is_refused() -> None:
    for data in (b"[" * 100_000, b'{"x":' * 100_000, b'{"event_id":' + b"[" * 100_000):
        assert refusal(lambda: decode_event(AD_EVENTS, data, NOW_MS)).reason in ("malformed", "invalid")  # noqa: B023


# The documents for others.


@pytest.mark.parametrize("topic", list(TOPICS))
def test_the_json_schema_has_a_name_and_is_one(topic: str) -> None:
    schema = json_schema(topic)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:actor-risk:{topic}:v{schema_version(topic)}"
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert json.loads(json.dumps(schema)) == schema


def agreed(fields: Fields) -> bool:
    """Whether an ad event is accepted: by the decoder and by the JSON Schema, who must agree."""
    try:
        decode_event(AD_EVENTS, json.dumps(fields).encode(), NOW_MS)
        decoded = True
    except InvalidEventError:
        decoded = False
    assert Draft202012Validator(json_schema(AD_EVENTS)).is_valid(fields) == decoded, fields
    return decoded


def test_the_json_schema_accepts_what_the_decoder_accepts() -> None:
    edges: dict[str, list[Any]] = {
        "amount_usd": [0, 0.0, 1e9, None, 3],
        "os": ["", "x" * 64, None],
        "ms_since_impression": [0, 10**12],
    }
    edges |= {"event_id": ["x", "ж" * 256], "event_time": [946_684_800_000, NOW_MS, "2026-11-18T11:06:39+01:00"]}
    edges |= {"event_type": ["impression", "click", "conversion"], "schema_version": [1], "campaign": [{"a": []}]}
    assert agreed(CLICK)
    for name, values in edges.items():
        for value in values:
            assert agreed({**CLICK, name: value})


def is_left_to_the_decoder(name: str, value: Any) -> bool:
    """What the document does not say: the skew, years and form of a written time, and that 180.0 is no integer."""
    if isinstance(value, float):
        return name != "amount_usd"
    return name == "event_time" and (isinstance(value, str) or value == NOW_MS + DEFAULT_SKEW_MS + 1)


def test_the_json_schema_refuses_what_the_decoder_refuses() -> None:
    for missing in CLICK:
        assert not agreed({name: value for name, value in CLICK.items() if name != missing})
    for name, value, _ in UNFIT:
        assert is_left_to_the_decoder(name, value) or not agreed({**CLICK, name: value})
    assert not agreed({**CLICK, "ip": ["203.0.113.9"]})


@pytest.mark.parametrize("topic", list(TOPICS))
def test_the_avro_schema_carries_every_field_of_an_event(topic: str, tmp_path: Path) -> None:
    schema = avro_schema(topic)
    (tmp_path / "1.avsc").write_text(json.dumps(schema))
    formats = open_formats([f"{topic}=avro:{tmp_path / '1.avsc'}"])
    for fields in (SAMPLES[topic], CLICK if topic == AD_EVENTS else LOGIN):
        event = decode_event(topic, json.dumps(fields).encode(), NOW_MS)
        assert formats.decode(topic, datum(schema, msgspec.to_builtins(event)), NOW_MS) == event
        assert formats.decode(topic, datum(schema, fields), NOW_MS) == event, "defaults fill what a producer leaves out"
    assert [one["name"] for one in schema["fields"]] == list(TOPICS[topic].__struct_fields__)


def test_every_document_has_a_file_name_with_topic_and_version() -> None:
    assert list(schema_documents()) == [
        "ad_events.v1.schema.json",
        "ad_events.v1.avsc",
        "account_events.v1.schema.json",
        "account_events.v1.avsc",
    ]
    assert schema_documents()["ad_events.v1.avsc"] == avro_schema(AD_EVENTS)
    assert schema_documents()["ad_events.v1.schema.json"] == json_schema(AD_EVENTS)


@pytest.mark.parametrize("make", [json_schema, avro_schema, schema_version])
def test_there_is_no_document_of_an_unknown_topic(make: Callable[[str], object]) -> None:
    assert refusal(lambda: make("nobody")).reason == "unknown_topic"


def test_the_struct_of_a_topic_is_what_its_events_are() -> None:
    assert isinstance(EventFormats().decode(AD_EVENTS, json.dumps(CLICK).encode(), NOW_MS), AdEvent)
