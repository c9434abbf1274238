"""Connections that are kept open between requests, for any number of threads."""

from __future__ import annotations

import select
import ssl
from collections import deque
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

IDLE_MAX = 16


class Connections:
    """Opens, keeps and closes connections to one server."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        """Raises ValueError for a URL that is not of a server."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a server: write it as http://host:port")
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._idle: deque[HTTPConnection] = deque()

    def take(self, timeout_s: float) -> HTTPConnection:
        """A connection that nobody else has, each of whose steps may take `timeout_s`."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if connection.sock is not None and not _is_readable(connection):
                connection.sock.settimeout(timeout_s)
                return connection
            connection.close()
        if self._tls is not None:
            return HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
        return HTTPConnection(self._host, self._port, timeout=timeout_s)

    def ask(
        self, connection: HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> HTTPResponse:
        """Send a request; its answer, of which the head has come. Raises OSError or HTTPException."""
        connection.request(method, self._prefix + path, body, dict(headers))
        return connection.getresponse()

    def give_back(self, connection: HTTPConnection) -> None:
        """Keep a connection whose answer has been read to its end."""
        if connection.sock is not None and len(self._idle) < IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close what is not in use."""
        while self._idle:
            self._idle.pop().close()


def _is_readable(connection: HTTPConnection) -> bool:
    """Whether something has come that nobody asked for: as a rule the end, from a server that waits no longer."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
