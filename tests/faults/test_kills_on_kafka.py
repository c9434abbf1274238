"""Workers on Kafka are killed, and their group rebalances, at any moment; the rows end up exact all the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.faults import (
    MANY_END_MS,
    assert_rows_exact,
    kill_a_worker,
    many_events,
    some_events,
    with_faults,
)
from tests.support.workers import LARGER, Work, finish
from tests.support.world import World

pytestmark = pytest.mark.kafka


def test_workers_killed_between_rebalances_leave_rows_that_hold_every_event_once(work: Work, world: World) -> None:
    tables = some_events(world, each=900)
    with_faults(work, tables, 3, seed=1, fault=kill_a_worker)
    finish(work)
    assert assert_rows_exact(work, tables) > 5_000


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(2))
def test_fifty_killed_workers_leave_rows_that_hold_200_000_events_once(work: Work, seed: int) -> None:
    tables = many_events(seed)
    work = replace(work, now_ms=MANY_END_MS, settings=LARGER)
    assert sum(table.num_rows for table in tables.values()) >= 200_000
    herd = with_faults(work, tables, 50, seed, kill_a_worker)
    assert herd.noted("replayed") + finish(work).replayed > 0, "no worker was killed between a write and its commit"
    assert_rows_exact(work, tables)
