"""Decisions from the event log into Parquet: at least once, whatever dies, and nothing of them lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from actor_risk.audit import decisions as reader
from actor_risk.cli import main
from actor_risk.decision_sink import Archive, DecisionSink, SinkSettings, SinkStatus
from actor_risk.decision_sink import sink as sink_module
from actor_risk.local import Valkey, wait_until
from materialize.stream import EventLog, EventLogSettings, KafkaLogSettings, RedisLogSettings, open_event_log
from serving import shipping
from serving.logged import LoggedDecision
from tests.support.children import start_child_of_tests
from tests.support.decisions import DEADLINE_S, LAYOUT, START_MS, id_of_number, ids_of, logged

HOUR_MS = 3_600_000
FLUSH_MS = 10_000
QUICK = SinkSettings(age_s_max=0.3)


@pytest.fixture
def settings(redis_url: str, redis_namespace: str) -> RedisLogSettings:
    return RedisLogSettings(url=redis_url, prefix=redis_namespace, lease_ms=3_000)


@pytest.fixture
def log(settings: RedisLogSettings) -> Iterator[EventLog]:
    with closing(open_event_log(settings)) as opened:
        opened.ensure_topics([shipping.TOPIC, shipping.LAYOUTS_TOPIC])
        yield opened


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def publish(log: EventLog, entries: Sequence[LoggedDecision], *, with_layout: bool = True) -> None:
    with closing(log.producer()) as producer:
        if with_layout:
            producer.send(shipping.LAYOUTS_TOPIC, b"k", msgspec.json.encode(LAYOUT))
        for entry in entries:
            producer.send(shipping.TOPIC, entry.decision.decision_id.encode(), msgspec.json.encode(entry))
        producer.flush(FLUSH_MS)


def sink_all(log: EventLog, archive: Path, **changed: Any) -> SinkStatus:
    """What a sink says that has written all there was."""
    settings = SinkSettings(once=True, **changed)
    return DecisionSink(log, Archive(str(archive)), settings, lambda _: None).run(threading.Event())


def rows(archive: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ds.dataset(archive, partitioning="hive").to_table().to_pylist()
    return found


def archived_ids(archive: Path) -> list[str]:
    return [row["decision_id"] for row in rows(archive)]


def test_both_sides_speak_of_the_same_topics() -> None:
    assert (sink_module.TOPIC, sink_module.LAYOUTS_TOPIC) == (shipping.TOPIC, shipping.LAYOUTS_TOPIC)


@pytest.mark.parametrize("kind", ["redis", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_decisions_become_rows_of_their_hour_with_the_whole_record(
    kind: str, request: pytest.FixtureRequest, settings: EventLogSettings, archive: Path
) -> None:
    if kind == "kafka":
        settings = KafkaLogSettings(bootstrap_servers=request.getfixturevalue("kafka_bootstrap"))
    entries = [logged(number, START_MS + number % 3 * HOUR_MS) for number in range(300)]
    with closing(open_event_log(settings)) as log:
        log.delete_topics([shipping.TOPIC, shipping.LAYOUTS_TOPIC])
        log.ensure_topics([shipping.TOPIC, shipping.LAYOUTS_TOPIC])
        publish(log, entries)
        status = sink_all(log, archive)
    assert (status.written, status.files, status.lag, status.repeated) == (300, 3, 0, 0)
    found = {row["decision_id"]: row for row in rows(archive)}
    assert len(found) == 300
    for entry in entries:
        row, answer = found[entry.decision.decision_id], entry.decision
        assert row["record"].encode() == msgspec.json.encode(entry)
        assert row["layout"].encode() == msgspec.json.encode(LAYOUT)
        assert row["time"].timestamp() * 1_000 == row["as_of"].timestamp() * 1_000 == answer.as_of_ms
        assert (row["date"], row["hour"]) == (f"{row['time']:%Y-%m-%d}", row["time"].hour)
        assert (row["model"], row["version"], row["service"], row["fingerprint"]) == (
            "ad_click_risk", "v1", "ad_click_risk", "f1",
        )  # fmt: skip
        assert (row["score"], row["margin"], row["verdict"]) == (answer.score, answer.margin, answer.verdict)
        assert dict(row["actor"]) == answer.actor
        assert row["reasons"] == [{"code": "IP_BURST", "attribution": 1 / 3}]
        assert (row["degraded"], row["latency_ms"]) == (answer.degraded, answer.latency_ms.total)
        assert msgspec.json.decode(row["record"], type=dict)["decision"] == msgspec.to_builtins(answer)


def test_a_file_is_sorted_and_has_each_decision_once(log: EventLog, archive: Path) -> None:
    entries = [logged(number) for number in range(100)]
    publish(log, [*reversed(entries), *entries])
    status = sink_all(log, archive)
    assert (status.written, status.files, status.repeated) == (100, 1, 100)
    assert archived_ids(archive) == ids_of(entries)


def test_a_sink_goes_on_where_it_ended(log: EventLog, archive: Path) -> None:
    publish(log, [logged(number) for number in range(10)])
    sink_all(log, archive)
    publish(log, [logged(number) for number in range(10, 15)])
    assert sink_all(log, archive).written == 5
    assert sink_all(log, archive).files == 0
    assert sorted(archived_ids(archive)) == [id_of_number(number) for number in range(15)]


def test_sinks_that_are_killed_lose_nothing(log: EventLog, settings: RedisLogSettings, archive: Path) -> None:
    first = 0
    for _ in range(4):
        process = start_child_of_tests(_sink_for_ever, settings, str(archive))
        publish(log, [logged(number) for number in range(first, first + 1_000)])
        first += 1_000
        before = len(list(archive.rglob("*.parquet")))
        wait_until(lambda count=before: len(list(archive.rglob("*.parquet"))) > count, DEADLINE_S, "a file is written")  # type: ignore[misc]
        publish(log, [logged(number) for number in range(first, first + 1_000)])
        first += 1_000
        process.kill()
        process.join()
    sink_all(log, archive)
    assert set(archived_ids(archive)) == {id_of_number(number) for number in range(first)}


def test_once_waits_for_what_a_dead_sink_still_holds(log: EventLog, archive: Path) -> None:
    publish(log, [logged(number) for number in range(100)])
    dead, other = (log.consumer([sink_module.TOPIC], SinkSettings().group) for _ in range(2))

    def have_shared() -> bool:
        for consumer in (dead, other):
            consumer.poll(1, 10)
        return all(consumer.assignment() for consumer in (dead, other))

    wait_until(have_shared, DEADLINE_S, "each has a part")
    other.close()
    with closing(dead):  # only after all: it says nothing more, and its time must come to an end
        assert sink_all(log, archive).written == 100


def _sink_for_ever(settings: RedisLogSettings, where: str) -> None:
    with closing(open_event_log(settings)) as log:
        DecisionSink(log, Archive(where), QUICK, lambda _: None).run(threading.Event())


def test_sinks_of_one_group_share_the_work_and_one_that_leaves_is_done_with_its_part(
    log: EventLog, settings: RedisLogSettings, archive: Path
) -> None:
    with _running(settings, archive, SinkSettings(age_s_max=3_600)) as first:
        publish(log, [logged(number) for number in range(1_000)])
        wait_until(lambda: first.waiting == 1_000, DEADLINE_S, "one has taken all")
        with _running(settings, archive, QUICK) as second:
            wait_until(lambda: first.written == 1_000, DEADLINE_S, "it has written what the other one takes over")
            publish(log, [logged(number) for number in range(1_000, 2_000)])
            wait_until(lambda: second.written > 0, DEADLINE_S, "the other one has its part")
    assert sorted(archived_ids(archive)) == [id_of_number(number) for number in range(2_000)]


class _running:  # noqa: N801 - a context manager
    """A sink on a thread; its status while it runs. At the end it is asked to stop."""

    def __init__(self, settings: RedisLogSettings, archive: Path, how: SinkSettings) -> None:
        self._log, self._stop = open_event_log(settings), threading.Event()
        self._sink = DecisionSink(self._log, Archive(str(archive)), how, lambda _: None)
        self._thread = threading.Thread(target=self._sink.run, args=(self._stop,))

    def __enter__(self) -> SinkStatus:
        self._thread.start()
        return self._sink.status

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._log.close()


def test_an_archive_that_cannot_be_written_is_waited_for(
    log: EventLog, settings: RedisLogSettings, archive: Path
) -> None:
    archive.write_text("a file stands where the folder should be")
    publish(log, [logged(number) for number in range(10)])
    with _running(settings, archive, QUICK) as status:
        wait_until(lambda: status.trouble is not None, DEADLINE_S, "the trouble is told")
        archive.unlink()
        wait_until(lambda: status.written == 10, DEADLINE_S, "they are written")
        wait_until(lambda: status.trouble is None, DEADLINE_S, "the trouble is over")
    assert sorted(archived_ids(archive)) == [id_of_number(number) for number in range(10)]


def test_a_sink_that_is_stopped_writes_what_it_has_taken(
    log: EventLog, settings: RedisLogSettings, archive: Path
) -> None:
    publish(log, [logged(number) for number in range(10)])
    with _running(settings, archive, SinkSettings(age_s_max=3_600)) as status:
        wait_until(lambda: status.waiting == 10, DEADLINE_S, "they are taken")
    assert len(archived_ids(archive)) == 10
    assert sink_all(log, archive).written == 0


def test_many_are_written_before_they_are_old(log: EventLog, settings: RedisLogSettings, archive: Path) -> None:
    with _running(settings, archive, SinkSettings(age_s_max=3_600, bytes_max=20_000)) as status:
        publish(log, [logged(number) for number in range(1_000)])
        wait_until(lambda: status.written >= 900, DEADLINE_S, "they are written")


def test_what_is_no_decision_is_counted_and_stops_no_other(
    log: EventLog, archive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(log.producer()) as producer:
        for value in (b"", b"\xff", b"{}", msgspec.json.encode(LAYOUT), b'{"kind":"decision","decision":{}}'):
            producer.send(shipping.TOPIC, b"k", value)
    publish(log, [logged(1)])
    status = sink_all(log, archive)
    assert (status.written, status.unreadable) == (1, 5)
    assert "is no decision" in caplog.text


def test_decisions_of_unknown_features_are_kept_without_a_layout(log: EventLog, archive: Path) -> None:
    publish(log, [logged(1)], with_layout=False)
    sink_all(log, archive)
    (row,) = rows(archive)
    assert row["layout"] is None


def test_what_the_log_had_not_kept_is_told(redis_url: str, redis_namespace: str, archive: Path) -> None:
    settings = RedisLogSettings(url=redis_url, prefix=redis_namespace, partitions=1, retention_records=100)
    with closing(open_event_log(settings)) as log:
        log.ensure_topics([shipping.TOPIC])
        publish(log, [logged(1)], with_layout=False)
        sink_all(log, archive)
        publish(log, [logged(number) for number in range(2, 1_000)], with_layout=False)
        status = sink_all(log, archive)
    assert status.gaps == 1
    assert status.written >= 100


def test_row_groups_are_small_enough_to_look_one_up(log: EventLog, archive: Path) -> None:
    publish(log, [logged(number) for number in range(5_000)])
    sink_all(log, archive)
    (path,) = archive.rglob("*.parquet")
    assert pq.ParquetFile(path).num_row_groups == 2
    assert path.name.startswith(f"{START_MS}-{START_MS}-")


def test_an_audit_reads_an_archive_as_it_reads_the_log(log: EventLog, archive: Path) -> None:
    entries = [logged(number, START_MS + number % 2 * HOUR_MS) for number in range(100)]
    publish(log, entries)
    sink_all(log, archive)
    sink_all(log, archive, group="another")  # each decision a second time, in another file
    counts = reader.ReadLines()
    files = reader.log_files(archive, START_MS, START_MS + 2 * HOUR_MS)
    found = list(reader.read_decisions(files, START_MS, START_MS + 2 * HOUR_MS, counts, lambda _: None))
    assert sorted(one.decision.decision_id for one, _ in found) == sorted(ids_of(entries))
    assert {layout.features for _, layout in found} == {LAYOUT.features}
    assert (counts.decisions, counts.unreadable, counts.cut_off) == (100, 0, 0)
    assert all(any(reader.may_have(file, START_MS + hour * HOUR_MS) for file in files) for hour in (0, 1))
    assert not any(reader.may_have(file, START_MS + HOUR_MS // 2) for file in files)


def test_the_command_writes_what_is_there(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Valkey(tmp_path / "valkey") as server:
        with closing(open_event_log(RedisLogSettings(url=server.url))) as log:
            log.ensure_topics([shipping.TOPIC, shipping.LAYOUTS_TOPIC])
            publish(log, [logged(number) for number in range(10)])
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
        result = CliRunner().invoke(main, ["decisions", "sink", "--to", str(archive), "--once"])
    assert result.exit_code == 0, result.output
    assert "stopped: 10 decisions in 1 files, 0 wait for theirs" in result.output


def test_an_address_of_no_known_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    result = CliRunner().invoke(main, ["decisions", "sink", "--to", "nowhere://bucket", "--once"])
    assert result.exit_code == 1
    assert "--to nowhere://bucket" in result.output
