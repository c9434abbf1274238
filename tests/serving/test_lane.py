"""Connections with a lane, through the real uvicorn: what is asked is answered as uvicorn alone answers it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actor_risk.local.processes import is_listening, wait_until
from serving.http import Response, respond, run_lifespan
from serving.lane import lay_lane
from tests.support.listening import listening

PATHS = frozenset({"/v1/score", "/v1/explain"})
DEADLINE_S = 10.0
REFUSAL = Response(429, b"no", "text/plain", (("retry-after", "1"),))


class App:
    """Says what it was asked. `has_lanes`: it lays a lane over each connection on which it is asked."""

    def __init__(self, *, has_lanes: bool = True) -> None:
        self.has_lanes = has_lanes
        self.refuses = False
        self.adds: tuple[tuple[bytes, bytes], ...] = ()
        self.heard: list[Mapping[bytes, bytes]] = []
        self.writes: list[bytes] = []
        self.under_way = threading.Event()
        self.released = threading.Event()
        self.left: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, nothing)
            return
        if self.has_lanes and scope["path"] in PATHS:
            if hasattr(send.__self__, "transport"):
                send.__self__.transport = Watched(send.__self__.transport, self.writes)
            lay_lane(send, PATHS, self.heard.append, lambda _: REFUSAL if self.refuses else None, lambda: self.adds)
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await self._answer(scope, body, receive, send)

    async def _answer(self, scope: Any, body: bytes, receive: Any, send: Any) -> None:
        if body == b"fail":
            raise RuntimeError("on purpose")
        if body == b"break lines":
            await respond(send, Response(200, body, headers=(("x", "1\r\nx-more: 2"),)))
        if body == b"say nothing":
            return
        if body == b"wait":
            self.under_way.set()
            await asyncio.to_thread(self.released.wait, DEADLINE_S)
        if body == b"leave":
            self.under_way.set()
            self.left.append((await receive())["type"])
        if body == b"parts":
            await send({"type": "http.response.start", "status": 201, "headers": [(b"x-kind", b"parts")]})
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            await send({"type": "http.response.body", "body": b"two"})
            return
        told = {name: scope[name] for name in ("method", "path", "root_path", "scheme", "http_version")}
        told |= {"raw_path": scope["raw_path"].decode(), "query": scope["query_string"].decode()}
        told |= {"client": scope["client"][0], "body": body.decode("latin-1")}
        told["headers"] = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        await respond(send, Response(200, json.dumps(told).encode()), with_body=scope["method"] != "HEAD")


class Watched:
    """A transport that remembers what was written to it, each write apart."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def nothing() -> None:
    """What there is to do when the server stops."""


def request(body: bytes = b"{}", path: str = "/v1/score", fields: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: here\r\n%bContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        fields,
        len(body),
        body,
    )


class Caller:
    """One connection, on which bytes are sent and answers are read."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self._socket = socket.create_connection((host, self.port), DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def send(self, *pieces: bytes) -> None:
        for n, piece in enumerate(pieces):
            if n:
                time.sleep(0.01)  # so that they come apart; if they come together all the same, answers are the same
            self._socket.sendall(piece)

    def answer(self) -> tuple[bytes, bytes]:
        """Head, without the date, and body of the next answer; of a closed connection what there is."""
        while b"\r\n\r\n" not in self._read and self._more():
            pass
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            return head, b""
        length = re.search(rb"content-length: (\d+)", head)
        size = int(length[1]) if length else 0
        while len(self._read) < size and self._more():
            pass
        body, self._read = self._read[:size], self._read[size:]
        if b"transfer-encoding: chunked" in head:
            while not self._read.endswith(b"0\r\n\r\n") and self._more():
                pass
            body, self._read = self._read, b""
        return re.sub(rb"\r\ndate: [^\r]*", b"", head), body

    def asked(self, raw: bytes) -> tuple[bytes, bytes]:
        self.send(raw)
        return self.answer()

    def is_closed(self) -> bool:
        """Waits for the end of the connection."""
        return not self._read and self._socket.recv(1) == b""

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bool:
        got = self._socket.recv(1 << 16)
        self._read += got
        return bool(got)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[str, str]]:
    """Where an application answers whose connections have lanes, and where the same one without."""
    with listening(App()) as with_lanes, listening(App(has_lanes=False)) as without:
        yield with_lanes, without


def answers(url: str, pieces: list[bytes], count: int) -> list[tuple[bytes, bytes]]:
    with closing(Caller(url)) as caller:
        first = caller.asked(request(b"first"))  # from now on there is a lane
        caller.send(*pieces)
        return [first, *(caller.answer() for _ in range(count))]


ODD = {
    "another path": request(path="/other"),
    "a query": request(path="/v1/score?a=1"),
    "escapes": request(path="/v1/sc%6Fre"),
    "http/1.0": request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a connection that ends": request(fields=b"Connection: close\r\n"),
    "a connection that is kept": request(fields=b"Connection: Keep-Alive\r\n"),
    "chunks": b"POST /v1/score HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "both lengths": request(fields=b"Transfer-Encoding: chunked\r\n"),
    "two lengths": request(fields=b"Content-Length: 1\r\n"),
    "the same length twice": request(fields=b"Content-Length: 2\r\n"),
    "a connection that ends and is kept": request(fields=b"Connection: close\r\nConnection: keep-alive\r\n"),
    "a field twice": request(fields=b"x: 1\r\nX: 2\r\n"),
    "no length": b"POST /v1/score HTTP/1.1\r\nhost: here\r\n\r\n",
    "no fields": b"POST /v1/score HTTP/1.1\r\n\r\n",
    "a signed length": request().replace(b"Content-Length: ", b"Content-Length: +"),
    "a folded field": request(fields=b"x: 1\r\n 2\r\n"),
    "a field without colon": request(fields=b"x\r\n"),
    "a name with a space": request(fields=b"x : 1\r\n"),
    "a null": request(fields=b"x: a\0b\r\n"),
    "a bare line feed": request(fields=b"x: 1\ny: 2\r\n"),
    "a field that is no text": request(fields=b"X-Id: \xff\xfe\r\n"),
    "no value, and tabs": request(fields=b"x:\r\ny:\t 1 \t\r\nZ: 3\r\n"),
    "who forwards": request(fields=b"X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"),
    "a long head": request(fields=b"x: " + b"y" * 20_000 + b"\r\n"),
    "a long body": request(b"z" * 300_000),
    "an answer in parts": request(b"parts", path="/other"),
    "a failure": request(b"fail"),
    "another method": b"GET /v1/score HTTP/1.1\r\nhost: here\r\n\r\n",
    "garbage": b"\x16\x03\x01 garbage\r\n\r\n",
    "expect": request(fields=b"Expect: 100-continue\r\n"),
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD.keys())
def test_whatever_is_asked_is_answered_as_without_a_lane(raw: bytes, both: tuple[str, str]) -> None:
    with_lane, without = (answers(url, [raw], 1) for url in both)
    assert with_lane == without


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_so_are_requests_that_come_in_pieces_or_several_at_once(data: Any, both: tuple[str, str]) -> None:
    asked = data.draw(
        st.lists(
            st.builds(request, st.binary(max_size=40), st.sampled_from(["/v1/score", "/v1/explain", "/other"])),
            min_size=1,
            max_size=5,
        )
    )
    raw = b"".join(asked)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=3)))
    pieces = [raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    with_lane, without = (answers(url, pieces, len(asked)) for url in both)
    assert with_lane == without


def test_a_body_that_looks_like_a_request_is_a_body(both: tuple[str, str]) -> None:
    inside = request(b"inside")
    raw = request(inside)
    cut = len(raw) - len(inside)
    with_lane, without = (answers(url, [raw[:cut], raw[cut:], request(b"next")], 2) for url in both)
    assert with_lane == without
    assert json.loads(with_lane[1][1])["body"] == inside.decode()
    assert json.loads(with_lane[2][1])["body"] == "next"


def test_a_field_that_looks_like_a_request_is_a_field(both: tuple[str, str]) -> None:
    begun = b"POST /other HTTP/1.1\r\nx: "
    pieces = [request(b"before") + begun, request(b"inside")]
    with_lane, without = (answers(url, pieces, 2) for url in both)
    assert with_lane == without
    assert [json.loads(body)["path"] for _, body in with_lane[1:]] == ["/v1/score", "/other"]


def test_head_and_body_are_one_write() -> None:
    app = App()
    with listening(app) as url, closing(Caller(url)) as caller:
        first = caller.asked(request())
        app.writes.clear()
        second, parts = (caller.asked(request(body)) for body in (b"{}", b"parts"))
    assert first == second
    assert [(w[:9], w.endswith(told)) for w, (_, told) in zip(app.writes, [second, parts], strict=True)] == [
        (b"HTTP/1.1 ", True)
    ] * 2
    assert b"HTTP/1.1 201 Created" in parts[0]
    assert b"x-kind: parts" in parts[0]
    assert parts[1] == b"one two"


def test_who_is_refused_is_told_at_once_and_may_ask_again() -> None:
    app = App()
    with listening(app) as url, closing(Caller(url)) as caller:
        caller.asked(request())
        app.refuses = True
        refused = [caller.asked(request(body)) for body in (b"{}", b"fail")]
        app.refuses = False
        head, body = caller.asked(request(b"again"))
    assert {told for _, told in refused} == {b"no"}
    assert all(head.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1" in head for head, _ in refused)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["body"] == "again"


def test_who_stands_in_front_is_told_with_each_answer_what_it_is_to_know() -> None:
    app = App()
    with listening(app) as url, closing(Caller(url)) as caller:
        caller.asked(request())
        heads = []
        for capacity in (b"7", b"9"):
            app.adds = ((b"x-capacity", capacity),)
            heads.append(caller.asked(request())[0])
        app.refuses = True
        heads.append(caller.asked(request())[0])
    assert [re.findall(rb"x-capacity: (\d+)", head) for head in heads] == [[b"7"], [b"9"], [b"9"]]


def test_fields_of_requests_on_a_lane_are_heard_once_also_of_those_that_are_refused() -> None:
    app = App()
    with listening(app) as url, closing(Caller(url)) as caller:
        for number, app.refuses in enumerate((False, False, True)):
            caller.asked(request(fields=b"X-Refused: %d\r\n" % number))
    assert [heard[b"x-refused"] for heard in app.heard] == [b"1", b"2"]  # the first laid the lane


@pytest.mark.parametrize("body", [b"fail", b"break lines", b"say nothing"])
def test_an_application_that_fails_is_a_500_that_ends_the_connection(body: bytes) -> None:
    with listening(App()) as url, closing(Caller(url)) as caller:
        caller.asked(request())
        head, _ = caller.asked(request(body))
        assert head.startswith(b"HTTP/1.1 500 ")
        assert b"x-more" not in head
        assert caller.is_closed()


def test_what_is_under_way_is_answered_before_the_server_stops() -> None:
    app = App()
    with calling_while_it_stops(app) as caller:
        head, body = caller.answer()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in head
        assert json.loads(body)["body"] == "wait"
        assert caller.is_closed()


@contextmanager
def calling_while_it_stops(app: App) -> Iterator[Caller]:
    """A caller whose request is under way when the server is told to stop, which then has."""

    def release(port: int) -> None:
        wait_until(lambda: not is_listening(port), DEADLINE_S, "the server stops")
        app.released.set()

    with ExitStack() as stack:
        with listening(app) as url:
            caller = stack.enter_context(closing(Caller(url)))
            caller.asked(request())
            caller.send(request(b"wait"))
            assert app.under_way.wait(DEADLINE_S)
            releasing = threading.Thread(target=release, args=[caller.port])
            releasing.start()
        releasing.join()
        yield caller


def test_an_application_hears_of_a_caller_who_leaves() -> None:
    app = App()
    with listening(app) as url:
        with closing(Caller(url)) as caller:
            caller.asked(request())
            caller.send(request(b"leave"))
            assert app.under_way.wait(DEADLINE_S)
        wait_until(lambda: app.left == ["http.disconnect"], DEADLINE_S, "it is told")
        with closing(Caller(url)) as another:
            assert another.asked(request())[0].startswith(b"HTTP/1.1 200 ")


def test_a_connection_is_kept_while_it_is_used_and_closed_when_it_is_not() -> None:
    app = App()
    with listening(app, timeout_keep_alive=1) as url, closing(Caller(url)) as caller:
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            app.refuses = not app.refuses
            assert caller.asked(request())[0]
            time.sleep(0.05)
        assert caller.is_closed()


def test_another_server_s_connection_is_left_as_it_is() -> None:
    async def send(_message: Any) -> None:
        raise AssertionError("nothing is sent")

    lay_lane(send, PATHS, lambda _: None, lambda _: None)
