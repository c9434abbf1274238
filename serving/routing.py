"""Which handler answers which path: exact paths by one look-up, the others by their segments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from serving.http import Receive, Response, Scope

Handler = Callable[[Scope, Receive], Awaitable[Response]]

PATH_PARAMS = "path_params"
"""Where a handler finds the values of its path's parameters in the scope, as ASGI frameworks have it."""


class Found(NamedTuple):
    """A path that is there: its template, its handlers by method, and the values of its parameters."""

    template: str
    handlers: Mapping[str, Handler]
    params: Mapping[str, str]


class Routes:
    """Templates such as `/v1/decisions/{id}`: a parameter is one segment, not empty."""

    def __init__(self) -> None:
        self._exact: dict[str, Found] = {}
        self._shaped: dict[int, list[tuple[tuple[str, ...], Found]]] = {}

    def add(self, template: str, **handlers: Handler) -> None:
        """Answer a path, by method: `add("/healthz", GET=…)`."""
        found = Found(template, handlers, {})
        if "{" in template:
            segments = tuple(template.split("/"))
            self._shaped.setdefault(len(segments), []).append((segments, found))
        else:
            self._exact[template] = found

    @property
    def methods(self) -> dict[str, tuple[str, ...]]:
        """Template → methods, without HEAD and OPTIONS, which follow from them."""
        shaped = [found for routes in self._shaped.values() for _, found in routes]
        return {found.template: tuple(found.handlers) for found in (*self._exact.values(), *shaped)}

    def find(self, path: str, raw_path: bytes | None) -> Found | None:
        """The route of a path, None when nothing lives there.

        raw_path: as it was sent, so that a slash that is part of a value (`%2F`) does not cut it in two.
        """
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        sent = path.split("/") if raw_path is None else raw_path.decode("latin-1").split("/")
        for segments, found in self._shaped.get(len(sent), ()):
            params = _params(segments, sent, encoded=raw_path is not None)
            if params is not None:
                return found._replace(params=params)
        return None


def _params(segments: tuple[str, ...], sent: list[str], *, encoded: bool) -> dict[str, str] | None:
    params = {}
    for segment, value in zip(segments, sent, strict=True):
        if segment.startswith("{"):
            decoded = unquote_to_bytes(value).decode("utf-8", "replace") if encoded else value
            if not decoded:
                return None
            params[segment[1:-1]] = decoded
        elif segment != value:
            return None
    return params
