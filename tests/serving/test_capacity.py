"""How much may be under way follows what the machine can do: late answers take away from it, others give back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.capacity import IN_TIME_MS, UNDER_WAY_MAX, UNDER_WAY_MIN, Capacity
from serving.clock import NS_PER_MS

LATE_NS, IN_TIME_NS = int(4 * IN_TIME_MS * NS_PER_MS), int(IN_TIME_MS * NS_PER_MS / 4)


class Machine:
    """A machine that answers `per_second` requests, one after the other."""

    def __init__(self, per_second: float) -> None:
        self._each_ns = int(1e9 / per_second)
        self.now_ns = 0
        self.capacity = Capacity(lambda: self.now_ns)

    def run(self, answers: int) -> list[float]:
        """Callers ask as fast as they are let in; how long each of so many answers took, milliseconds."""
        taken: list[float] = []
        began: list[int] = []
        while len(taken) < answers:
            while not self.capacity.is_full():
                began.append(self.now_ns)
                self.capacity.under_way += 1
            self.now_ns += self._each_ns
            took_ns = self.now_ns - began.pop(0)
            self.capacity.under_way -= 1
            self.capacity.took(took_ns)
            taken.append(took_ns / NS_PER_MS)
        return taken


def test_on_a_fast_machine_and_on_a_slow_one_who_is_let_in_is_answered_about_in_time() -> None:
    for per_second in (1_500, 2_000, 3_000, 6_000):
        late = sorted(Machine(per_second).run(20_000)[5_000:])
        assert late[len(late) // 2] < 1.1 * IN_TIME_MS
        assert late[-1] < 1.6 * IN_TIME_MS


def test_on_a_machine_too_slow_for_that_as_few_are_let_in_as_may_be() -> None:
    machine = Machine(1_000)
    late = machine.run(20_000)[5_000:]
    assert machine.capacity.bound == UNDER_WAY_MIN
    assert max(late) < 1.6 * IN_TIME_MS


def test_a_machine_that_answers_in_time_is_used_to_the_full() -> None:
    machine = Machine(10_000)
    machine.run(5_000)
    assert machine.capacity.bound == UNDER_WAY_MAX


def test_what_came_late_at_once_counts_once() -> None:
    capacity = Capacity(lambda: 0)
    for _ in range(50):
        capacity.took(LATE_NS)
    assert capacity.bound == int(0.8 * UNDER_WAY_MAX)


def test_a_slow_spell_is_made_up_for() -> None:
    now = iter(range(0, 10**15, 10 * LATE_NS))
    capacity = Capacity(lambda: next(now))
    for _ in range(30):
        capacity.took(LATE_NS)
    assert capacity.bound == UNDER_WAY_MIN
    for _ in range(UNDER_WAY_MAX**2):
        capacity.took(IN_TIME_NS)
    assert capacity.bound == UNDER_WAY_MAX


@given(st.lists(st.integers(0, 10 * LATE_NS), max_size=300))
def test_the_bound_stays_between_its_ends(times: list[int]) -> None:
    now = iter(range(0, 10**15, LATE_NS))
    capacity = Capacity(lambda: next(now))
    for took_ns in times:
        capacity.took(took_ns)
        assert UNDER_WAY_MIN <= capacity.bound <= UNDER_WAY_MAX
