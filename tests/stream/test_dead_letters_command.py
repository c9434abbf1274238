"""`actor-risk dead-letters`: what a person sees of what the worker could not use, and how it is sent again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actor_risk.cli import main
from actor_risk.home import Home
from actor_risk.local import Valkey
from materialize.events import TOPICS
from materialize.stream import DeadLetters, EventLog
from materialize.stream.log import Record

FLUSH_MS = 10_000
BAD = (b"203.0.113.9", b"not json", "malformed")
EARLY = (b"203.0.113.8", b'{"event_id": "e"}', "invalid")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("letters")) as running:
        yield running


@pytest.fixture
def environment(server: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    return {"ACTOR_RISK_HOME": str(tmp_path), "REDIS_URL": server.url}


@pytest.fixture
def log(environment: dict[str, str]) -> Iterator[EventLog]:
    """An event log with two letters about ad events."""
    with closing(Home.from_environment(environment).event_log()) as opened:
        opened.ensure_topics(list(TOPICS))
        with closing(DeadLetters(opened)) as letters:
            for offset, (key, value, reason) in enumerate((BAD, EARLY)):
                letters.put(Record("ad_events", 1, offset, key, value, 0), reason, "[why]", at_ms=1_760_000_000_000)
            letters.flush(FLUSH_MS)
        yield opened
        topics = list(TOPICS) + [topic + end for topic in TOPICS for end in (".dead-letters", ".dead-letters.replayed")]
        opened.delete_topics(topics)


def call(environment: dict[str, str], *arguments: str) -> Result:
    done = CliRunner().invoke(main, ["dead-letters", *arguments], env={**environment, "COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.usefixtures("log")
def test_the_list_says_what_came_where_it_stood_and_why(environment: dict[str, str]) -> None:
    shown = call(environment, "list", "--values").output
    assert "ad_events: 2 letters (1 malformed, 1 invalid)" in shown
    assert "account_events: 0 letters" in shown
    for text in ("1:0", "not json", "[why]", "2025-10-09 08:53:20"):
        assert text in shown


@pytest.mark.usefixtures("log")
def test_the_list_is_filtered_and_can_be_read_by_programs(environment: dict[str, str]) -> None:
    lines = call(environment, "list", "--json", "--values", "--reason", "invalid").output.splitlines()
    (letter,) = map(json.loads, lines)
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("ad_events", 1, 1)
    assert (base64.b64decode(letter["key"]), base64.b64decode(letter["value"])) == EARLY[:2]
    assert letter["replayed"] is False
    (newest,) = map(json.loads, call(environment, "list", "--json", "--values", "--limit", "1").output.splitlines())
    assert newest == letter


def test_a_replay_sends_what_was_asked_for_and_only_once(environment: dict[str, str], log: EventLog) -> None:
    would = call(environment, "replay", "--dry-run").output
    assert "ad_events: 2 would be sent" in would
    assert log.size("ad_events") == 0
    assert (
        "ad_events: 1 sent (1 malformed), 0 sent before"
        in call(environment, "replay", "--topic", "ad_events", "--reason", "malformed").output
    )
    assert "ad_events: 1 sent (1 invalid), 1 sent before" in call(environment, "replay").output
    again = call(environment, "replay").output
    assert "ad_events: 0 sent, 2 sent before" in again
    assert "0 letters sent in all" in again
    assert sorted((r.key, r.value) for r in log.tail("ad_events", 10)) == sorted([BAD[:2], EARLY[:2]])
    assert "replayed" in call(environment, "list").output
    assert all(json.loads(line)["replayed"] for line in call(environment, "list", "--json").output.splitlines())
    assert "ad_events: 2 sent" in call(environment, "replay", "--again").output
    assert log.size("ad_events") == 4


def test_a_letter_at_the_place_of_another_one_is_not_taken_for_it(environment: dict[str, str], log: EventLog) -> None:
    call(environment, "replay")
    with closing(DeadLetters(log)) as letters:  # the topic was made again: its offsets began anew
        letters.put(Record("ad_events", 1, 0, b"k", b"another one", 0), "invalid", "why", at_ms=1_760_000_000_001)
    assert "ad_events: 1 sent (1 invalid), 2 sent before" in call(environment, "replay").output


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("arguments", [[], ["list"], ["replay"]])
def test_each_command_explains_itself(environment: dict[str, str], arguments: list[str]) -> None:
    shown = call(environment, *arguments, "--help").output
    assert "Usage" in shown
    if arguments:
        assert "--topic" in shown
        assert "--reason" in shown
