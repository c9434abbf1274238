"""What stands between Ray Serve's own request handling and the network.

Ray loads it by name, in replicas and proxies alike, when this is set before it starts:
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.edge:middlewares`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.clock import NS_PER_MS
from serving.haproxy import CAPACITY, REFUSED
from serving.http import WHOLE_ANSWER, Response, respond
from serving.lane import lay_lane
from serving.ray_counts import RayCounts, ray_counts_of

SCORE = "/v1/score"
SHORT = frozenset({SCORE, "/v1/explain"})
"""Answered within milliseconds, and by their own deadline."""

_ERROR = 500
_CAPACITY, _REFUSED = CAPACITY.encode(), REFUSED.encode()
_REFUSED_DIGITS_MAX = 9

Answering = Callable[[Scope, Receive, Send], Awaitable[int]]
"""An ASGI application for HTTP that returns the status that it answered with."""


class Door:
    """How this process answers at the edge, whether it takes another score, how many at once, what it says if not, and
    who hears how many were refused on the way.

    Ray builds what stands around an application apart from it, by the name of a module: that is where the two meet.
    """

    def __init__(self) -> None:
        self.sheds: Callable[[], bool] = lambda: False
        self.capacity: Callable[[], int | None] = lambda: None
        self.hears_refused: Callable[[int], None] = lambda _: None
        self.refusal = Response(429)
        self._answer: Answering | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, answer: Answering, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, short requests that come in this event loop are answered at the edge."""
        self._answer, self._loop = answer, loop

    def answer_in(self, loop: asyncio.AbstractEventLoop) -> Answering | None:
        """The application, if it runs in this event loop: Ray may let it have a thread of its own."""
        return self._answer if loop is self._loop else None


DOOR = Door()


class Edge:
    """Answers what is short itself, and hands on what Ray Serve can read.

    1. A score beyond capacity is refused at once: most of what a request costs would be spent on saying no.
    2. A short request goes straight to the application, and Ray only counts it. What Ray does for each request besides
       (identifiers, a context for calls to other deployments, a queue, a watch for a caller who leaves and one for the
       time) costs as much as the score itself, and a score has its own of these.
    3. Of the others Ray gets only header fields that are ASCII (RFC 9110, section 5.5: others are opaque data). Ray
       Serve 2.60 answers 500 to a request whose `x-request-id`, or any field that it reads as text, is not UTF-8.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._counts = ray_counts_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's own answer."""
        if scope["type"] == "http" and scope.get("path") in SHORT:
            if WHOLE_ANSWER not in scope:  # else it was heard on its lane
                _hear(dict(scope["headers"]))
            refusal = _refusal(scope["path"]) if scope["method"] == "POST" else None
            if refusal is not None:
                await respond(send, refusal)
                return
            answer = DOOR.answer_in(asyncio.get_running_loop())
            if answer is not None and self._counts is not None:
                lay_lane(send, SHORT, _hear, _refusal, _capacity)
                await _answer_counted(answer, self._counts, scope, receive, send)
                return
        await self._app(_for_ray(scope) if "headers" in scope else scope, receive, send)


def _hear(fields: Mapping[bytes, bytes]) -> None:
    """Take from a request's header fields what HAProxy tells: how many scores it has refused since it told last."""
    told = fields.get(_REFUSED)
    if told is not None and told.isdigit() and len(told) <= _REFUSED_DIGITS_MAX:
        DOOR.hears_refused(int(told))


def _refusal(path: str) -> Response | None:
    """What is answered at once to a request that is sent to this path now; None for one to be answered.

    A request on a lane is asked about twice: when it is read, and when its turn comes, as those read before it count by
    then.
    """
    return DOOR.refusal if path == SCORE and DOOR.sheds() else None


def _capacity() -> tuple[tuple[bytes, bytes], ...]:
    """What HAProxy is told with each answer, and keeps to itself."""
    capacity = DOOR.capacity()
    return () if capacity is None else ((_CAPACITY, b"%d" % capacity),)


async def _answer_counted(answer: Answering, counts: RayCounts, scope: Scope, receive: Receive, send: Send) -> None:
    began_ns, status = time.perf_counter_ns(), _ERROR
    counts.begin()
    try:
        status = await answer(scope, receive, send)
    finally:
        counts.end(scope["method"], scope["path"], status, (time.perf_counter_ns() - began_ns) / NS_PER_MS)


def _for_ray(scope: Scope) -> Scope:
    headers = scope["headers"]
    if all(value.isascii() for _, value in headers):
        return scope
    return {**scope, "headers": [field for field in headers if field[1].isascii()]}


def middlewares() -> list[Middleware]:
    """What Ray Serve wraps around its application."""
    return [Middleware(Edge)]
