"""The little HTTP that an ASGI application needs: read a body with a bound, send one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from msgspec import Struct

from serving.errors import BodyTooLargeError, BodyTooSlowError, InvalidFieldError, UnsupportedMediaError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = "application/json"
NO_CONTENT = 204
QUERY_FIELDS_MAX = 16
BODY_TIMEOUT_S = 10.0
"""A body of a megabyte comes within this even by a telephone; longer, it only keeps a place from others."""
WHOLE_BODY = "actor_risk.whole_body"
"""Where whoever has the whole body before anybody asks for it puts it into the scope."""
WHOLE_ANSWER = "actor_risk.whole_answer"
"""Where whoever can send a whole answer at once puts a function of a `Response` for it into the scope."""
HTML = "text/html; charset=utf-8"


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete: nobody waits for an answer."""


class Response(Struct, frozen=True):
    """One answer. `headers` are those beside content type and length. `parts`: a body that is sent as it is made."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    parts: AsyncGenerator[bytes] | None = None


def header(scope: Scope, name: bytes) -> str | None:
    """The first header field of that lower-case name, or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def path_of(scope: Scope) -> str:
    """The path below the prefix that the application is mounted at."""
    path, root = str(scope["path"]), scope.get("root_path")
    if not root:
        return path
    prefix = str(root).rstrip("/")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def raw_path_of(scope: Scope) -> bytes | None:
    """The same as it was sent, with its percent signs; None when the server does not say."""
    raw, prefix = scope.get("raw_path"), str(scope.get("root_path", "")).rstrip("/").encode()
    if raw is None:
        return None
    path = bytes(raw)
    return path[len(prefix) :] if prefix and path.startswith(prefix + b"/") else path


def query_of(scope: Scope) -> dict[str, list[str]]:
    """Name → values of the query. Raises InvalidFieldError for one that is no text, or has too many parts."""
    try:
        sent = bytes(scope.get("query_string", b"")).decode("ascii")
        return parse_qs(sent, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except ValueError as error:
        raise InvalidFieldError(f"the query cannot be read: {error}") from error


def require_json(scope: Scope) -> None:
    """Raises UnsupportedMediaError when the body is declared as something other than plain JSON."""
    given = header(scope, b"content-type")
    if given and given != JSON:
        declared = given.split(";", 1)[0].strip().lower()
        if declared != JSON and not (declared.startswith("application/") and declared.endswith("+json")):
            raise UnsupportedMediaError(f"send the header `content-type: {JSON}`, not {declared!r}")
    require_uncompressed(scope)


def require_uncompressed(scope: Scope) -> None:
    """Raises UnsupportedMediaError when the body is declared as compressed."""
    given = header(scope, b"content-encoding")
    if given and (encoding := given.strip().lower()) != "identity":
        raise UnsupportedMediaError(f"send the body uncompressed, without `content-encoding: {encoding}`")


async def read_body(scope: Scope, receive: Receive, bytes_max: int, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
    """The whole body.

    Raises BodyTooLargeError as soon as there is too much, BodyTooSlowError when it is not there in time, and
    ClientGoneError when it ends early.
    """
    body: bytes | None = scope.get(WHOLE_BODY)
    if body is not None:
        if len(body) > bytes_max:
            raise BodyTooLargeError(bytes_max)
        return body
    try:
        async with asyncio.timeout(timeout_s):
            return await _whole_body(receive, bytes_max)
    except TimeoutError as error:
        raise BodyTooSlowError(timeout_s) from error


async def _whole_body(receive: Receive, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise BodyTooLargeError(bytes_max)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def raw_headers(response: Response) -> list[tuple[bytes, bytes]]:
    """The header fields of an answer, as ASGI has them."""
    if response.status == NO_CONTENT:
        return list(_encoded(response.headers))
    headers = [*_encoded(response.headers), (b"content-type", response.content_type.encode("latin-1"))]
    if response.parts is None:
        headers.append((b"content-length", b"%d" % len(response.body)))
    return headers


@lru_cache(maxsize=64)
def _encoded(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)


async def respond(send: Send, response: Response, *, with_body: bool = True) -> None:
    """Send an answer, for HEAD without its body."""
    await send({"type": "http.response.start", "status": response.status, "headers": raw_headers(response)})
    if response.parts is not None and with_body:
        async with aclosing(response.parts) as parts:  # who leaves in the middle ends what is under way, at once
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": response.body if with_body else b""})


async def run_lifespan(receive: Receive, send: Send, shut_down: Callable[[], Awaitable[None]]) -> None:
    """The ASGI lifespan: nothing to do at the start, `shut_down` at the end."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await shut_down()
            await send({"type": "lifespan.shutdown.complete"})
            return
