"""Servers that die and come back, or cannot be reached, at one address."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actor_risk.local import Kafka, Valkey, default_cache, wait_until
from actor_risk.local.processes import is_alive
from actor_risk.local.server import LocalServer
from tests.support.proxy import Proxy

DEADLINE_S = 60.0
SESSION_TIMEOUT_MS_MIN = 500
"""The shortest session that our own broker allows, so that a test need not wait six seconds for a dead worker."""


class Fronted:
    """A server behind a proxy: `address` stays while the server comes back on another port."""

    def __init__(self, server: LocalServer, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy

    @property
    def address(self) -> str:
        """`127.0.0.1:port` of the proxy."""
        return f"127.0.0.1:{self.proxy.port}"

    def start(self) -> None:
        """Start it, on the data that it has, if it does not run; return when it answers."""
        self.server.start()
        self.proxy.aim(self.server.record.port)

    def kill(self) -> None:
        """SIGKILL; return when it is dead."""
        pid = self.server.record.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), DEADLINE_S, f"{self.server.name} is dead")


@contextmanager
def fronted_valkey(directory: Path) -> Iterator[Fronted]:
    """A Valkey that loses nothing that it acknowledged, however it ends.

    `appendfsync always`: with `everysec` a server answers before its log has the write when the disk is slow, so a
    SIGKILL may take acknowledged rows along, whose offsets the worker has committed. No protocol of ours can mend that.
    """
    server = Valkey(directory, append_only=True, config=["appendfsync always"])
    with Proxy() as proxy, server:
        fronted = Fronted(server, proxy)
        fronted.start()
        yield fronted
        fronted.start()  # so that there is one to stop


@contextmanager
def fronted_kafka(directory: Path, project_root: Path) -> Iterator[Fronted]:
    """A broker that tells its clients the proxy's address, so that every connection goes through it.

    Raises LocalRuntimeError where there is no Kafka to be had.
    """
    with Proxy() as proxy:
        config = [
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{proxy.port}",
            f"group.min.session.timeout.ms={SESSION_TIMEOUT_MS_MIN}",
            "broker.heartbeat.interval.ms=300",
            "broker.session.timeout.ms=2000",  # its controller takes a broker back when the old one counts as gone
        ]
        server = Kafka(directory, default_cache(project_root, os.environ), config=config)
        fronted = Fronted(server, proxy)
        try:
            fronted.start()
            yield fronted
        finally:
            server.stop()
