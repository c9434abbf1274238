"""Rates, quantiles and the screen: what they show of what workers report."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from actor_risk.streaming.rates import Recent, quantile
from actor_risk.streaming.report import StreamStatus
from actor_risk.streaming.top import line, screen
from materialize.stream.measures import SECONDS, Distribution
from tests.streaming.fakes import report, status


def recent(*statuses: StreamStatus) -> Recent:
    seen = Recent()
    for one in statuses:
        seen.note(one)
    return seen


def shown(what: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rates_are_those_of_the_last_ten_seconds() -> None:
    seen = recent(*(status(ms, a=report(ms * 2, ms), b=report(ms, ms)) for ms in range(0, 120_000, 500)))
    assert seen.records_per_s() == pytest.approx(3_000)
    assert seen.records_per_s("a") == pytest.approx(2_000)
    assert seen.records_per_s("nobody") == 0.0
    assert seen.history(12) == [pytest.approx(3_000)] * 12


def test_a_worker_that_begins_anew_has_no_negative_rate() -> None:
    seen = recent(status(0, a=report(5_000, 0)), status(1_000, a=report(10, 1_000, pid=2)))
    assert seen.records_per_s("a") == 0.0
    assert seen.quantile("since_log_s", 0.5, "a") == pytest.approx(0.02, rel=0.5)


def test_quantiles_are_of_what_came_lately() -> None:
    slow = report(1_000, 0, fresh_s=5.0)
    both = slow.since_log_s.copy()
    both.add(0.02, 1_000)
    fast = report(2_000, 20_000, since_log_s=both)
    told = recent(status(0, a=slow), status(11_000, a=slow), status(20_000, a=fast))
    assert told.quantile("since_log_s", 0.99) == pytest.approx(0.02, abs=0.01)


@given(st.lists(st.floats(0.0, 29.9), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    seen = Distribution.over(SECONDS)
    for value in values:
        seen.add(value)
    true = sorted(values)[max(0, -int(-q * len(values) // 1) - 1)]
    told = quantile(seen, q)
    assert told is not None
    bounds = (0.0, *SECONDS)
    place = next(i for i in range(len(SECONDS)) if true <= SECONDS[i])
    assert bounds[place] - 1e-9 <= told <= bounds[place + 1] + 1e-9


def test_the_screen_shows_every_worker_and_what_is_wrong() -> None:
    good = report(10_000, 10_000, pid=41, partitions=["ad_events:0", "ad_events:1"])
    bad = report(
        3,
        10_000,
        pid=42,
        state="retrying",
        trouble="Redis does not answer",
        dead_letters={"malformed": 2, "invalid": 1},
    )
    now = status(10_000, worker_0=good, worker_1=bad)
    seen = recent(status(0, worker_0=report(0, 0, pid=41), worker_1=report(3, 0, pid=42)), now)
    text = shown(screen(now, seen))
    for expected in (
        "group a-group", "2 workers", "1,000 events/s", "worker-0 (41)", "worker-1 (42)", "retrying",
        "ad_events:0, ad_events:1", "Redis does not answer", "2 malformed", "1 invalid", "14 behind",
    ):  # fmt: skip
        assert expected in text, text
    assert "Redis does not answer" in line(now, seen)


def test_the_screen_of_a_command_that_has_not_begun_is_no_error() -> None:
    nothing = status(0)
    assert "0 workers" in shown(screen(nothing, recent(nothing)))
    assert line(nothing, recent(nothing)).startswith("0 events")
