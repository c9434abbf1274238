"""A server that answers what it was told to, or hangs up; and both clients behind one face."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from actor_risk.client import AsyncClient, Client

HANG_UP = b""
"""Close the connection instead of an answer."""
SILENCE = b"silence"
"""Keep it open and say nothing."""


def answer(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    """An HTTP answer; `retry_after="1"` for `retry-after: 1`."""
    fields = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body


@dataclass
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Scripted:
    """Answers the n-th request with the n-th of `answers`, and later ones with the last."""

    answers: list[bytes]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        """Until `done`."""
        connections = 0
        while not self.done.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                connections += 1
                threading.Thread(target=self._talk, args=(connection, connections), daemon=True).start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _ = line.decode().split()
                headers = {}
                while field_line := stream.readline().strip():
                    name, _, value = field_line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", 0)))
                said = self.answers[min(len(self.asked), len(self.answers) - 1)]
                self.asked.append(Asked(method, path, headers, body, number))
                if said == SILENCE:
                    self.done.wait(10)
                if said in (HANG_UP, SILENCE):
                    return
                connection.sendall(said)


@contextmanager
def scripted(*answers: bytes) -> Iterator[Scripted]:
    """A server on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        server = Scripted(list(answers), url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=server.serve, args=(listener,))
        thread.start()
        try:
            yield server
        finally:
            server.done.set()
            thread.join()


class Called:
    """`Client`, with lists for what it streams."""

    def __init__(self, url: str, **options: Any) -> None:
        self.client = Client(url, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)
        return (lambda *args, **kwargs: list(method(*args, **kwargs))) if name == "score_stream" else method


class Awaited:
    """`AsyncClient`, called: with an event loop of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = AsyncClient(url, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        async def collect(*args: Any, **kwargs: Any) -> list[Any]:
            return [one async for one in method(*args, **kwargs)]

        called = collect if name == "score_stream" else method
        return lambda *args, **kwargs: self.loop.run_until_complete(called(*args, **kwargs))

    def close(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()
