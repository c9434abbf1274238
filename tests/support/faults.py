"""What every fault test does: publish, let something go wrong amid the work, finish, compare with the oracle."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import closing

import pyarrow as pa

from actor_risk.simulate import SimulationSettings, json_lines, simulate
from materialize.online import connect
from materialize.stream import open_event_log
from tests.support.oracle_rows import assert_rows_equal_oracle
from tests.support.workers import Herd, Work
from tests.support.world import DAY_MS, START_MS, TOPICS, World

Fault = Callable[[Herd, random.Random], None]

ACTOR = {"ad_events": "ip", "account_events": "actor_id"}
"""The column of each topic that keys its records."""

DONE_SHARE = 0.8
"""A herd is ended when so many of the records are done with; somebody else finishes its work."""

MANY_END_MS = START_MS + 2 * DAY_MS


def some_events(world: World, each: int) -> dict[str, pa.Table]:
    """The first live events of each topic."""
    return {topic: getattr(world.live, topic).slice(0, each) for topic in TOPICS}


def many_events(seed: int) -> dict[str, pa.Table]:
    """More than 200,000 events of two days, up to MANY_END_MS."""
    simulation = simulate(
        SimulationSettings(
            seed=seed,
            start_ms=START_MS,
            end_ms=MANY_END_MS,
            ad_events_per_day=82_000,
            account_events_per_day=22_000,
        )
    )
    return {topic: getattr(simulation, topic) for topic in TOPICS}


def in_parts(tables: Mapping[str, pa.Table], count: int) -> list[dict[str, pa.Table]]:
    """So many slices of the tables, of equal size, one after the other."""

    def part(table: pa.Table, place: int) -> pa.Table:
        begin, end = (table.num_rows * at // count for at in (place, place + 1))
        return table.slice(begin, end - begin)

    return [{topic: part(table, place) for topic, table in tables.items()} for place in range(count)]


def publish_all(work: Work, tables: Mapping[str, pa.Table]) -> int:
    """Append the events of each topic. Returns how many there were."""
    with closing(open_event_log(work.log)) as log, closing(log.producer()) as producer:
        for topic, table in tables.items():
            actors = table.column(ACTOR[topic]).to_pylist()
            for actor, line in zip(actors, json_lines(table, topic), strict=True):
                producer.send(topic, actor.encode(), line)
    return sum(table.num_rows for table in tables.values())


def with_faults(work: Work, tables: Mapping[str, pa.Table], faults: int, seed: int, fault: Fault) -> Herd:
    """Publishes the tables to a herd of two, and lets `fault` happen so many times, each at a random moment with events
    to do. Returns the herd, ended when it has most of them.

    Fails when a worker ends by itself, or does not go on.
    """
    chance = random.Random(seed)
    first, *others = in_parts(tables, faults + 1)
    with Herd(work, 2) as herd:
        herd.wait_until_begun()
        published = latest = publish_all(work, first)
        for part in others:
            herd.wait_until_done(published - round(latest * chance.uniform(1 - DONE_SHARE, 1)))
            latest = publish_all(work, part)
            published += latest
            herd.wait(chance.uniform(0, 0.05))
            fault(herd, chance)
        herd.wait_until_done(round(DONE_SHARE * published))
        herd.assert_alive()
    return herd


def kill_a_worker(herd: Herd, chance: random.Random) -> None:
    """One of the faults."""
    herd.kill(chance.randrange(len(herd.alive)))


def assert_rows_exact(work: Work, tables: Mapping[str, pa.Table]) -> int:
    """Every row equals the oracle. Returns how many values were compared."""
    with closing(connect(work.redis)) as client:
        return assert_rows_equal_oracle(client, work.project, work.views, tables, work.now_ms)
