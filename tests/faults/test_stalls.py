"""The network holds everything back, then delivers it late or loses it: nothing is lost, nothing counted twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from materialize.online import RedisSettings
from materialize.stream import KafkaLogSettings
from tests.faults.conftest import SESSION_TIMEOUT_MS
from tests.support.faults import assert_rows_exact, in_parts, publish_all, some_events, with_faults
from tests.support.proxy import Proxy
from tests.support.servers import Fronted
from tests.support.workers import Herd, Work, finish
from tests.support.world import World

pytestmark = pytest.mark.kafka

STALL_S = SESSION_TIMEOUT_MS / 1_000 + 0.5
LONG_STALL_S = 10.0


@pytest.fixture
def wire(redis_url: str) -> Iterator[Proxy]:
    """The way to Redis."""
    address = urlsplit(redis_url)
    if address.hostname not in ("127.0.0.1", "localhost"):
        pytest.skip("the proxy leads to servers of this machine only")
    with Proxy() as proxy:
        proxy.aim(address.port or 6379)
        yield proxy


def through(wire: Proxy, redis_url: str, timeout_s: float) -> RedisSettings:
    database = urlsplit(redis_url).path
    return RedisSettings(url=f"redis://127.0.0.1:{wire.port}{database}", socket_timeout=timeout_s)


def assert_redis_stalls_leave_exact_rows(work: Work, wire: Proxy, world: World, seconds: float, loses: bool) -> None:
    """Twice, each time for so long at least, and until it was noticed."""
    tables = some_events(world, each=700)
    before, *meanwhile = in_parts(tables, 3)
    stalls = iter(meanwhile)

    def fault(herd: Herd, _chance: random.Random) -> None:
        wire.stall()
        publish_all(work, next(stalls))
        herd.wait(seconds)
        herd.wait_for_more("retries")
        release(wire, loses)

    with_faults(work, before, 2, seed=5, fault=fault)
    finish(work)
    assert_rows_exact(work, tables)


def release(proxy: Proxy, loses: bool) -> None:
    if loses:
        proxy.cut()
    proxy.resume()


@pytest.mark.parametrize("loses", [False, True], ids=["late", "lost"])
def test_writes_that_redis_gets_late_or_never_leave_exact_rows(
    work: Work, wire: Proxy, redis_url: str, world: World, loses: bool
) -> None:
    short = replace(work, redis=through(wire, redis_url, timeout_s=0.3))
    assert_redis_stalls_leave_exact_rows(short, wire, world, 0, loses)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("loses", [False, True], ids=["late", "lost"])
def test_ten_seconds_without_redis_leave_exact_rows(
    work: Work, wire: Proxy, redis_url: str, world: World, loses: bool
) -> None:
    usual = replace(work, redis=through(wire, redis_url, RedisSettings.socket_timeout))
    assert_redis_stalls_leave_exact_rows(usual, wire, world, LONG_STALL_S, loses)


def assert_kafka_stall_leaves_exact_rows(work: Work, kafka: Fronted, world: World, seconds: float, loses: bool) -> None:
    tables = some_events(world, each=700)

    def fault(herd: Herd, _chance: random.Random) -> None:
        kafka.proxy.stall()
        herd.wait(seconds)
        release(kafka.proxy, loses)

    herd = with_faults(work, tables, 1, seed=6, fault=fault)
    assert herd.noted("records_lost") == 0
    finish(work)
    assert_rows_exact(work, tables)


@pytest.mark.parametrize("loses", [False, True], ids=["late", "lost"])
def test_a_kafka_that_is_silent_for_longer_than_the_session_leaves_exact_rows(
    work: Work, kafka: Fronted, world: World, loses: bool
) -> None:
    assert_kafka_stall_leaves_exact_rows(work, kafka, world, STALL_S, loses)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("loses", [False, True], ids=["late", "lost"])
@pytest.mark.parametrize("settings", ["usual", "short"])
def test_ten_seconds_without_kafka_leave_exact_rows(
    work: Work, kafka: Fronted, world: World, loses: bool, settings: str
) -> None:
    if settings == "usual":
        work = replace(work, log=KafkaLogSettings(bootstrap_servers=kafka.address))
    assert_kafka_stall_leaves_exact_rows(work, kafka, world, LONG_STALL_S, loses)
