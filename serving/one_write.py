"""An answer in one write.

uvicorn writes the head of an answer and its body apart: two system calls, and whoever reads is woken twice, a proxy in
between too. It offers no way to join them but the transport of the one request, which is its own affair: with a server
that is built otherwise nothing is joined.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Message, Send


def in_one_write(send: Send) -> Send:
    """The same `send`, for an answer that is not sent in parts: its head is written with its body."""
    cycle: Any = getattr(send, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is None:
        return send

    async def joined(message: Message) -> None:
        if message["type"] == "http.response.start":
            cycle.transport = _HeadHeld(transport)
            await send(message)
            return
        await send(message)
        if isinstance(cycle.transport, _HeadHeld):
            cycle.transport.release()
            cycle.transport = transport

    return joined


class _HeadHeld:
    """What uvicorn asks of a transport while it answers; what is written first waits for what is written next."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._head = data

    def release(self) -> None:
        """Write what still waits."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self.release()
        self._transport.close()
