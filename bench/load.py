"""Requests at a server over HTTP/1.1, from a process of their own: closed loop and open loop.

A closed loop of N connections sends the next request of a connection when the last one is answered: it finds the most
that a server does, and hides how long callers would have waited. An open loop sends at random times that do not depend
on the answers, and counts from the time at which a request was *due*: waiting for a free connection is in the latency.

Connections are treated as RFC 9112 (9.3, 9.6) has it. An answer that says `Connection: close` is the last one on its
connection, and the next request goes out on another. A server may close a kept connection while a request is on its way
to it: when not one byte of an answer has come, the request is sent once more on a new connection, which a client may do
(RFC 9110, 9.2.2) as a score asked for twice changes nothing; its latency counts from the first time. Lost is what broke
off in the middle of its answer, or broke twice.

Linux only: the open loop waits by a timer of nanoseconds, where event loops round to milliseconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import multiprocessing
import os
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvloop

from serving.scheduling import interrupt_nobody

HOST = "127.0.0.1"
DRAIN_S = 5.0
"""How long the open loop waits for the last answers."""

CONNECT_TIMEOUT_S = 10.0
_NS_PER_S = 1_000_000_000
_spawning = multiprocessing.get_context("spawn")

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Answers:
    """What came back, in the order of its coming.

    statuses     int64[n] of HTTP
    began_ns     int64[n] when a request was sent, in the open loop when it was due; ns since the load began
    sent_ns      int64[n] when it was sent
    done_ns      int64[n] when the last piece of its answer came, before this process looked at it
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

    def due_ns(self, start_ns: int, seconds: float) -> list[int]:
        """Times of a Poisson process in the next `seconds`."""
        rng = np.random.default_rng(self.seed)
        at = np.sort(rng.uniform(0.0, seconds * _NS_PER_S, rng.poisson(self.rate * seconds)))
        return (start_ns + at.astype(np.int64)).tolist()


def _apart(interrupts: bool, work: Callable[..., Coroutine[Any, Any, Answers]], *arguments: object) -> Answers:
    with ProcessPoolExecutor(1, mp_context=_spawning) as process:
        return process.submit(_run, interrupts, work, *arguments).result()


def _run(interrupts: bool, work: Callable[..., Coroutine[Any, Any, Answers]], *arguments: object) -> Answers:
    gc.disable()  # nothing here goes in circles, and a collection would be a pause of the server's
    if not interrupts:
        interrupt_nobody()
    return uvloop.run(work(*arguments))


class _Log:
    """Grows by one entry for each answer."""

    def __init__(self) -> None:
        self.statuses, self.began, self.sent, self.done = array("q"), array("q"), array("q"), array("q")
        self.lost = self.resent = 0
        self._cpu_began_ns = time.process_time_ns()

    def add(self, connection: _Connection, status: int, done_ns: int) -> None:
        self.statuses.append(status)
        self.began.append(connection.began_ns)
        self.sent.append(connection.sent_ns)
        self.done.append(done_ns)

    def answers(self, start_ns: int, seconds: float) -> Answers:
        cpu_ns = time.process_time_ns() - self._cpu_began_ns
        began, sent, done = (np.array(times, np.int64) - start_ns for times in (self.began, self.sent, self.done))
        statuses = np.array(self.statuses, np.int64)
        cpu_us = cpu_ns / 1e3 / max(1, len(statuses))
        return Answers(statuses, began, sent, done, self.lost, self.resent, seconds, cpu_us)


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way; `answered` and `broke` are told what becomes of it.

    `is_open`: whether another request may be sent. `may_resend`: whether the one under way may be sent once more
    elsewhere, as nothing of an answer has come and it has not been sent twice.
    """

    def __init__(self, answered: Callable[[_Connection, int, int], None], broke: Callable[[_Connection], None]) -> None:
        self._answered, self._broke = answered, broke
        self._head = b""
        self._status = 0
        self._left = 0
        """Bytes of the body that are still to come; or one of the two below."""
        self.busy, self.is_open, self.may_resend = False, True, False
        self.request = b""
        self.began_ns = self.sent_ns = self._came_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def send(self, request: bytes, began_ns: int, *, may_resend: bool = True) -> None:
        self.busy, self.began_ns, self.sent_ns = True, began_ns, time.monotonic_ns()
        self.request, self.may_resend = request, may_resend
        self._transport.write(request)

    def close(self) -> None:
        self._broke, self._status = _ignore, 0
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._came_ns = time.monotonic_ns()
        is_news, self.is_open = self.is_open or self.busy, False
        if self._status and self._left == _UNTIL_CLOSED and error is None:
            self._complete()
        elif is_news:
            self._broke(self)

    def data_received(self, data: bytes) -> None:
        self._came_ns = time.monotonic_ns()
        if not self.busy:
            self.is_open = False  # an answer that nobody asked for, such as that the server waits no longer
            self._transport.close()
            self._broke(self)
            return
        self.may_resend = False
        if self._status:
            self._body(data)
            return
        data = self._head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._head = data
            return
        head = data[:end].lower()
        self._head, self._status = b"", int(data[9:12])
        self._left = _body_length(head)
        if self._left == _UNTIL_CLOSED or b"\r\nconnection: close" in head:
            self.is_open = False
        self._body(data[end + 4 :])

    def _body(self, data: bytes) -> None:
        if self._left >= 0:
            surplus = len(data) - self._left
            complete = surplus >= 0
            self.is_open = self.is_open and surplus <= 0
            self._left = max(0, -surplus)
        elif self._left == _CHUNKED:
            self._head = (self._head + data)[-7:]
            complete = self._head in (b"0\r\n\r\n", b"\r\n0\r\n\r\n")
        else:
            complete = False
        if complete:
            self._complete()

    def _complete(self) -> None:
        status, self._status, self._head, self.busy = self._status, 0, b"", False
        if not self.is_open:
            self._transport.close()
        self._answered(self, status, self._came_ns)


_CHUNKED, _UNTIL_CLOSED = -1, -2
"""Bodies whose length is not told: in chunks, of which the last is empty; and until the connection is closed."""


def _body_length(head: bytes) -> int:
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return _CHUNKED if b"\r\ntransfer-encoding: chunked" in head else _UNTIL_CLOSED
    end = head.find(b"\r\n", at + 2)
    return int(head[at + 17 : end if end >= 0 else len(head)])


def _ignore(_: _Connection) -> None:
    """Nobody minds."""


async def _connect(port: int, make: Callable[[], _Connection]) -> _Connection:
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, connection = await asyncio.get_running_loop().create_connection(make, HOST, port)
    return connection


@dataclass(frozen=True)
class _Again:
    """A request that is to be sent once more."""

    request: bytes
    began_ns: int


class _Pool:
    """Connections that are opened anew when the server closes them. `ready` is given each one that may send."""

    def __init__(self, port: int, log: _Log, ready: Callable[[_Connection], None]) -> None:
        self._port, self._log, self._ready = port, log, ready
        self._open: set[_Connection] = set()
        self._opening: dict[asyncio.Task[None], _Again | None] = {}

    async def open(self, count: int) -> list[_Connection]:
        return [await self._one() for _ in range(count)]

    @property
    def is_busy(self) -> bool:
        return any(connection.busy for connection in self._open) or any(self._opening.values())

    def close(self) -> None:
        """Close all; what was under way is lost."""
        for task, again in self._opening.items():
            self._log.lost += again is not None
            task.cancel()
        for connection in self._open:
            self._log.lost += connection.busy
            connection.close()

    async def _one(self) -> _Connection:
        connection = await _connect(self._port, lambda: _Connection(self._answered, self._broke))
        self._open.add(connection)
        return connection

    def _answered(self, connection: _Connection, status: int, done_ns: int) -> None:
        self._log.add(connection, status, done_ns)
        if connection.is_open:
            self._ready(connection)
        else:
            self._replace(connection, None)

    def _broke(self, connection: _Connection) -> None:
        if connection.busy and connection.may_resend:
            self._log.resent += 1
            self._replace(connection, _Again(connection.request, connection.began_ns))
        else:
            self._log.lost += connection.busy
            self._replace(connection, None)

    def _replace(self, connection: _Connection, again: _Again | None) -> None:
        self._open.discard(connection)
        task = asyncio.get_running_loop().create_task(self._another(again))
        self._opening[task] = again
        task.add_done_callback(self._opening.pop)

    async def _another(self, again: _Again | None) -> None:
        try:
            connection = await self._one()
        except (OSError, TimeoutError):
            self._log.lost += 1
            return
        if again is None:
            self._ready(connection)
        else:
            connection.send(again.request, again.began_ns, may_resend=False)


async def _closed(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    turn, log = itertools.cycle(requests), _Log()
    end_ns = time.monotonic_ns() + _NS_PER_S * 3_600

    def ready(connection: _Connection) -> None:
        now_ns = time.monotonic_ns()
        if now_ns < end_ns:
            connection.send(next(turn), now_ns)

    pool = _Pool(port, log, ready)
    opened = await pool.open(connections)
    start_ns = time.monotonic_ns()
    end_ns = start_ns + round(seconds * _NS_PER_S)
    for connection in opened:
        ready(connection)
    await asyncio.sleep(seconds)
    deadline_ns = end_ns + round(DRAIN_S * _NS_PER_S)
    while pool.is_busy and time.monotonic_ns() < deadline_ns:
        await asyncio.sleep(0.005)
    pool.close()
    return log.answers(start_ns, seconds)


async def _open(port: int, requests: Sequence[bytes], connections: int, seconds: float, schedule: _Schedule) -> Answers:
    turn, log = itertools.cycle(requests), _Log()
    idle: list[_Connection] = []
    waiting: deque[int] = deque()

    def ready(connection: _Connection) -> None:
        if waiting:
            connection.send(next(turn), waiting.popleft())
        else:
            idle.append(connection)

    def arrive(due_ns: int) -> None:
        while idle:
            connection = idle.pop()  # the one used last: its part of the memory is still at hand
            if connection.is_open:
                connection.send(next(turn), due_ns)
                return
        waiting.append(due_ns)

    pool = _Pool(port, log, ready)
    idle.extend(await pool.open(connections))
    start_ns = time.monotonic_ns()
    due = schedule.due_ns(start_ns, seconds)
    await _at_each(due, arrive, round(schedule.tick_ms * 1e6))
    deadline_ns = time.monotonic_ns() + round(DRAIN_S * _NS_PER_S)
    while len(log.done) + log.lost < len(due) and time.monotonic_ns() < deadline_ns:
        await asyncio.sleep(0.005)
    pool.close()
    log.lost = len(due) - len(log.done)
    return log.answers(start_ns, seconds)


async def _at_each(due: Sequence[int], call: Callable[[int], None], tick_ns: int) -> None:
    """Call with each of the ascending times, as soon as it has come, but at most once in `tick_ns`."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    remaining: Iterator[int] = iter([*due, 0])
    upcoming = next(remaining)
    timer = _Timer()

    def tick() -> None:
        nonlocal upcoming
        timer.clear()
        now_ns = time.monotonic_ns()
        while upcoming and upcoming <= now_ns:
            call(upcoming)
            upcoming = next(remaining)
        if upcoming:
            timer.set(max(upcoming, now_ns + tick_ns))
        elif not over.done():
            over.set_result(None)

    loop.add_reader(timer.fd, tick)
    timer.set(upcoming or 1)
    try:
        await over
    finally:
        loop.remove_reader(timer.fd)
        timer.close()


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: interval, then the time, each seconds and nanoseconds."""

    _fields_ = (("interval", ctypes.c_long * 2), ("value", ctypes.c_long * 2))


class _Timer:
    """A file that becomes readable at a time of the monotonic clock: timerfd_create(2)."""

    _MONOTONIC, _NONBLOCK, _CLOEXEC, _ABSOLUTE = 1, os.O_NONBLOCK, os.O_CLOEXEC, 1

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(self._MONOTONIC, self._NONBLOCK | self._CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _TimerSpec()
        self._pointer = ctypes.byref(self._spec)

    def set(self, at_ns: int) -> None:
        self._spec.value[0], self._spec.value[1] = divmod(at_ns, _NS_PER_S)
        self._libc.timerfd_settime(self.fd, self._ABSOLUTE, self._pointer, None)

    def clear(self) -> None:
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.fd)
