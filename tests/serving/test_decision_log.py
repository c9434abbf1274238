"""Decisions in the decision log: what stands there, which ones, and what happens when it cannot be written."""

from __future__ import annotations

import asyncio
import math
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actor_risk.audit import decisions as reader
from actor_risk.local import wait_until
from materialize.online import FeatureStatus
from serving.decision import Decision
from serving.decision_files import DecisionFiles, FileLimits
from serving.inputs import Inputs
from serving.logged import FeatureLayout, LoggedDecision, ReadRow, layout_of, logged_decision
from serving.ports import LogCounts
from tests.serving.fakes import (
    CHAMPION,
    FEATURES,
    FINGERPRINT,
    NOW_MS,
    SERVICE,
    World,
    build_world,
    click,
    plan,
)

DAY_MS = 86_400_000
MIB = 1 << 20
Open = Callable[..., DecisionFiles]


@dataclass
class MemoryLog:
    """Keeps entries; `wanted` says whose."""

    wanted: bool = True
    told: list[str] = field(default_factory=list)
    entries: list[tuple[LoggedDecision, FeatureLayout]] = field(default_factory=list)

    def wants(self, decision_id: str) -> bool:
        assert decision_id
        return self.wanted

    def append(self, entries: Sequence[LoggedDecision], layout: FeatureLayout) -> None:
        self.entries += [(entry, layout) for entry in entries]

    def counts(self) -> LogCounts:
        return LogCounts(logged=len(self.entries), dropped_full=3, waiting=7, shipped=5, unshipped_bytes=4_096)

    def notes(self) -> list[str]:
        return self.told


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def logging_world(published: Path, log: MemoryLog) -> World:
    """A server whose decisions go into `log`."""
    world = build_world(published, log)
    world.features.values["203.0.113.9"] = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]
    asyncio.run(world.service.load(CHAMPION))
    return world


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens decision logs in `tmp_path/log`, closed afterwards."""
    logs: list[DecisionFiles] = []

    def open_log(now_ms: Callable[[], int] = lambda: NOW_MS, rate: float = 1.0, **limits: int) -> DecisionFiles:
        bounds = FileLimits(**{"folder_bytes_max": 100 * MIB, **limits})
        logs.append(DecisionFiles(tmp_path / "log", f"w{len(logs)}", bounds, now_ms, rate))
        return logs[-1]

    yield open_log
    for one in logs:
        one.close()


def decision(world: World, **body: Any) -> Decision:
    return asyncio.run(world.score({"model": SERVICE, **body})).decision()


def entry(world: World, values: list[float] | None = None, objects: dict[int, Any] | None = None) -> LoggedDecision:
    """The entry of one decision over these values."""
    found = np.array(values if values is not None else [1.0] * len(FEATURES))
    statuses = np.where(np.isnan(found), FeatureStatus.NULL_VALUE, FeatureStatus.PRESENT).tolist()
    row = ReadRow(found.tolist(), statuses, [0] * len(found), objects or {})
    answer = decision(world, entities={"ip": "203.0.113.9", "device_id": "d"})
    inputs = Inputs(dict(answer.actor), None, {}, NOW_MS)  # type: ignore[arg-type]
    return logged_decision(answer, plan(), inputs, row, NOW_MS, publish=True)


def lines_of(folder: Path) -> list[bytes]:
    return [line for path in sorted(folder.rglob("*.jsonl")) for line in path.read_bytes().splitlines(keepends=True)]


def read_back(folder: Path) -> list[tuple[reader.LoggedDecision, reader.Layout]]:
    counts = reader.ReadLines()
    files = reader.log_files(folder, NOW_MS - DAY_MS, NOW_MS + DAY_MS)
    found = list(reader.read_decisions(files, NOW_MS - DAY_MS, NOW_MS + DAY_MS, counts, lambda _: None))
    assert not counts.unreadable
    return found


def test_an_entry_has_the_answer_and_everything_that_its_features_were_read_from(
    logging_world: World, log: MemoryLog
) -> None:
    answer = decision(logging_world, event=click(), request={"attempts": 3}, trace_id="t-1")
    ((kept, layout),) = log.entries
    assert kept.decision == answer
    assert kept.read_ms == NOW_MS
    assert kept.request == {"ms_since_impression": 180.0, "attempts": 3, "country": "DE"}
    assert kept.event is not None
    assert (kept.event.topic, kept.event.content.event_id, kept.event.publishing) == (
        "ad_events", "click-1", "published",
    )  # fmt: skip
    assert kept.values == [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]
    assert kept.ages_ms == [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]
    assert set(kept.statuses) == {FeatureStatus.PRESENT}
    assert (layout.features, layout.fingerprint) == (FEATURES, FINGERPRINT)


@pytest.mark.parametrize(
    ("publish", "failure", "told"),
    [
        (True, None, "published"),
        (False, None, "left_to_caller"),
        (True, ConnectionError("away"), "failed"),
        (True, TimeoutError(), "unconfirmed"),
    ],
)
def test_an_entry_says_what_became_of_its_event(
    logging_world: World, log: MemoryLog, publish: bool, failure: Exception | None, told: str
) -> None:
    async def fail() -> None:
        if failure is not None:
            raise failure

    logging_world.publisher.fail = fail
    decision(logging_world, event=click(), publish_event=publish)
    event = log.entries[0][0].event
    assert event is not None
    assert event.publishing == told


def test_a_decision_that_the_log_does_not_want_is_not_handed_to_it(logging_world: World, log: MemoryLog) -> None:
    log.wanted = False
    decision(logging_world, event=click())
    assert not log.entries


def test_metrics_and_readiness_tell_about_the_log(logging_world: World, log: MemoryLog) -> None:
    decision(logging_world, event=click())
    log.told.append("the decision log cannot be written")
    page = asyncio.run(logging_world.call("GET", "/metrics")).body.decode()
    samples = {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert samples["actor_risk_decision_log_decisions_total", "logged"] == 1
    assert samples["actor_risk_decision_log_decisions_total", "dropped_full"] == 3
    assert samples["actor_risk_decision_log_decisions_total", "shipped"] == 5
    assert samples["actor_risk_decision_log_waiting", None] == 7
    assert samples["actor_risk_decision_log_unshipped_bytes", None] == 4_096
    ready = asyncio.run(logging_world.call("GET", "/readyz"))
    assert ready.status == 200
    assert "the decision log cannot be written" in ready.json()["notes"]


def test_what_is_written_reads_back_to_the_same_bits(world: World, opened: Open, tmp_path: Path) -> None:
    files = opened()
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, math.nan, math.inf, -math.inf]
    kept = entry(world, values, {})
    files.append([kept], layout_of(plan()))
    files.close()
    ((back, layout),) = read_back(tmp_path / "log")
    finite = np.array(values[:5])
    assert np.array(back.values[:5], np.float64).tobytes() == finite.tobytes()
    assert back.values[5:] == [None, None, None]
    assert back.others == {FEATURES[6]: "inf", FEATURES[7]: "-inf"}
    assert back.statuses == kept.statuses
    assert (back.decision.decision_id, layout.features) == (kept.decision.decision_id, FEATURES)


def test_words_bytes_and_large_integers_are_logged_beside_the_numbers(world: World, opened: Open) -> None:
    kinds = ("STRING", "BYTES", "INT64", "INT64", "DOUBLE", "DOUBLE", "DOUBLE", "DOUBLE")
    row = ReadRow([1.0] * 8, [1] * 8, [0] * 8, {0: "DE", 1: b"\x00\xff", 2: 2**53 + 1, 3: 7, 4: 0.5, 5: None})
    answer = decision(world, entities={"ip": "i", "device_id": "d"})
    kept = logged_decision(
        answer, replace(plan(), kinds=kinds), Inputs({}, None, {}, NOW_MS), row, NOW_MS, publish=True
    )
    assert kept.others == {FEATURES[0]: "DE", FEATURES[1]: b"\x00\xff", FEATURES[2]: 2**53 + 1}
    files = opened()
    files.append([kept], layout_of(plan()))
    assert files.counts().logged == 1


def test_the_same_decisions_are_wanted_by_every_server_and_about_as_many_as_the_rate_says(opened: Open) -> None:
    first, second, everything = opened(rate=0.2), opened(rate=0.2), opened(rate=1.0)
    names = [f"decision-{number}" for number in range(5_000)]
    chosen = [name for name in names if first.wants(name)]
    assert chosen == [name for name in names if second.wants(name)]
    assert 800 < len(chosen) < 1_200
    assert all(everything.wants(name) for name in names)


def test_a_line_for_the_layout_stands_before_the_first_decision_of_each_file(
    world: World, opened: Open, tmp_path: Path
) -> None:
    now = [NOW_MS]
    files = opened(lambda: now[0], file_age_ms_max=60_000)
    kept = entry(world)
    for _ in range(3):
        files.append([kept], layout_of(plan()))
        now[0] += 61_000
    files.close()
    paths = sorted((tmp_path / "log").rglob("*.jsonl"))
    assert len(paths) == 3
    kinds = [[msgspec.json.decode(line)["kind"] for line in lines_of_file(path)] for path in paths]
    assert kinds == [["features", "decision"]] * 3
    assert len(read_back(tmp_path / "log")) == 3


def lines_of_file(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_files_lie_in_folders_of_their_day(world: World, opened: Open, tmp_path: Path) -> None:
    now = [NOW_MS]
    files = opened(lambda: now[0])
    for _ in range(2):
        files.append([entry(world)], layout_of(plan()))
        now[0] += DAY_MS
    files.close()
    assert [path.name for path in sorted((tmp_path / "log").iterdir())] == ["date=2026-11-18", "date=2026-11-19"]


def test_what_append_has_returned_for_is_with_the_operating_system(world: World, opened: Open, tmp_path: Path) -> None:
    files, kept = opened(), entry(world)
    files.append([kept, kept, kept], layout_of(plan()))
    assert len(read_back(tmp_path / "log")) == 3
    assert (files.counts().logged, files.counts().waiting) == (3, 0)


def test_while_the_folder_cannot_be_written_decisions_wait_then_are_dropped_and_counted_and_nothing_raises(
    world: World, opened: Open, tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("a file stands where the folder should be")
    kept = entry(world)
    size = len(msgspec.json.encode(kept)) + 1
    files = opened(waiting_bytes_max=10 * size)
    for _ in range(15):
        files.append([kept], layout_of(plan()))
    assert (files.counts().logged, files.counts().dropped_full, files.counts().waiting) == (0, 5, 10)
    assert any("cannot be written" in note for note in files.notes())
    (tmp_path / "log").unlink()
    wait_until(lambda: files.notes() == [], 10, "the log is written again")
    files.append([kept], layout_of(plan()))
    files.close()
    assert (files.counts().logged, files.counts().dropped_full, files.counts().waiting) == (11, 5, 0)
    assert len(read_back(tmp_path / "log")) == 11


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond so many bytes, as the operating system has it; 0 for no bound."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_whole_lines_and_loses_none(
    world: World, opened: Open, tmp_path: Path, full_disk: Callable[[int], None]
) -> None:
    files, kept = opened(), entry(world)
    files.append([kept], layout_of(plan()))
    whole = lines_of(tmp_path / "log")
    full_disk(len(b"".join(whole)) + 100)  # what still fits is less than a line
    files.append([kept], layout_of(plan()))
    assert lines_of(tmp_path / "log") == whole
    assert files.counts().waiting == 1
    full_disk(0)
    wait_until(lambda: files.notes() == [], 10, "the log is written again")
    assert len(read_back(tmp_path / "log")) == 2


def test_the_oldest_files_go_when_the_folder_is_full_and_are_counted(
    world: World, opened: Open, tmp_path: Path
) -> None:
    now, kept = [NOW_MS], entry(world)
    size = len(msgspec.json.encode(kept)) + len(msgspec.json.encode(layout_of(plan()))) + 2
    files = opened(lambda: now[0], file_age_ms_max=1_000, file_bytes_max=size, folder_bytes_max=4 * size)
    for _ in range(6):
        files.append([kept], layout_of(plan()))
        now[0] += 2_000
    wait_until(lambda: files.counts().deleted_files == 3, 10, "the oldest go")
    assert (len(read_back(tmp_path / "log")), files.counts().logged) == (3, 6)


def test_a_writer_that_died_leaves_no_lock_behind(world: World, opened: Open, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "dead.lock").touch()
    files = opened()
    files.append([entry(world)], layout_of(plan()))
    wait_until(lambda: not (tmp_path / "log" / "dead.lock").exists(), 10, "the dead one is forgotten")
    assert [path.name for path in (tmp_path / "log").glob("*.lock")] == ["w0.lock"]
    files.close()
    assert not list((tmp_path / "log").glob("*.lock"))


def test_a_value_that_cannot_be_said_costs_its_entry_and_no_answer(world: World, opened: Open) -> None:
    files = opened()
    odd = msgspec.structs.replace(entry(world), others={"view:odd": object()})
    files.append([odd, entry(world), odd], layout_of(plan()))
    assert (files.counts().logged, files.counts().dropped_failed) == (1, 2)


def test_a_reader_passes_over_a_line_that_was_cut_off_and_counts_it(world: World, opened: Open, tmp_path: Path) -> None:
    files = opened()
    files.append([entry(world)], layout_of(plan()))
    files.append([entry(world)], layout_of(plan()))
    files.close()
    (path,) = (tmp_path / "log").rglob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(b"not ours\n" + whole[:-50])
    counts = reader.ReadLines()
    found = list(reader.read_decisions([path], 0, 2 * NOW_MS, counts, lambda _: None))
    assert (len(found), counts.decisions, counts.cut_off, counts.unreadable) == (1, 1, 1, 1)
