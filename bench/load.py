"""Requests at a server over HTTP/1.1, from a process of their own: closed loop and open loop.

A closed loop of N connections sends the next request of a connection when the last one is answered: it finds the most
that a server does, and hides how long callers would have waited. An open loop sends at random times that do not depend
on the answers, and counts from the time at which a request was *due*: waiting for a free connection is in the latency.

Connections are treated as RFC 9112 (9.3, 9.6) has it. An answer that says `Connection: close` is the last one on its
connection, and the next request goes out on another. A server may close a kept connection while a request is on its way
to it: when not one byte of an answer has come, the request is sent once more on a new connection, which a client may do
(RFC 9110, 9.2.2) as a score asked for twice changes nothing; its latency counts from the first time. Lost is what broke
off in the middle of its answer, or broke twice.

What is sent and read is a compiled loop (`load_loop.py`), so that the load takes little of the machine that it shares
with the server.
"""

from __future__ import annotations

import gc
import multiprocessing
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import load_loop as at
from serving.scheduling import interrupt_nobody

HOST = "127.0.0.1"
DRAIN_S = 5.0
"""How long the open loop waits for the last answers."""

CONNECT_TIMEOUT_S = SEND_TIMEOUT_S = 10.0
_NS_PER_S = 1_000_000_000
_FILES_MAX, _LOGGED_AT_FIRST, _INTERRUPTIONS_MAX = 65_536, 1 << 16, 1_000
_spawning = multiprocessing.get_context("spawn")

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Answers:
    """What came back, in the order of its coming.

    statuses     int64[n] of HTTP
    began_ns     int64[n] when a request was sent, in the open loop when it was due; ns since the load began
    sent_ns      int64[n] when it was sent
    done_ns      int64[n] when the last piece of its answer was read, before this process looked at it
    lost         requests without an answer: the connection broke in the middle of it or twice, or the end came first
    resent       requests that were sent once more, because their connection was closed before an answer began
    seconds      how long requests were sent
    cpu_us       microseconds of CPU that the load itself took for each answer
    """

    statuses: Integers
    began_ns: Integers
    sent_ns: Integers
    done_ns: Integers
    lost: int
    resent: int
    seconds: float
    cpu_us: float

    @property
    def by_status(self) -> dict[int, int]:
        """How many answers have which status."""
        return dict(sorted(Counter(self.statuses.tolist()).items()))

    @property
    def errors(self) -> int:
        """Requests that were not answered with 200."""
        return int((self.statuses != 200).sum()) + self.lost

    def per_second(self, status: int = 200) -> float:
        """Answers of that status a second, as long as requests were sent."""
        in_time = self.done_ns <= self.seconds * _NS_PER_S
        return float(((self.statuses == status) & in_time).sum() / self.seconds)

    def quantile_ms(self, share: float, status: int = 200) -> float:
        """The latency that so large a share of the answers of that status stays below; NaN when there are none."""
        taken = (self.done_ns - self.began_ns)[self.statuses == status]
        return float(np.quantile(taken, share) / 1e6) if taken.size else float("nan")

    @property
    def late_p99_ms(self) -> float:
        """How late the load itself was at the most with 99 % of its requests; large when connections were too few."""
        return float(np.quantile(self.sent_ns - self.began_ns, 0.99) / 1e6) if self.sent_ns.size else float("nan")


def post(path: str, body: bytes) -> bytes:
    """A request with a JSON body, as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def closed_loop(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, interrupts: bool = True
) -> Answers:
    """Send the requests in turn, again and again, each connection its next one as soon as it has its answer.

    Without `interrupts` the load waits for a processor instead of interrupting who has it (`serving.scheduling`), which
    leaves more of the machine to a server on it. What the load is late by is in the latencies.
    """
    return _apart(interrupts, _closed, port, requests, connections, seconds)


def open_loop(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int,
    tick_ms: float = 0.0,
    interrupts: bool = True,
    seed: int = 1,
) -> Answers:
    """Send the requests in turn at random times (Poisson), `rate` a second, over so many connections at the most.

    With `tick_ms` those of a tick are sent together at its end, which saves much of the load's own CPU at high rates.
    `interrupts` as in `closed_loop`.
    """
    return _apart(interrupts, _open, port, requests, connections, seconds, _Schedule(rate, tick_ms, seed))


@dataclass(frozen=True)
class _Schedule:
    rate: float
    tick_ms: float
    seed: int

    def due_ns(self, start_ns: int, seconds: float) -> Integers:
        """Times of a Poisson process in the next `seconds`."""
        rng = np.random.default_rng(self.seed)
        times = np.sort(rng.uniform(0.0, seconds * _NS_PER_S, rng.poisson(self.rate * seconds)))
        return np.asarray(start_ns + times.astype(np.int64))


def _apart(interrupts: bool, work: Callable[..., Answers], *arguments: object) -> Answers:
    with ProcessPoolExecutor(1, mp_context=_spawning) as process:
        return process.submit(_run, interrupts, work, *arguments).result()


def _run(interrupts: bool, work: Callable[..., Answers], *arguments: object) -> Answers:
    gc.disable()  # nothing here goes in circles, and a collection would be a pause of the server's
    if not interrupts:
        interrupt_nobody()
    return work(*arguments)


def _closed(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    with _Client(port, requests, connections) as client:
        start_ns = time.monotonic_ns()
        return client.run(start_ns, seconds)


def _open(port: int, requests: Sequence[bytes], connections: int, seconds: float, schedule: _Schedule) -> Answers:
    with _Client(port, requests, connections) as client:
        start_ns = time.monotonic_ns()
        return client.run(start_ns, seconds, schedule.due_ns(start_ns, seconds), round(schedule.tick_ms * 1e6))


class _Client:
    """Connections, and what the compiled loop leaves to do."""

    def __init__(self, port: int, requests: Sequence[bytes], connections: int) -> None:
        self._port = port
        self._sockets: list[socket.socket | None] = [None] * connections
        self._poll = select.epoll()
        idle, broken, fresh = np.zeros((3, connections), np.int32)
        self._load = at.Load(
            conns=np.zeros((connections, at.CONN_WIDTH), np.int64),
            state=np.zeros(at.STATE_WIDTH, np.int64),
            by_fd=np.zeros(_FILES_MAX, np.int32),
            idle=idle,
            broken=broken,
            fresh=fresh,
            requests=np.frombuffer(b"".join(requests), np.uint8),
            ends=np.cumsum([len(request) for request in requests], dtype=np.int64),
            due=np.empty(0, np.int64),
            log=np.empty((_LOGGED_AT_FIRST, 4), np.int64),
            heads=np.zeros((connections, at.HEAD_BYTES_MAX), np.uint8),
            piece=np.zeros(at.PIECE_BYTES, np.uint8),
            events=np.zeros(at.EVENTS_MAX * at.EVENT_WIDTH, np.int32),
            clock=np.zeros(2, np.int64),
        )

    def __enter__(self) -> _Client:
        at.run(self._poll.fileno(), self._load)  # over at once: now it is compiled
        for k in range(len(self._sockets)):
            self._connect(k)
        return self

    def __exit__(self, *_: object) -> None:
        for k in range(len(self._sockets)):
            self._close(k)
        self._poll.close()

    def run(self, start_ns: int, seconds: float, due: Integers | None = None, tick_ns: int = 0) -> Answers:
        """All requests at the times `due`, or without these one after the other.

        Raises OSError when the server takes no connections any more, or this system is too old.
        """
        state, end_ns, interruptions = self._load.state, start_ns + round(seconds * _NS_PER_S), 0
        state[at.DEADLINE], state[at.TICK] = end_ns + round(DRAIN_S * _NS_PER_S), tick_ns
        if due is None:
            state[at.END] = end_ns
        else:
            self._load = self._load._replace(due=due)
        cpu_began_ns = time.process_time_ns()
        while (why := at.run(self._poll.fileno(), self._load)) != at.OVER:
            if why == at.GROW:
                log = self._load.log
                self._load = self._load._replace(log=np.concatenate([log, np.empty_like(log)]))
            elif why == at.MEND:
                self._mend()
            elif (interruptions := interruptions + 1) > _INTERRUPTIONS_MAX:
                raise OSError("epoll_pwait2 fails again and again: Linux 5.11 is needed")
        cpu_us = (time.process_time_ns() - cpu_began_ns) / 1e3 / max(1, state[at.LOGGED])
        statuses, *times = self._load.log[: state[at.LOGGED]].T.copy()
        began, sent, done = (one - start_ns for one in times)
        lost = int(state[at.LOST] + state[at.UNDER_WAY]) if due is None else due.size - statuses.size
        return Answers(statuses, began, sent, done, lost, int(state[at.RESENT]), seconds, float(cpu_us))

    def _mend(self) -> None:
        """Open anew what is broken, and send once more what is to be."""
        state = self._load.state
        broken, state[at.BROKEN] = self._load.broken[: state[at.BROKEN]].tolist(), 0
        for k in broken:
            again = bool(self._load.conns[k, at.AGAIN])
            self._connect(k)
            if again and not self._sent_again(k):
                state[at.LOST] += 1
                state[at.UNDER_WAY] -= 1
                self._load.conns[k, at.BUSY] = 0
                self._connect(k)

    def _connect(self, k: int) -> None:
        """A new connection in the place of the old one; if nothing is to be sent again, ready for another request."""
        self._close(k)
        connection = socket.create_connection((HOST, self._port), CONNECT_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)  # what is read is asked for without waiting; what is sent may wait for room
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(SEND_TIMEOUT_S), 0))
        load, self._sockets[k] = self._load, connection
        conn = load.conns[k]
        conn[at.FD], conn[at.OPEN], conn[at.STATUS], conn[at.HEAD_SIZE] = connection.fileno(), 1, 0, 0
        load.by_fd[connection.fileno()] = k
        self._poll.register(connection, select.EPOLLIN)
        if not conn[at.AGAIN]:
            load.fresh[load.state[at.FRESH]] = k
            load.state[at.FRESH] += 1

    def _close(self, k: int) -> None:
        old, self._sockets[k] = self._sockets[k], None
        if old is not None:
            old.close()

    def _sent_again(self, k: int) -> bool:
        """Send once more what was under way; whether that went."""
        load, connection = self._load, self._sockets[k]
        assert connection is not None
        conn = load.conns[k]
        turn = conn[at.TURN]
        conn[at.MAY_RESEND], conn[at.AGAIN], conn[at.SENT] = 0, 0, time.monotonic_ns()
        try:
            connection.sendall(load.requests[load.ends[turn - 1] if turn else 0 : load.ends[turn]].tobytes())
        except OSError:
            return False
        return True
