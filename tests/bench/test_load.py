"""The load of the benchmarks closes, reopens and counts as an HTTP client must."""

from __future__ import annotations

import itertools
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from bench.load import Answers, closed_loop, open_loop, post

REQUEST = post("/v1/score", b"{}")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
UNTIL_CLOSED = b"HTTP/1.1 503 Service Unavailable\r\n\r\nno length is told"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
CONNECTIONS, SECONDS = 3, 0.3

Script = Callable[[int], bytes]
"""What is sent for the request of that number on a connection, from 1 on; nothing: the connection is closed instead.
What is no complete answer, or the last one, is followed by the end of the connection."""


class Server(socketserver.ThreadingTCPServer):
    """Answers by a script, so many bytes at a time."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, script: Script, piece: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.piece = script, piece
        self.connections = itertools.count()
        self.asked = itertools.count()


class Handler(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        assert isinstance(self.server, Server)
        next(self.server.connections)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in itertools.count(1):
            if not received(self.request):
                return
            next(self.server.asked)
            answer = self.server.script(number)
            for begin in range(0, len(answer), self.server.piece):
                self.request.sendall(answer[begin : begin + self.server.piece])
            if answer not in (OK, CHUNKED):
                return


def received(connection: socket.socket) -> bool:
    """Whether a whole request came before the end."""
    try:
        return len(connection.recv(len(REQUEST), socket.MSG_WAITALL)) == len(REQUEST)
    except OSError:
        return False


@contextmanager
def serving(script: Script, piece: int = 1 << 20) -> Iterator[Server]:
    with Server(script, piece) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def closed(server: Server) -> Answers:
    return closed_loop(server.server_address[1], [REQUEST], connections=CONNECTIONS, seconds=SECONDS)


def opened(server: Server) -> Answers:
    return open_loop(server.server_address[1], [REQUEST], rate=300, seconds=SECONDS, connections=CONNECTIONS)


@pytest.mark.parametrize("loop", [closed, opened])
def test_after_an_answer_that_says_close_the_next_request_goes_out_on_another_connection(
    loop: Callable[[Server], Answers],
) -> None:
    with serving(lambda number: OK if number < 3 else LAST) as server:
        answers = loop(server)
        asked, connections = next(server.asked), next(server.connections)
    assert answers.by_status == {200: asked}
    assert (answers.lost, answers.resent) == (0, 0)
    assert connections >= asked / 3


@pytest.mark.parametrize("loop", [closed, opened])
def test_a_request_whose_kept_connection_was_closed_under_it_is_sent_once_more(
    loop: Callable[[Server], Answers],
) -> None:
    with serving(lambda number: OK if number < 3 else b"") as server:
        answers = loop(server)
        asked = next(server.asked)
    assert answers.resent > 0
    assert answers.by_status == {200: asked - answers.resent}
    assert answers.lost == 0


def test_a_request_is_not_sent_a_third_time() -> None:
    with serving(lambda _: b"") as server:
        answers = closed(server)
        asked = next(server.asked)
    assert answers.by_status == {}
    assert answers.lost >= CONNECTIONS
    assert 0 <= asked - 2 * answers.lost <= 2 * CONNECTIONS


@pytest.mark.parametrize("broken", [LAST[:-1], OK[:-1], CHUNKED[:-3], OK[:20]])
def test_an_answer_that_breaks_off_is_lost_and_not_asked_for_again(broken: bytes) -> None:
    with serving(lambda number: OK if number < 2 else broken) as server:
        answers = closed(server)
    assert answers.resent == 0
    assert answers.lost > 0
    assert set(answers.by_status) == {200}


def test_a_body_whose_length_is_not_told_ends_with_its_connection() -> None:
    with serving(lambda number: CHUNKED if number < 2 else UNTIL_CLOSED) as server:
        answers = closed(server)
    assert set(answers.by_status) == {200, 503}
    assert abs(answers.by_status[200] - answers.by_status[503]) <= CONNECTIONS
    assert (answers.lost, answers.resent) == (0, 0)


def test_an_answer_that_nobody_asked_for_ends_its_connection_and_is_not_counted() -> None:
    late = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with serving(lambda _: OK + late) as server:
        answers = closed(server)
    assert set(answers.by_status) == {200}
    assert answers.lost == 0


@pytest.mark.parametrize("piece", [1, 3, 40])
@pytest.mark.parametrize("answer", [OK, CHUNKED])
def test_an_answer_may_come_in_pieces(answer: bytes, piece: int) -> None:
    with serving(lambda _: answer, piece) as server:
        answers = closed(server)
        asked, connections = next(server.asked), next(server.connections)
    assert asked > CONNECTIONS
    assert answers.by_status == {200: asked}
    assert (answers.lost, answers.resent, connections) == (0, 0, CONNECTIONS)


def test_what_is_due_in_a_tick_is_sent_at_its_end_and_waited_for_from_when_it_was_due() -> None:
    with serving(lambda _: OK) as server:
        port = server.server_address[1]
        answers = open_loop(port, [REQUEST], rate=500, seconds=1.0, connections=200, tick_ms=50.0)
        asked = next(server.asked)
    assert answers.by_status == {200: asked}
    starts = 1 + (np.diff(np.sort(answers.sent_ns)) > 25e6).sum()
    assert starts <= 1.0 / 0.05 + 1
    assert (answers.sent_ns >= answers.began_ns).all()
    assert answers.late_p99_ms > 25


def test_an_open_loop_in_which_nothing_is_due_sends_nothing() -> None:
    with serving(lambda _: OK) as server:
        answers = open_loop(server.server_address[1], [REQUEST], rate=1e-9, seconds=SECONDS, connections=CONNECTIONS)
        assert next(server.asked) == 0
    assert (answers.by_status, answers.lost) == ({}, 0)


def test_a_server_that_takes_no_connections_any_more_is_an_error() -> None:
    def end(number: int) -> bytes:
        if number == 3:
            server.server_close()
        return OK if number < 3 else LAST

    with serving(end) as server, pytest.raises(ConnectionError):
        closed(server)
