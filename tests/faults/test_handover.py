"""A backfill may run while the stream does, at any time, twice, and with workers dying beside it: values stay exact."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support.faults import (
    MANY_END_MS,
    assert_rows_exact,
    kill_a_worker,
    many_events,
    with_faults,
)
from tests.support.histories import backfill_all, write_histories
from tests.support.workers import LARGER, Herd, Work, finish
from tests.support.world import CUT_MS, DAY_MS, HOUR_MS, SETTINGS, START_MS, TOPICS, World, moment

pytestmark = pytest.mark.kafka

LIVE_MS = 8 * HOUR_MS


def some_days(world: World) -> dict[str, pa.Table]:
    """The history of the world, and LIVE_MS from CUT_MS on."""
    return {topic: before(getattr(world.everything, topic), CUT_MS + LIVE_MS) for topic in TOPICS}


def test_backfills_while_the_stream_runs_leave_exact_rows(work: Work, world: World, tmp_path: Path) -> None:
    tables = some_days(world)
    sources = write_histories(tmp_path, tables)
    live = {topic: since(table, CUT_MS) for topic, table in tables.items()}
    ends_ms = iter([CUT_MS + 5 * HOUR_MS + 1, CUT_MS + 5 * HOUR_MS + 1, CUT_MS])

    def fault(_herd: Herd, _chance: random.Random) -> None:
        backfill_all(work, sources, next(ends_ms))

    with_faults(work, live, 3, seed=11, fault=fault)
    finish(work)
    assert_rows_exact(work, tables)


def test_a_stream_that_follows_a_cold_start_from_history_leaves_exact_rows(
    work: Work, world: World, tmp_path: Path
) -> None:
    tables = some_days(world)
    sources = write_histories(tmp_path, {topic: before(table, CUT_MS) for topic, table in tables.items()})
    backfill_all(work, sources, SETTINGS.end_ms)
    overlapping = {topic: since(table, CUT_MS - 6 * HOUR_MS) for topic, table in tables.items()}
    with_faults(work, overlapping, 1, seed=12, fault=kill_a_worker)
    finish(work)
    assert_rows_exact(work, tables)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_backfills_at_random_moments_and_ends_beside_dying_workers_leave_exact_rows(work: Work, tmp_path: Path) -> None:
    tables = many_events(seed=13)
    work = replace(work, now_ms=MANY_END_MS, settings=LARGER)
    sources = write_histories(tmp_path, tables)
    second_day = {topic: since(table, START_MS + DAY_MS) for topic, table in tables.items()}
    backfill_all(work, sources, START_MS + DAY_MS)

    def fault(herd: Herd, chance: random.Random) -> None:
        if chance.random() < 0.5:
            kill_a_worker(herd, chance)
        else:
            backfill_all(work, sources, START_MS + DAY_MS + chance.randrange(DAY_MS))

    with_faults(work, second_day, 16, seed=13, fault=fault)
    finish(work)
    assert_rows_exact(work, tables)


def since(table: pa.Table, time_ms: int) -> pa.Table:
    return table.filter(pc.greater_equal(table.column("event_time"), moment(time_ms)))


def before(table: pa.Table, time_ms: int) -> pa.Table:
    return table.filter(pc.less(table.column("event_time"), moment(time_ms)))
