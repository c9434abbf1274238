"""A single Apache Kafka broker (KRaft: broker and controller in one process, no ZooKeeper) on loopback."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from actor_risk.local._kafka_files import KAFKA_VERSION, default_cache, fetch_kafka, java
from actor_risk.local._kafka_probe import broker_answers
from actor_risk.local.errors import StartError
from actor_risk.local.processes import free_port
from actor_risk.local.server import LocalServer

__all__ = ["KAFKA_VERSION", "Kafka", "default_cache"]

_HEAP_MB = 320
_JAVA_FLAGS = (
    f"-Xmx{_HEAP_MB}m",
    "-Xms128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
)
_FORMAT_TIMEOUT_S = 60

_CONFIG = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
num.network.threads=2
num.io.threads=2
"""


class Kafka(LocalServer):
    """An Apache Kafka broker in `directory`; use it as a context manager, or `start` and `stop`.

    The first start fetches Kafka into `cache` and formats the storage. Its data stays in the directory.
    `config` are further lines of its configuration file, of which the last word on a setting counts.
    """

    name = "Kafka"
    ready_timeout_s = 60.0
    config_name = "server.properties"

    def __init__(self, directory: Path, cache: Path, *, detached: bool = False, config: Sequence[str] = ()) -> None:
        super().__init__(directory, detached=detached)
        self.cache = cache
        self.config = tuple(config)

    @property
    def bootstrap_servers(self) -> str:
        """`127.0.0.1:port` of the started broker. Raises StartError before `start`."""
        return self.address

    def fetch(self) -> Path:
        """The folder of Kafka's jars, fetched first if need be. Raises MissingToolError or FetchError."""
        return fetch_kafka(self.cache)

    def _prepare(self, port: int) -> list[str]:
        lib = self.fetch()
        data = str(self.data_path).replace("\\", "\\\\")
        settings = _CONFIG.format(port=port, controller_port=free_port(), data=data)
        self.config_path.write_text("\n".join([settings, *self.config, ""]))
        run = [java(), *_JAVA_FLAGS, "-Dorg.apache.logging.log4j.level=WARN", "-cp", f"{lib}/*"]
        if not (self.data_path / "meta.properties").exists():
            self._format([*run, "kafka.tools.StorageTool", "format"])
        return [*run, "kafka.Kafka", str(self.config_path)]

    def _answers(self, port: int) -> bool:
        return broker_answers(port, timeout_s=2.0)

    def _format(self, command: list[str]) -> None:
        arguments = ["--cluster-id", _cluster_id(), "--config", str(self.config_path), "--ignore-formatted"]
        try:
            done = subprocess.run(
                [*command, *arguments], capture_output=True, text=True, check=False, timeout=_FORMAT_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise StartError(
                f"formatting {self.data_path} took over {_FORMAT_TIMEOUT_S} s: is the disk full or slow?"
            ) from error
        if done.returncode != 0:
            raise StartError(f"Kafka could not format {self.data_path}: {(done.stdout + done.stderr)[-1500:].strip()}")


def _cluster_id() -> str:
    """A random id in Kafka's form: 16 bytes in URL-safe base64 without padding, not taken for an option."""
    return "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
