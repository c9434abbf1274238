"""The compiled loops from rows to shares. `_layout` says how `ints` and `floats` lie, `_tables` what they mean.

No sum here depends on the width of vectors or on the number of rows: additions into a share go group by group, in
order, and nothing is compiled with relaxed arithmetic. So a row gives the same bytes alone, in a batch and on any
machine.
"""

from __future__ import annotations

import numba
import numpy as np

from models._arrays import Floats, Ints
from models._compiled import compiled, prefetch
from models.explain import _layout as at

BLOCK = 64
"""Rows that go through the groups together."""
BATCH_MIN = 12
"""With fewer rows, one after the other is faster."""
AHEAD, BLOCK_AHEAD = 256, 8
"""For so many groups what the tables have is fetched before any of it is added, for one row and for a block: 16 KiB and
up to 32, of the 48 that are nearest to a processor."""

_ONE = np.int32(1)
_RIGHT_OF_ALL, _LEFT_OF_ALL = at.RIGHT_OF_ALL, at.LEFT_OF_ALL


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
            below = _first_not_below(floats, first, ints[starts + f + 1], x) - first
            slots[2 * f] = below
            slots[2 * f + 1] = below
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
    first = ints[where + at.SET_FIRST]
    end = first + ints[where + at.SET_COUNT]
    place = _first_not_below(floats, first, end, x)
    return bool(place < end and floats[place] == x)


@compiled
def _first_not_below(floats: Floats, low: int, high: int, x: float) -> int:
    """Where the first of the ascending floats[low:high] stands that is not below x; `high` for none."""
    while low < high:
        middle = (low + high) >> 1
        if floats[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


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
        above[i + 1] = (above[parents[i]] << _ONE) | np.int32(slots[tested[i]] <= ranks[i])
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
                found[i] = (found[i] << _ONE) | np.int32(slots[slot[i]] <= rank[i])


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _add_groups(ints: Ints, floats: Floats, bucket: Ints, patterns: Ints, size: int, out: Floats) -> None:
    """Adds the shares of one bucket's groups, each of `size` features, to the sums float64[F] of one row.

    Most of the time goes into waiting for the tables: AHEAD of their rows are asked for at once, and then added. A row
    of up to eight shares is one line of the cache.

    Written to be called with a constant: a loop of fixed length takes half the time. Positions are unsigned, so that
    nothing is spent on negative ones.
    """
    stride = numba.uint64(bucket[at.BUCKET_STRIDE])
    first = numba.uint64(bucket[at.BUCKET_FIRST])
    table = numba.uint64(bucket[at.BUCKET_TABLE_AT])
    feature = numba.uint64(bucket[at.BUCKET_FEATURE_AT])
    count = numba.uint64(bucket[at.BUCKET_COUNT])
    for begin in range(numba.uint64(0), count, numba.uint64(AHEAD)):
        end = min(begin + numba.uint64(AHEAD), count)
        for i in range(begin, end):
            prefetch(floats, numba.uint64(ints[table + i]) + numba.uint64(patterns[first + i]) * stride)
        for i in range(begin, end):
            row = numba.uint64(ints[table + i]) + numba.uint64(patterns[first + i]) * stride
            for k in range(numba.uint64(size)):
                out[numba.uint64(ints[feature + k])] += floats[row + k]
            feature += numba.uint64(size)


@compiled
def _add_shares(ints: Ints, floats: Floats, patterns: Ints, out: Floats) -> None:
    """Adds to `out` float64[F] what the tables have for patterns int32[GROUPS] of one row."""
    for b in range(ints[at.BUCKETS]):
        bucket = ints[ints[at.BUCKETS_AT] + b * at.BUCKET_WIDTH : ints[at.BUCKETS_AT] + (b + 1) * at.BUCKET_WIDTH]
        size = bucket[at.BUCKET_FEATURES]
        if size == 1:
            _add_groups(ints, floats, bucket, patterns, 1, out)
        elif size == 2:
            _add_groups(ints, floats, bucket, patterns, 2, out)
        elif size == 3:
            _add_groups(ints, floats, bucket, patterns, 3, out)
        elif size == 4:
            _add_groups(ints, floats, bucket, patterns, 4, out)
        elif size == 5:
            _add_groups(ints, floats, bucket, patterns, 5, out)
        elif size == 6:
            _add_groups(ints, floats, bucket, patterns, 6, out)
        elif size == 7:
            _add_groups(ints, floats, bucket, patterns, 7, out)
        elif size == 8:
            _add_groups(ints, floats, bucket, patterns, 8, out)
        else:
            _add_groups(ints, floats, bucket, patterns, size, out)


@compiled
def explain_rows(ints: Ints, floats: Floats, rows: Floats, out: Floats) -> None:
    """Adds the shares of the tables to `out` float64[N, F] for rows float64[N, F]."""
    if rows.shape[0] < BATCH_MIN:
        slots = np.empty(ints[at.SLOTS], np.int32)
        above = np.empty(1 + ints[at.UPPER], np.int32)
        patterns = np.empty(ints[at.GROUPS], np.int32)
        for n in range(rows.shape[0]):
            read_slots(ints, floats, rows[n], slots)
            read_patterns(ints, slots, above, patterns)
            _add_shares(ints, floats, patterns, out[n])
    else:
        _explain_blocks(ints, floats, rows, out)


@compiled
def _explain_blocks(ints: Ints, floats: Floats, rows: Floats, out: Floats) -> None:
    """The same, up to BLOCK rows through each group together: they share its tests and some of its table's lines.

    What is side by side are `lanes` numbers of one flat array. Arrays of two dimensions, cut into their rows, would
    cost a quarter more: each cut is made anew for each group.
    """
    lanes = min(BLOCK, (rows.shape[0] + 7) // 8 * 8)
    slots = np.zeros(ints[at.SLOTS] * lanes, np.int32)
    above = np.zeros((1 + ints[at.UPPER]) * lanes, np.int32)
    one = np.empty(ints[at.SLOTS], np.int32)
    sums = np.empty(ints[at.FEATURES] * lanes)
    for begin in range(0, rows.shape[0], lanes):
        size = min(lanes, rows.shape[0] - begin)
        for r in range(size):
            read_slots(ints, floats, rows[begin + r], one)
            for s in range(one.size):
                slots[s * lanes + r] = one[s]
        for f in range(ints[at.FEATURES]):
            for r in range(size):
                sums[f * lanes + r] = out[begin + r, f]
        _test_upper(ints, slots, above, numba.uint64(lanes))
        _add_block(ints, floats, slots, above, sums, numba.uint64(lanes), numba.uint64(size))
        for f in range(ints[at.FEATURES]):
            for r in range(size):
                out[begin + r, f] = sums[f * lanes + r]


@compiled
def _test_upper(ints: Ints, slots: Ints, above: Ints, lanes: int) -> None:
    """The tests down to each node above the groups as bits, int32[1 + UPPER, lanes], of slots int32[SLOTS, lanes]."""
    upper = numba.uint64(ints[at.UPPER])
    parents = numba.uint64(ints[at.UPPER_AT])
    for i in range(upper):
        parent = numba.uint64(ints[parents + i]) * lanes
        tested = numba.uint64(ints[parents + upper + i]) * lanes
        rank = ints[parents + upper + upper + i]
        own = (i + numba.uint64(1)) * lanes
        for r in range(lanes):
            above[own + r] = (above[parent + r] << _ONE) | np.int32(slots[tested + r] <= rank)


@compiled
def _add_block(ints: Ints, floats: Floats, slots: Ints, above: Ints, sums: Floats, lanes: int, size: int) -> None:
    """Adds to sums float64[F, lanes] what the tables have for slots int32[SLOTS, lanes], of which `size` are in use.

    What lies where is found, and asked for, for BLOCK_AHEAD groups at once, and then added.
    """
    found = np.empty(BLOCK_AHEAD * lanes, np.int32)
    for b in range(ints[at.BUCKETS]):
        bucket = ints[ints[at.BUCKETS_AT] + b * at.BUCKET_WIDTH : ints[at.BUCKETS_AT] + (b + 1) * at.BUCKET_WIDTH]
        count = numba.uint64(bucket[at.BUCKET_COUNT])
        features = numba.uint64(bucket[at.BUCKET_FEATURES])
        stride = np.int32(bucket[at.BUCKET_STRIDE])
        for begin in range(numba.uint64(0), count, numba.uint64(BLOCK_AHEAD)):
            end = min(begin + numba.uint64(BLOCK_AHEAD), count)
            for i in range(begin, end):
                own = (i - begin) * lanes
                parent = numba.uint64(ints[numba.uint64(bucket[at.BUCKET_PARENT_AT]) + i]) * lanes
                for r in range(lanes):
                    found[own + r] = above[parent + r]
                for k in range(numba.uint64(bucket[at.BUCKET_OWN])):
                    tested = numba.uint64(ints[numba.uint64(bucket[at.BUCKET_SLOT_AT]) + k * count + i]) * lanes
                    rank = ints[numba.uint64(bucket[at.BUCKET_RANK_AT]) + k * count + i]
                    for r in range(lanes):
                        found[own + r] = (found[own + r] << _ONE) | np.int32(slots[tested + r] <= rank)
                table = ints[numba.uint64(bucket[at.BUCKET_TABLE_AT]) + i]
                for r in range(lanes):
                    found[own + r] = table + found[own + r] * stride
                for r in range(size):
                    prefetch(floats, numba.uint64(found[own + r]))
            for i in range(begin, end):
                own = (i - begin) * lanes
                for k in range(features):
                    feature = numba.uint64(ints[numba.uint64(bucket[at.BUCKET_FEATURE_AT]) + i * features + k]) * lanes
                    for r in range(lanes):
                        sums[feature + r] += floats[numba.uint64(found[own + r]) + k]
