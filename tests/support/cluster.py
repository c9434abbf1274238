"""A Redis Cluster of real Valkey processes, each of which may be killed, stopped and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from actor_risk.local import Valkey, free_port, wait_until
from actor_risk.local.processes import is_alive

SLOTS = 16_384
WHOLE_WITHIN_S = 60.0
NODE_TIMEOUT_MS = 2_000
"""After so long without a sign a node counts as failed, and its replica may take over."""


class Cluster:
    """Primaries with equal shares of the slots, in their order, and replicas after them."""

    def __init__(self, servers: list[Valkey], primaries: int) -> None:
        self.servers = servers
        self.primaries = primaries

    @property
    def url(self) -> str:
        """Of its first node."""
        return self.servers[0].url

    @property
    def addresses(self) -> list[str]:
        """`127.0.0.1:port` of each node."""
        return [server.address for server in self.servers]

    def first_slot(self, node: int) -> int:
        """Of a primary; SLOTS for the one after the last."""
        return SLOTS * node // self.primaries

    def primary_of(self, key: bytes) -> int:
        """Whose slot a key has, if none has moved."""
        slot = key_slot(key)
        return next(node for node in range(self.primaries) if slot < self.first_slot(node + 1))

    def ask(self, node: int, *command: object) -> object:
        """One command to one node."""
        with redis.Redis.from_url(self.servers[node].url, retry=Retry(NoBackoff(), 0)) as client:
            client.response_callbacks.clear()  # as the node says it
            return client.execute_command(*command)

    def id_of(self, node: int) -> str:
        """By which the nodes know it."""
        return _text(self.ask(node, "CLUSTER MYID"))

    def kill(self, node: int) -> None:
        """SIGKILL; return when it is dead."""
        pid = self.servers[node].record.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), WHOLE_WITHIN_S, "the node is dead")

    def stop(self, node: int) -> None:
        """SIGSTOP: its connections stay, and nobody answers."""
        os.kill(self.servers[node].record.pid, signal.SIGSTOP)

    def go_on(self, node: int) -> None:
        """SIGCONT."""
        with suppress(ProcessLookupError):
            os.kill(self.servers[node].record.pid, signal.SIGCONT)

    def start(self, node: int) -> None:
        """Start a killed node on what it had, at another port; the others learn that from itself."""
        self.servers[node].start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Until all nodes agree on who has which slots and that all are well."""
        wait_until(self._is_whole, WHOLE_WITHIN_S, "the cluster is whole")

    def _is_whole(self) -> bool:
        shapes = set()
        for node in range(len(self.servers)):
            if "cluster_state:ok" not in _text(self.ask(node, "CLUSTER INFO")):
                return False
            told = _text(self.ask(node, "CLUSTER NODES"))
            lines = sorted(line.split() for line in told.splitlines())
            if len(lines) != len(self.servers) or any("fail" in line[2] or "handshake" in line[2] for line in lines):
                return False
            shapes.add(str([(line[0], line[1], line[2].removeprefix("myself,"), line[8:]) for line in lines]))
        return len(shapes) == 1


@contextmanager
def cluster(directory: Path, primaries: int = 3, replicas: int = 0) -> Iterator[Cluster]:
    """A cluster whose nodes serve their slots while others are gone. Replica n is that of primary n."""
    with ExitStack() as stack:
        servers = []
        for node in range(primaries + replicas):
            config = [
                "cluster-enabled yes",
                f"cluster-port {free_port()}",
                f"cluster-node-timeout {NODE_TIMEOUT_MS}",
                "cluster-require-full-coverage no",
                "cluster-replica-validity-factor 0",
            ]
            server = Valkey(directory / f"node-{node}", append_only=True, config=config)
            servers.append(stack.enter_context(server))
        made = Cluster(servers, primaries)
        for node in range(primaries + replicas):
            stack.callback(made.go_on, node)
        for node in range(primaries):
            made.ask(node, "CLUSTER ADDSLOTSRANGE", made.first_slot(node), made.first_slot(node + 1) - 1)
            made.ask(node, "CLUSTER SET-CONFIG-EPOCH", node + 1)
        for node in range(1, len(servers)):
            bus = server_bus(servers[0])
            made.ask(node, "CLUSTER MEET", "127.0.0.1", servers[0].record.port, bus)
        for node in range(primaries, len(servers)):
            wanted = made.id_of(node - primaries)
            wait_until(
                lambda node=node, wanted=wanted: wanted in _text(made.ask(node, "CLUSTER NODES")),
                WHOLE_WITHIN_S,
                "the replica knows its primary",
            )
            made.ask(node, "CLUSTER REPLICATE", wanted)
        made.wait_until_whole()
        yield made


def server_bus(server: Valkey) -> int:
    """The port of a node's cluster bus."""
    return int(next(line for line in server.config if line.startswith("cluster-port")).split()[1])


def _text(answer: object) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)
