"""Windowed values of many entities, each as of its own time, straight from the events: training sets and audits.

The events are folded into tiles once, as they are for a row; each query then merges whole tiles, and the single events
of its newest hop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from materialize.kernel._blocks import EventBlock
from materialize.kernel._compiled import fold_tile_states, group_events, merge_as_of, newest_of, spread_events
from materialize.kernel._partials import Floats, Hashes, Ints, fold_sets
from materialize.kernel._program import Program, compile_program, hop_starts
from materialize.kernel._rows import NO_TIME_MS
from materialize.kernel._views import HopLayout, ViewSpec
from materialize.kernel._windows import Window

_Events = tuple[Ints, Floats, Hashes]
"""Times, values and hashes, by entity and time."""

MERGED_FROM = 0.5
"""With more tiles than this share of the events, windows are merged from the events themselves."""


def values_as_of(
    spec: ViewSpec,
    keys: Ints,
    block: EventBlock,
    query_keys: Ints,
    query_times: Ints,
    known_from: Ints | None = None,
) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]], Ints]:
    """The view's values for each query, as of its time, from events of which each identity counts once per key.

    keys: int64[n], the entity of each event, as a code ≥ 0. query_keys: int64[q], the same codes, or −1 for an entity
    without events. query_times: int64[q], as-of times in milliseconds. known_from: int64[n], when each event became
    known, in milliseconds: queries as of an earlier time go without it. Of events with one identity in one entity, the
    earliest counts, from when the first of those at its time is known.
    Returns values float64[q, aggregations] (NaN for null), found bool[q], newest covered event time int64[q].
    """
    values = np.full((len(query_keys), len(spec.aggregations)), np.nan)
    newest = np.full(len(query_keys), NO_TIME_MS, dtype=np.int64)
    if not len(block) or not len(query_keys):
        return values, np.zeros(len(query_keys), dtype=bool), newest
    order = np.lexsort((query_times, query_keys))  # queries of one entity look at the same memory
    query_times = np.array(query_times, dtype=np.int64)  # writable: a read-only array would be compiled for anew
    asked = np.where(query_keys <= keys.max(), query_keys, -1)
    begins, events, known = _by_entity(keys, block, known_from)
    program = compile_program(spec)
    for layout, at in zip(spec.hops, hop_starts(program), strict=True):
        tiles = _EntityTiles(program, at, layout, begins, events, known)
        merge_as_of(
            program,
            at,
            events,
            known,
            (tiles.index, tiles.states, tiles.starts, tiles.whole_from),
            tiles.set_hashes,
            tiles.set_ends,
            begins,
            tiles.begins,
            asked,
            query_times,
            order,
            values,
        )
    newest_of(events[0], known, begins, asked, query_times, order, newest)
    found = newest >= np.min([_tails(window, query_times) for window in spec.distinct_windows], axis=0)
    if not found.all():
        values[~found] = np.nan
        newest[~found] = NO_TIME_MS
    return values, found, newest


class _EntityTiles:
    """The tiles of many entities for one hop, by entity and index; none at all where they would save little.

    index: int64[m]. states: float64[m, width]. starts: int64[m + 1], where each tile's events begin. whole_from:
    int64[m], from when all of them are known, or int64[0] when `known` is empty. set_hashes: uint64[…], set_ends:
    int64[sets, m + 1], the sets of all distinct columns one after the other. begins: int64[entities + 1], where each
    entity's tiles begin.
    """

    def __init__(
        self, program: Program, at: int, layout: HopLayout, begins: Ints, events: _Events, known: Ints
    ) -> None:
        times, values, hashes = events
        index = times // layout.hop_ms
        fresh = np.concatenate(([True], index[1:] != index[:-1]))
        fresh[begins[:-1][begins[:-1] < begins[1:]]] = True
        starts = np.flatnonzero(fresh)
        if len(starts) > MERGED_FROM * len(index):
            starts, begins = starts[:0], np.zeros_like(begins)
        self.states = np.empty((len(starts), layout.width))
        fold_tile_states(program, at, times, values, starts, self.states)
        sets = [fold_sets(hashes[:, position], starts) for position in layout.distinct]
        self.index = index[starts]
        self.starts = np.append(starts, len(index)).astype(np.int64)
        self.whole_from = np.maximum.reduceat(known, starts) if len(known) and len(starts) else known[:0]
        self.begins = np.searchsorted(starts, begins).astype(np.int64)
        parts: list[Hashes] = []
        self.set_ends = np.zeros((len(sets), len(starts) + 1), np.int64)
        offset = 0
        for place, one in enumerate(sets):
            self.set_ends[place, 0] = offset
            self.set_ends[place, 1:] = one.ends + offset
            offset += len(one.hashes)
            parts.append(one.hashes)
        self.set_hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _by_entity(keys: Ints, block: EventBlock, known_from: Ints | None) -> tuple[Ints, _Events, Ints]:
    """By entity and time, each identity once per entity (its earliest time, and of these the first known).

    Where each entity's events begin; times, values and hashes of the events; from when each is known, or int64[0]
    without `known_from`.
    """
    known = np.empty(0, np.int64) if known_from is None else known_from
    begins = np.empty(int(keys.max()) + 2, np.int64)
    if (np.diff(block.times) >= 0).all() and _all_different(block.ids):
        events = (np.empty_like(block.times), np.empty(block.values.shape), np.empty(block.hashes.shape, np.uint64))
        spread, given = np.empty_like(known), (block.times, block.values, block.hashes)
        spread_events(keys, given, known, begins, events, spread)
        return begins, events, spread
    if len(known):
        first = np.argsort(known, kind="stable")
        keys, block, known = keys[first], block.take(first), known[first]
    order, repeats = np.empty(len(block), np.int64), np.empty(len(block), np.bool_)
    group_events(keys, block.times, block.ids, begins, order, repeats)
    if repeats.any():
        order = order[~repeats]
        begins -= np.concatenate(([0], np.cumsum(repeats)))[begins]
    block = block.take(order)
    events = (block.times, np.ascontiguousarray(block.values), np.ascontiguousarray(block.hashes))
    return begins, events, known[order] if len(known) else known


def _all_different(ids: Hashes) -> bool:
    ordered = np.sort(ids)
    return not (ordered[1:] == ordered[:-1]).any()


def _tails(window: Window, times: Ints) -> Ints:
    tails: Ints = (times - window.length_ms) // window.hop_ms * window.hop_ms
    return tails
