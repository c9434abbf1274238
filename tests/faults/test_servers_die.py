"""Redis, Kafka and workers are killed in the middle of the work and come back; the rows end up exact all the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from materialize.online import RedisSettings
from tests.support.faults import (
    MANY_END_MS,
    Fault,
    assert_rows_exact,
    in_parts,
    kill_a_worker,
    many_events,
    publish_all,
    some_events,
    with_faults,
)
from tests.support.servers import Fronted, fronted_valkey
from tests.support.workers import LARGER, Herd, Work, finish
from tests.support.world import World

pytestmark = pytest.mark.kafka

DOWN_S = 1.0


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Fronted]:
    with fronted_valkey(tmp_path) as server:
        yield server


@pytest.fixture
def mortal(work: Work, valkey: Fronted) -> Work:
    """The same work, into a server that may be killed."""
    return replace(work, redis=RedisSettings(url=f"redis://{valkey.address}/0"))


def killing(server: Fronted) -> Fault:
    """A fault: the server dies and comes back after a while."""

    def fault(herd: Herd, chance: random.Random) -> None:
        server.kill()
        herd.wait(chance.uniform(0, DOWN_S))
        server.start()

    return fault


def test_a_redis_that_dies_twice_beside_kafka_leaves_exact_rows(mortal: Work, valkey: Fronted, world: World) -> None:
    tables = some_events(world, each=700)
    before, *meanwhile = in_parts(tables, 3)
    outages = iter(meanwhile)

    def fault(herd: Herd, _chance: random.Random) -> None:
        valkey.kill()
        publish_all(mortal, next(outages))
        herd.wait_for_more("retries")
        valkey.start()

    with_faults(mortal, before, 2, seed=2, fault=fault)
    finish(mortal)
    assert_rows_exact(mortal, tables)


def test_a_kafka_that_dies_leaves_exact_rows(work: Work, kafka: Fronted, world: World) -> None:
    tables = some_events(world, each=700)
    herd = with_faults(work, tables, 1, seed=3, fault=killing(kafka))
    assert herd.noted("records_lost") == 0
    finish(work)
    assert_rows_exact(work, tables)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("victims", ["redis", "kafka", "all"])
def test_servers_that_die_often_leave_rows_that_hold_200_000_events_once(
    mortal: Work, valkey: Fronted, kafka: Fronted, victims: str
) -> None:
    tables = many_events(seed=4)
    work = replace(mortal, now_ms=MANY_END_MS, settings=LARGER)
    faults = {"redis": [killing(valkey)], "kafka": [killing(kafka)]}
    chosen = faults.get(victims) or [kill_a_worker, *faults["redis"], *faults["kafka"]]
    herd = with_faults(work, tables, 20, 4, lambda herd, chance: chance.choice(chosen)(herd, chance))
    assert herd.noted("records_lost") == 0
    finish(work)
    assert_rows_exact(work, tables)
