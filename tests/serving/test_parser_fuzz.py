"""Whatever is sent to a route that reads JSON is answered: valid documents changed at any place by what JSON can say
and by what it cannot, then damaged byte by byte. No failure of ours, no answer without problem details, and no more
work than the body is long.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.asgi import ScoringApp
from serving.clock import Clock
from serving.decision import BATCH_MAX, Problem
from serving.events import EventIntake
from serving.feast_api import FeastApi
from tests.serving.fakes import BODY_BYTES_MAX, EVENTS_MAX, KEYS, NOW_MS, SERVICE, Answer, World, click, loaded_world
from tests.serving.test_feast_api import SERVICE as FEAST_SERVICE
from tests.serving.test_feast_api import MemoryRows

EXAMPLES = [pytest.param(40, id="short"), pytest.param(20_000, id="long", marks=pytest.mark.soak)]
REFUSED = {400, 404, 409, 413, 415, 422, 429}
CHANGES_MAX, DAMAGES_MAX = 3, 2

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Route:
    """A route that reads JSON, and documents that it takes."""

    path: str
    documents: Sequence[dict[str, Any]]
    headers: Mapping[str, str] = field(default_factory=dict)


def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}


QUESTION = {
    "model": SERVICE,
    "entities": KEYS,
    "event": click(),
    "event_topic": "ad_events",
    "request": {"ms_since_impression": 180.5, "attempts": 2, "country": "DE"},
    "explain": "top",
    "publish_event": False,
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}
OF_MANY = {name: QUESTION[name] for name in ("entities", "event", "request", "trace_id")}
BATCH = {"model": SERVICE, "explain": "none", "requests": [{"entities": KEYS}, OF_MANY]}
NDJSON = {"accept": "application/x-ndjson"}
ROUTES = {
    "score": Route("/v1/score", [QUESTION, {"model": SERVICE, "entities": KEYS}]),
    "explain": Route("/v1/explain", [QUESTION]),
    "batch": Route("/v1/score:batch", [BATCH]),
    "batch, by lines": Route("/v1/score:batch", [BATCH], NDJSON),
    "events": Route("/v1/events", [{"event": click()}, {"event": click(), "event_topic": "ad_events"}]),
    "infer": Route(
        f"/v2/models/{SERVICE}/infer",
        [
            {
                "id": "one",
                "inputs": [
                    tensor("ip", "BYTES", [KEYS["ip"], "b"]),
                    tensor("device_id", "BYTES", ["c", "d"]),
                    tensor("attempts", "INT64", [1, 2]),
                    tensor("ms_since_impression", "FP64", [0.5, 1e300]),
                ],
                "outputs": [{"name": "score", "parameters": {"binary_data": True}}],
                "parameters": {"explain": "top"},
            }
        ],
    ),
    "get-online-features": Route(
        "/get-online-features",
        [
            {
                "feature_service": FEAST_SERVICE,
                "entities": {"ip": ["a", "b"], "asked": [2.5, None]},
                "full_feature_names": True,
                "request_context": {"asked": [1.0, 2.0]},
            },
            {"features": ["profile:f_double", "computed:doubled"], "entities": {"ip": ["a"], "asked": [7]}},
        ],
    ),
}
ODD = [
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"-0",
        b"-0.0",
        b"1e999",
        b"-1e-999",
        b"1e308",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x1",
    ),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"9" * 5_000),
    *(b"1" + b"0" * 400, b"0." + b"1" * 2_000, b"1e" + b"9" * 50),
    *(
        rb'"\ud800"',
        rb'"\udfff\ud800"',
        rb'"\ud83d\ude00"',
        rb'"\u0000"',
        b'"\x00"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        rb'"\x"',
    ),
    *(b'""', b'" "', b'"' + b"x" * 257 + b'"', b'"' + b"y" * 5_000 + b'"', '"\u202e\u0301é😀"'.encode(), b'"unended'),
    *(b"[" * 500 + b"]" * 500, b"[" * 20_000 + b"]" * 20_000, b"[" * 20_000, b'{"a":' * 20_000),
    *(b'{"a":1,"a":2}', b'{"":{}}', b'{"__proto__":1}', b'{"ip":{"ip":{"ip":1}}}', b"{1:2}", b"{,}", b"[,]", b"[1,]"),
    *(b"", b" ", b"nul", b"True", b"null", b"true", b"[]", b"{}", b"[null]", b"/*x*/1", b"1 2", b"\xef\xbb\xbf1"),
]
"""What may stand in a value's place: the edge of what JSON can say, and beyond."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FRAGMENTS = st.sampled_from(ODD) | VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=12)
KINDS = st.sampled_from(("replaced", "left out", "given twice", "renamed", "in a list", "with another beside it"))


@dataclass(frozen=True)
class Change:
    """What is done at one place of a document, by the bytes of `fragment`."""

    kind: str
    fragment: bytes


def places(node: Any, at: Path_ = ()) -> Iterator[Path_]:
    """All places of a document, its whole first."""
    yield at
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in inner:
        yield from places(value, (*at, name))


def written(node: Any, changes: Mapping[Path_, Change], at: Path_ = ()) -> bytes:
    """The document as JSON, but for the changes."""
    change = changes.get(at)
    if change is not None and change.kind == "replaced":
        return change.fragment
    if isinstance(node, dict):
        body = b"{" + b",".join(members(node, changes, at)) + b"}"
    elif isinstance(node, list):
        body = b"[" + b",".join(written(value, changes, (*at, i)) for i, value in enumerate(node)) + b"]"
    else:
        body = json.dumps(node).encode()
    return b"[" + body + b"]" if change is not None and change.kind == "in a list" else body


def members(node: dict[str, Any], changes: Mapping[Path_, Change], at: Path_) -> Iterator[bytes]:
    """The members of an object, each as JSON."""
    for name, value in node.items():
        change, key = changes.get((*at, name)), json.dumps(name).encode()
        told = written(value, changes, (*at, name))
        kind = None if change is None else change.kind
        if change is None or kind in ("replaced", "in a list"):
            yield key + b":" + told
        elif kind == "given twice":
            yield from (key + b":" + told, key + b":" + change.fragment)
        elif kind == "renamed":
            yield (
                (change.fragment if change.fragment.startswith(b'"') else json.dumps(f"{name}s").encode()) + b":" + told
            )
        elif kind == "with another beside it":
            yield from (key + b":" + told, b'"odd":' + change.fragment)


@st.composite
def bodies(draw: st.DrawFn, documents: Sequence[dict[str, Any]]) -> bytes:
    """A document with a few changes, as bytes of which a few are damaged."""
    document = draw(st.sampled_from(documents))
    at = st.sampled_from(list(places(document)))
    changes = draw(st.dictionaries(at, st.builds(Change, KINDS, FRAGMENTS), max_size=CHANGES_MAX))
    body = written(document, changes)
    for _ in range(draw(st.integers(0, DAMAGES_MAX))):
        begin = draw(st.integers(0, len(body)))
        body = body[:begin] + draw(st.binary(max_size=4)) + body[begin + draw(st.integers(0, 4)) :]
    return body


@pytest.fixture(scope="module")
def world(published: Path) -> World:
    """A server with every route that reads JSON."""
    world = loaded_world(published)
    clock = Clock(now_ms=lambda: NOW_MS, monotonic_ns=lambda: 0)

    async def shut_down() -> None: ...

    world.app = ScoringApp(
        world.service,
        clock,
        body_bytes_max=BODY_BYTES_MAX,
        shut_down=shut_down,
        intake=EventIntake(world.publisher, timeout_s=10.0, events_max=EVENTS_MAX),
        feast=FeastApi(MemoryRows()),
    )
    return world


def send(world: World, route: Route, body: bytes) -> Answer:
    return asyncio.run(world.post(route.path, body, dict(route.headers)))


def assert_no_failure(answer: Answer, route: Route) -> None:
    """A good answer, or one that says what is wrong with the request; each of a batch as well."""
    if answer.status != 200:
        assert answer.status in REFUSED, (answer.status, answer.body)
        assert_explained(answer, route)
    elif route.path == "/v1/score:batch":
        found = answer.body.splitlines() if route.headers else answer.json()["decisions"]
        for one in (msgspec.json.decode(one) if isinstance(one, bytes) else one for one in found):
            assert "decision_id" in one or msgspec.convert(one, Problem).status in REFUSED


def assert_explained(answer: Answer, route: Route) -> None:
    """Problem details, or the open inference protocol's own form of them."""
    if route.path.startswith("/v2/"):
        assert answer.json().keys() == {"error"}
        assert answer.json()["error"]
        return
    assert answer.headers["content-type"] == "application/problem+json"
    problem = msgspec.json.decode(answer.body, type=Problem)
    assert problem.status == answer.status
    assert problem.detail


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_the_documents_themselves_are_answered(world: World, route: Route) -> None:
    for document in route.documents:
        answer = send(world, route, written(document, {}))
        assert answer.status == 200, answer.body
        assert_no_failure(answer, route)


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_no_changed_document_makes_a_failure(world: World, route: Route, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(body=bodies(route.documents))
    def answers(body: bytes) -> None:
        assert_no_failure(send(world, route, body), route)

    answers()


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_no_bytes_make_a_failure(world: World, route: Route, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(body=st.binary(max_size=300) | FRAGMENTS)
    def answers(body: bytes) -> None:
        assert_no_failure(send(world, route, body), route)

    answers()


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_nothing_odd_at_any_place_makes_a_failure(world: World, route: Route) -> None:
    """Every oddity of the list, each at a few places; together at all of them."""
    for document in route.documents:
        everywhere = list(places(document))
        for number, fragment in enumerate(ODD):
            at = everywhere[number % len(everywhere) :: len(ODD)] or [()]
            for place in at:
                for kind in ("replaced", "given twice"):
                    assert_no_failure(send(world, route, written(document, {place: Change(kind, fragment)})), route)


GROWING: dict[str, Callable[[int], bytes]] = {
    "levels of lists": lambda n: b"[" * (n // 2) + b"]" * (n // 2),
    "levels of objects that never end": lambda n: b'{"a":' * (n // 5),
    "a number": lambda n: b"9" * n,
    "a fraction": lambda n: b"0." + b"1" * n,
    "a text": lambda n: b'"' + b"x" * n + b'"',
    "escapes": lambda n: b'"' + rb"\u0000" * (n // 6) + b'"',
    "surrogates without their fellows": lambda n: b'"' + rb"\ud800" * (n // 6) + b'"',
    "backticks, which messages have around names": lambda n: b'"' + b"`$." * (n // 3) + b'"',
    "members": lambda n: b"{" + b",".join(b'"%d":1' % i for i in range(n // 10)) + b"}",
    "members of one name": lambda n: b"{" + b",".join([b'"ip":1'] * (n // 7)) + b"}",
    "a long name": lambda n: b'{"' + b"n" * n + b'":1}',
    "a list": lambda n: b"[" + b",".join([b"{}"] * (n // 3)) + b"]",
    "blanks": lambda n: b" " * n,
}
SMALL, LARGE = 8_000, 64_000
CALLS_MIN = 2_000
"""What any request may cost: it does not depend on the body."""


def calls_of(work: Callable[[], object]) -> int:
    """How many functions of Python a piece of work calls."""
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("grown", GROWING.values(), ids=GROWING)
@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_longer_body_makes_no_more_work_than_it_is_longer(
    world: World, route: Route, grown: Callable[[int], bytes]
) -> None:
    """At places of the document in turn; and a body as long as may be is answered as well."""
    (document, *_), cost = route.documents, {}
    everywhere = list(places(document))
    for place in everywhere[:: max(1, len(everywhere) // 2)]:
        for size in (SMALL, LARGE):
            body = written(document, {place: Change("replaced", grown(size))})
            cost[size] = calls_of(lambda body=body: send(world, route, body))  # type: ignore[misc]
        assert cost[LARGE] <= CALLS_MIN + LARGE / SMALL * max(cost[SMALL], 1), (place, cost)
    assert_no_failure(send(world, route, grown(BODY_BYTES_MAX)[:BODY_BYTES_MAX]), route)


def test_the_largest_batch_of_the_smallest_questions_is_answered_one_by_one(world: World) -> None:
    route = ROUTES["batch"]
    for count, status in ((BATCH_MAX, 200), (BATCH_MAX + 1, 422)):
        body = b'{"model":"%b","requests":[%b]}' % (SERVICE.encode(), b",".join([b"{}"] * count))
        answer = send(world, route, body)
        assert answer.status in (status, 429)
        assert_no_failure(answer, route)
