"""Rows folded in compiled code, bytes to bytes, are what the plain fold makes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.definitions import FeatureField, JoinKey, StreamView, ViewEvents
from materialize.kernel import empty_row, fold_events, read_windows, replace_batch_side
from materialize.online import KeyEncoder, StreamRow, decode_stream_row, encode_stream_row
from materialize.online._folding import EventsByRow, RowFolder, events_by_row, history_by_row
from tests.kernel.oracle import OracleEvent
from tests.kernel.test_kernel_against_oracle import HOUR_MS, SPEC, START_MS, block_of, histories

VIEW = StreamView(
    name=SPEC.name,
    join_keys=(JoinKey("who", "STRING"),),
    fields=tuple(FeatureField(s.feature, "DOUBLE") for s in SPEC.aggregations),
    spec=SPEC,
    topic="events",
    timestamp_field="event_time",
    ttl_ms=0,
    transform=None,
)
FOLDER = RowFolder(VIEW)
ENCODER = KeyEncoder("p", VIEW.name, VIEW.join_keys)


def grouped(events: Sequence[tuple[str, int, int, OracleEvent]]) -> EventsByRow:
    """(entity, partition, offset, event) as a micro-batch."""
    who = np.array([entity for entity, *_ in events], dtype=object)
    block = block_of([event for *_, event in events])
    seen = ViewEvents((who,), block, 0, np.arange(len(events)))
    partitions, offsets = (np.array([e[i] for e in events], dtype=np.int64) for i in (1, 2))
    return events_by_row(ENCODER, seen, partitions, offsets)


def plain(stored: StreamRow, events: Sequence[tuple[str, int, int, OracleEvent]]) -> tuple[StreamRow, tuple[int, ...]]:
    """The same by the plain functions: offsets first, then the fold."""
    fresh = [e for e in events if e[2] > stored.applied.get(e[1], -1)]
    applied = dict(stored.applied)
    for _, partition, offset, _ in fresh:
        applied[partition] = max(applied.get(partition, -1), offset)
    if not fresh:
        return stored, (0, 0, 0, 0, len(events))
    state, counts = fold_events(SPEC, stored.state, block_of([event for *_, event in fresh]))
    told = (counts.folded, counts.duplicates, counts.owned_by_batch, counts.too_late, len(events) - len(fresh))
    return StreamRow(state, stored.version + 1, applied), told


def assert_same_row(data: bytes, wanted: StreamRow, as_of_ms: int) -> None:
    found = decode_stream_row(SPEC, data)
    assert found.applied == wanted.applied
    assert found.version == wanted.version
    assert (found.state.batch_end_ms, found.state.tiles_newest_ms) == (
        wanted.state.batch_end_ms,
        wanted.state.tiles_newest_ms,
    )
    np.testing.assert_array_equal(found.state.head.ids, wanted.state.head.ids)
    np.testing.assert_array_equal(found.state.head.times, wanted.state.head.times)
    np.testing.assert_array_equal(found.state.head.values, wanted.state.head.values)
    np.testing.assert_array_equal(found.state.head.hashes, wanted.state.head.hashes)
    for tiles, others in zip(found.state.tiles, wanted.state.tiles, strict=True):
        np.testing.assert_array_equal(tiles.index, others.index)
        np.testing.assert_allclose(tiles.states, others.states, rtol=1e-9, atol=1e-6)
        for sets, other in zip(tiles.sets, others.sets, strict=True):
            np.testing.assert_array_equal(sets.ends, other.ends)
            np.testing.assert_array_equal(sets.hashes, other.hashes)
    read, want = (read_windows(SPEC, row.state, as_of_ms) for row in (found, wanted))
    np.testing.assert_allclose(read.values, want.values, rtol=1e-9, atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(histories(), st.randoms(use_true_random=False), st.integers(0, 50), st.integers(1, 4))
def test_folded_bytes_are_the_plain_folds_row(
    events: list[OracleEvent], chance: random.Random, hours: int, batches: int
) -> None:
    batch_end_ms = (START_MS - hours * HOUR_MS) // SPEC.batch_step_ms * SPEC.batch_step_ms
    history = [event for event in events if event.time_ms < batch_end_ms and chance.random() < 0.5]
    rows: dict[str, StreamRow] = {}
    stored: dict[str, bytes] = {}
    if history:
        state = replace_batch_side(SPEC, empty_row(SPEC), block_of(history), batch_end_ms)
        rows["a"] = StreamRow(state, 7, {})
        stored["a"] = encode_stream_row(SPEC, rows["a"])
    sent = [(chance.choice("ab"), chance.randrange(3), i, event) for i, event in enumerate(events)]
    for number in range(batches):
        batch = sent[: len(sent) * (number + 1) // batches] if chance.random() < 0.5 else sent
        if not batch:
            continue
        shuffled = batch + chance.sample(batch, len(batch) // 3)  # delivered twice within one batch
        chance.shuffle(shuffled)
        by_row = grouped(shuffled)
        names = ["a" if key == ENCODER.key(["a"]) else "b" for key in by_row.keys]
        before = [rows.get(name, StreamRow(empty_row(SPEC), 0, {})) for name in names]
        folded = FOLDER.fold([stored.get(name) for name in names], by_row, {})
        for name, row, data, found in zip(names, before, folded.data, folded.counts.tolist(), strict=True):
            wanted, counts = plain(row, [event for event in shuffled if event[0] == name])
            assert tuple(found) == counts
            assert (data is None) == (counts[4] == sum(counts))
            if data is not None:
                if name not in stored:  # a row that is new starts with any version
                    wanted = replace(wanted, version=decode_stream_row(SPEC, data).version)
                assert_same_row(data, wanted, START_MS)
                rows[name], stored[name] = wanted, data


@settings(max_examples=150, deadline=None)
@given(
    histories(),
    st.randoms(use_true_random=False),
    st.integers(0, 30),
    st.integers(0, 200),
    st.none() | st.integers(-3, 60),
)
def test_batch_sides_replaced_in_bytes_are_the_plain_forms_rows(
    events: list[OracleEvent], chance: random.Random, live_hours: int, hours: int, before: int | None
) -> None:
    batch_end_ms = (START_MS - hours * HOUR_MS) // SPEC.batch_step_ms * SPEC.batch_step_ms
    row = StreamRow(empty_row(SPEC), 0, {})
    if before is not None:
        owned_ms = batch_end_ms - before * SPEC.batch_step_ms
        row = StreamRow(replace_batch_side(SPEC, row.state, block_of(events[::3]), owned_ms), 7, {})
    live = [e for e in events if e.time_ms >= START_MS - live_hours * HOUR_MS and chance.random() < 0.8]
    if live:
        row = StreamRow(fold_events(SPEC, row.state, block_of(live))[0], 8, {0: 5, 3: 9})
    stored = encode_stream_row(SPEC, row) if row.version else None
    history = [event for event in events if chance.random() < 0.8]
    history += [replace(event, time_ms=event.time_ms - HOUR_MS) for event in history[::4]]  # delivered twice
    chance.shuffle(history)
    block = block_of(history)
    by_row = history_by_row([b"k"], np.zeros(len(history), np.int64), block)
    [data] = FOLDER.replace([stored], by_row, batch_end_ms, {})
    if row.state.batch_end_ms > batch_end_ms:
        assert data is None
        return
    assert data is not None
    version = row.version + 1 if stored else decode_stream_row(SPEC, data).version
    wanted = StreamRow(replace_batch_side(SPEC, row.state, block, batch_end_ms), version, row.applied)
    assert_same_row(data, wanted, START_MS)


def test_a_batch_end_within_a_tile_is_refused() -> None:
    by_row = history_by_row([b"k"], np.empty(0, np.int64), block_of([]))
    with pytest.raises(ValueError, match="multiple"):
        FOLDER.replace([None], by_row, SPEC.batch_step_ms + 1, {})


@pytest.mark.parametrize("garbage", [b"", b"AR", bytes(200)])
def test_what_is_no_row_is_taken_for_none_and_counted(garbage: bytes) -> None:
    refused: dict[str, int] = {}
    event = OracleEvent("e", START_MS, {"amount": 1.0, "ip": "x"})
    [data] = FOLDER.fold([garbage], grouped([("a", 0, 5, event)]), refused).data
    assert sum(refused.values()) == 1
    assert data is not None
    assert decode_stream_row(SPEC, data).applied == {0: 5}


def test_some_rows_of_a_batch_can_be_taken_alone() -> None:
    events = [
        (name, 0, i, OracleEvent(f"e{i}", START_MS - i, {"amount": 1.0, "ip": "x"})) for i, name in enumerate("abcab")
    ]
    by_row = grouped(events)
    [alone] = FOLDER.fold([None], by_row.rows([1]), {}).data
    together = FOLDER.fold([None] * 3, by_row, {})
    assert alone is not None
    assert_same_row(together.data[1] or b"", replace_version(alone, together.data[1] or b""), START_MS)


def replace_version(data: bytes, of: bytes) -> StreamRow:
    """A new row starts with any version."""
    return replace(decode_stream_row(SPEC, data), version=decode_stream_row(SPEC, of).version)
