"""A job that is killed at any moment, and resumed, leaves the rows of one that was not."""

from __future__ import annotations

import random
import time

import pytest

from tests.support.backfills import BATCH_VIEW, SPAN, STREAM_VIEW, VIEWS, BackfillHome

TIMEOUT_S = 120.0
SHORT, SOAK = 4, 60


def test_killed_jobs_that_are_resumed_leave_the_rows_of_an_undisturbed_one(clean_home: BackfillHome) -> None:
    kill_and_resume(clean_home, SHORT, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_many_kills(clean_home: BackfillHome, seed: int) -> None:
    kill_and_resume(clean_home, SOAK, seed=100 + seed)


def kill_and_resume(home: BackfillHome, kills: int, seed: int) -> None:
    """Kill the command and its resumptions at random moments, then let it end."""
    chance = random.Random(seed)
    whole_s = 0.0
    for _ in range(2):  # the first one may also compile
        home.clear()
        began_s = time.monotonic()
        whole = home.start(*VIEWS, *SPAN)
        assert whole.wait(TIMEOUT_S) == 0, whole.output
        whole_s = time.monotonic() - began_s
    undisturbed = home.rows()
    assert undisturbed
    home.clear()
    ends: list[int | None] = []
    for kill in range(kills):
        command = home.start(*VIEWS, *SPAN, *(["--resume"] if kill else []))
        ends.append(command.wait(chance.uniform(0.1, 0.9) * whole_s))
        assert ends[-1] in (None, 0), command.output
        command.kill()
        assert_manifest_and_watermark_agree(home)
    assert None in ends, "no job was killed before its end"
    last = home.start(*VIEWS, *SPAN, "--resume")
    assert last.wait(TIMEOUT_S) == 0, last.output
    assert home.rows() == undisturbed
    assert len(home.watermarks(STREAM_VIEW)) == len(home.watermarks(BATCH_VIEW)) == 1


def assert_manifest_and_watermark_agree(home: BackfillHome) -> None:
    """A watermark never stands before the entry of its job."""
    for view in (STREAM_VIEW, BATCH_VIEW):
        assert len(home.watermarks(view)) <= len(home.entries(view, "job"))
