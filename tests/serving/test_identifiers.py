"""Random bytes for identifiers."""

from __future__ import annotations

from itertools import cycle, islice

from serving.identifiers import DECISION_RANDOM_BYTES, TRACE_RANDOM_BYTES, RandomBytes


def test_random_bytes_are_as_many_as_asked_for_and_never_given_twice() -> None:
    random_bytes = RandomBytes()
    counts = list(islice(cycle([DECISION_RANDOM_BYTES, TRACE_RANDOM_BYTES]), 5_000))
    given = [random_bytes(count) for count in counts]
    assert [len(one) for one in given] == counts
    assert len({one[:DECISION_RANDOM_BYTES] for one in given}) == len(given)


def test_more_can_be_asked_for_than_is_fetched_at_once() -> None:
    random_bytes = RandomBytes()
    first, large, last = random_bytes(8), random_bytes(100_000), random_bytes(8)
    assert (len(first), len(large), len(last)) == (8, 100_000, 8)
    assert len({first, large[:8], large[-8:], last}) == 4
