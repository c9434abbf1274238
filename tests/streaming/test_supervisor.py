"""What a person relies on: dead workers come back, hopeless ones end the command, and stopping is orderly."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event as ThreadEvent

import pytest

from actor_risk.errors import ActorRiskError
from actor_risk.streaming import supervisor as module
from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.report import StreamStatus
from actor_risk.streaming.restarts import Deaths, RestartPolicy
from actor_risk.streaming.supervisor import Supervisor
from tests.streaming.fakes import FakePool, report

POLICY = RestartPolicy(first_s=1.0, longest_s=4.0, deaths_max=3, window_s=60.0)
ROUNDS_MAX = 200


class Stage:
    """A supervisor over a fake pool, whose clock goes one second on at each look."""

    def __init__(self, workers: int = 1, options: WorkerOptions | None = None, *, stubborn: bool = False) -> None:
        self.pool = FakePool(stubborn=stubborn)
        self.now_s = 0.0
        self.supervisor = Supervisor(
            self.pool, workers, options or WorkerOptions(), POLICY, lambda: self.now_s, lambda: int(self.now_s * 1_000)
        )

    def run(self, step: Callable[[StreamStatus], bool]) -> StreamStatus:
        """Until `step`, which is told each status, says that it is enough."""
        stop, rounds = ThreadEvent(), 0

        def tell(status: StreamStatus) -> None:
            nonlocal rounds
            self.now_s += 1.0
            rounds += 1
            if rounds == ROUNDS_MAX:
                raise AssertionError("it never came to an end")
            if not stop.is_set() and step(status):
                stop.set()

        return self.supervisor.run(stop, tell)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.001)


def test_every_worker_is_started_and_stopped_in_order() -> None:
    stage = Stage(workers=3)
    stage.run(lambda status: len(status.workers) == 3)
    assert sorted(stage.pool.started) == ["worker-0", "worker-1", "worker-2"]
    assert all(worker.end is not None and worker.end.how == "stopped" for [worker] in stage.pool.started.values())
    assert stage.pool.closed


def test_a_dead_worker_is_started_again_and_what_it_did_still_counts() -> None:
    stage = Stage(workers=2)

    def step(status: StreamStatus) -> bool:
        first = stage.pool.started.get("worker-0", [])
        if len(first) == 1 and first[0].end is None:
            first[0].said = report(100, at_ms=1, dead_letters={"invalid": 3})
            first[0].end_as("died", "signal 9")
        elif len(first) == 2:
            first[1].said = report(20, at_ms=2, dead_letters={"invalid": 1})
            return status.records == 120
        return False

    last = stage.run(step)
    assert (last.records, last.dead_letters) == (120, 4)
    assert last.restarts == {"worker-0": 1, "worker-1": 0}
    assert len(stage.pool.started["worker-1"]) == 1
    assert not last.trouble  # it works again


def test_the_trouble_is_told_until_the_worker_owns_partitions_again() -> None:
    stage = Stage()
    told: list[str] = []

    def step(status: StreamStatus) -> bool:
        workers = stage.pool.started.get("worker-0", [])
        if len(workers) == 1:
            workers[0].end_as("died", "signal 9")
        told.append(status.trouble.get("worker-0", ""))
        return len(workers) == 2

    stage.run(step)
    assert "signal 9" in told[-1]
    assert "started again" in told[-1]


def test_a_worker_that_dies_too_often_ends_the_command_and_says_why() -> None:
    stage = Stage(workers=2)

    def step(_: StreamStatus) -> bool:
        for worker in stage.pool.started.get("worker-1", []):
            worker.end_as("died", "out of memory")
        return False

    with pytest.raises(ActorRiskError, match=r"worker-1 died more than 3 times within 60 s.*out of memory"):
        stage.run(step)
    assert len(stage.pool.started["worker-1"]) == 4
    assert stage.pool.newest("worker-0").end is not None  # the others finished their batch
    assert stage.pool.closed


def test_what_would_fail_again_is_not_tried_again() -> None:
    stage = Stage()

    def step(_: StreamStatus) -> bool:
        if stage.pool.started:
            stage.pool.newest().end_as("refused", "the registry has no stream views")
        return False

    with pytest.raises(ActorRiskError, match="no stream views"):
        stage.run(step)
    assert len(stage.pool.started["worker-0"]) == 1


def test_a_log_or_redis_that_is_away_at_the_start_is_waited_for() -> None:
    stage = Stage()

    def step(_: StreamStatus) -> bool:
        workers = stage.pool.started.get("worker-0", [])
        if len(workers) > 3 * POLICY.deaths_max:
            return True
        for worker in workers:
            worker.end_as("unavailable")
        return False

    stage.run(step)


def test_definitions_that_were_never_in_force_end_the_command() -> None:
    stage = Stage()

    def step(_: StreamStatus) -> bool:
        if stage.pool.started:
            stage.pool.newest().end_as("superseded", "newer definitions are at work")
        return False

    with pytest.raises(ActorRiskError, match="newer definitions"):
        stage.run(step)


def test_a_worker_whose_definitions_were_superseded_begins_again_with_those_of_the_registry() -> None:
    stage = Stage(options=WorkerOptions(take_over=True))

    def step(_: StreamStatus) -> bool:
        workers = stage.pool.started.get("worker-0", [])
        if len(workers) == 1 and workers[0].end is None:
            workers[0].said = report(5, at_ms=1)
            workers[0].end_as("superseded")
        return len(workers) == 2

    stage.run(step)
    first, second = stage.pool.started["worker-0"]
    assert first.options.take_over
    assert not second.options.take_over  # it must not win over those that took over from it


def test_a_worker_that_does_not_stop_is_ended() -> None:
    stage = Stage(stubborn=True)
    ticks = iter(range(10_000))
    stage.supervisor._clock_s = lambda: float(next(ticks))
    stage.run(lambda status: bool(status.workers))
    assert stage.pool.newest().killed


def test_waiting_grows_with_each_death_and_old_deaths_are_forgotten() -> None:
    deaths = Deaths(POLICY)
    assert [deaths.note(second) for second in (0.0, 1.0, 2.0)] == [1.0, 2.0, 4.0]
    assert deaths.note(100.0) == 1.0
    assert [deaths.note(second) for second in (101.0, 102.0, 103.0)] == [2.0, 4.0, None]
