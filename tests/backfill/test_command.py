"""`actor-risk backfill` as a person runs it: plan, report, stop, resume, refusals, and what each leaves behind."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from actor_risk.local import wait_until
from materialize.backfill import ViewReport
from tests.support.backfills import BATCH_VIEW, SPAN, STREAM_VIEW, VIEWS, BackfillHome

TIMEOUT_S = 60.0
BATCH = ("--view", BATCH_VIEW)
STREAM = ("--view", STREAM_VIEW)


def files(home: BackfillHome) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (home.directory / "backfill").rglob("*") if path.is_file()}


def keys(home: BackfillHome) -> list[bytes]:
    return sorted(home.client.scan_iter(f"{home.world.project}:*"))


def done(home: BackfillHome, *arguments: str) -> list[ViewReport]:
    """Run the command, which must succeed, and return what it reports."""
    ran = home.run(*arguments)
    assert ran.exit_code == 0, ran.output
    return home.report().views


def test_a_dry_run_shows_the_plan_and_writes_nothing(clean_home: BackfillHome) -> None:
    ran = clean_home.run(*VIEWS, *SPAN, "--dry-run")
    assert ran.exit_code == 0, ran.output
    assert STREAM_VIEW in ran.output
    assert re.search(r"read \d+ of \d+ chunks, write 1 of 1 shards", ran.output)
    assert "nothing was written" in ran.output
    assert not keys(clean_home)
    assert not files(clean_home)
    assert clean_home.watermarks(STREAM_VIEW) == []


def test_a_job_reports_what_it_did_and_a_second_one_has_nothing_to_do(clean_home: BackfillHome) -> None:
    home = clean_home
    stream, batch = done(home, *VIEWS, *SPAN)
    assert (stream.outcome, batch.outcome) == ("done", "done")
    assert stream.counts.verified == stream.counts.rows == len(keys_of(home, STREAM_VIEW))
    assert batch.counts.verified >= len(keys_of(home, BATCH_VIEW)) > 0
    assert stream.batch_end == "2025-11-22T07:00:00Z"
    assert {column.name for column in stream.columns} >= {"click", "device_id"}
    assert len(home.watermarks(STREAM_VIEW)) == len(home.watermarks(BATCH_VIEW)) == 1
    assert not (home.view_folder(STREAM_VIEW) / "staged").exists()
    again = done(home, *VIEWS, *SPAN, "--resume")
    assert [view.outcome for view in again] == ["nothing to do", "nothing to do"]
    assert len(home.watermarks(STREAM_VIEW)) == len(home.watermarks(BATCH_VIEW)) == 1


def test_a_job_that_was_killed_before_it_was_entered_is_entered_before_its_watermark_moves(
    clean_home: BackfillHome,
) -> None:
    home = clean_home
    done(home, *VIEWS, *SPAN)
    entered = {view: home.entries(view, "job") for view in (STREAM_VIEW, BATCH_VIEW)}
    home.forget_watermarks()
    for view, (name,) in entered.items():
        (path,) = home.view_folder(view).glob(f"*/{name}")
        path.unlink()
    again = done(home, *VIEWS, *SPAN, "--resume")
    assert [view.outcome for view in again] == ["nothing to do", "nothing to do"]
    assert {view: home.entries(view, "job") for view in entered} == entered
    assert len(home.watermarks(STREAM_VIEW)) == len(home.watermarks(BATCH_VIEW)) == 1


def keys_of(home: BackfillHome, view: str) -> list[bytes]:
    return list(home.client.scan_iter(f"{home.world.project}:{view}:*"))


def test_the_plan_shows_what_was_done_before_and_its_holes(clean_home: BackfillHome) -> None:
    first = ("--start", "2025-11-20T00:00:00Z", "--end", "2025-11-21T00:00:00Z")
    later = ("--start", "2025-11-21T12:00:00Z", "--end", "2025-11-22T00:00:00Z")
    done(clean_home, *BATCH, *first, "--step", "6h")
    done(clean_home, *BATCH, *later, "--step", "6h")
    ran = clean_home.run(*BATCH, *SPAN, "--resume", "--dry-run")
    assert "holes in it: 2025-11-21T00:00:00Z – 2025-11-21T12:00:00Z" in ran.output
    assert "about" in ran.output
    (filled,) = done(clean_home, *BATCH, *SPAN, "--resume")
    assert filled.chunks - filled.chunks_known <= 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_says_how_to_go_on_and_loses_nothing(
    clean_home: BackfillHome, number: signal.Signals
) -> None:
    home = clean_home
    done(home, *VIEWS, *SPAN)
    undisturbed = home.rows()
    home.clear()
    command = home.start(*VIEWS, *SPAN)
    wait_until(lambda: bool(home.entries(STREAM_VIEW, "looked")), TIMEOUT_S, "it works")
    command.signal(number)
    assert command.wait(TIMEOUT_S) == 130, command.output
    assert home.report().views[-1].outcome == "stopped"
    resume = home.report().resume
    assert resume.split()[:2] == ["actor-risk", "backfill"]
    assert resume in " ".join(command.output.split())
    assert home.watermarks(BATCH_VIEW) == []
    done(home, *resume.split()[2:])
    assert home.rows() == undisturbed


def test_two_jobs_on_a_view_at_once_exclude_each_other(clean_home: BackfillHome) -> None:
    home = clean_home
    first = home.start(*STREAM, *SPAN)
    wait_until(lambda: bool(home.entries(STREAM_VIEW, "looked")), TIMEOUT_S, "the first works")
    first.signal(signal.SIGSTOP)
    refused = home.start(*STREAM, *SPAN)

    def is_refused() -> bool:
        home.client.pexpire(lease_key(home), 10_000)  # the first sleeps, but its lease is renewed
        return refused.wait(0.2) is not None

    wait_until(is_refused, TIMEOUT_S, "the second ends")
    assert refused.wait(0) == 4, refused.output
    assert f"process {first.pid} on" in refused.output
    waiting = home.start(*STREAM, *SPAN, "--wait")
    first.signal(signal.SIGCONT)
    assert first.wait(TIMEOUT_S) == 0, first.output
    assert waiting.wait(TIMEOUT_S) == 0, waiting.output


def lease_key(home: BackfillHome) -> str:
    return f"{home.world.project}:backfill/{{{STREAM_VIEW}}}:lease"


def test_a_job_that_sleeps_past_its_lease_stops_when_another_has_the_view(clean_home: BackfillHome) -> None:
    home = clean_home
    zombie = home.start(*STREAM, *SPAN)
    wait_until(lambda: bool(home.entries(STREAM_VIEW, "looked")), TIMEOUT_S, "it works")
    zombie.signal(signal.SIGSTOP)
    home.client.delete(lease_key(home))
    other = home.start(*STREAM, *SPAN)
    wait_until(lambda: bool(home.client.exists(lease_key(home))), TIMEOUT_S, "another has the view")
    holder = home.client.get(lease_key(home))
    other.signal(signal.SIGSTOP)
    home.client.set(lease_key(home), holder, px=60_000)
    zombie.signal(signal.SIGCONT)
    assert zombie.wait(TIMEOUT_S) == 1
    assert "took the view over" in zombie.output
    other.signal(signal.SIGCONT)
    assert other.wait(TIMEOUT_S) == 0, other.output


def lose_everything(home: BackfillHome) -> None:
    home.forget_rows()


def go_back(home: BackfillHome) -> None:
    """A server that comes back with its state of two results ago."""
    for view in (STREAM_VIEW, BATCH_VIEW):
        mark = f"{home.world.project}:backfill/{{{view}}}:mark"
        home.client.hincrby(mark, "number", -1)
        for key in list(keys_of(home, view))[::2]:
            home.client.delete(key)


@pytest.mark.parametrize(("lose", "all_chunks"), [(lose_everything, True), (go_back, False)])
def test_what_redis_lost_is_written_again(
    clean_home: BackfillHome, lose: Callable[[BackfillHome], None], all_chunks: bool
) -> None:
    home = clean_home
    done(home, *VIEWS, *SPAN)
    lose(home)
    stream, batch = done(home, *VIEWS, *SPAN, "--resume")
    assert stream.outcome == batch.outcome == "done"
    missing = batch.chunks - batch.chunks_known
    assert (missing == batch.chunks) if all_chunks else (missing == 1)


def test_files_that_change_are_read_again_and_others_are_not(clean_home: BackfillHome) -> None:
    home = clean_home
    history = home.directory / "data" / "ad_events"
    (whole,) = [pq.read_table(path) for path in sorted(history.glob("*.parquet"))]
    kept = {path: path.read_bytes() for path in history.glob("*.parquet")}
    try:
        middle = pa.scalar(1_763_683_200_000, pa.timestamp("ms", "UTC")).cast(whole.schema.field("event_time").type)
        early = pc.less(whole.column("event_time"), middle)
        for path in kept:
            path.unlink()
        pq.write_table(whole.filter(early), history / "a.parquet")
        pq.write_table(whole.filter(pc.invert(early)), history / "b.parquet")
        done(home, *STREAM, *SPAN)
        undisturbed = home.rows()
        (untouched,) = done(home, *STREAM, *SPAN, "--resume")
        assert untouched.outcome == "nothing to do"
        pq.write_table(whole.filter(pc.invert(early)), history / "b.parquet", compression="zstd")
        plan = home.run(*STREAM, *SPAN, "--resume", "--dry-run").output
        assert "count no longer" in plan
        (again,) = done(home, *STREAM, *SPAN, "--resume")
        assert again.outcome == "done"
        assert home.rows() == undisturbed
    finally:
        for path in history.glob("*.parquet"):
            path.unlink()
        for path, data in kept.items():
            path.write_bytes(data)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--view", "nobody"), 1, "ip_ad_stats"),
        (("--start", "2025-11-22T00:00:00Z", "--end", "2025-11-21T00:00:00Z"), 1, "--start is earlier"),
        (("--step", "soon"), 1, "6h or 1d"),
        (("--start", "yesterday"), 2, "2026-11-20T00:00:00Z"),
        (("--step", "1s", *SPAN[:4]), 1, "longer --step"),
    ],
)
def test_a_wrong_question_gets_an_answer_that_says_what_to_do(
    home: BackfillHome, arguments: tuple[str, ...], code: int, told: str
) -> None:
    ran = home.run(*arguments)
    assert ran.exit_code == code
    assert told in ran.output


def test_the_report_and_the_status_go_where_they_are_told(clean_home: BackfillHome, tmp_path: Path) -> None:
    report, status = tmp_path / "report.json", tmp_path / "status.json"
    ran = clean_home.run(*BATCH, *SPAN, "--report", str(report), "--status-file", str(status))
    assert ran.exit_code == 0, ran.output
    told = json.loads(report.read_text())
    assert told["views"][0]["counts"]["verified"] > 0
    assert told["views"][0]["columns"][0]["null_rate"] == 0
    assert json.loads(status.read_text()) == {"view": BATCH_VIEW, "done": 1, "total": 1}


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def lost(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("spoil", [cut_short, lost])
def test_staged_events_that_are_lost_or_damaged_are_read_again(
    clean_home: BackfillHome, spoil: Callable[[Path], None]
) -> None:
    home = clean_home
    done(home, *STREAM, *SPAN)
    undisturbed = home.rows()
    home.clear()
    command = home.start(*STREAM, *SPAN)
    wait_until(lambda: len(home.entries(STREAM_VIEW, "looked")) > 2, TIMEOUT_S, "it works")
    command.kill()
    staged = sorted(home.view_folder(STREAM_VIEW).rglob("*.arrow"))
    spoil(staged[0])
    (resumed,) = done(home, *STREAM, *SPAN, "--resume")
    assert 0 < resumed.chunks_known < resumed.chunks
    assert home.rows() == undisturbed


def test_a_job_whose_view_is_defined_anew_stops_and_moves_no_watermark(clean_home: BackfillHome) -> None:
    home = clean_home
    command = home.start(*BATCH, *SPAN)
    wait_until(lambda: bool(home.entries(BATCH_VIEW, "looked")), TIMEOUT_S, "it works")
    command.signal(signal.SIGSTOP)
    store = home.world.store
    store.refresh_registry()
    changed = store.get_feature_view(BATCH_VIEW)
    changed.ttl += timedelta(days=1)
    store.registry.apply_feature_view(changed, store.project)
    command.signal(signal.SIGCONT)
    assert command.wait(TIMEOUT_S) == 1
    assert "was defined anew" in command.output
    assert home.watermarks(BATCH_VIEW) == []
