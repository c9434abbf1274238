"""A small, complete world: simulated events and profiles, and the real feature repository applied over them."""

from __future__ import annotations

import contextlib
import io
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import redis
import yaml
from feast import FeatureStore

from actor_risk.feast_repo import apply_repo, stream_views
from actor_risk.simulate import Simulation, SimulationSettings, json_lines, simulate, split, write
from materialize.definitions import StreamView, open_feature_store
from materialize.stream import EventLog
from materialize.stream.worker import StreamWorker

START_MS = 1_763_596_800_000  # 2025-11-20T00:00:00Z
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

SETTINGS = SimulationSettings(
    seed=11,
    start_ms=START_MS,
    end_ms=START_MS + 3 * DAY_MS,
    advertisers=60,
    creators=60,
    ips=400,
    devices=400,
    ad_events_per_day=4_000,
    account_events_per_day=1_000,
)
CUT_MS = START_MS + 2 * DAY_MS + 7 * HOUR_MS
"""Events before it come from history, those from it on from the stream."""

TOPICS = ("ad_events", "account_events")


@dataclass(frozen=True)
class World:
    """Everything that a test of the whole path needs; `everything` is `history` and `live` together."""

    store: FeatureStore
    repo_path: Path
    registry_path: Path
    project: str
    redis_url: str
    everything: Simulation
    live: Simulation

    def views(self) -> list[StreamView]:
        """The compiled stream views of the repository."""
        return stream_views(self.store)


def simulated() -> tuple[Simulation, Simulation, Simulation]:
    """(everything, history, live) of the small world."""
    everything = simulate(SETTINGS)
    return everything, *split(everything, CUT_MS)


def build_world(directory: Path, feature_repo: Path, redis_url: str) -> World:
    """Simulate, write and apply below `directory`, under a project name that nobody else uses."""
    everything, _, live = simulated()
    write(everything, directory / "data")
    project = f"test_{uuid.uuid4().hex}"
    repo_path = directory / "feature_repo"
    shutil.copytree(feature_repo, repo_path, ignore=shutil.ignore_patterns("__pycache__"))
    settings = repo_path / "feature_store.yaml"
    described = yaml.safe_load(settings.read_text())
    described["project"] = project
    described["online_store"]["connection_string"] = redis_url
    settings.write_text(yaml.safe_dump(described))
    registry_path = directory / "registry.db"
    apply_repo(repo_path, registry_path, {"ACTOR_RISK_DATA": str(directory / "data")})
    store = open_feature_store(repo_path, registry_path)
    return World(store, repo_path, registry_path, project, redis_url, everything, live)


def backfill(world: World, end_ms: int = CUT_MS) -> None:
    """Materialize the stream views up to `end_ms`, and the profiles up to the end of the simulation."""
    streams = [view.name for view in world.views()]
    profiles = [view.name for view in world.store.list_batch_feature_views()]
    materialize_views(world.store, START_MS, end_ms, streams)
    materialize_views(world.store, START_MS, SETTINGS.end_ms + 1, profiles)


def materialize_views(store: FeatureStore, start_ms: int, end_ms: int, names: Sequence[str]) -> None:
    """`feast materialize` of the views, quietly, one after the other."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name in names:
            store.materialize(moment(start_ms), moment(end_ms), [name])


def publish(log: EventLog, topic: str, lines: Iterable[bytes], keys: Sequence[str]) -> None:
    """Append records to the log, each under its key, and wait until they are acknowledged."""
    producer = log.producer()
    for key, line in zip(keys, lines, strict=True):
        producer.send(topic, key.encode(), line)
    producer.flush(20_000)
    producer.close()


def publish_table(log: EventLog, topic: str, table: pa.Table) -> None:
    """Append a table's events to the log, keyed by whom they are about."""
    actor = "actor_id" if topic == "account_events" else "ip"
    publish(log, topic, json_lines(table, topic), table.column(actor).to_pylist())


def drain(worker: StreamWorker, records: int) -> None:
    """Run the worker until it has polled so many records, and once more for nothing to be left."""
    for _ in range(2_000):
        worker.run_once()
        if worker.counts.records >= records:
            return
    raise AssertionError(f"only {worker.counts.records} of {records} records were polled")


def moment(time_ms: int) -> datetime:
    """Milliseconds as a datetime in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def delete_keys(redis_url: str, prefix: str) -> None:
    """Delete every key that begins with `prefix`."""
    with redis.Redis.from_url(redis_url) as client:
        found = list(client.scan_iter(match=f"{prefix}*", count=1_000))
        if found:
            client.unlink(*found)
