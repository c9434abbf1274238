"""A worker sleeps past its session, others take over, and it wakes with a batch in hand: it cannot damage a row."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from actor_risk.local import wait_until
from materialize.online import RedisSettings
from tests.faults.conftest import SESSION_TIMEOUT_MS
from tests.support.faults import (
    MANY_END_MS,
    assert_rows_exact,
    many_events,
    publish_all,
    some_events,
    with_faults,
)
from tests.support.servers import fronted_valkey
from tests.support.workers import DEADLINE_S, LARGER, Herd, Work, finish, running
from tests.support.world import World

pytestmark = pytest.mark.kafka


def test_a_write_that_a_zombie_sent_before_it_slept_arrives_after_others_took_over_and_changes_nothing(
    work: Work, world: World, tmp_path: Path
) -> None:
    every, first = some_events(world, each=500), some_events(world, each=400)
    later = {topic: table.slice(400) for topic, table in every.items()}
    with fronted_valkey(tmp_path) as valkey:
        others = replace(work, redis=RedisSettings(url=valkey.server.url))
        slow = replace(work, redis=RedisSettings(url=f"redis://{valkey.address}/0", socket_timeout=DEADLINE_S))
        publish_all(work, first)
        with running(slow) as zombie:
            wait_until(lambda: zombie.records > 0, DEADLINE_S, "the worker works")
            valkey.proxy.stall()
            wait_until(lambda: valkey.proxy.held_bytes() > 0, DEADLINE_S, "something of it is on its way")
            zombie.signal(signal.SIGSTOP)
            asleep = zombie.records
            assert finish(others).records > 0
            assert_rows_exact(others, first)
            valkey.proxy.resume()
            zombie.signal(signal.SIGCONT)
            wait_until(lambda: zombie.records > asleep, DEADLINE_S, "the zombie is done with what it had in hand")
            assert_rows_exact(others, first)
            before = zombie.records
            more = publish_all(work, later)
            wait_until(lambda: zombie.records >= before + more, DEADLINE_S, "the zombie is a member again and works")
        finish(others)
        assert_rows_exact(others, every)


def sleep_past_the_session(herd: Herd, chance: random.Random) -> None:
    """A fault: a worker that does not know how long it slept."""
    place = chance.randrange(len(herd.alive))
    herd.alive[place].signal(signal.SIGSTOP)
    herd.alive[place - 1].wait(SESSION_TIMEOUT_MS / 1_000 + chance.uniform(0.5, 1.5))
    herd.alive[place].signal(signal.SIGCONT)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_workers_that_sleep_past_their_session_again_and_again_leave_exact_rows(work: Work) -> None:
    tables = many_events(seed=7)
    work = replace(work, now_ms=MANY_END_MS, settings=LARGER)
    herd = with_faults(work, tables, 20, 7, sleep_past_the_session)
    assert herd.noted("commits_rejected") > 0
    finish(work)
    assert_rows_exact(work, tables)
