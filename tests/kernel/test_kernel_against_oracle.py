"""The kernel computes what the oracle says, for any events in any order, batches, repetitions and read times."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.kernel import (
    KEEP_SLACK_MS,
    AggregationSpec,
    EventBlock,
    Row,
    ViewSpec,
    Window,
    empty_row,
    fold_events,
    read_windows,
    replace_batch_side,
    values_as_of,
)
from tests.kernel.oracle import ORACLE, OracleEvent, oracle_values

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
WINDOWS = (10_000, 5 * MINUTE_MS, HOUR_MS, 24 * HOUR_MS, 7 * 24 * HOUR_MS)
SPEC = ViewSpec(
    "everything",
    tuple(
        AggregationSpec(f"{function}_{column}_{length}", column, function, Window.of(length))
        for length in WINDOWS
        for function in ORACLE
        for column in (("ip",) if function == "count_distinct" else ("amount",))
    ),
)
START_MS = 1_760_000_000_000


def block_of(events: Sequence[OracleEvent]) -> EventBlock:
    return SPEC.block(
        [event.time_ms for event in events],
        [event.event_id for event in events],
        {name: np.array([event.columns[name] for event in events], dtype=object) for name in ("amount", "ip")},
    )


def folded(batches: Sequence[Sequence[OracleEvent]]) -> Row:
    row = empty_row(SPEC)
    for batch in batches:
        row, _ = fold_events(SPEC, row, block_of(batch))
    return row


def assert_equal(values: np.ndarray, found: bool, expected: list[float | None] | None) -> None:
    assert found == (expected is not None)
    wanted = [np.nan] * len(SPEC.aggregations) if expected is None else [np.nan if v is None else v for v in expected]
    np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-9)
    for spec, value, want in zip(SPEC.aggregations, values, wanted, strict=True):
        if spec.function in ("count", "count_distinct", "min", "max", "last", "first"):
            assert value == want or (np.isnan(value) and np.isnan(want)), spec.feature


@st.composite
def histories(draw: st.DrawFn) -> list[OracleEvent]:
    near = st.integers(0, 20 * 60) | st.integers(0, 26 * 3600) | st.integers(0, 8 * 24 * 3600)
    offsets = draw(st.lists(near, max_size=90))
    edge = draw(st.sampled_from((1000, 999, 1)))
    amount = st.none() | st.sampled_from((0.0, 1.0, 2.5, 1e9)) | st.floats(-1e6, 1e6)
    ip = st.none() | st.sampled_from(("a", "b", "c", "d"))
    return [
        OracleEvent(f"e{i}", START_MS - offset * edge, {"amount": draw(amount), "ip": draw(ip)})
        for i, offset in enumerate(offsets)
    ]


def split(events: Sequence[OracleEvent], cuts: Sequence[int]) -> list[Sequence[OracleEvent]]:
    marks = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
    return [events[a:b] for a, b in itertools.pairwise(marks)]


@settings(max_examples=120, deadline=None)
@given(histories(), st.randoms(use_true_random=False), st.lists(st.integers(0, 100)), st.integers(0, 3 * 3600_000))
def test_any_order_and_any_batches_give_the_oracles_values(
    events: list[OracleEvent], shuffle: random.Random, cuts: list[int], later_ms: int
) -> None:
    expected = oracle_values(SPEC, events, START_MS + later_ms)
    shuffle.shuffle(events)
    row = folded(split(events, cuts))
    read = read_windows(SPEC, row, START_MS + later_ms)
    assert_equal(read.values, read.found, expected)
    assert read.exact


@settings(max_examples=80, deadline=None)
@given(histories().filter(lambda events: len(events) <= 32), st.integers(0, 9 * 24 * 3600_000))
def test_a_read_within_the_head_leaves_out_what_came_later(events: list[OracleEvent], ago_ms: int) -> None:
    as_of_ms = START_MS - ago_ms
    reachable = [e for e in events if e.time_ms > START_MS - 7 * 24 * HOUR_MS]
    read = read_windows(SPEC, folded([reachable]), as_of_ms)
    expected = oracle_values(SPEC, reachable, as_of_ms)
    if read.exact and ago_ms < KEEP_SLACK_MS:
        assert_equal(read.values, read.found, expected)


@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(0, 9 * 24 * 3600_000), st.integers(0, 24 * 3600_000))
def test_point_in_time_values_are_the_oracles_as_of_any_time(
    events: list[OracleEvent], ago_ms: int, later_ms: int
) -> None:
    halves = [events[::2], events[1::2]]
    keys = np.array([i % 2 for i in range(len(events))], dtype=np.int64)
    times = np.array([START_MS - ago_ms, START_MS + later_ms, START_MS], dtype=np.int64)
    values, found, _ = values_as_of(
        SPEC,
        np.concatenate([keys, keys]),
        block_of(events + events),
        np.array([0, 1, -1], dtype=np.int64),
        times,
    )
    for i, half in enumerate(halves):
        assert_equal(values[i], bool(found[i]), oracle_values(SPEC, half, int(times[i])))
    assert not found[2]
    assert np.isnan(values[2]).all()


@settings(max_examples=80, deadline=None)
@given(
    histories(), st.lists(st.integers(0, 40) | st.integers(0, 3 * 24 * 3600_000), min_size=1), st.integers(0, 9 * 24)
)
def test_what_is_known_later_counts_from_then_on(
    events: list[OracleEvent], lateness_ms: list[int], ago_hours: int
) -> None:
    known = [event.time_ms + lateness_ms[i % len(lateness_ms)] for i, event in enumerate(events)]
    # The same events a second time, known a day later: of both, the first known counts.
    twice = np.array([known_ms + day for day in (24 * HOUR_MS, 0) for known_ms in known], dtype=np.int64)
    times = np.array([START_MS - ago_hours * HOUR_MS, START_MS, START_MS + 30, START_MS + HOUR_MS], dtype=np.int64)
    keys, asked = np.zeros(2 * len(events), dtype=np.int64), np.zeros(len(times), dtype=np.int64)
    values, found, newest = values_as_of(SPEC, keys, block_of(events + events), asked, times, twice)
    for i, as_of_ms in enumerate(times.tolist()):
        then = [event for event, known_ms in zip(events, known, strict=True) if known_ms <= as_of_ms]
        assert_equal(values[i], bool(found[i]), oracle_values(SPEC, then, as_of_ms))
        if found[i]:
            assert newest[i] == max(event.time_ms for event in then if event.time_ms <= as_of_ms)


@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(0, 60), st.lists(st.integers(0, 100)))
def test_history_and_stream_meet_at_the_batch_end(events: list[OracleEvent], hours: int, cuts: list[int]) -> None:
    batch_end_ms = (START_MS - hours * HOUR_MS) // SPEC.batch_step_ms * SPEC.batch_step_ms
    history = [event for event in events if event.time_ms < batch_end_ms]
    row = folded(split(events, cuts))
    for _ in range(2):
        row = replace_batch_side(SPEC, row, block_of(history), batch_end_ms)
        row, counts = fold_events(SPEC, row, block_of(events))
        assert counts.folded + counts.duplicates + counts.owned_by_batch + counts.too_late == len(events)
        assert counts.owned_by_batch == len(history)
        read = read_windows(SPEC, row, START_MS)
        if len(events) - len(history) <= 32:  # beyond the head, a second delivery is told by offsets, not by identity
            assert_equal(read.values, read.found, oracle_values(SPEC, events, START_MS))


@given(histories(), st.integers(0, 31))
def test_the_event_being_scored_counts_once_whether_the_row_has_it_or_not(events: list[OracleEvent], back: int) -> None:
    scored = OracleEvent("scored", START_MS - back, {"amount": 7.0, "ip": "z"})
    expected = oracle_values(SPEC, [*events, scored], START_MS)
    before = read_windows(SPEC, folded([events]), START_MS, block_of([scored]))
    after = read_windows(SPEC, folded([[*events, scored]]), START_MS, block_of([scored]))
    assert_equal(before.values, before.found, expected)
    assert_equal(after.values, after.found, expected)


@given(histories().filter(lambda events: len(events) <= 32))
def test_events_sent_twice_within_the_head_count_once(events: list[OracleEvent]) -> None:
    read = read_windows(SPEC, folded([events, events[::-1], events + events]), START_MS)
    assert_equal(read.values, read.found, oracle_values(SPEC, events, START_MS))


@pytest.mark.parametrize("length_ms", WINDOWS)
def test_an_event_leaves_its_window_at_the_hop_edge_and_not_a_millisecond_sooner(length_ms: int) -> None:
    window = Window.of(length_ms)
    event = OracleEvent("e", START_MS // window.hop_ms * window.hop_ms, {"amount": 1.0, "ip": "a"})
    row = folded([[event]])
    place = [s.feature for s in SPEC.aggregations].index(f"count_amount_{length_ms}")
    last_ms = event.time_ms + length_ms + window.hop_ms - 1
    assert read_windows(SPEC, row, last_ms).values[place] == 1
    gone = read_windows(SPEC, row, last_ms + 1)
    assert gone.values[place] == 0 or not gone.found
    assert not read_windows(SPEC, row, event.time_ms - 1).found


def test_every_window_empties_by_itself_when_time_passes() -> None:
    events = [OracleEvent(f"e{i}", START_MS - i * 1000, {"amount": 1.0, "ip": str(i)}) for i in range(200)]
    row = folded([events])
    counts = [s.feature for s in SPEC.aggregations if s.function == "count"]
    places = [[s.feature for s in SPEC.aggregations].index(name) for name in counts]
    before = np.full(len(places), np.inf)
    for later_ms in (0, MINUTE_MS, 10 * MINUTE_MS, 2 * HOUR_MS, 30 * HOUR_MS):
        read = read_windows(SPEC, row, START_MS + later_ms)
        assert (read.values[places] <= before).all()
        before = read.values[places]
    assert list(before) == [0, 0, 0, 0, 200]
    assert not read_windows(SPEC, row, START_MS + 9 * 24 * HOUR_MS).found
