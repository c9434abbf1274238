"""Short requests that come whole are read and answered without uvicorn's part.

    connection ──► Lane ── one whole plain request? ──► the application that uvicorn serves, and one write
                     └──── anything else ─────────────► uvicorn's own protocol, from then on

uvicorn's part costs as much as two thirds of what it is to say no, and a request beyond capacity comes while there is
least to spare; it writes the head of an answer and its body apart, so that a proxy and the caller are each woken twice.
A lane is laid over a connection while uvicorn handles a first short request on it. It takes what a proxy sends: one
request in one piece, its length told by `content-length`. What is otherwise (pieces, pipelining, `expect`, another
path) is uvicorn's again, and so is the connection, until the next short request.

uvicorn promises none of what is used of its protocol here. Where it has another one, no lane is laid. Its access log
has nothing of what a lane answers.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from starlette.types import Message, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.http import WHOLE_ANSWER, WHOLE_BODY, Response, raw_headers

Fields = Sequence[tuple[bytes, bytes]]
Hears = Callable[[Mapping[bytes, bytes]], None]
"""Takes from the header fields of a request what is no affair of the application."""
Refuses = Callable[[str], Response | None]
"""Path → the answer to a request that is refused at once, whatever it says; None for one to be answered."""
Adds = Callable[[], Fields]
"""Header fields that go with each answer, for who stands in front."""

_HEAD_BYTES_MAX = 8 * 1024
_HEAD_END = b"\r\n\r\n"
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)+")
_FIELD = re.compile(rb"([^:]+):[\t ]*([^\r]*)\r\n")
_CONTENT_LENGTH, _CONNECTION, _KEEP_ALIVE = b"content-length", b"connection", b"keep-alive"
_NOT_PLAIN = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"trailer"})
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_FAILED = Response(500, b"Internal Server Error", "text/plain; charset=utf-8")
_LOG = logging.getLogger(__name__)


def lay_lane(send: Send, paths: frozenset[str], hears: Hears, refuses: Refuses, adds: Adds = tuple) -> None:
    """Take the next requests for `paths` on the connection of `send`, if uvicorn has it and it is plain."""
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle):
        return
    protocol = cycle.transport.get_protocol()
    is_known = type(protocol) is HttpToolsProtocol and protocol.cycle is cycle
    if is_known and protocol.scheme == "http" and protocol.limit_concurrency is None:
        cycle.transport.set_protocol(Lane(protocol, cycle, paths, hears, refuses, adds))


class Lane(asyncio.Protocol):
    """Between one connection and uvicorn's protocol, whose last request was `cycle`."""

    def __init__(
        self,
        protocol: HttpToolsProtocol,
        cycle: RequestResponseCycle,
        paths: frozenset[str],
        hears: Hears,
        refuses: Refuses,
        adds: Adds,
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._transport = cycle.transport
        self._hears = hears
        self._refuses = refuses
        self._adds = adds
        self._paths = {f"POST {path} HTTP/1.1".encode(): path for path in paths}
        self._asked: _Exchange | None = None
        self._held = b""
        self._said_always: tuple[object, bytes] = (None, b"")

    def data_received(self, data: bytes) -> None:
        """One whole plain request is ours; else all that follows is uvicorn's, after our answer."""
        if self._asked is not None:
            self._held += data
            self._transport.pause_reading()
            return
        found = self._read(data) if self._is_between_requests() else None
        if found is None:
            self._transport.set_protocol(self._protocol)
            self._protocol.data_received(data)
            return
        self._protocol._unset_keepalive_if_required()
        path, fields, body = found
        refusal = self._refuses(path)
        if refusal is not None:
            self._write(self._told(refusal.status, raw_headers(refusal), refusal.body))
            return
        self._cycle.response_complete = False  # who shuts down leaves us the time to answer
        self._asked = exchange = _Exchange(self, body)
        scope = self._scope(path, fields, exchange)
        task = self._protocol.loop.create_task(self._run(scope, exchange))
        self._protocol.tasks.add(task)
        task.add_done_callback(self._protocol.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for an answer any more."""
        self._protocol.connection_lost(exc)
        if self._asked is not None:
            self._asked.end()

    def eof_received(self) -> None:
        """As uvicorn has it."""
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        """As uvicorn has it."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """As uvicorn has it."""
        self._protocol.resume_writing()

    def answer(self, exchange: _Exchange, status: int, fields: Fields, body: bytes) -> None:
        """Write the answer to what was asked, and go on. Raises ValueError for fields with a line break."""
        told = self._told(status, fields, body)
        self._asked = None
        exchange.end()
        self._cycle.response_complete = True
        if self._transport.is_closing():
            return
        self._write(told)
        if self._held and not self._transport.is_closing():
            held, self._held = self._held, b""
            self._transport.resume_reading()
            self.data_received(held)

    def _is_between_requests(self) -> bool:
        """Whether uvicorn is done with its last request to the last byte, and with its answer, and nothing waits."""
        protocol, cycle = self._protocol, self._cycle
        return (
            protocol.cycle is cycle
            and protocol.scope is cycle.scope  # else a next request has begun, of whose head not all is there
            and cycle.response_complete
            and not cycle.more_body
            and cycle.keep_alive
            and not protocol.flow.write_paused
        )

    def _read(self, data: bytes) -> tuple[str, Fields, bytes] | None:
        """Path, header fields and body of one whole plain request; None for whatever else it is."""
        line_end, head_end = data.find(b"\r\n"), data.find(_HEAD_END, 0, _HEAD_BYTES_MAX)
        path = self._paths.get(data[:line_end]) if line_end < head_end else None
        if path is None:
            return None
        head, body = data[line_end + 2 : head_end + 2], data[head_end + 4 :]
        if _FIELDS.fullmatch(head) is None:
            return None
        fields = [(name.lower(), value) for name, value in _FIELD.findall(head)]
        by_name = dict(fields)
        is_plain = (
            by_name.get(_CONTENT_LENGTH) == b"%d" % len(body)
            and by_name.get(_CONNECTION, _KEEP_ALIVE).lower() == _KEEP_ALIVE
            and _NOT_PLAIN.isdisjoint(by_name)
            and (len(by_name) == len(fields) or not _says_twice(fields))
        )
        if not is_plain:
            return None
        self._hears(by_name)
        return path, fields, body

    def _scope(self, path: str, fields: Fields, exchange: _Exchange) -> Scope:
        protocol = self._protocol
        whole_path = protocol.root_path + path
        return {
            "type": "http",
            "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": protocol.server,
            "client": protocol.client,
            "scheme": protocol.scheme,
            "root_path": protocol.root_path,
            "method": "POST",
            "path": whole_path,
            "raw_path": whole_path.encode("ascii"),
            "query_string": b"",
            "headers": fields,
            "state": protocol.app_state.copy(),
            WHOLE_BODY: exchange.body,
            WHOLE_ANSWER: exchange.answer,
        }

    async def _run(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            await self._protocol.app(scope, exchange.receive, exchange.send)
            if not exchange.is_over:
                raise RuntimeError("the application gave no answer")
        except Exception:  # as with uvicorn, whatever happened, who asks gets an answer
            _LOG.exception("an application failed at %s", scope["path"])
            if not exchange.is_over:
                self._cycle.keep_alive = False
                self.answer(exchange, _FAILED.status, raw_headers(_FAILED), _FAILED.body)

    def _told(self, status: int, fields: Fields, body: bytes) -> bytes:
        said = [*fields, *self._adds()]
        if not self._cycle.keep_alive:
            said.append((_CONNECTION, b"close"))
        head = _head(said)
        return b"".join((_STATUS_LINES[status], self._always(), head, b"\r\n", body))

    def _always(self) -> bytes:
        """The fields that uvicorn gives each answer, which it makes anew each second."""
        of = self._protocol.server_state.default_headers
        if self._said_always[0] is not of:
            self._said_always = (of, _head(of))
        return self._said_always[1]

    def _write(self, told: bytes) -> None:
        protocol = self._protocol
        self._transport.write(told)
        protocol.server_state.total_requests += 1
        if self._cycle.keep_alive:
            protocol.timeout_keep_alive_task = protocol.loop.call_later(
                protocol.timeout_keep_alive, protocol.timeout_keep_alive_handler
            )
        else:
            self._transport.close()


def _says_twice(fields: Fields) -> bool:
    """Whether the length of the body, or what becomes of the connection, is said more than once."""
    names = [name for name, _ in fields]
    return names.count(_CONTENT_LENGTH) > 1 or names.count(_CONNECTION) > 1


def _head(fields: Fields) -> bytes:
    """Header fields, each with its end of a line. Raises ValueError for one that has another."""
    head = b"".join([b"%b: %b\r\n" % field for field in fields])
    if head.count(b"\n") != len(fields) or head.count(b"\r") != len(fields):
        raise ValueError("a header field of the answer has a line break")
    return head


class _Exchange:
    """One request and its answer, as ASGI has them."""

    def __init__(self, lane: Lane, body: bytes) -> None:
        self.body = body
        self.is_over = False
        self._lane = lane
        self._is_read = False
        self._waits: asyncio.Event | None = None
        self._status = 0
        self._fields: Fields = ()
        self._parts: list[bytes] = []

    def end(self) -> None:
        """The answer is written, or nobody waits for it."""
        self.is_over = True
        if self._waits is not None:
            self._waits.set()

    async def receive(self) -> Message:
        """The body, and then nothing until all is over."""
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        if not self.is_over:
            self._waits = self._waits or asyncio.Event()
            await self._waits.wait()
        return {"type": "http.disconnect"}

    def answer(self, response: Response) -> None:
        """Send a whole answer at once. Raises RuntimeError when one has begun."""
        if self._status:
            raise RuntimeError("a whole answer is sent out of turn")
        self._status = response.status
        if not self.is_over:
            self._lane.answer(self, response.status, raw_headers(response), response.body)

    async def send(self, message: Message) -> None:
        """What is sent in parts is one answer too. Raises RuntimeError for parts in a wrong order."""
        if message["type"] == "http.response.start" and not self._status:
            self._status, self._fields = message["status"], message.get("headers", ())
            return
        if message["type"] != "http.response.body" or not self._status:
            raise RuntimeError(f"{message['type']} is sent out of turn")
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False) or self.is_over:
            return
        body, fields = b"".join(self._parts), [(name.lower(), value) for name, value in self._fields]
        if all(name != _CONTENT_LENGTH for name, _ in fields):
            fields.append((_CONTENT_LENGTH, b"%d" % len(body)))
        self._lane.answer(self, self._status, fields, body)
