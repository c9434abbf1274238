"""A TCP proxy on loopback that can hold everything back, or cut every connection: a network that fails on demand.

It is a process of its own (`python -m tests.support.proxy`), told what to do by lines on its standard input, so that
nothing of it is inherited by the processes that a test forks, and no work of a test slows it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

CHUNK_BYTES = 64 << 10
BACKLOG = 128


class Proxy:
    """A proxy from its own port of 127.0.0.1 to another, which `aim` can change; use it as a context manager."""

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "tests.support.proxy"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        self.port = int(self._answer())

    def aim(self, port: int) -> None:
        """Lead new connections to this port."""
        self._tell(f"aim {port}")

    def stall(self) -> None:
        """Take bytes and pass none on, until `resume`; new connections are taken too, and lead nowhere yet."""
        self._tell("stall")

    def held_bytes(self) -> int:
        """How much has been taken and not passed on."""
        return int(self._tell("held"))

    def resume(self) -> None:
        """Pass on what was held back, late, and everything after it."""
        self._tell("resume")

    def cut(self) -> None:
        """Reset every connection; what was held back is lost."""
        self._tell("cut")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def _tell(self, line: str) -> str:
        """Its answer, when it is done."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, "the proxy ended"
        return line.strip()


class _Forwarder:
    """Pumps bytes both ways while the gate is open."""

    def __init__(self) -> None:
        self._gate = asyncio.Event()
        self._gate.set()
        self._target = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._held_bytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its last."""
        self._open.add(writer)
        try:
            await self._gate.wait()
            there, onward = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(onward)
            try:
                await asyncio.gather(self._pump(reader, onward), self._pump(there, writer))
            finally:
                self._open.discard(onward)
                onward.close()
        except OSError:  # nobody listens there, or somebody hung up
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def obey(self, line: str) -> str:
        """One order of the test, and the answer."""
        word, _, argument = line.partition(" ")
        if word == "aim":
            self._target = int(argument)
        elif word == "stall":
            self._gate.clear()
        elif word == "resume":
            self._gate.set()
        elif word == "cut":
            for writer in list(self._open):
                writer.transport.abort()
        return str(self._held_bytes)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            self._held_bytes += len(data)
            try:
                await self._gate.wait()
            finally:
                self._held_bytes -= len(data)
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


async def _main() -> None:
    forwarder, orders = _Forwarder(), asyncio.StreamReader()
    server = await asyncio.start_server(forwarder.serve, "127.0.0.1", 0, backlog=BACKLOG)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    while line := await orders.readline():  # ends with the test's process
        sys.stdout.write(f"{forwarder.obey(line.decode().strip())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
