"""Every pool of workers does the same: one suite for processes and for Ray actors, with real workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actor_risk.errors import ActorRiskError
from actor_risk.home import Home
from actor_risk.local import wait_until
from actor_risk.streaming.endings import how_it_ended
from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.processes import ProcessPool
from actor_risk.streaming.workers import Ended, Worker, WorkerPool
from materialize.events import EventFormatError
from materialize.online import OnlineStoreUnavailableError
from materialize.stream import DefinitionsSupersededError, LogUnavailableError
from tests.streaming.conftest import publish_clicks

START_TIMEOUT_S = 90.0

MakePool = Callable[[Home], WorkerPool]


def _processes(folder: Path) -> Iterator[MakePool]:
    yield lambda home: ProcessPool(home, folder)


def _actors(_: Path) -> Iterator[MakePool]:
    from actor_risk.streaming.on_ray import RayPool

    yield lambda home: RayPool(home, "local", 2)


@pytest.fixture(params=[_processes, _actors])
def make_pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakePool]:
    yield from request.param(tmp_path)


@pytest.fixture
def pool(make_pool: MakePool, home: Home) -> Iterator[WorkerPool]:
    made = make_pool(home)
    yield made
    made.close()


def wait_for_end(worker: Worker) -> Ended:
    wait_until(lambda: worker.ended() is not None, START_TIMEOUT_S, "the worker ends")
    ended = worker.ended()
    assert ended is not None
    return ended


def test_a_worker_works_until_it_is_told_to_stop_and_its_successor_goes_on(
    pool: WorkerPool, home: Home, request: pytest.FixtureRequest
) -> None:
    group = f"stops-{request.node.name}"
    options = WorkerOptions(group=group, start="latest")
    killed = pool.start("worker-0", options)
    wait_until(lambda: bool(killed.report().partitions), START_TIMEOUT_S, "the worker owns partitions")
    publish_clicks(home, group, 30)
    wait_until(lambda: killed.report().records == 30, START_TIMEOUT_S, "30 records are done")
    report = killed.report()
    assert [place for place in report.partitions if place.startswith("ad_events:")] == [
        f"ad_events:{number}" for number in range(4)
    ]
    assert report.folded > 0
    assert report.rows_written > 0
    os.kill(report.pid, signal.SIGKILL)
    assert wait_for_end(killed).how == "died"
    assert killed.report().records == 30  # what it said last
    killed.kill()

    publish_clicks(home, f"more-{group}", 12)
    stopped = pool.start("worker-0", options)
    wait_until(lambda: stopped.report().records == 12, START_TIMEOUT_S, "12 more are done")
    assert stopped.ended() is None
    stopped.stop()
    assert wait_for_end(stopped).how == "stopped"
    stopped.kill()
    assert stopped.report().records == 12


def test_a_worker_that_cannot_work_says_why(home: Home, tmp_path: Path) -> None:
    pool = ProcessPool(replace(home, root=tmp_path), tmp_path)  # no registry there
    worker = pool.start("worker-0", WorkerOptions(group="refused"))
    ended = wait_for_end(worker)
    assert ended.how == "refused"
    assert "actor-risk apply" in ended.detail


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (OnlineStoreUnavailableError("Redis is away"), "unavailable"),
        (LogUnavailableError("Kafka is away"), "unavailable"),
        (DefinitionsSupersededError(), "superseded"),
        (EventFormatError("no schema"), "refused"),
        (ActorRiskError("no views"), "refused"),
        (MemoryError(), "died"),
        (ZeroDivisionError(), "died"),
    ],
)
def test_what_ended_a_worker_decides_whether_it_is_started_again(error: Exception, how: str) -> None:
    assert how_it_ended(error) == how
