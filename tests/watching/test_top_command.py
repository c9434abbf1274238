"""`actor-risk top` as a person runs it, against a server that answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from actor_risk.cli import main
from models import ModelStore
from tests.serving.doors import open_door
from tests.serving.fakes import KEYS, SERVICE, loaded_world, publish_model
from tests.support.listening import listening, posted

WIDE = {"COLUMNS": "200"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over in-memory parts."""
    root = tmp_path_factory.mktemp("models")
    publish_model(ModelStore(root))
    with listening(loaded_world(root).app) as found:
        yield found


def ask(url: str, ip: str) -> None:
    posted(f"{url}/v1/score", {"model": SERVICE, "entities": {**KEYS, "ip": ip}})


@contextmanager
def traffic(url: str) -> Iterator[None]:
    """Somebody asks all the time."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            ask(url, KEYS["ip"])
            time.sleep(0.005)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def top(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["top", "--once", *arguments], env={**WIDE, **environment})
    return result.exit_code, result.output


def row(output: str, word: str) -> str:
    return next(line for line in output.splitlines() if word in line)


def test_one_snapshot_tells_of_what_is_asked_now(url: str) -> None:
    with traffic(url):
        code, output = top("--url", url, "--every", "1")
    assert code == 0, output
    assert float(row(output, "requests/s").split()[0].replace(",", "")) > 5
    assert "since the start" not in output
    total = row(output, "total")
    assert total.count(" ms") == 3
    model = row(output, SERVICE)
    assert "live" in model
    assert "100.0%" in model, "one verdict has all answers"
    assert row(output, "online store").split() == ["online", "store", "answers"]
    assert row(output, "decision log").split()[-1] == "none"
    assert "MiB" in row(output, "under way")
    for view in ("ip_clicks", "device", "click_ratios"):
        assert view in output


def test_without_traffic_it_tells_what_was_since_the_start(url: str) -> None:
    ask(url, KEYS["ip"])
    ask(url, "198.51.100.1")
    code, output = top("--url", url, "--every", "0.1")
    assert code == 0, output
    assert "since the start" in output
    assert "ip_clicks:count_5m" in row(output, "missing most")
    assert " ms" in row(output, "total")


@pytest.mark.parametrize(("away", "told"), [(["a: it is"], "1 shard away"), (["a: it is", "b: too"], "2 shards away")])
def test_shards_that_are_away_are_told(away: list[str], told: str, tmp_path: Path) -> None:
    publish_model(ModelStore(tmp_path))
    world = loaded_world(tmp_path)
    world.features.away = away
    with listening(world.app) as url:
        code, output = top("--url", url, "--every", "0.1")
    assert code == 0, output
    assert told in row(output, "online store")


def test_a_server_that_is_not_there_is_one_line_that_says_what_to_do() -> None:
    code, output = top("--url", "http://127.0.0.1:9")
    assert code == 1
    assert "start it with `actor-risk serve`" in output


def test_metrics_behind_keys_are_read_with_the_key_of_the_environment(tmp_path: Path) -> None:
    publish_model(ModelStore(tmp_path / "models"))
    door = open_door(loaded_world(tmp_path / "models"), tmp_path / "keys.json")
    with listening(door.world.app) as url:
        refused = top("--url", url, ACTOR_RISK_API_KEY="ark_score")
        answered = top("--url", url, "--every", "0.1", ACTOR_RISK_API_KEY="ark_admin")
    assert refused[0] == 1
    assert "set ACTOR_RISK_API_KEY to a key with the scope admin" in refused[1]
    assert "ark_score" not in refused[1]
    assert answered[0] == 0
    assert SERVICE in answered[1]
