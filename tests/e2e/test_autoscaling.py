"""One replica becomes two under load and one again after it, and nobody's request fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from actor_risk.home import Home
from actor_risk.local import free_port, wait_until
from actor_risk.serving_process import ServingProcess, write_config
from bench.score_servers import replica_pids
from materialize.online import NUMERIC_KINDS, read_plan
from models import CHAMPION, ModelStore
from tests.serving.fakes import SERVICE, publish_model
from tests.support.world import World

READY_S, SCALED_S = 300.0, 180.0
BUSY, CALM = 24, 1
DOWNSCALE_DELAY_S = 5
ASKED = 8

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@dataclass
class Callers:
    """Callers who ask one request after the other, over connections that they keep while the server does."""

    port: int
    statuses: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @contextmanager
    def at_work(self, count: int) -> Iterator[None]:
        ended = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(n, ended)) for n in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _ask(self, caller: int, ended: threading.Event) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        keys = {"ip": f"10.0.0.{caller}", "device_id": "d", "creator_id": "c", "advertiser_id": "a"}
        body = json.dumps({"model": SERVICE, "entities": keys})
        while not ended.is_set():
            try:
                connection.request("POST", "/v1/score", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
            except (OSError, HTTPException) as error:
                self.broken.append(repr(error))
                connection.close()


@contextmanager
def served(root: Path, world: World) -> Iterator[int]:
    """The port of the application as the config file says it runs, but sooner fewer."""
    (root / "decisions").mkdir(parents=True)
    home = Home(root, world.repo_path, root / "data", root / "decisions", root / "models", world.redis_url, None)
    shutil.copy(world.registry_path, home.registry)
    plan = read_plan(world.store, SERVICE)
    numeric = [ref for ref, kind in zip(plan.features, plan.kinds, strict=True) if kind in NUMERIC_KINDS]
    publish_model(ModelStore(root / "models"), refs=numeric, fingerprint=plan.fingerprint)
    config = yaml.safe_load(Path("ray_config.yaml").read_text())
    (deployment,) = config["applications"][0]["deployments"]
    deployment["autoscaling_config"]["downscale_delay_s"] = DOWNSCALE_DELAY_S
    template = root / "template.yaml"
    template.write_text(yaml.safe_dump(config))
    port = free_port()
    process = ServingProcess(home, write_config(home, template, port, {SERVICE: CHAMPION}), port)
    try:
        process.wait_until_ready(READY_S)
        yield port
    finally:
        process.stop()


def answering(port: int) -> int:
    """How many replicas answer, as far as a few scrapes tell."""
    found = set()
    for _ in range(ASKED):
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
            found.update(re.findall(r'replica="([^"]+)"', page.read().decode()))
    return len(found)


def interrupts_nobody(pid: int) -> bool:
    """Whether a replica answers under SCHED_BATCH: the thread that does is one of many, of which most are Ray's."""
    threads = (int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir())
    return any(os.sched_getscheduler(thread) == os.SCHED_BATCH for thread in threads)


def test_load_makes_a_second_replica_and_calm_ends_it_without_a_failed_request(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path, world) as port:
        callers, began = Callers(port), time.monotonic()
        with callers.at_work(BUSY):
            wait_until(lambda: answering(port) == 2, SCALED_S, "a second replica answers")
            up_s = time.monotonic() - began
            assert all(map(interrupts_nobody, replica_pids()))
            time.sleep(5)
        busy = Counter(callers.statuses)
        began = time.monotonic()
        with callers.at_work(CALM):
            wait_until(lambda: len(replica_pids()) == 1, SCALED_S, "one replica runs again")
            down_s = time.monotonic() - began
            time.sleep(5)
    with capsys.disabled():
        print(f"\n2 replicas after {up_s:.0f} s, 1 after {down_s:.0f} s; {callers.statuses}, under load {busy}")  # noqa: T201
    assert callers.broken == []
    assert set(callers.statuses) <= {200, 429}
    assert callers.statuses[429] < callers.statuses[200] / 100
