"""The compiled loops from rows to shares. `_layout` says how `ints` and `floats` lie, `_tables` what they mean.

No sum here depends on the width of vectors or on the number of rows: additions into a share go group by group, in
order, and nothing is compiled with relaxed arithmetic. So a row gives the same bytes alone, in a batch and on any
machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats, Ints
from models.explain import _layout as at

BLOCK = 64
"""Rows that go through the groups together."""

_RIGHT_OF_ALL, _LEFT_OF_ALL = at.RIGHT_OF_ALL, at.LEFT_OF_ALL
_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compiled without relaxed arithmetic, kept on disk, and free of Python's lock."""
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@compiled
def read_slots(ints: Ints, floats: Floats, row: Floats, slots: Ints) -> None:
    """One row float64[F] as its slots int32[SLOTS]."""
    count = ints[at.FEATURES]
    starts = ints[at.THRESHOLDS]
    for f in range(count):
        x = row[f]
        if ints[at.SINGLE]:
            x = np.float64(np.float32(x))
        if x != x:  # only NaN differs from itself
            slots[2 * f] = _RIGHT_OF_ALL
            slots[2 * f + 1] = _LEFT_OF_ALL
        else:
            first = ints[starts + f]
            low = first
            high = ints[starts + f + 1]
            while low < high:
                middle = (low + high) >> 1
                if floats[middle] < x:
                    low = middle + 1
                else:
                    high = middle
            slots[2 * f] = low - first
            slots[2 * f + 1] = low - first
    slot = 2 * count
    for i in range(ints[at.SETS]):
        slots[slot] = not _in_set(ints, floats, row, ints[at.SETS_AT] + i * at.SET_WIDTH)
        slot += 1
    for i in range(ints[at.SPANS]):
        where = ints[at.SPANS_AT] + i * at.SPAN_WIDTH
        rank = slots[2 * ints[where + at.SPAN_FEATURE]]
        if rank == _RIGHT_OF_ALL:
            slots[slot] = 1 - ints[where + at.SPAN_MISSING]
        else:
            slots[slot] = not (ints[where + at.SPAN_ABOVE] < rank <= ints[where + at.SPAN_UP_TO])
        slot += 1


@compiled
def _in_set(ints: Ints, floats: Floats, row: Floats, where: int) -> bool:
    x = row[ints[where + at.SET_FEATURE]]
    if ints[at.SINGLE]:
        x = np.float64(np.float32(x))
    if x != x:
        return bool(ints[where + at.SET_FLAGS] & at.MISSING_LEFT)
    if ints[where + at.SET_FLAGS] & at.BY_INTEGER_PART:
        x = np.trunc(x)
    low = ints[where + at.SET_FIRST]
    end = low + ints[where + at.SET_COUNT]
    high = end
    while low < high:
        middle = (low + high) >> 1
        if floats[middle] < x:
            low = middle + 1
        else:
            high = middle
    return bool(low < end and floats[low] == x)


@compiled
def read_patterns(ints: Ints, slots: Ints, above: Ints, patterns: Ints) -> None:
    """The pattern of each group, int32[GROUPS], from the slots of one row. `above` int32[1 + UPPER] is scratch.

    Bits are the tests from the root to the group, then those of the group's own nodes.
    """
    upper = ints[at.UPPER]
    parents = ints[ints[at.UPPER_AT] : ints[at.UPPER_AT] + upper]
    tested = ints[ints[at.UPPER_AT] + upper : ints[at.UPPER_AT] + 2 * upper]
    ranks = ints[ints[at.UPPER_AT] + 2 * upper : ints[at.UPPER_AT] + 3 * upper]
    above[0] = 0
    for i in range(upper):
        above[i + 1] = (above[parents[i]] << 1) | (slots[tested[i]] <= ranks[i])
    for b in range(ints[at.BUCKETS]):
        bucket = ints[ints[at.BUCKETS_AT] + b * at.BUCKET_WIDTH : ints[at.BUCKETS_AT] + (b + 1) * at.BUCKET_WIDTH]
        count = bucket[at.BUCKET_COUNT]
        found = patterns[bucket[at.BUCKET_FIRST] : bucket[at.BUCKET_FIRST] + count]
        parent = ints[bucket[at.BUCKET_PARENT_AT] : bucket[at.BUCKET_PARENT_AT] + count]
        for i in range(count):
            found[i] = above[parent[i]]
        for k in range(bucket[at.BUCKET_OWN]):
            slot_at = bucket[at.BUCKET_SLOT_AT] + k * count
            rank_at = bucket[at.BUCKET_RANK_AT] + k * count
            slot = ints[slot_at : slot_at + count]
            rank = ints[rank_at : rank_at + count]
            for i in range(count):
                found[i] = (found[i] << 1) | (slots[slot[i]] <= rank[i])


@compiled
def _add_shares(ints: Ints, floats: Floats, patterns: Ints, out: Floats) -> None:
    """Adds to `out` float64[F] what the tables have for the patterns int32[GROUPS] of one row."""
    for b in range(ints[at.BUCKETS]):
        bucket = ints[ints[at.BUCKETS_AT] + b * at.BUCKET_WIDTH : ints[at.BUCKETS_AT] + (b + 1) * at.BUCKET_WIDTH]
        count = bucket[at.BUCKET_COUNT]
        size = bucket[at.BUCKET_FEATURES]
        stride = bucket[at.BUCKET_STRIDE]
        found = patterns[bucket[at.BUCKET_FIRST] : bucket[at.BUCKET_FIRST] + count]
        table = ints[bucket[at.BUCKET_TABLE_AT] : bucket[at.BUCKET_TABLE_AT] + count]
        feature = ints[bucket[at.BUCKET_FEATURE_AT] : bucket[at.BUCKET_FEATURE_AT] + count * size]
        for i in range(count):
            row = table[i] + found[i] * stride
            for k in range(size):
                out[feature[i * size + k]] += floats[row + k]


@compiled
def explain_row(ints: Ints, floats: Floats, row: Floats, out: Floats) -> None:
    """Adds the shares of the tables to `out` float64[F] for one row float64[F]."""
    slots = np.empty(ints[at.SLOTS], np.int32)
    read_slots(ints, floats, row, slots)
    above = np.empty(1 + ints[at.UPPER], np.int32)
    patterns = np.empty(ints[at.GROUPS], np.int32)
    read_patterns(ints, slots, above, patterns)
    _add_shares(ints, floats, patterns, out)


@compiled
def explain_rows(ints: Ints, floats: Floats, rows: Floats, out: Floats) -> None:
    """The same for float64[N, F]. Several rows go through each group together, so that its table stays in the cache."""
    if rows.shape[0] == 1:
        explain_row(ints, floats, rows[0], out[0])
        return
    slots = np.empty((ints[at.SLOTS], BLOCK), np.int32)
    above = np.empty((1 + ints[at.UPPER], BLOCK), np.int32)
    one = np.empty(ints[at.SLOTS], np.int32)
    for begin in range(0, rows.shape[0], BLOCK):
        size = min(BLOCK, rows.shape[0] - begin)
        for r in range(size):
            read_slots(ints, floats, rows[begin + r], one)
            slots[:, r] = one
        _add_block(ints, floats, slots, above, size, out[begin : begin + size])


@compiled
def _add_block(ints: Ints, floats: Floats, slots: Ints, above: Ints, size: int, out: Floats) -> None:
    """`_add_shares` for the first `size` rows of slots int32[SLOTS, BLOCK]; out float64[size, F]."""
    upper = ints[at.UPPER]
    upper_at = ints[at.UPPER_AT]
    above[0] = 0
    for i in range(upper):
        rank = ints[upper_at + 2 * upper + i]
        tested = slots[ints[upper_at + upper + i]]
        parent = above[ints[upper_at + i]]
        found = above[i + 1]
        for r in range(BLOCK):
            found[r] = (parent[r] << 1) | (tested[r] <= rank)
    pattern = np.empty(BLOCK, np.int32)
    for b in range(ints[at.BUCKETS]):
        bucket = ints[ints[at.BUCKETS_AT] + b * at.BUCKET_WIDTH : ints[at.BUCKETS_AT] + (b + 1) * at.BUCKET_WIDTH]
        count = bucket[at.BUCKET_COUNT]
        features = bucket[at.BUCKET_FEATURES]
        stride = bucket[at.BUCKET_STRIDE]
        for i in range(count):
            parent = above[ints[bucket[at.BUCKET_PARENT_AT] + i]]
            for r in range(BLOCK):
                pattern[r] = parent[r]
            for k in range(bucket[at.BUCKET_OWN]):
                tested = slots[ints[bucket[at.BUCKET_SLOT_AT] + k * count + i]]
                rank = ints[bucket[at.BUCKET_RANK_AT] + k * count + i]
                for r in range(BLOCK):
                    pattern[r] = (pattern[r] << 1) | (tested[r] <= rank)
            table = ints[bucket[at.BUCKET_TABLE_AT] + i]
            feature = ints[
                bucket[at.BUCKET_FEATURE_AT] + i * features : bucket[at.BUCKET_FEATURE_AT] + (i + 1) * features
            ]
            for r in range(size):
                row = table + pattern[r] * stride
                for k in range(features):
                    out[r, feature[k]] += floats[row + k]
