"""Token buckets: one number for each client does what tokens that are counted would do."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.access import Buckets, Limit
from serving.errors import TooManyRequestsError

NS_PER_S = 1_000_000_000


@dataclass
class Now:
    ns: int = 5 * NS_PER_S

    def __call__(self) -> int:
        return self.ns


def takes(buckets: Buckets, client: str, limit: Limit) -> int:
    """0 when a token was there, else the seconds to wait."""
    try:
        buckets.take(client, limit)
    except TooManyRequestsError as error:
        return error.retry_after_s
    return 0


STEPS = st.lists(st.tuples(st.integers(0, 3 * NS_PER_S), st.sampled_from([0, 0, 0, 1, 5])), max_size=60)


@given(STEPS, st.sampled_from([0.5, 1, 4, 1000]), st.integers(1, 6))
def test_a_bucket_does_what_counted_tokens_do(steps: list[tuple[int, int]], rate: float, burst: int) -> None:
    now, limit, tokens = Now(), Limit(rate, burst), Fraction(burst)
    buckets = Buckets(now)
    for pause_ns, charged in steps:
        now.ns += pause_ns
        tokens = min(Fraction(burst), tokens + Fraction(pause_ns) * Fraction(rate) / NS_PER_S)
        if charged:
            buckets.charge("a", limit, charged)
            tokens -= charged
            continue
        wait_s = takes(buckets, "a", limit)
        assert (wait_s == 0) == (tokens >= 1)
        if wait_s:
            assert wait_s - 1 < (1 - tokens) / Fraction(rate) <= wait_s
        else:
            tokens -= 1


def test_whoever_waits_as_long_as_told_is_let_in() -> None:
    now, limit = Now(), Limit(0.3, 1)
    buckets = Buckets(now)
    assert takes(buckets, "a", limit) == 0
    for _ in range(5):
        now.ns += takes(buckets, "a", limit) * NS_PER_S
        assert takes(buckets, "a", limit) == 0


def test_a_refused_request_costs_nothing() -> None:
    now, limit = Now(), Limit(1, 2)
    buckets = Buckets(now)
    assert [takes(buckets, "a", limit) for _ in range(100)] == [0, 0] + [1] * 98
    now.ns += NS_PER_S
    assert takes(buckets, "a", limit) == 0


def test_the_client_that_was_not_seen_for_longest_makes_room() -> None:
    buckets, limit = Buckets(Now(), clients_max=2), Limit(1, 1)
    assert [takes(buckets, client, limit) for client in "abacba"] == [0, 0, 1, 0, 0, 0]
    assert len(buckets._full_at_ns) == 2


@pytest.mark.parametrize("rate", [1e-6, 1e6])
def test_odd_rates_are_kept(rate: float) -> None:
    limit = Limit(rate, 1)
    assert limit.token_ns == round(NS_PER_S / rate)
