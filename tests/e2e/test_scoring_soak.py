"""The served application under load while everything that it stands on dies and comes back, one after the other."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from actor_risk.home import Home
from actor_risk.local import free_port, wait_until
from actor_risk.local.processes import command_line, log_tail
from actor_risk.serving_process import is_ready
from models import ModelStore
from tests.e2e.test_demo import READY_S, Commands, all_pids
from tests.support.servers import Fronted, fronted_kafka, fronted_valkey

SOAK_S = 600.0
RATE = 500
CALLERS = 16
TIMEOUT_S = 10.0
FAULTS_APART_S = 20.0
SERVICE, KEYS = "ad_click_risk", ("ip", "device_id", "creator_id", "advertiser_id")
ALLOWED = {200, 429, 503}
"""503 is the policy's own: features cannot be read. 429: while a replica is gone, the other has too much to do."""


@dataclass
class Load:
    """What callers were answered: bodies by decision id, statuses, and requests that broke off."""

    answers: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    odd: list[bytes] = field(default_factory=list)
    broken: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, port: int, bodies: Iterator[bytes]) -> None:
        """One caller: it asks at its rate until it is stopped, by a connection that it keeps while it lasts."""
        connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        due = time.monotonic()
        while not self.stopped.is_set():
            due += CALLERS / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                connection.request("POST", "/v1/score", next(bodies), {"content-type": "application/json"})
                answer = connection.getresponse()
                self.note(answer.status, answer.read())
            except (OSError, HTTPException):
                connection.close()
                with self.lock:
                    self.broken += 1
        connection.close()

    def note(self, status: int, body: bytes) -> None:
        with self.lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == 200:
                self.answers[json.loads(body)["decision_id"]] = body
            elif status not in ALLOWED:
                self.odd.append(body)


@dataclass(frozen=True)
class Served:
    """A served application, and the servers below it."""

    home: Home
    port: int
    run: Commands
    valkey: Fronted
    kafka: Fronted


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    with (
        fronted_valkey(tmp_path / "valkey") as valkey,
        fronted_kafka(tmp_path / "kafka", request.config.rootpath) as kafka,
    ):
        servers = {"REDIS_URL": f"redis://{valkey.address}/0", "KAFKA_BOOTSTRAP_SERVERS": kafka.address}
        run = Commands(tmp_path / "home", request.config.rootpath, servers)
        done = run("demo", "--once", "--port", "0", timeout=2 * READY_S)
        assert done.returncode == 0, done.stderr[-3000:]
        port = free_port()
        serve = run.start("serve", "--port", str(port))
        try:
            ready = f"http://127.0.0.1:{port}"
            wait_until(lambda: is_ready(ready) or serve.poll() is not None, READY_S, "the application is ready")
            assert serve.poll() is None, log_tail(run.output)
            yield Served(run.home, port, run, valkey, kafka)
        finally:
            serve.send_signal(signal.SIGINT)
            serve.wait(60)


@pytest.mark.soak
@pytest.mark.kafka
@pytest.mark.timeout(2_400)
def test_while_all_below_it_dies_in_turn_no_answer_is_wrong_and_none_is_missing_in_the_log(served: Served) -> None:
    load, rng = Load(), random.Random(5)
    bodies = Locked(requests_of(served.home, rng))
    callers = [threading.Thread(target=load.call, args=(served.port, bodies)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        end, faults = time.monotonic() + SOAK_S, itertools.cycle(faults_of(served))
        while time.monotonic() < end:
            time.sleep(FAULTS_APART_S)
            next(faults)()
            wait_until(lambda: is_ready(f"http://127.0.0.1:{served.port}"), READY_S, "the application is ready again")
        time.sleep(FAULTS_APART_S)
    finally:
        load.stopped.set()
        for caller in callers:
            caller.join(2 * TIMEOUT_S)
    assert not load.odd, load.odd[:3]
    assert load.statuses[200] > 0.7 * RATE * SOAK_S, load.statuses
    assert load.broken <= CALLERS * 2 * (SOAK_S / FAULTS_APART_S), (
        "only what a killed replica had in hand may break off"
    )
    check_log(served, load)
    check_scores(served, load)


def faults_of(served: Served) -> list[Callable[[], None]]:
    """One after the other, again and again."""

    def restart(server: Fronted) -> None:
        server.kill()
        time.sleep(2.0)
        server.start()

    def kill_a_replica() -> None:
        replicas = [pid for pid in all_pids() if "ServeReplica" in command_line(pid) and is_of(pid, served.home)]
        os.kill(replicas[0], signal.SIGKILL)

    def swap_the_model() -> None:
        store = ModelStore(served.home.models)
        versions = store.versions(SERVICE)
        done = served.run("rollout", "set", SERVICE, "--champion", random.choice(versions), timeout=120)
        assert done.returncode == 0, done.stderr

    def apply_definitions() -> None:
        done = served.run("apply", timeout=120)
        assert done.returncode == 0, done.stderr

    return [lambda: restart(served.valkey), swap_the_model, lambda: restart(served.kafka), kill_a_replica,
            swap_the_model, apply_definitions]  # fmt: skip


def is_of(pid: int, home: Home) -> bool:
    """Whether a process works for this home."""
    try:
        return str(home.root) in Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return False


def requests_of(home: Home, rng: random.Random) -> Iterator[bytes]:
    """Actors of the labels, with events of their own now and then."""
    rows = pq.read_table(home.data / "labels" / f"{SERVICE}.parquet").to_pylist()
    for number in itertools.count():
        row = rng.choice(rows)
        keys = {name: row[name] for name in KEYS}
        body: dict[str, Any] = {"model": SERVICE, "explain": "top" if number % 4 else "none"}
        if number % 5:
            body["entities"] = keys
        else:
            time_ms = round(time.time() * 1000)
            body["event"] = {"event_id": f"soak-{number}", "event_time": time_ms, "event_type": "click", **keys}
        yield json.dumps(body).encode()


class Locked:
    """An iterator for many threads."""

    def __init__(self, items: Iterator[bytes]) -> None:
        self._items, self._lock = items, threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._lock:
            return next(self._items)


def logged(home: Home) -> dict[str, tuple[Any, Any, Any]]:
    """Decisions of the log's files: id → its record, the values of all features, and their names."""
    found: dict[str, tuple[Any, Any, Any]] = {}
    for path in sorted(home.decisions.rglob("*.jsonl")):
        layouts: dict[tuple[str, str], Any] = {}
        for line in path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off by a kill: it was not answered
            if entry["kind"] == "features":
                layouts[entry["service"], entry["fingerprint"]] = entry["features"]
            else:
                service = entry["decision"]["service"]
                names = layouts[service["name"], service["fingerprint"]]
                found[entry["decision"]["decision_id"]] = (entry["decision"], entry["values"], names)
    return found


def check_log(served: Served, load: Load) -> None:
    """Every answer is in the log, as it was answered."""
    kept = logged(served.home)
    missing = load.answers.keys() - kept.keys()
    assert not missing, f"{len(missing)} of {len(load.answers)} answers are not in the log"
    for name, body in load.answers.items():
        assert json.loads(body) == kept[name][0]


def check_scores(served: Served, load: Load) -> None:
    """Every score is that of the features in its record, by the version that it names; shares add up to the margin."""
    kept, store = logged(served.home), ModelStore(served.home.models)
    by_version: dict[str, list[str]] = {}
    for name, body in load.answers.items():
        by_version.setdefault(json.loads(body)["model"]["version"], []).append(name)
    assert len(by_version) >= 1
    for version, names in by_version.items():
        bundle = store.load(SERVICE, version)
        refs = [feature.ref for feature in bundle.manifest.features]
        rows = []
        for name in names:
            _, values, layout = kept[name]
            at = {ref: place for place, ref in enumerate(layout)}
            rows.append([np.nan if values[at[ref]] is None else values[at[ref]] for ref in refs])
        scores = bundle.score(bundle.vector(np.array(rows, np.float64)))
        for name, score, margin in zip(names, scores.score.tolist(), scores.margin.tolist(), strict=True):
            record = kept[name][0]
            assert record["score"] == pytest.approx(score, abs=1e-9)
            if record["reasons"]:
                shares = sum(reason["attribution"] for reason in record["reasons"])
                total = record["base_value"] + shares + record["attributions_rest"]
                assert total == pytest.approx(margin, abs=1e-6)
