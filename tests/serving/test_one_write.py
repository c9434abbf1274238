"""An answer's head and body leave in one write, through the real uvicorn."""

from __future__ import annotations

import asyncio
import http.client
from typing import Any

import pytest

from serving.http import Response, respond, run_lifespan
from serving.one_write import in_one_write
from tests.support.listening import listening

BODY = b'{"score":0.5}'


class Watched:
    """A transport that remembers what was written to it, each write apart."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class App:
    """Answers every request in one write. `fails`: it ends in an error after the head of the answer."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, nothing)
            return
        send.__self__.transport = Watched(send.__self__.transport, self.writes)
        if scope["path"] == "/fails":
            await in_one_write(send)(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
            )
            raise RuntimeError("after the head")
        while (await receive()).get("more_body"):
            pass
        await respond(in_one_write(send), Response(200, BODY), with_body=scope["method"] != "HEAD")


async def nothing() -> None:
    """What there is to do when the server stops."""


def connected(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)


def asked(connection: http.client.HTTPConnection, method: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection.request(method, "/", b"{}", headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_head_and_body_are_one_write_on_a_connection_that_goes_on() -> None:
    app = App()
    with listening(app) as url:
        connection = connected(url)
        answers = [asked(connection, "POST", {}) for _ in range(3)]
        connection.close()
    assert answers == [(200, BODY)] * 3
    assert len(app.writes) == 3
    assert all(written.startswith(b"HTTP/1.1 200") and written.endswith(BODY) for written in app.writes)


@pytest.mark.parametrize(("method", "headers", "body"), [("HEAD", {}, b""), ("POST", {"connection": "close"}, BODY)])
def test_so_are_an_answer_without_a_body_and_the_last_of_a_connection(
    method: str, headers: dict[str, str], body: bytes
) -> None:
    app = App()
    with listening(app) as url:
        connection = connected(url)
        answer = asked(connection, method, headers)
        connection.close()
    assert answer == (200, body)
    assert len(app.writes) == 1


def test_a_head_is_not_lost_when_the_application_fails_after_it() -> None:
    app = App()
    with listening(app) as url:
        connection = connected(url)
        connection.request("GET", "/fails")
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
        connection.close()


def test_another_server_s_send_is_left_as_it_is() -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(respond(in_one_write(send), Response(200, BODY)))
    assert sent == ["http.response.start", "http.response.body"]
