"""The scoring application as a child process: `serve run` with the configuration and environment that it needs."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from actor_risk.errors import ActorRiskError
from actor_risk.home import Home
from actor_risk.local import free_port, start_child, wait_until
from actor_risk.local.processes import log_tail, stop_by_marker

READY_TIMEOUT_S = 120.0
REPLICA_PORTS = 100
"""More than there are replicas: a port that one has given up is not taken again at once."""
SCRATCH_PREFIX = "ar-"
SHORT_TEMP = "/tmp" if sys.platform == "linux" else None
"""Not TMPDIR, which may be long: Ray adds a folder of 56 characters, and HAProxy takes socket paths of 97 at most."""

NO_ACCESS_LOG = "127.0.0.1:514 sample 1:1000000"
"""HAProxy's `log`, with its own word for one line of so many; none at all it is not offered by Ray."""

SERVE = """
import ray
from ray.serve.scripts import cli

ray.init("local", namespace="serve", include_dashboard=False)
cli()
"""
"""Ray Serve's command line, on a Ray of our own (a cluster of somebody else on this machine is none of ours), without
the dashboard, whose ten processes cost as much as a replica."""


def fast_environment(scratch: Path) -> dict[str, str]:
    """What turns on HAProxy and throughput mode, where there is an HAProxy for the platform: on Linux.

    The variables must be set before Ray starts. HAProxy's own ports are free ones, the replicas' begin at one, and
    HAProxy's files lie in `scratch`, so that two servers on one machine do not meet.
    """
    if sys.platform != "linux":
        return {}
    replicas_from = free_port()
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
        # By default the replicas of every Ray take the ports from 30000 on: one that another Ray's replica has given up
        # would for a while get what that Ray's HAProxy still sends there.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replicas_from),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replicas_from + REPLICA_PORTS),
        # Ray starts replicas and HAProxy at niceness 15: whatever else runs on the machine would go before an answer.
        "RAY_worker_niceness": "0",
        # Ray's controller looks at everything ten times a second by default, which takes a tenth of a core.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # Each answer's time is told to Ray's agent, which counts them one by one every 5 s: a quarter of a second of a
        # core, for which answers wait. Nobody collects these here; /metrics has them all.
        "RAY_enable_metrics_collection": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # HAProxy sends a line for each request to a syslog that hardly any machine has: a fifth of what it takes, and
        # as much again of the kernel, which says each time that nobody listens.
        "RAY_SERVE_HAPROXY_LOG_TARGET": os.environ.get("RAY_SERVE_HAPROXY_LOG_TARGET", NO_ACCESS_LOG),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_haproxy_in(scratch)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }


def _haproxy_in(scratch: Path) -> Path:
    """`serving.haproxy` as a program: it may not be installed, and Ray takes a path without arguments."""
    program = scratch / "actor-risk-haproxy"
    module = Path(__file__).parents[1] / "serving" / "haproxy.py"  # by its file: who starts it may have no PYTHONPATH
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P {shlex.quote(str(module))} "$@"\n')
    program.chmod(0o700)
    return program


def child_environment(home: Home, scratch: Path) -> dict[str, str]:
    """The environment of a serving process: ours, the home, and quiet, fast Ray."""
    return {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        **home.environment(),
        **fast_environment(scratch),
        "PYTHONPATH": str(Path.cwd()),
        # Local callers are gone when we stop: no need to drain for the default 30 s.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # A busy machine takes longer than the default 5 s to start a proxy; Ray would kill it and give up.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.edge:middlewares",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "PYTHONWARNINGS": "ignore",
    }


def write_config(
    home: Home, template: Path, port: int, models: Mapping[str, str], wait_for_models_s: float = 0.0
) -> Path:
    """The configuration `template` with this port and these models (name → alias) at `<home>/ray_config.yaml`.

    With `wait_for_models_s` the application may start before its models are there.
    """
    config = yaml.safe_load(template.read_text())
    config["http_options"]["port"] = port
    for application in config["applications"]:
        for deployment in application["deployments"]:
            deployment["user_config"] = {"models": dict(models), "wait_for_models_s": wait_for_models_s}
    path = home.root / "ray_config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def choose_port(wanted: int) -> int:
    """`wanted` if it is free, else another port; 0 asks for any."""
    if wanted == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
    return wanted


class ServingProcess:
    """A running scoring application; it ends with this process, or when it is stopped."""

    def __init__(self, home: Home, config: Path, port: int) -> None:
        self._log = home.logs / "serve.log"
        self._log.unlink(missing_ok=True)
        self.url = f"http://127.0.0.1:{port}"
        self._record = home.root / "serving.scratch"
        self._sweep()
        self._scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=SHORT_TEMP))
        self._record.write_text(str(self._scratch))
        command = [sys.executable, "-c", SERVE, "run", str(config)]
        self._child = start_child(command, self._log, env=child_environment(home, self._scratch))

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> list[str]:
        """What works, but not as it should, once /readyz says 200. Raises ActorRiskError with the end of its log.

        From the answer that said so: on a busy machine the next may say that the store did not answer in time.
        """
        answer: bytes | None = None

        def is_decided() -> bool:
            nonlocal answer
            answer = _answer_if_ready(self.url)
            return answer is not None or self.has_ended()

        try:
            wait_until(is_decided, timeout_s, "the scoring application is ready")
        except Exception as error:
            raise ActorRiskError(f"{error}; the end of {self._log}:\n{log_tail(self._log)}") from error
        if answer is None or self.has_ended():  # another one may have come to answer there
            raise ActorRiskError(f"the scoring application ended; the end of {self._log}:\n{log_tail(self._log)}")
        return list(json.loads(answer)["notes"])

    def has_ended(self) -> bool:
        """Whether the process is over."""
        return self._child.poll() is not None

    def stop(self, grace_s: float = 3.0) -> None:
        """Stop it. After `grace_s` it is ended at once, and all of its Ray with it: nobody local is left waiting."""
        stop_child(self._child, grace_s)
        self._sweep()

    def _sweep(self) -> None:
        """End what a killed run has left: Ray's processes die with their parent, but an HAProxy does not."""
        scratch = Path(self._record.read_text()) if self._record.exists() else Path()
        if scratch.name.startswith(SCRATCH_PREFIX):  # a torn record names nothing
            stop_by_marker(str(scratch))
            shutil.rmtree(scratch, ignore_errors=True)
        self._record.unlink(missing_ok=True)


def stop_child(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask a child to end as Ctrl-C does, and end it after `grace_s`."""
    if child.poll() is None:
        child.send_signal(2)
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def is_ready(url: str) -> bool:
    """Whether a scoring application at `url` says that it is ready."""
    return _answer_if_ready(url) is not None


def _answer_if_ready(url: str) -> bytes | None:
    try:
        with urlopen(f"{url}/readyz", timeout=2) as answer:
            return bytes(answer.read()) if answer.status == 200 else None
    except (URLError, OSError, http.client.HTTPException):
        return None
