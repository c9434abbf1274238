"""Windowed values of many entities, each as of its own time, straight from the events: training sets and audits.

The same folds as in the rows, over the events between a window's tail and the as-of time, without tiles in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from materialize.kernel._blocks import EventBlock
from materialize.kernel._partials import Floats, Ints
from materialize.kernel._rows import NO_TIME_MS
from materialize.kernel._tiles import finalize, fold_segments, gather_ranges
from materialize.kernel._views import HopLayout, ViewSpec
from materialize.kernel._windows import Window

GATHER_MAX = 1 << 20
"""Events gathered at once (a query that covers more is taken alone): bounds the memory."""


def values_as_of(
    spec: ViewSpec, keys: Ints, block: EventBlock, query_keys: Ints, query_times: Ints
) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]], Ints]:
    """The view's values for each query, as of its time, from events of which each identity counts once per key.

    keys: int64[n], the entity of each event, as a code ≥ 0. query_keys: int64[q], the same codes, or −1 for an entity
    without events. query_times: int64[q], as-of times in milliseconds.
    Returns values float64[q, aggregations] (NaN for null), found bool[q], newest covered event time int64[q].
    """
    values = np.full((len(query_keys), len(spec.aggregations)), np.nan)
    newest = np.full(len(query_keys), NO_TIME_MS, dtype=np.int64)
    if not len(block) or not len(query_keys):
        return values, np.zeros(len(query_keys), dtype=bool), newest
    keys, block = _sorted_once(keys, block)
    locate = _Locator(keys, block.times)
    stops = locate.positions(query_keys, query_times, "right")
    tails = np.min([_tails(layout.outputs[0][0], query_times) for layout in spec.windows], axis=0)
    firsts = locate.positions(query_keys, tails, "left")
    found = (query_keys >= 0) & (stops > firsts)
    newest[found] = block.times[stops[found] - 1]
    for layout in spec.windows:
        starts = locate.positions(query_keys, _tails(layout.outputs[0][0], query_times), "left")
        _fill(layout, block, starts, np.where(found, stops, starts), values)
    values[~found] = np.nan
    return values, found, newest


class _Locator:
    """Where an entity's events as of a time begin or end in events sorted by entity and time."""

    def __init__(self, keys: Ints, times: Ints) -> None:
        self._first_ms = int(times.min())
        self._span = int(times.max()) - self._first_ms + 2
        self._ranks = keys * self._span + (times - self._first_ms)

    def positions(self, keys: Ints, times: Ints, side: Any) -> Ints:
        within = np.clip(times - self._first_ms, -1, self._span - 2)
        if side == "left":
            within = np.clip(times - self._first_ms, 0, self._span - 1)
        return np.searchsorted(self._ranks, keys * self._span + within, side=side).astype(np.int64)


def _sorted_once(keys: Ints, block: EventBlock) -> tuple[Ints, EventBlock]:
    """By entity and time, each identity once per entity (its earliest time)."""
    order = np.lexsort((block.times, block.ids, keys))
    keys_, ids = keys[order], block.ids[order]
    first = np.concatenate(([True], (keys_[1:] != keys_[:-1]) | (ids[1:] != ids[:-1])))
    once = order[first]
    once = once[np.lexsort((block.ids[once], block.times[once], keys[once]))]
    return keys[once], block.take(once)


def _tails(window: Window, times: Ints) -> Ints:
    return (times - window.length_ms) // window.hop_ms * window.hop_ms


def _fill(layout: HopLayout, block: EventBlock, starts: Ints, stops: Ints, values: Floats) -> None:
    """Write one window's values for each query that covers the events from `starts` to `stops`."""
    outputs = layout.outputs[0][1]
    lengths = np.maximum(stops - starts, 0)
    nothing = np.empty((len(starts), values.shape[1]))
    identity = np.repeat(layout.identity[None, :], len(starts), axis=0)
    finalize(outputs, identity, [np.zeros(len(starts))] * len(layout.distinct), into=nothing)
    places = np.array([output.place for output in outputs])
    values[:, places] = nothing[:, places]
    covering = np.flatnonzero(lengths)
    for part in _parts(covering, lengths[covering]):
        segments = np.cumsum(lengths[part]) - lengths[part]
        states, sets = fold_segments(layout, block, segments, gather_ranges(starts[part], lengths[part]))
        some = np.empty((len(part), values.shape[1]))
        finalize(outputs, states, [s.sizes() for s in sets], into=some)
        values[np.ix_(part, places)] = some[:, places]


def _parts(queries: Ints, lengths: Ints) -> Iterator[Ints]:
    """The queries in parts that together gather at most GATHER_MAX events."""
    begin = 0
    while begin < len(queries):
        covered = np.cumsum(lengths[begin : begin + GATHER_MAX])
        count = max(int(np.searchsorted(covered, GATHER_MAX, side="right")), 1)
        yield queries[begin : begin + count]
        begin += count
