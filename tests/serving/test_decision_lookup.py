"""Finding a decision by its id: in the files of this machine, then in the archive."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from actor_risk.decision_sink import Archive, DecisionSink, SinkSettings
from actor_risk.local import wait_until
from materialize.stream import RedisLogSettings, open_event_log
from serving.decision_files import DecisionFiles, FileLimits
from serving.decision_lookup import LATE_MS, DecisionLookup, find_in_files
from serving.errors import DecisionsUnavailableError
from serving.logged import LoggedDecision
from serving.spool import spool_files
from tests.support.decisions import LAYOUT, MIB, START_MS, id_of_number, logged, ships_to

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def now() -> list[int]:
    """The clock of the server."""
    return [START_MS]


@pytest.fixture
def files(folder: Path, now: list[int]) -> Iterator[DecisionFiles]:
    limits = FileLimits(folder_bytes_max=100 * MIB, file_bytes_max=20_000)
    with closing(DecisionFiles(folder, "w", limits, lambda: now[0])) as opened:
        yield opened


def find(folder: Path, decision_id: str, archive: Path | str | None = None) -> bytes | None:
    return asyncio.run(DecisionLookup(folder, archive).find(decision_id))


def answer_of(entry: LoggedDecision) -> bytes:
    """What the server answered."""
    return msgspec.json.encode(entry.decision)


def log_over_time(files: DecisionFiles, now: list[int], count: int, step_ms: int) -> list[LoggedDecision]:
    """So many decisions, each so much later than the one before."""
    entries = []
    for number in range(count):
        entries.append(logged(number, now[0]))
        files.append(entries[-1:], LAYOUT)
        now[0] += step_ms
    return entries


def test_a_decision_is_found_as_it_was_answered_at_once_and_later(
    files: DecisionFiles, folder: Path, now: list[int]
) -> None:
    entries = log_over_time(files, now, 300, 10_000)
    assert len(spool_files(folder)) > 10
    for entry in entries:
        assert find(folder, entry.decision.decision_id) == answer_of(entry)


@pytest.mark.parametrize(
    "name",
    [
        id_of_number(7_000_000),
        id_of_number(1, START_MS + 24 * HOUR_MS),
        id_of_number(1).upper(),
        "6c1f1f0e-4d7e-4a3e-9d52-0c8f4e6a1b27",
        "../../etc/passwd",
        "",
    ],
)
def test_what_is_not_kept_or_no_id_is_not_found(files: DecisionFiles, folder: Path, name: str) -> None:
    files.append([logged(1)], LAYOUT)
    assert find(folder, name) is None


def test_without_any_log_nothing_is_found(folder: Path) -> None:
    assert find(folder, id_of_number(1)) is None


def test_a_decision_in_which_somebody_wrote_the_id_is_not_taken_for_it(files: DecisionFiles, folder: Path) -> None:
    wanted = logged(2)
    named = {"decision_id": wanted.decision.decision_id}
    other = msgspec.structs.replace(logged(1), request={**named, "nested": named})
    files.append([other], LAYOUT)
    assert find(folder, wanted.decision.decision_id) is None
    files.append([wanted], LAYOUT)
    assert find(folder, wanted.decision.decision_id) == answer_of(wanted)


def test_a_line_that_is_cut_off_was_no_answer(files: DecisionFiles, folder: Path) -> None:
    files.append([logged(1), logged(2)], LAYOUT)
    (file,) = spool_files(folder)
    file.path.write_bytes(file.path.read_bytes()[:-10])
    assert find(folder, id_of_number(2)) is None
    assert find(folder, id_of_number(1)) == answer_of(logged(1))


def test_lines_across_blocks_are_found(folder: Path) -> None:
    limits = FileLimits(folder_bytes_max=100 * MIB)
    entries = [logged(number, trace_id="x" * (number * 211 % 9_000)) for number in range(1_000)]
    with closing(DecisionFiles(folder, "w", limits, lambda: START_MS)) as files:
        files.append(entries, LAYOUT)
    (file,) = spool_files(folder)
    assert file.path.stat().st_size > 4 * MIB
    for entry in entries[::37]:
        assert find(folder, entry.decision.decision_id) == answer_of(entry)


def test_only_files_of_the_time_are_read(files: DecisionFiles, folder: Path, now: list[int]) -> None:
    log_over_time(files, now, 300, 10_000)
    every = spool_files(folder)
    middle = START_MS + 150 * 10_000
    near = [file for file in every if abs(file.opened_ms - middle) <= LATE_MS + 30 * 10_000]
    assert len(near) < len(every) / 2
    for file in set(every) - set(near):
        file.path.write_bytes(b"never read")
    assert find_in_files(every, id_of_number(150, middle), middle) == answer_of(logged(150, middle))


@pytest.fixture
def archived(redis_url: str, redis_namespace: str, tmp_path: Path) -> Callable[[Sequence[LoggedDecision]], Path]:
    """Brings decisions into an archive, by way of a log of another machine."""

    def bring(entries: Sequence[LoggedDecision]) -> Path:
        limits = FileLimits(folder_bytes_max=100 * MIB)
        with closing(open_event_log(RedisLogSettings(url=redis_url, prefix=redis_namespace))) as log:
            far = DecisionFiles(tmp_path / "far", "w", limits, lambda: START_MS, shipper=ships_to(log))
            far.append(entries, LAYOUT)
            wait_until(lambda: far.counts().shipped == len(entries), 60, "they are shipped")
            far.close()
            to = Archive(str(tmp_path / "archive"))
            DecisionSink(log, to, SinkSettings(once=True), lambda _: None).run(threading.Event())
        return tmp_path / "archive"

    return bring


def test_what_is_not_on_this_machine_is_found_in_the_archive(
    archived: Callable[[Sequence[LoggedDecision]], Path], folder: Path
) -> None:
    entries = [logged(number, START_MS + number * MINUTE_MS // 10) for number in range(1_000)]
    archive = archived(entries)
    assert len(list(archive.rglob("*.parquet"))) > 1
    for entry in entries[::101]:
        assert find(folder, entry.decision.decision_id, archive) == answer_of(entry)
        assert find(folder, entry.decision.decision_id, f"file://{archive}") == answer_of(entry)
    assert find(folder, id_of_number(5_000_000), archive) is None
    assert find(folder, id_of_number(1, START_MS - 24 * HOUR_MS), archive) is None


def test_a_large_archive_answers_soon(archived: Callable[[Sequence[LoggedDecision]], Path], folder: Path) -> None:
    archive = archived([logged(number) for number in range(20_000)])
    started_s = time.monotonic()
    assert find(folder, id_of_number(19_999), archive) == answer_of(logged(19_999))
    assert time.monotonic() < started_s + 1


def test_an_archive_that_cannot_be_read_is_an_error_and_not_an_absence(folder: Path, tmp_path: Path) -> None:
    hour = tmp_path / "archive" / "date=2026-11-18" / "hour=11"
    hour.mkdir(parents=True)
    (hour / f"{START_MS}-{START_MS}-0.parquet").write_bytes(b"torn")
    with pytest.raises(DecisionsUnavailableError):
        find(folder, id_of_number(1), tmp_path / "archive")
