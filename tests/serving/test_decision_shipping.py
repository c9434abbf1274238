"""Decisions on their way from the process that answers to the event log: none that was answered is lost."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import pytest
import redis

from actor_risk.local import wait_until
from materialize.stream import EventLog, EventLogSettings, KafkaLogSettings, RedisLogSettings, open_event_log
from serving import shipping
from serving.decision_files import DecisionFiles, FileLimits
from serving.logged import LoggedDecision
from serving.shipping import LAYOUTS_TOPIC
from serving.spool import shipped_to, spool_files
from tests.support.decisions import (
    LAYOUT,
    MIB,
    START_MS,
    LoggingProcess,
    decisions_in,
    id_of,
    id_of_number,
    ids_of,
    logged,
    ships_to,
)
from tests.support.servers import fronted_valkey

DEADLINE_S = 60.0
NOWHERE = RedisLogSettings(url="redis://127.0.0.1:1/0")
Open = Callable[..., DecisionFiles]


@pytest.fixture
def settings(redis_url: str, redis_namespace: str) -> EventLogSettings:
    return RedisLogSettings(url=redis_url, prefix=redis_namespace)


@pytest.fixture
def log(settings: EventLogSettings) -> Iterator[EventLog]:
    with closing(open_event_log(settings)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def opened(folder: Path, log: EventLog) -> Iterator[Open]:
    """Opens decision logs in `folder`, shipped to `log` unless told; they are closed afterwards."""
    with ExitStack() as stack:

        def open_files(writer: str, to: EventLog = log, **limits: int) -> DecisionFiles:
            bounds = FileLimits(**{"folder_bytes_max": 100 * MIB, **limits})
            files = DecisionFiles(folder, writer, bounds, lambda: START_MS, shipper=ships_to(to))
            stack.callback(files.close)
            return files

        yield open_files


@pytest.fixture
def nowhere() -> Iterator[EventLog]:
    """An event log that is away."""
    with closing(open_event_log(NOWHERE)) as opened:
        yield opened


def wait_until_shipped(files: DecisionFiles, count: int) -> None:
    wait_until(lambda: files.counts().shipped >= count, DEADLINE_S, f"{count} decisions are shipped")


def answered_in(folder: Path) -> list[str]:
    """The ids of all whole lines, in the order of the files."""
    lines = [line for file in spool_files(folder) for line in file.path.read_bytes().splitlines(keepends=True)]
    found = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [line["decision"]["decision_id"] for line in found if line["kind"] == "decision"]


def first_seen(log: EventLog) -> dict[int, list[str]]:
    """Per partition the ids in the order in which they came first."""
    found: dict[int, dict[str, None]] = defaultdict(dict)
    for record in decisions_in(log):
        found[record.partition].setdefault(id_of(record))
    return {partition: list(ids) for partition, ids in found.items()}


def test_a_killed_process_loses_no_decision_that_it_had_answered(folder: Path) -> None:
    answered = LoggingProcess(folder, "w").kill(after=4_000)
    found = answered_in(folder)
    assert found[: len(answered)] == answered
    assert len(spool_files(folder)) > 1


def test_each_decision_is_a_record_that_holds_the_answer_as_it_was(log: EventLog, opened: Open, folder: Path) -> None:
    files = opened("w")
    entries = [logged(number) for number in range(100)]
    for entry in entries:
        files.append([entry], LAYOUT)
    wait_until_shipped(files, 100)
    values = {id_of(record): record.value for record in decisions_in(log)}
    assert len(decisions_in(log)) == 100
    for entry in entries:
        value = values[entry.decision.decision_id]
        assert value == msgspec.json.encode(entry)
        assert msgspec.json.encode(entry.decision) in value
    (layout,) = log.tail(LAYOUTS_TOPIC, 10)
    assert msgspec.json.decode(layout.value, type=type(LAYOUT)) == LAYOUT
    files.close()
    assert [file.is_shipped for file in spool_files(folder)] == [True]
    assert not list(folder.glob("*.lock"))


@pytest.mark.kafka
def test_kafka_takes_them_as_well(kafka_bootstrap: str, opened: Open) -> None:
    with closing(open_event_log(KafkaLogSettings(bootstrap_servers=kafka_bootstrap))) as kafka:
        files = opened("w", kafka)
        entries = [logged(number + time.time_ns()) for number in range(500)]
        files.append(entries, LAYOUT)
        wait_until_shipped(files, 500)
        found = {id_of(record) for record in decisions_in(kafka)}
        assert found.issuperset(ids_of(entries))


def test_while_the_event_log_is_away_decisions_wait_in_files_and_then_come_in_their_order(
    tmp_path: Path, opened: Open
) -> None:
    with fronted_valkey(tmp_path / "valkey") as server:  # noqa: SIM117
        with closing(open_event_log(RedisLogSettings(url=f"redis://{server.address}/0", timeout_ms=500))) as log:
            files = opened("w", log, file_bytes_max=10_000)
            entries = [logged(number) for number in range(300)]
            _append_one_by_one(files, entries[:50])
            wait_until_shipped(files, 50)
            server.kill()
            started_s = time.monotonic()
            _append_one_by_one(files, entries[50:])
            assert time.monotonic() < started_s + 2
            wait_until(lambda: files.notes() != [], DEADLINE_S, "the outage is told")
            wait_until(lambda: files.counts().unshipped_bytes > 100_000, DEADLINE_S, "what waits is told")
            assert files.counts().logged == 300
            server.start()
            wait_until_shipped(files, 300)
            assert files.notes() == []
            seen = first_seen(log)
    assert sorted(one for ids in seen.values() for one in ids) == ids_of(entries)
    for ids in seen.values():
        assert ids == sorted(ids)  # the ids are in the order in which they were logged


def _append_one_by_one(files: DecisionFiles, entries: list[LoggedDecision]) -> None:
    for entry in entries:
        files.append([entry], LAYOUT)


def test_what_a_dead_process_has_left_is_shipped_by_a_living_one_in_order(
    log: EventLog, opened: Open, folder: Path
) -> None:
    answered = LoggingProcess(folder, "dead").kill(after=2_000)
    files = opened("alive")
    wait_until_shipped(files, len(answered))
    wait_until(lambda: all(file.is_shipped for file in spool_files(folder)), DEADLINE_S, "all of it is shipped")
    seen = first_seen(log)
    assert set(answered) <= {one for ids in seen.values() for one in ids} == set(answered_in(folder))
    order = {one: place for place, one in enumerate(answered_in(folder))}
    for ids in seen.values():
        assert [order[one] for one in ids] == sorted(order[one] for one in ids)
    wait_until(lambda: not (folder / "dead.lock").exists(), DEADLINE_S, "the dead one is forgotten")


def test_processes_killed_while_they_ship_lose_nothing_between_them(
    log: EventLog, settings: RedisLogSettings, opened: Open, folder: Path
) -> None:
    answered: list[str] = []
    for number in range(3):
        process = LoggingProcess(folder, f"dead-{number}", settings, first=number * 1_000_000)
        answered += process.kill(after=3_000)
    opened("alive")
    wait_until(lambda: all(file.is_shipped for file in spool_files(folder)), DEADLINE_S, "all of it is shipped")
    records = [id_of(record) for record in decisions_in(log)]
    assert set(answered) <= set(records)
    assert len(records) < 2 * len(set(records))  # not all of it twice


def test_only_one_of_the_living_takes_over_and_none_takes_from_the_living(
    log: EventLog, nowhere: EventLog, opened: Open, folder: Path
) -> None:
    LoggingProcess(folder, "dead").kill(after=500)
    cut_off = opened("cut-off", nowhere)
    cut_off.append([logged(1_000_001)], LAYOUT)
    wait_until(lambda: cut_off.notes() != [], DEADLINE_S, "one is cut off from the event log")
    cut_off.close()  # it had taken over the dead one's files, and leaves them
    living = [opened(f"alive-{number}") for number in range(3)]
    alive_and_cut_off = opened("cut-off-2", nowhere)
    alive_and_cut_off.append([logged(1_000_002)], LAYOUT)
    expected = [one for one in answered_in(folder) if one != id_of_number(1_000_002)]
    wait_until(
        lambda: sum(files.counts().shipped for files in living) >= len(expected), DEADLINE_S, "all of it is shipped"
    )
    time.sleep(shipping.ADOPT_EVERY_S + 1)
    assert sorted(id_of(record) for record in decisions_in(log)) == sorted(expected)


def test_shipping_goes_on_where_it_ended(log: EventLog, opened: Open, nowhere: EventLog) -> None:
    first = opened("first")
    first.append([logged(1)], LAYOUT)
    wait_until_shipped(first, 1)
    first.close()
    second = opened("second", nowhere)
    second.append([logged(2)], LAYOUT)
    second.close()
    third = opened("third")
    wait_until_shipped(third, 1)
    assert sorted(id_of(record) for record in decisions_in(log)) == ids_of([logged(1), logged(2)])


def test_soon_after_all_is_shipped_it_says_so_beside_the_file(opened: Open, folder: Path) -> None:
    files = opened("w")
    for number in range(2):  # the second is shipped within a second of the first
        files.append([logged(number)], LAYOUT)
        wait_until_shipped(files, number + 1)
    (file,) = spool_files(folder)
    wait_until(lambda: shipped_to(file.path) == file.path.stat().st_size, DEADLINE_S, "all of it is noted as shipped")


def test_above_the_bound_shipped_files_go_first_and_then_others_counted(
    opened: Open, nowhere: EventLog, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(msgspec.json.encode(logged(1))) + len(msgspec.json.encode(LAYOUT)) + 2
    shipped = opened("shipped")
    shipped.append([logged(1)], LAYOUT)
    wait_until_shipped(shipped, 1)
    shipped.close()
    files = opened("w", nowhere, file_bytes_max=size, folder_bytes_max=5 * size)
    _append_one_by_one(files, [logged(number) for number in range(2, 6)])
    wait_until(lambda: files.counts().deleted_files == 1, DEADLINE_S, "the shipped file goes")
    assert files.counts().lost_unshipped == 0
    _append_one_by_one(files, [logged(number) for number in range(6, 9)])
    wait_until(lambda: files.counts().deleted_files == 4, DEADLINE_S, "the oldest go")
    assert files.counts().lost_unshipped == 3
    assert answered_in(folder) == ids_of([logged(number) for number in range(5, 9)])
    assert "is deleted with 1 unshipped decisions" in caplog.text


def test_a_decision_that_is_too_large_for_the_event_log_is_counted_and_stops_no_other(
    log: EventLog, opened: Open
) -> None:
    files = opened("w")
    large = logged(1, trace_id="x" * shipping.RECORD_BYTES_MAX)
    files.append([large, logged(2)], LAYOUT)
    wait_until_shipped(files, 1)
    assert files.counts().unshippable == 1
    assert [id_of(record) for record in decisions_in(log)] == ids_of([logged(2)])


def test_a_line_that_was_cut_off_is_passed_over(log: EventLog, opened: Open, nowhere: EventLog, folder: Path) -> None:
    dead = opened("dead", nowhere)
    dead.append([logged(1), logged(2)], LAYOUT)
    dead.close()
    (file,) = spool_files(folder)
    file.path.write_bytes(file.path.read_bytes()[:-50])
    opened("alive")
    wait_until(lambda: spool_files(folder)[0].is_shipped, DEADLINE_S, "the file is done with")
    assert [id_of(record) for record in decisions_in(log)] == ids_of([logged(1)])


def test_redis_keeps_as_many_as_it_was_told(redis_url: str, redis_namespace: str, opened: Open) -> None:
    settings = RedisLogSettings(url=redis_url, prefix=redis_namespace, partitions=1, retention_records=200)
    with closing(open_event_log(settings)) as bounded, redis.Redis.from_url(redis_url):
        files = opened("w", bounded)
        files.append([logged(number) for number in range(3_000)], LAYOUT)
        wait_until_shipped(files, 3_000)
        assert 200 <= len(decisions_in(bounded)) < 400
