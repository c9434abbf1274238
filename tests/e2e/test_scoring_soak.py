"""The served application under load while everything that it stands on dies and comes back, one after the other.

SOAK_S says how many seconds of load, 600 by default: each fault comes about once in 300 of them, and at least once.
With SOAK_S=150 all that can go wrong is met in three minutes.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from actor_risk.home import Home
from actor_risk.local import free_port, wait_until
from actor_risk.local.processes import command_line, log_tail
from actor_risk.serving_process import is_ready
from bench.load import post
from models import ModelStore
from tests.e2e.test_demo import READY_S, Commands, all_pids
from tests.support.servers import Fronted, fronted_kafka, fronted_valkey

SOAK_S = float(os.environ.get("SOAK_S", "600"))
ROUNDS = max(1, round(SOAK_S / 300))
"""How often each fault comes."""

RATE = 500
CALLERS = 16
TIMEOUT_S = 10.0
COMMAND_S, REPLACED_S = 300.0, 300.0
SERVICE, KEYS = "ad_click_risk", ("ip", "device_id", "creator_id", "advertiser_id")
OTHER_SERVICE = "advertiser_risk"
POLICYS_OWN = "/docs#problem-online-store-unavailable"
"""The 503 that is allowed: features cannot be read. All others are somebody's failure."""

FAILURE_CHARS = 4_000
DECISION_ID, UUID_LENGTH = b'"decision_id":"', 36

DESCRIPTION = "What an IP address does with ads."

DEPLOY = """
import sys
import time

import ray
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema
from ray.serve.context import _get_global_client

address, path = sys.argv[1:]
ray.init(address, namespace="serve", log_to_driver=False)
with open(path) as file:
    config = ServeDeploySchema.model_validate(yaml.safe_load(file))
_get_global_client().deploy_apps(config)
while True:
    (application,) = serve.status().applications.values()
    if application.status == "DEPLOY_FAILED":
        sys.exit(application.message)
    if application.status == "RUNNING":
        break
    time.sleep(0.2)
"""
"""What `serve deploy` asks of Ray's dashboard, asked of Ray Serve itself: `actor-risk serve` runs no dashboard."""


@dataclass
class Load:
    """What callers were answered: bodies by decision id, statuses, and requests that broke off."""

    answers: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    odd: list[tuple[int, bytes]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, port: int, bodies: Iterator[bytes]) -> None:
        """One caller: it asks at its rate until it is stopped, by a connection that it keeps while it lasts."""
        connection = Connection(port)
        due = time.monotonic()
        while not self.stopped.is_set():
            due += CALLERS / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self.note(*connection.ask(next(bodies)))
            except OSError as error:
                connection.close()
                with self.lock:
                    self.broken.append(repr(error))
        connection.close()

    def note(self, status: int, body: bytes) -> None:
        with self.lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == HTTPStatus.OK:
                self.answers[body.partition(DECISION_ID)[2][:UUID_LENGTH].decode()] = body
            elif not is_allowed(status, body):
                self.odd.append((status, body))


class Connection:
    """Asks for scores over a connection that it keeps while it lasts. As little work as it can be: the servers, and all
    that dies below them, share this machine with it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. A connection that was kept, and that the server has closed meanwhile, is
        opened anew. Raises OSError when an answer breaks off."""
        was_kept = self._socket is not None
        try:
            return self._asked(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close()
            if not was_kept:
                raise
        return self._asked(body)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _asked(self, body: bytes) -> tuple[int, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S)
        self._socket.sendall(post("/v1/score", body))
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("closed before an answer began")
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, found = data.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", -1))
        while len(found) < length:
            found += self._more()
        if len(found) != length:
            raise OSError(f"an answer of {length} bytes has {len(found)}: {data!r}")
        if fields.get(b"connection") == b"close":
            self.close()
        return int(head[9:12]), found

    def _more(self) -> bytes:
        assert self._socket is not None
        try:
            part = self._socket.recv(1 << 16)
        except ConnectionResetError:
            part = b""
        if not part:
            raise OSError("the answer broke off")  # which is not asked for again
        return part


def is_allowed(status: int, body: bytes) -> bool:
    """Whether it is no failure: 429 while fewer replicas have too much to do, and the policy's own 503."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    return status == HTTPStatus.SERVICE_UNAVAILABLE and POLICYS_OWN in body.decode()


@dataclass(frozen=True)
class Served:
    """A served application, and the servers below it."""

    home: Home
    port: int
    run: Commands
    valkey: Fronted
    kafka: Fronted

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def processes(self, kind: str) -> set[int]:
        """Those of this application's Ray."""
        return {pid for pid in all_pids() if kind in command_line(pid) and is_of(pid, self.home)}

    def deploy(self, config: Path) -> None:
        """The application as `config` says it, from now on."""
        raylet = min(self.processes("--gcs-address="))
        (address,) = {word.partition("=")[2] for word in command_line(raylet).split() if "--gcs-address=" in word}
        command = [sys.executable, "-c", DEPLOY, address, str(config)]
        done = subprocess.run(
            command, env=environment_of(raylet), capture_output=True, text=True, timeout=REPLACED_S, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    with (
        fronted_valkey(tmp_path / "valkey") as valkey,
        fronted_kafka(tmp_path / "kafka", request.config.rootpath) as kafka,
    ):
        servers = {"REDIS_URL": f"redis://{valkey.address}/0", "KAFKA_BOOTSTRAP_SERVERS": kafka.address}
        repo = tmp_path / "feature_repo"
        shutil.copytree(request.config.rootpath / "feature_repo", repo)
        run = Commands(tmp_path / "home", request.config.rootpath, servers | {"ACTOR_RISK_FEATURE_REPO": str(repo)})
        for arguments in (("demo", "--once", "--port", "0"), ("train", "--model", SERVICE, "--trees", "60")):
            done = run(*arguments, timeout=2 * READY_S)
            assert done.returncode == 0, done.stderr[-3000:]
        port = free_port()
        serve = run.start("serve", "--port", str(port))
        try:
            served = Served(run.home, port, run, valkey, kafka)
            wait_until(lambda: is_ready(served.url) or serve.poll() is not None, READY_S, "the application is ready")
            assert serve.poll() is None, log_tail(run.output)
            yield served
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
    began = time.monotonic()
    try:
        faults = faults_of(served) * ROUNDS
        for number, fault in enumerate(faults):
            time.sleep(max(0.0, began + (number + 0.5) * SOAK_S / len(faults) - time.monotonic()))
            fault()
            wait_until(lambda: is_ready(served.url), READY_S, "the application is ready again")
        time.sleep(max(0.0, began + SOAK_S - time.monotonic()))
    finally:
        load.stopped.set()
        for caller in callers:
            caller.join(2 * TIMEOUT_S)
    seconds = time.monotonic() - began
    assert not load.odd, (len(load.odd), load.odd[:3], told_of_failures(served))
    assert not load.broken, (len(load.broken), load.broken[:3])
    check_log(served, load)
    check_scores(served, load)
    assert load.statuses[HTTPStatus.OK] > 0.7 * RATE * seconds, load.statuses


def told_of_failures(served: Served) -> str:
    """What the replicas' logs say of requests that failed for a reason that nobody foresaw, with where."""
    scratch = Path((served.home.root / "serving.scratch").read_text())
    texts = [path.read_text(errors="replace") for path in scratch.rglob("replica_*.log") if not path.is_symlink()]
    found = [text[at.start() :][:FAILURE_CHARS] for text in texts for at in re.finditer("a request failed for", text)]
    return "\n\n".join(found[:3])


def faults_of(served: Served) -> list[Callable[[], None]]:
    """What breaks or changes in one round, in turn. Each returns when it is over."""
    versions = itertools.cycle(ModelStore(served.home.models).versions(SERVICE))
    descriptions = itertools.cycle((f"{DESCRIPTION} As said anew.", DESCRIPTION))
    halves, reviews = itertools.cycle((0.4, 0.5)), itertools.cycle((0.11, 0.12))

    def restart(server: Fronted) -> None:
        server.kill()
        time.sleep(2.0)
        server.start()

    def kill_a_replica() -> None:
        os.kill(min(served.processes("ServeReplica")), signal.SIGKILL)

    def swap_the_model() -> None:
        run("rollout", "set", SERVICE, "--champion", next(versions))

    def apply_definitions() -> None:
        file = served.home.feature_repo / "ad_views.py"
        text = file.read_text()
        (old,) = (said for said in (f"{DESCRIPTION} As said anew.", DESCRIPTION) if f'"{said}"' in text)
        file.write_text(text.replace(f'"{old}"', f'"{next(descriptions)}"'))
        run("apply", "--no-sample")

    def run(*arguments: str) -> None:
        done = served.run(*arguments, timeout=COMMAND_S)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def deploy_other_replicas() -> None:
        """Ray starts all replicas anew when their resources change."""
        before = served.processes("ServeReplica")
        served.deploy(changed(served.home, {"ray_actor_options": {"num_cpus": next(halves)}}))
        wait_until(lambda: not before & served.processes("ServeReplica"), REPLACED_S, "all replicas are new ones")

    def deploy_another_user_config() -> None:
        """A config of the models alone is taken over by the replicas that run."""
        before, review = served.processes("ServeReplica"), next(reviews)
        policy = {"champion": "champion", "thresholds": {"review": review, "block": 0.9}}
        served.deploy(changed(served.home, {"user_config": {"models": {SERVICE: "champion", OTHER_SERVICE: policy}}}))
        wait_until(lambda: review_of(served, OTHER_SERVICE) == review, REPLACED_S, "the new user_config is in force")
        assert before & served.processes("ServeReplica"), "no replica was kept"

    return [
        lambda: restart(served.valkey),
        swap_the_model,
        lambda: restart(served.kafka),
        swap_the_model,
        kill_a_replica,
        swap_the_model,
        apply_definitions,
        swap_the_model,
        deploy_other_replicas,
        swap_the_model,
        deploy_another_user_config,
    ]


def changed(home: Home, options: dict[str, Any]) -> Path:
    """The configuration that is served, after other options of its deployment have been written to it."""
    path = home.root / "ray_config.yaml"
    config = yaml.safe_load(path.read_text())
    (deployment,) = config["applications"][0]["deployments"]
    deployment |= options
    path.write_text(yaml.safe_dump(config))
    return path


def review_of(served: Served, model: str) -> float:
    """From which score on a model says that an actor is to be reviewed."""
    with urlopen(f"{served.url}/v1/models", timeout=TIMEOUT_S) as answer:
        cards = json.load(answer)["models"]
    (review,) = (card["thresholds"]["review"] for card in cards if card["name"] == model)
    return float(review)


def environment_of(pid: int) -> dict[str, str]:
    """The variables that a process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


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
    assert len(by_version) > 1, "no swap took effect"
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
