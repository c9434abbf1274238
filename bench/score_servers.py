"""The servers of the scoring benchmark: each a process with a Ray of its own, on loopback, ended when it is done."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from feast import FeatureService, FeatureStore, FeatureView, FileSource

from actor_risk.home import Home
from actor_risk.local import DeadlineError, free_port, start_child, wait_until
from actor_risk.local.processes import command_line, log_tail, stop_by_marker
from actor_risk.serving_process import (
    SCRATCH_PREFIX,
    SERVE,
    SHORT_TEMP,
    ServingProcess,
    fast_environment,
    is_ready,
    stop_child,
    write_config,
)
from bench.score_world import AGE_MS, KINDS, MODEL, SERVICE, Floats, World, entities, feature_names, field_of
from models import CHAMPION
from tests.models.builders import shap_trees

REPLICA = "ray::ServeReplica"
EXPERT_ONGOING_REQUESTS = 256
"""As many as ours."""

START_TIMEOUT_S = 300.0
"""A machine that others use as well takes minutes."""


@contextmanager
def our_server(home: Home, replicas: int) -> Iterator[int]:
    """The port of our application as `actor-risk serve` runs it, with so many replicas from the start to the end."""
    config = yaml.safe_load(Path("ray_config.yaml").read_text())
    (deployment,) = config["applications"][0]["deployments"]
    deployment["autoscaling_config"] |= {"min_replicas": replicas, "max_replicas": replicas}
    template = home.root / "template.yaml"
    template.write_text(yaml.safe_dump(config, sort_keys=False))
    port = free_port()
    server = ServingProcess(home, write_config(home, template, port, {MODEL: CHAMPION}), port)
    try:
        server.wait_until_ready(START_TIMEOUT_S)
        _await_replicas(replicas)
        yield port
    finally:
        server.stop()


class Peer:
    """What the peers read: Feast's stock store on Redis with finished values, and the same model."""

    def __init__(self, folder: Path, world: World, redis_address: str) -> None:
        self._folder, self._world = folder, world
        folder.mkdir()
        (folder / "feature_store.yaml").write_text(yaml.safe_dump(_settings(folder, redis_address)))
        (folder / "features.json").write_text(json.dumps(feature_names(world.plan)))
        (folder / "trees.pickle").write_bytes(pickle.dumps(shap_trees(world.model.trees)))
        (folder / "model.onnx").write_bytes(world.model.onnx)
        self._store = FeatureStore(repo_path=str(folder))
        kinds = entities()
        views = [self._view(kind) for kind in KINDS]
        self._store.apply([*kinds.values(), *views, FeatureService(name=SERVICE, features=views)])

    def write(self, places: Sequence[int], values: Floats) -> None:
        """The values float64[n, 60] of the actors at these places, by Feast's own call."""
        names = feature_names(self._world.plan)
        now = datetime.now(UTC) - timedelta(milliseconds=AGE_MS)
        for kind, key in KINDS.items():
            rows = pd.DataFrame({key: [self._world.ids(kind)[place] for place in places], "event_time": now})
            for i in self._world.features_of(kind):
                rows[names[i]] = pd.Series(values[:, i], dtype="float64")
                if self._world.plan.kinds[i] == "INT64":
                    rows[names[i]] = rows[names[i]].astype("Int64")
            self._store.write_to_online_store(f"{kind}_features", rows)

    @contextmanager
    def docs_server(self) -> Iterator[int]:
        """The port of the application with Ray Serve's defaults."""
        with self._server({}, {}, 0, {}) as port:
            yield port

    @contextmanager
    def expert_server(self, replicas: int) -> Iterator[int]:
        """The port of the same behind HAProxy in throughput mode, without access log, with one thread for a score."""
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=SHORT_TEMP))
        options = {"num_replicas": replicas, "max_ongoing_requests": EXPERT_ONGOING_REQUESTS}
        try:
            with self._server(fast_environment(scratch), options, 1, {"enable_access_log": False}) as port:
                _await_replicas(replicas)
                yield port
        finally:
            stop_by_marker(str(scratch))
            shutil.rmtree(scratch, ignore_errors=True)

    @contextmanager
    def _server(
        self, environment: Mapping[str, str], options: Mapping[str, int], threads: int, logging: Mapping[str, bool]
    ) -> Iterator[int]:
        port = free_port()
        config = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": port},
            "logging_config": dict(logging),
            "applications": [
                {
                    "name": "scoring",
                    "import_path": "bench.peers.ray_feast:build",
                    "args": {"folder": str(self._folder), "threads": threads},
                    "deployments": [{"name": "Scoring", **options}],
                }
            ],
        }
        path, log = self._folder / "serve.yaml", self._folder / "serve.log"
        path.write_text(yaml.safe_dump(config))
        log.unlink(missing_ok=True)
        child = start_child(_serve_run(path), log, env=_environment(environment))
        url = f"http://127.0.0.1:{port}"
        try:
            try:
                wait_until(lambda: child.poll() is not None or is_ready(url), START_TIMEOUT_S, "the peer is ready")
            except DeadlineError as error:
                raise RuntimeError(f"{error}: {log_tail(log)}") from error
            if child.poll() is not None:
                raise RuntimeError(f"the peer ended: {log_tail(log)}")
            yield port
        finally:
            stop_child(child, 3.0)

    def _view(self, kind: str) -> FeatureView:
        plan = self._world.plan
        name = f"{kind}_features"
        return FeatureView(
            name=name,
            entities=[entities()[kind]],
            schema=[field_of(plan, place) for place in self._world.features_of(kind)],
            source=FileSource(name=name, path=str(self._folder / f"{name}.parquet"), timestamp_field="event_time"),
            ttl=timedelta(days=30),
        )


def replica_pids() -> list[int]:
    """The replicas below this process."""
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    return [pid for pid in parents if command_line(pid).startswith(REPLICA) and os.getpid() in _line(pid, parents)]


def rss_mib(pid: int) -> float:
    """The resident memory of a process, pages of files that it maps included."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _await_replicas(count: int) -> None:
    wait_until(lambda: len(replica_pids()) == count, START_TIMEOUT_S, f"{count} replicas run")


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # gone meanwhile
        return 0


def _line(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """The process, its parent, and so on."""
    while pid:
        yield pid
        pid = parents.get(pid, 0)


def _serve_run(config: Path) -> list[str]:
    return [sys.executable, "-c", SERVE, "run", str(config)]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Without the Ray of somebody else; patient with a busy machine, as ours is."""
    return {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        **more,
        "PYTHONPATH": str(Path.cwd()),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _settings(folder: Path, redis_address: str) -> dict[str, Any]:
    return {
        "project": "peers",
        "provider": "local",
        "registry": str(folder / "registry.db"),
        "entity_key_serialization_version": 3,
        "online_store": {"type": "redis", "connection_string": redis_address},
        "offline_store": {"type": "file"},
    }
