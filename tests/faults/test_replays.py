"""Events come in any order, from zero again, and twice: the rows are those of every event once."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from materialize.online import connect
from materialize.stream import open_event_log
from tests.support.faults import (
    MANY_END_MS,
    assert_rows_exact,
    in_parts,
    kill_a_worker,
    many_events,
    publish_all,
    some_events,
    with_faults,
)
from tests.support.oracle_rows import stored_rows
from tests.support.streaming import poll_until_assigned
from tests.support.workers import LARGER, Herd, Work, finish
from tests.support.world import World

pytestmark = pytest.mark.kafka

HORIZON = 32
"""An event is known again while it is among so many newest of its row (docs/architecture.md)."""


def shuffled(tables: Mapping[str, pa.Table], seed: int) -> dict[str, pa.Table]:
    chance = np.random.default_rng(seed)
    return {topic: table.take(chance.permutation(table.num_rows)) for topic, table in tables.items()}


def reset_to_zero(work: Work) -> None:
    """What an operator does to have everything again: the group's offsets back to the beginning."""
    with closing(open_event_log(work.log)) as log, closing(log.consumer(work.topics, work.group)) as consumer:
        poll_until_assigned(consumer, sum(log.ensure_topics(work.topics).values()))
        consumer.commit(dict.fromkeys(consumer.assignment(), 0))


def test_input_in_any_order_and_from_zero_again_by_a_new_group_and_by_reset_offsets(work: Work, world: World) -> None:
    tables = some_events(world, each=600)
    records = publish_all(work, shuffled(tables, seed=1))
    first = finish(work)
    assert (first.records, first.replayed) == (records, 0)
    assert_rows_exact(work, tables)
    another = finish(replace(work, group="another"))
    reset_to_zero(work)
    again = finish(work)
    for counts in (another, again):
        assert (counts.records, counts.folded, counts.replayed) == (records, 0, first.folded)
    assert_rows_exact(work, tables)


def test_rows_that_a_server_lost_or_took_back_are_made_whole_by_reset_offsets(work: Work, world: World) -> None:
    tables = some_events(world, each=400)
    first, second = in_parts(tables, 2)
    publish_all(work, first)
    finish(work)
    with closing(connect(work.redis)) as client:
        saved = {key: row for view in work.views for key, row in stored_rows(client, work.project, view).items()}
        publish_all(work, second)
        finish(work)
        assert_rows_exact(work, tables)
        for view in work.views:
            for place, key in enumerate(sorted(stored_rows(client, work.project, view))):
                if key not in saved:
                    client.unlink(key)
                elif place % 2:  # a server's writes to other keys may have outlived
                    client.set(key, saved[key])
    with pytest.raises(AssertionError):
        assert_rows_exact(work, tables)
    reset_to_zero(work)
    finish(work)
    assert_rows_exact(work, tables)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_shuffled_input_with_kills_and_from_zero_again_leaves_rows_that_hold_200_000_events_once(work: Work) -> None:
    tables = many_events(seed=8)
    work = replace(work, now_ms=MANY_END_MS, settings=LARGER)
    with_faults(work, shuffled(tables, seed=8), 10, 8, kill_a_worker)
    finish(work)
    again = replace(work, group="another")
    records, chance = sum(table.num_rows for table in tables.values()), random.Random(9)
    with Herd(again, 2) as herd:
        herd.wait_until_begun()
        for done in sorted(chance.randrange(records) for _ in range(10)):
            herd.wait_until_done(done)
            kill_a_worker(herd, chance)
    finish(again)
    assert_rows_exact(work, tables)


def sent_twice(table: pa.Table, share: float, seed: int) -> pa.Table:
    """The table in its order, some events once more a little later: before any row that they touch has HORIZON newer
    ones."""
    chance = np.random.default_rng(seed)
    apart = HORIZON // 2  # positions in the log, of which a row has as many events at most
    count = table.num_rows
    chosen = np.flatnonzero(chance.random(count) < share)
    positions = np.concatenate([np.arange(count, dtype=np.float64), chosen + chance.uniform(0, apart, len(chosen))])
    order = np.argsort(positions, kind="stable")
    return table.take(np.concatenate([np.arange(count), chosen])[order])


@pytest.mark.parametrize("partitions", [1])
def test_an_event_that_its_producer_sends_twice_counts_once_within_the_horizon(work: Work, world: World) -> None:
    tables = some_events(world, each=800)
    twice = {topic: sent_twice(table, 0.2, seed=2) for topic, table in tables.items()}
    repeated = sum(twice[topic].num_rows - table.num_rows for topic, table in tables.items())
    with_faults(work, twice, 1, seed=10, fault=kill_a_worker)
    finish(work)
    assert repeated > 200
    assert_rows_exact(work, tables)
