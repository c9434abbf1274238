"""A guard in front of Ray Serve's own request handling, which decodes header fields and fails on odd bytes.

Ray Serve 2.60 answers 500 to a request whose `x-request-id`, or any header field that it reads as text, is not UTF-8.
Ray loads the guard by name, in replicas and proxies alike, when this is set before it starts:
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.edge:middlewares`.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send


class ReadableHeaders:
    """Hands on only the header fields that are ASCII (RFC 9110, section 5.5: others are opaque data)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's own answer."""
        headers = scope.get("headers")
        if headers is not None and not all(value.isascii() for _, value in headers):
            scope = {**scope, "headers": [field for field in headers if field[1].isascii()]}
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray Serve wraps around its application."""
    return [Middleware(ReadableHeaders)]
