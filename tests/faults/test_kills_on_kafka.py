"""Workers on Kafka are killed, and their group rebalances, at any moment; the rows end up exact all the same."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pytest

from actor_risk.simulate import SimulationSettings, simulate
from materialize.online import connect
from materialize.stream import open_event_log
from tests.support.oracle_rows import assert_rows_equal_oracle
from tests.support.workers import SMALL, Herd, Work, finish
from tests.support.world import DAY_MS, START_MS, TOPICS, World, publish_table

pytestmark = pytest.mark.kafka

WORKERS = 2
KILLED_BY = 0.8  # of the records, so that the last worker to be killed still has work


def live(world: World, events: int) -> dict[str, pa.Table]:
    return {topic: getattr(world.live, topic).slice(0, events) for topic in TOPICS}


def publish_all(work: Work, tables: Mapping[str, pa.Table]) -> int:
    with closing(open_event_log(work.log)) as log:
        for topic, table in tables.items():
            publish_table(log, topic, table)
    return sum(table.num_rows for table in tables.values())


def kill_at_random(work: Work, records: int, kills: int, seed: int) -> int:
    """Kills so many workers of a herd, each in the midst of its work. Returns how many events were given again."""
    chance = random.Random(seed)
    moments = sorted(chance.uniform(0, KILLED_BY * records) for _ in range(kills))
    with Herd(work, WORKERS) as herd:
        for moment in moments:
            herd.wait_until_done(round(moment))
            herd.kill(chance.randrange(WORKERS), chance.uniform(0, 0.1))
        herd.wait_until_done(round(KILLED_BY * records))
    return herd.noted("replayed") + finish(work).replayed


def assert_rows_exact(work: Work, tables: Mapping[str, pa.Table]) -> int:
    with closing(connect(work.redis)) as client:
        return assert_rows_equal_oracle(client, work.project, work.views, tables, work.now_ms)


def test_workers_killed_between_rebalances_leave_rows_that_hold_every_event_once(work: Work, world: World) -> None:
    tables = live(world, 900)
    kill_at_random(work, publish_all(work, tables), kills=3, seed=1)
    assert assert_rows_exact(work, tables) > 5_000


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(2))
def test_fifty_killed_workers_leave_rows_that_hold_200_000_events_once(work: Work, seed: int) -> None:
    end_ms = START_MS + 2 * DAY_MS
    settings = SimulationSettings(
        seed=seed, start_ms=START_MS, end_ms=end_ms, ad_events_per_day=82_000, account_events_per_day=22_000
    )
    simulation = simulate(settings)
    tables = {topic: getattr(simulation, topic) for topic in TOPICS}
    busy = replace(work, now_ms=end_ms, settings=replace(SMALL, batch_records_max=250))
    records = publish_all(busy, tables)
    assert records >= 200_000
    assert kill_at_random(busy, records, kills=50, seed=seed) > 0
    assert_rows_exact(busy, tables)
