"""The whole job, as a person runs it: a demo that is killed, another in its folder, and what that made, served."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from actor_risk.home import Home
from actor_risk.local import free_port, wait_until
from actor_risk.local.processes import command_line, log_tail
from actor_risk.serving_process import is_ready
from materialize.events import TOPICS

READY_S = 300.0
ACTOR_RISK = (sys.executable, "-m", "actor_risk.cli")
ACTORS = 25
NO_SERVERS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Demo:
    """A demo that ended, what it showed, and what it left running; and the scoring application on what it made."""

    ended: subprocess.CompletedProcess[str]
    left_running: list[int]
    home: Home
    url: str

    def ask(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and decoded body of a POST."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(self.url + path, data, {"content-type": "application/json"})
        try:
            with urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Demo]:
    """A demo that was killed in the middle, one in the same folder that ended, and what that made, served."""
    root = tmp_path_factory.mktemp("home")
    run = Commands(root, request.config.rootpath)
    marks = [str(root), kill_in_the_middle(run)]
    ended = run("demo", "--once", "--port", "0", timeout=READY_S)
    left_running = [pid for pid in all_pids() if any(mark in command_line(pid) for mark in marks)]
    if ended.returncode:
        pytest.fail(f"the demo ended with exit code {ended.returncode}:\n{ended.stderr[-3000:]}")
    assert run("up", timeout=60).returncode == 0
    port = free_port()
    serve = run.start("serve", "--port", str(port))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url) or serve.poll() is not None, READY_S, "the scoring application is ready")
        assert serve.poll() is None, log_tail(run.output)
        yield Demo(ended, left_running, run.home, url)
    finally:
        if serve.poll() is None:
            serve.send_signal(signal.SIGINT)
            serve.wait(60)
        run("down", timeout=60)


class Commands:
    """`actor-risk` in a home of its own, as on a fresh machine."""

    def __init__(self, root: Path, project_root: Path, servers: Mapping[str, str] = NO_SERVERS) -> None:
        """`servers`: addresses by the variables that name them; without, it starts its own."""
        kept = {n: v for n, v in os.environ.items() if n not in ("REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")}
        self._environ = {**kept, **servers, "ACTOR_RISK_HOME": str(root), "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
        self._project_root = project_root
        self.home = Home.from_environment(self._environ)
        self.output = root / "command.out"

    def __call__(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        return subprocess.run(
            [*ACTOR_RISK, *arguments],
            env=self._environ,
            cwd=self._project_root,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """One that goes on; what it says is in `output`."""
        with self.output.open("wb") as out:
            return subprocess.Popen(
                [*ACTOR_RISK, *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=self._project_root,
            )


def kill_in_the_middle(run: Commands) -> str:
    """Kill a demo while all that it starts is running; what it started then ends by itself, but for an HAProxy.

    Returns the folder that its Ray Serve used.
    """
    process, record, scratch = run.start("demo", "--port", "0"), run.home.root / "serving.scratch", ""

    def in_the_middle() -> bool:
        nonlocal scratch
        scratch = record.read_text() if record.exists() else ""
        serves = bool(scratch) and any(scratch in command_line(pid) for pid in all_pids())
        return serves or process.poll() is not None

    try:
        wait_until(in_the_middle, READY_S, "the demo has begun to serve")
        assert process.poll() is None, log_tail(run.output)
        assert run.home.valkey().running() is not None
    finally:
        process.kill()
        process.wait(30)
    wait_until(lambda: run.home.valkey().running() is None, 60, "the killed demo's Valkey is gone")
    return scratch


def labelled(home: Home, name: str) -> pd.DataFrame:
    """Actors that the labels name, and one that nobody has heard of."""
    labels = pq.read_table(home.data / "labels" / f"{name}.parquet").to_pandas()
    rows = labels.sample(ACTORS, random_state=3)
    unknown = rows.iloc[:1].assign(
        **{column: "nobody" for column in ("advertiser_id", "creator_id", "ip", "device_id") if column in rows}
    )
    return pd.concat([rows, unknown], ignore_index=True)


def write_live_events_as_history(home: Home) -> None:
    """What came through the log since the full hour, beside the history, so that offline values can be computed; each
    created when the log took it."""
    log = home.event_log()
    for topic, struct in TOPICS.items():
        records = log.tail(topic, 1_000_000)
        events = [(record, msgspec.json.decode(record.value, type=struct)) for record in records]
        rows = [{**msgspec.structs.asdict(event), "created": record.timestamp_ms} for record, event in events]
        schema = pq.read_schema(home.data / topic / "part-0000.parquet")
        columns = {name: [row[name] for row in rows] for name in schema.names}
        pq.write_table(pa.table(columns, schema=schema), home.data / topic / "part-live.parquet")
    log.close()


@pytest.mark.timeout(600)
def test_a_demo_in_the_folder_of_a_killed_one_shows_a_risk_that_rises_and_leaves_nothing_running(demo: Demo) -> None:
    shown = demo.ended.stderr
    answer = json.loads(demo.ended.stdout.splitlines()[-1])
    scores = re.search(r"went from ([\d.]+) to ([\d.]+)", shown)
    assert scores is not None, shown[-3000:]
    assert answer["score"] > float(scores.group(1)) + 0.2
    assert answer["reasons"]
    areas = [float(area) for area in re.findall(r"ROC AUC ([\d.]+)", shown)]
    assert len(areas) == 2
    assert all(0.85 <= area <= 0.99 for area in areas)
    assert not demo.left_running


@pytest.mark.timeout(600)
def test_http_feast_and_offline_give_equal_values_for_every_feature_of_both_services(demo: Demo) -> None:
    write_live_events_as_history(demo.home)
    store = demo.home.feature_store()
    online = store._get_provider().online_store
    for service, keys, extras in (
        ("ad_click_risk", ("ip", "device_id", "creator_id", "advertiser_id"), ("amount_usd", "ms_since_impression")),
        ("advertiser_risk", ("advertiser_id", "ip", "device_id"), ()),
    ):
        definition = store.get_feature_service(service)
        actors = labelled(demo.home, service)
        answers, feast_rows = [], []
        for actor in actors.itertuples():
            entities = {key: getattr(actor, key) for key in keys}
            given = {name: float(getattr(actor, name)) for name in extras}
            status, answer = demo.ask(
                "/v1/score", {"model": service, "entities": entities, "request": given, "explain": "full"}
            )
            assert status == 200, answer
            explained = sum(reading["attribution"] for reading in answer["features"])
            assert answer["base_value"] + explained == pytest.approx(answer["margin"], rel=1e-6, abs=1e-6)
            online.now_ms = lambda as_of_ms=answer["as_of_ms"]: as_of_ms
            feast_rows.append(store.get_online_features(definition, [{**entities, **given}]).to_df().iloc[0])
            answers.append(answer)
        names = [reading["feature"].split(":")[1] for reading in answers[0]["features"]]
        served = np.array([[r["value"] for r in answer["features"]] for answer in answers], dtype=np.float64)
        times = pd.to_datetime([answer["as_of_ms"] for answer in answers], unit="ms", utc=True)
        frame = actors.drop(columns=["label", "event_time"]).assign(event_timestamp=times)
        offline = store.get_historical_features(frame, definition).to_df()
        for where, values in (("Feast", pd.DataFrame(feast_rows)), ("offline", offline)):
            found = values[names].to_numpy(dtype=np.float64, na_value=np.nan)
            np.testing.assert_allclose(served, found, rtol=1e-9, atol=1e-9, err_msg=f"{service}: {where}")
        assert np.isnan(served[-1]).sum() > len(names) / 2, "the unknown actor has values"
        assert not answers[-1]["actor_known"]
        assert np.isfinite(served[:-1]).mean() > 0.6


@pytest.mark.timeout(600)
def test_the_audit_finds_every_decision_equal_and_a_lost_event_by_its_exit_code(
    demo: Demo, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    status, answer = demo.ask("/v1/score", {"model": "ad_click_risk", "event": live_click(demo.home)})
    assert status == 200, answer
    wait_until(lambda: answer["decision_id"] in logged_text(demo.home), 20, "the decision is in the log")
    write_live_events_as_history(demo.home)
    run, report = Commands(demo.home.root, request.config.rootpath), tmp_path / "audit.json"
    until = datetime.fromtimestamp(time.time() + 60, UTC).isoformat()
    audit = ("audit", "--from", "2020-01-01T00:00:00Z", "--to", until, "--history-until", until)
    good = run(*audit, "--json", str(report), timeout=200)
    assert good.returncode == 0, good.stdout[-3000:] + good.stderr[-2000:]
    found = json.loads(report.read_bytes())
    assert found["compared_decisions"] == found["decisions"] >= 3
    assert not found["set_apart"]
    path = demo.home.data / "ad_events" / "part-live.parquet"
    live = pq.read_table(path)
    pq.write_table(live.filter(pc.not_equal(live["ip"], answer["actor"]["ip"])), path)
    bad = run(*audit, timeout=200)
    assert bad.returncode == 1, bad.stdout[-3000:]
    assert "ip_clicks_24h" in bad.stdout


def live_click(home: Home) -> dict[str, Any]:
    """A click now, like the newest one in the log, whose rows have that one."""
    log = home.event_log()
    events = [msgspec.json.decode(record.value) for record in log.tail("ad_events", 1_000_000)]
    log.close()
    clicks = [event for event in events if event["event_type"] == "click"]
    newest = max(clicks, key=lambda event: event["event_time"])
    return {**newest, "event_id": "audited", "event_time": round(time.time() * 1000)}


def logged_text(home: Home) -> str:
    """The decision log."""
    return "".join(path.read_text() for path in sorted(home.decisions.rglob("*.jsonl")))


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        ({"model": "nope", "entities": {}}, 404, "model"),
        ({"model": "ad_click_risk", "entities": {"ip": "a"}}, 422, "entities."),
        ({"model": "ad_click_risk", "entities": {"ip": 7, "device_id": "d"}}, 422, "entities."),
        ({"model": "ad_click_risk", "entities": [], "explain": "top"}, 422, "entities"),
    ],
)
def test_bad_input_is_answered_with_a_problem_that_names_the_field(
    demo: Demo, body: Any, status: int, field: str | None
) -> None:
    answered, problem = demo.ask("/v1/score", body)
    assert answered == status, problem
    assert problem["status"] == status
    assert field is None or str(problem["field"]).startswith(field)


@pytest.mark.timeout(600)
def test_what_some_clients_do_to_the_server_is_nothing_to_the_others(demo: Demo) -> None:
    """Half-open connections, bodies that never come, and bodies far beyond any bound."""
    host, port = "127.0.0.1", int(demo.url.rpartition(":")[2])
    head = b"POST /v1/score HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n"
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(socket.create_connection((host, port)))) for _ in range(400)]
        for number, connection in enumerate(slow):
            connection.sendall((b"", head, head + b"\r\n", head + b"\r\n{")[number % 4])
        deep = b"[" * 10_000
        for path in ("/v1/score", "/v1/score:batch", "/v1/events"):
            assert demo.ask(path, deep)[0] in (400, 422)
        assert demo.ask("/v1/score", b'{"model":' + deep)[0] in (400, 422)
        assert demo.ask("/v1/score", b" " * 10_000_000)[0] == 413
        actor = labelled(demo.home, "advertiser_risk").iloc[0]
        entities = {key: actor[key] for key in ("advertiser_id", "ip", "device_id")}
        for _ in range(50):
            assert demo.ask("/v1/score", {"model": "advertiser_risk", "entities": entities})[0] == 200
        slow[3].settimeout(60)
        assert slow[3].recv(100).startswith(b"HTTP/1.1 408"), "whose body does not come is told so"
    assert demo.ask("/v1/score", {"model": "advertiser_risk", "entities": entities})[0] == 200


def test_whoever_is_told_to_come_back_is_counted_whether_a_replica_says_so_or_haproxy(demo: Demo) -> None:
    """Scores of many callers at once, far beyond what is taken."""
    actor = labelled(demo.home, "advertiser_risk").iloc[0]
    asked = {"model": "advertiser_risk", "entities": {key: actor[key] for key in ("advertiser_id", "ip", "device_id")}}
    body = json.dumps(asked).encode()
    head = b"POST /v1/score HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
    request = head + b"content-length: %d\r\n\r\n" % len(body) + body

    async def status(port: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer[:12].decode()

    async def at_once(count: int) -> Counter[str]:
        port = int(demo.url.rpartition(":")[2])
        return Counter(await asyncio.gather(*(status(port) for _ in range(count))))

    assert demo.ask("/v1/score", asked)[0] == 200  # now HAProxy knows how many are taken
    before = refused_scores(demo.url)
    answers = asyncio.run(asyncio.wait_for(at_once(900), 60))
    assert answers.keys() == {"HTTP/1.1 200", "HTTP/1.1 429"}
    assert demo.ask("/v1/score", asked)[0] == 200  # and the last refusals are told with it
    assert refused_scores(demo.url) - before == answers["HTTP/1.1 429"]


def refused_scores(url: str) -> float:
    """How many scores were refused, by the metrics of all replicas that several scrapes come to."""
    found: dict[str, str] = {}
    for _ in range(30):  # each comes to any of them
        with urlopen(f"{url}/metrics", timeout=20) as page:
            found |= re.findall(
                r'^actor_risk_refused_total\{replica="(.+)"\} (\S+)$', page.read().decode(), re.MULTILINE
            )
    return sum(map(float, found.values()))


def all_pids() -> list[int]:
    """The processes of this machine."""
    shown = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=True)
    return [int(line) for line in shown.stdout.split()]
