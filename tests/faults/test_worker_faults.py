"""Workers are killed and servers go away in the middle of the work; the rows end up exact all the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis

from actor_risk.local import Valkey, wait_until
from actor_risk.local.processes import is_alive, start_child
from actor_risk.local.valkey import server_binary
from actor_risk.simulate import SimulationSettings, simulate
from materialize.definitions import StreamView
from materialize.online import RowWriter
from materialize.stream import DeadLetters, RedisLogSettings, open_event_log
from materialize.stream.worker import StreamWorker, WorkerCounts, WorkerSettings
from tests.support.children import CHILDREN, start_child_of_tests
from tests.support.rows import assert_rows_hold_exactly
from tests.support.streaming import open_bench, run_until
from tests.support.world import DAY_MS, SETTINGS, START_MS, TOPICS, World, publish_table

NOW_MS = SETTINGS.end_ms
GROUP = "workers"
DEADLINE_S = 60.0
SMALL = WorkerSettings(batch_records_max=40, poll_timeout_ms=50, retry_first_s=0.02, retry_max_s=0.1)


def log_settings(redis_url: str, project: str) -> RedisLogSettings:
    return RedisLogSettings(url=redis_url, prefix=project, lease_ms=600, timeout_ms=2_000)


def work_for_ever(redis_url: str, project: str, views: Sequence[StreamView], done: Any) -> None:
    """What a worker process does, with connections of its own and small batches, until it is killed."""
    with closing(open_event_log(log_settings(redis_url, project))) as log, redis.Redis.from_url(redis_url) as client:
        letters, consumer = DeadLetters(log), log.consumer(TOPICS, GROUP)
        worker = StreamWorker(project, views, consumer, RowWriter(client), letters, lambda: NOW_MS, SMALL)

        def note(counts: WorkerCounts) -> None:
            done.value = counts.records

        worker.run(threading.Event(), note)


@contextmanager
def worker_process(redis_url: str, project: str, views: Sequence[StreamView]) -> Iterator[tuple[BaseProcess, Any]]:
    """A worker process, killed at the end, and how many records it has taken through the whole protocol."""
    done = CHILDREN.Value("q", 0, lock=False)  # a killed process would keep its lock
    process = start_child_of_tests(work_for_ever, redis_url, project, views, shared=done)
    try:
        yield process, done
    finally:
        process.kill()
        process.join()


def publish_all(redis_url: str, project: str, tables: dict[str, pa.Table]) -> None:
    with closing(open_event_log(log_settings(redis_url, project))) as log:
        log.ensure_topics(TOPICS)
        for topic, table in tables.items():
            publish_table(log, topic, table)


def finish(redis_url: str, project: str, views: Sequence[StreamView]) -> WorkerCounts:
    """Works until nothing is left to do in any partition."""
    with (
        open_bench(log_settings(redis_url, project), redis_url, project) as bench,
        closing(bench.log.consumer(TOPICS, GROUP)) as consumer,
    ):
        partitions = sum(bench.log.ensure_topics(TOPICS).values())
        worker = StreamWorker(project, views, consumer, RowWriter(bench.client), bench.dead_letters, lambda: NOW_MS)
        run_until(worker, lambda: len(consumer.assignment()) == partitions and not any(consumer.lag().values()))
        return worker.counts


def assert_kills_leave_exact_rows(
    redis_url: str, project: str, views: Sequence[StreamView], tables: dict[str, pa.Table], kills: int, seed: int
) -> None:
    """Kills `kills` workers one after the other, each after a while of its own, and then lets one finish."""
    chance = random.Random(seed)
    publish_all(redis_url, project, tables)
    most = sum(table.num_rows for table in tables.values()) // kills
    for _ in range(kills):
        wanted, moment_s = chance.randrange(most), chance.uniform(0, 0.1)
        with worker_process(redis_url, project, views) as (process, done):
            wait_until(lambda done=done, wanted=wanted: done.value >= wanted, DEADLINE_S, "it works")  # type: ignore[misc]
            process.join(moment_s)  # somewhere within its next batches
            assert process.is_alive()
    finish(redis_url, project, views)
    with redis.Redis.from_url(redis_url) as client:
        assert_rows_hold_exactly(client, project, views, tables, NOW_MS)


def test_workers_killed_at_any_moment_leave_rows_that_hold_every_event_once(
    world: World, redis_url: str, redis_namespace: str
) -> None:
    tables = {topic: getattr(world.live, topic) for topic in TOPICS}
    assert_kills_leave_exact_rows(redis_url, redis_namespace, world.views(), tables, kills=3, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", range(5))
def test_many_killed_workers_leave_rows_that_hold_every_event_once(
    world: World, redis_url: str, redis_namespace: str, seed: int
) -> None:
    simulation = simulate(
        SimulationSettings(seed=seed, start_ms=START_MS, end_ms=START_MS + 2 * DAY_MS, ips=3_000, devices=3_000)
    )
    tables = {topic: getattr(simulation, topic) for topic in TOPICS}
    assert_kills_leave_exact_rows(redis_url, redis_namespace, world.views(), tables, kills=25, seed=seed)


def test_a_killed_worker_beside_a_living_one_leaves_exact_rows(
    world: World, redis_url: str, redis_namespace: str
) -> None:
    tables = {topic: getattr(world.live, topic).slice(0, 700) for topic in TOPICS}
    views = world.views()
    publish_all(redis_url, redis_namespace, tables)
    with worker_process(redis_url, redis_namespace, views) as (_, living):
        with worker_process(redis_url, redis_namespace, views) as (_, dying):
            wait_until(lambda: living.value + dying.value >= 300, DEADLINE_S, "both work")
        total = sum(table.num_rows for table in tables.values()) - SMALL.batch_records_max  # its last batch, unnoted
        wait_until(lambda: living.value + dying.value >= total, DEADLINE_S, "the living takes over")
    finish(redis_url, redis_namespace, views)
    with redis.Redis.from_url(redis_url) as client:
        assert_rows_hold_exactly(client, redis_namespace, views, tables, NOW_MS)


class Restarts:
    """Kills a server and starts it again on its port and data; ends what it started."""

    def __init__(self, server: Valkey) -> None:
        self._server = server
        self._pid = server.record.pid
        self._child: subprocess.Popen[bytes] | None = None

    def kill_and_start(self) -> None:
        """SIGKILL, and a new process with the same settings."""
        os.kill(self._pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(self._pid), DEADLINE_S, "the server is dead")
        self._child = start_child([str(server_binary()), str(self._server.config_path)], self._server.log_path)
        self._pid = self._child.pid
        with redis.Redis.from_url(self._server.url) as client:
            wait_until(lambda: answers(client), DEADLINE_S, "the server is back")

    def __enter__(self) -> Restarts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_redis_that_dies_and_comes_back_on_its_log_leaves_exact_rows(world: World, tmp_path: Path) -> None:
    views, project = world.views(), world.project
    tables = {topic: getattr(world.live, topic).slice(0, 700) for topic in TOPICS}
    with Valkey(tmp_path, append_only=True, config=["appendfsync always"]) as server, Restarts(server) as restarts:
        publish_all(server.url, project, tables)
        with worker_process(server.url, project, views) as (process, done):
            for wanted in (60, 250):
                wait_until(lambda wanted=wanted: done.value >= wanted, DEADLINE_S, "it works")  # type: ignore[misc]
                restarts.kill_and_start()
            wait_until(lambda: done.value >= 600, DEADLINE_S, "it works on")
            assert process.is_alive()
        counts = finish(server.url, project, views)
        assert counts.records_lost == 0
        with redis.Redis.from_url(server.url) as client:
            assert_rows_hold_exactly(client, project, views, tables, NOW_MS)
