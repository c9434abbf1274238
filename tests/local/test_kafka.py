"""The local Kafka broker: fetched once, started and stopped from the command line, clear about what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from actor_risk.local import KAFKA_VERSION, FetchError, Kafka, LocalRuntimeError, MissingToolError, default_cache
from actor_risk.local.kafka import main
from actor_risk.local.processes import is_alive
from materialize.stream.kafka_log import KafkaLog
from materialize.stream.log import KafkaLogSettings

Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes shell programs; nothing but them and the shell is on PATH, and JAVA_HOME is unset."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def make(name: str, body: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
        (folder / name).chmod(0o755)

    return make


JAVA_17 = "echo 'openjdk version \"17.0.1\"' >&2"
MAVEN = """
for word in "$@"; do case $word in -DoutputDirectory=*) out=${word#*=};; esac; done
mkdir "$out" && echo jar > "$out/kafka.jar" && echo ran >> "%s"
"""


def test_without_java_it_says_what_to_install(tmp_path: Path, program: Program) -> None:
    program("mvn", "exit 0")
    with pytest.raises(MissingToolError, match="install a Java runtime, version 17"):
        Kafka(tmp_path / "broker", tmp_path / "cache").start()


def test_a_java_that_is_too_old_is_refused(tmp_path: Path, program: Program) -> None:
    program("java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(MissingToolError, match="too old"):
        Kafka(tmp_path / "broker", tmp_path / "cache").fetch()


def test_without_maven_it_says_what_to_install(tmp_path: Path, program: Program) -> None:
    program("java", JAVA_17)
    with pytest.raises(MissingToolError, match="Maven"):
        Kafka(tmp_path / "broker", tmp_path / "cache").fetch()


def test_a_failed_fetch_shows_what_maven_said_and_leaves_no_half_of_it(tmp_path: Path, program: Program) -> None:
    program("java", JAVA_17)
    program("mvn", "echo 'the repository is out of reach'; exit 1")
    with pytest.raises(FetchError, match="the repository is out of reach"):
        Kafka(tmp_path / "broker", tmp_path / "cache").fetch()
    assert not list((tmp_path / "cache").rglob("*.jar"))


def test_what_was_fetched_is_not_fetched_again(tmp_path: Path, program: Program) -> None:
    program("java", JAVA_17)
    program("mvn", MAVEN % (tmp_path / "runs"))
    broker = Kafka(tmp_path / "broker", tmp_path / "cache")
    assert broker.fetch() == broker.fetch() == tmp_path / "cache" / "lib" / KAFKA_VERSION
    assert (broker.fetch() / "kafka.jar").exists()
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_the_cache_is_in_the_project_unless_the_environment_names_another(tmp_path: Path) -> None:
    assert default_cache(tmp_path, {}) == tmp_path / ".local" / "kafka"
    assert default_cache(tmp_path, {"ACTOR_RISK_CACHE": "/elsewhere"}) == Path("/elsewhere")


def test_the_command_line_says_when_nothing_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["status", "--directory", str(tmp_path / "broker")])
    assert done.exit_code == 1
    assert "start it with `up`" in done.output


@pytest.fixture
def directory(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A broker's directory; skips where Kafka cannot be fetched, and stops the broker at the end."""
    cache = default_cache(project_root, os.environ)
    monkeypatch.setenv("ACTOR_RISK_CACHE", str(cache))
    broker = Kafka(tmp_path / "broker", cache)
    try:
        broker.fetch()
    except LocalRuntimeError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Kafka under CI: {error}")
        pytest.skip(f"no Kafka: {error}")
    yield broker.directory
    broker.stop()


@pytest.mark.kafka
def test_the_broker_of_the_command_line_outlives_it_and_keeps_its_records(directory: Path) -> None:
    def run(command: str) -> str:
        done = CliRunner().invoke(main, [command, "--directory", str(directory)])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    address = run("up").removeprefix("KAFKA_BOOTSTRAP_SERVERS=")
    assert run("up") == f"KAFKA_BOOTSTRAP_SERVERS={address}"
    assert address in run("status")
    log = KafkaLog(KafkaLogSettings(bootstrap_servers=address))
    log.ensure_topics(["events"])
    with closing(log.producer()) as producer:
        producer.send("events", b"k", b"kept")
    found = Kafka(directory, directory).running()
    assert found is not None
    run("down")
    assert not is_alive(found.pid)

    address = run("up").removeprefix("KAFKA_BOOTSTRAP_SERVERS=")
    log = KafkaLog(KafkaLogSettings(bootstrap_servers=address))
    assert [r.value for r in log.tail("events", 10)] == [b"kept"]
    run("down")
