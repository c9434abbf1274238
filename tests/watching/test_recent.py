"""Pages of several replicas behind one address, and what changed between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actor_risk.errors import ActorRiskError
from actor_risk.watching.pages import Page, parse
from actor_risk.watching.recent import GONE_S, Recent, quantile


def page(at_s: float, answers: int, replica: str = "a", memory: float = 1.0) -> Page:
    text = f"""# TYPE actor_risk_verdicts_total counter
actor_risk_verdicts_total{{model="m",verdict="allow",replica="{replica}"}} {answers}
actor_risk_verdicts_total{{model="m",verdict="block",replica="{replica}"}} {2 * answers}
# TYPE memory gauge
memory{{replica="{replica}"}} {memory}
"""
    return parse(text, at_s)


def recent(*pages: Page) -> Recent:
    seen = Recent()
    for one in pages:
        seen.note(one)
    return seen


def test_rates_are_those_of_the_last_ten_seconds() -> None:
    seen = recent(*(page(second, 100 if second < 30 else 100 + 5 * (second - 30)) for second in range(60)))
    assert seen.per_s("actor_risk_verdicts_total", ["verdict"]) == {
        ("allow",): pytest.approx(5),
        ("block",): pytest.approx(10),
    }


def test_replicas_that_take_turns_are_added_up_and_never_compared() -> None:
    seen = recent(*(page(second, 3 * second + (9_000 if second % 2 else 0), "ab"[second % 2]) for second in range(20)))
    assert seen.per_s("actor_risk_verdicts_total") == {(): pytest.approx(2 * 9)}
    assert list(seen.replicas) == ["a", "b"]
    assert seen.now("memory", (), lambda a, b: a + b) == {(): 2}


def test_one_page_gives_no_rate_and_the_counts_since_the_start() -> None:
    seen = recent(page(0, 7))
    assert seen.per_s("actor_risk_verdicts_total") == {}
    assert seen.is_idle
    assert seen.changes("actor_risk_verdicts_total", ["verdict"]) == {("allow",): 7, ("block",): 14}


def test_changes_are_the_latest_ones_as_long_as_there_are_some() -> None:
    seen = recent(page(0, 100), page(1, 101))
    assert seen.changes("actor_risk_verdicts_total", ["model"], lambda of: of["verdict"] == "block") == {("m",): 2}
    assert not seen.is_idle


def test_a_replica_that_is_not_reached_any_more_is_left_out() -> None:
    seen = recent(page(0, 1, "gone"), page(1, 1, "here"), page(1 + GONE_S, 1, "here"))
    assert list(seen.replicas) == ["here"]


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_lies_within_the_bucket_of_the_value(values: list[float], q: float) -> None:
    ends = [0.1, 0.25, 0.5, 1.0]
    buckets = {str(end): float(sum(value <= end for value in values)) for end in ends}
    found = quantile({**buckets, "+Inf": float(len(values))}, q)
    assert found is not None
    exact = sorted(values)[max(0, -int(-q * len(values) // 1) - 1)]
    high = next(end for end in ends if exact <= end)
    assert max([0.0, *(end for end in ends if end < high)]) <= found <= high


def test_nothing_has_no_quantile_and_beyond_the_last_bound_there_is_only_it() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({"1.0": 0.0, "+Inf": 0.0}, 0.5) is None
    assert quantile({"1.0": 1.0, "+Inf": 10.0}, 0.9) == 1.0


def test_what_is_no_page_is_said_to_be_none() -> None:
    with pytest.raises(ActorRiskError, match="no page of metrics"):
        parse("<html>hello</html>", 0)
