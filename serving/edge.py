"""What stands between Ray Serve's own request handling and the network.

Ray loads it by name, in replicas and proxies alike, when this is set before it starts:
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.edge:middlewares`.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http import Response, respond

SCORE = "/v1/score"
SHORT = frozenset({SCORE, "/v1/explain"})
"""Answered within milliseconds, and by their own deadline."""

SENT = "actor_risk.headers"
"""Where the application finds the header fields as they were sent."""

_UNWATCHED = [(b"x-request-disconnect-disabled", b"?1"), (b"x-request-timeout-seconds", b"0")]


class Door:
    """Whether this process takes another score, and what it says if not. The application of the process sets both.

    Ray builds what stands around an application apart from it, by the name of a module: that is where the two meet.
    """

    def __init__(self) -> None:
        self.sheds: Callable[[], bool] = lambda: False
        self.refusal = Response(429)


DOOR = Door()


class Edge:
    """Hands on what Ray Serve can read, and asks no more of it than a request needs.

    1. Only header fields that are ASCII (RFC 9110, section 5.5: others are opaque data). Ray Serve 2.60 answers 500 to
       a request whose `x-request-id`, or any field that it reads as text, is not UTF-8.
    2. A score beyond capacity is refused at once: most of what a request costs, Ray's part of it included, would be
       spent on saying no.
    3. A short request is watched neither for a caller who leaves nor for a time-out: for both Ray makes two further
       tasks, waits for either, and cancels one. Ray finds its own words for that among the header fields; they hide
       what the caller may have sent under these names, which is left in the scope for the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's own answer."""
        if scope.get("path") == SCORE and scope.get("method") == "POST" and DOOR.sheds():
            await respond(send, DOOR.refusal)
            return
        await self._app(_for_ray(scope) if "headers" in scope else scope, receive, send)


def _for_ray(scope: Scope) -> Scope:
    headers = scope["headers"]
    if not all(value.isascii() for _, value in headers):
        headers = [field for field in headers if field[1].isascii()]
        scope = {**scope, "headers": headers}
    if scope.get("path") in SHORT:
        scope = {**scope, "headers": [*headers, *_UNWATCHED], SENT: headers}
    return scope


def middlewares() -> list[Middleware]:
    """What Ray Serve wraps around its application."""
    return [Middleware(Edge)]
