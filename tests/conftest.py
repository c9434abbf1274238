"""What tests run against: a Redis and a Kafka broker, given from outside or started for this run alone.

`REDIS_URL` and `KAFKA_BOOTSTRAP_SERVERS` name running servers. Otherwise a Valkey and, when a test asks for it, a
broker are started on free ports in temporary folders, so two runs side by side share nothing but the fetched files.
Without Kafka its tests skip and say why; under `CI=true` they fail. `make test` runs the files in three processes, each
of which starts servers of its own.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from actor_risk.local import KAFKA_VERSION, Kafka, LocalRuntimeError, Valkey, default_cache

if TYPE_CHECKING:
    from tests.support.world import World

LONGEST = (
    "test_demo.py",
    "test_event_log.py",
    "test_feast_contract.py",
    "test_stream_command.py",
    "test_seeded_mistakes.py",
    "test_chunks.py",
    "test_pools.py",
    "test_apply_command.py",
    "test_compiling.py",
)
"""In this order, so that Ray is not started by two at once, and beside the demo, which takes all cores, one waits."""
LAST = "test_on_ray.py"
"""It leaves threads of Ray behind, and other tests fork."""

_ran_against = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ran_against] = {"Python": f"{platform.python_version()} on {platform.system()}"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no process is left alone with one at the end."""
    places = {name: place for place, name in enumerate(LONGEST)} | {LAST: len(LONGEST) + 1}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that ran a part of the tests tells the one that counts them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ran_against"] = session.config.stash[_ran_against]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What such a process ran against."""
    if not error:
        node.config.stash[_ran_against].update(getattr(node, "workeroutput", {}).get("ran_against", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section("ran against")
    for name, told in sorted(config.stash[_ran_against].items()):
        terminalreporter.write_line(f"{name}: {told}")


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis or Valkey; keep to the keys of `redis_namespace`, it may not be ours alone."""
    given = os.environ.get("REDIS_URL")
    if given:
        _note(request, "Redis", f"{_redis_version(given)}, from REDIS_URL")
        yield given
        return
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        _note(request, "Redis", f"{_redis_version(server.url)}, embedded, on loopback")
        yield server.url


@pytest.fixture
def redis_namespace(redis_url: str) -> Iterator[str]:
    """A key prefix that nobody else uses; every key that begins with it is deleted afterwards."""
    namespace = f"test_{uuid.uuid4().hex}"
    yield namespace
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(match=f"{namespace}*", count=1_000):
            client.unlink(key)


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Apache Kafka broker; use topics and groups of unique names."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        _note(request, "Kafka", "from KAFKA_BOOTSTRAP_SERVERS")
        yield given
        return
    broker = Kafka(tmp_path_factory.mktemp("kafka"), default_cache(request.config.rootpath, os.environ))
    try:
        broker.start()
    except LocalRuntimeError as error:
        _note(request, "Kafka", f"none: {error}")
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Kafka broker under CI: {error}")
        pytest.skip(f"no Kafka broker: {error}")
    try:
        _note(request, "Kafka", f"{KAFKA_VERSION} (KRaft), started for this run, on loopback")
        yield broker.bootstrap_servers
    finally:
        broker.stop()


@pytest.fixture
def project_root(request: pytest.FixtureRequest) -> Path:
    """The folder of the project."""
    return request.config.rootpath


def _note(request: pytest.FixtureRequest, name: str, told: str) -> None:
    request.config.stash[_ran_against][name] = told


def _redis_version(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        told = client.info("server")
    valkey = told.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {told['redis_version']}"


@pytest.fixture(scope="session")
def world(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The real feature repository over simulated events; nothing is in the online store yet."""
    from tests.support.world import build_world, delete_keys  # Feast takes seconds to import: only for who needs it

    root = Path(__file__).resolve().parent.parent
    built = build_world(tmp_path_factory.mktemp("world"), root / "feature_repo", redis_url)
    yield built
    delete_keys(redis_url, built.project)
