"""The compiled core: windows merged on rows' stored bytes, events folded into them, values of many entities as of
their own times.

A merge goes back from the as-of time, one pass for each hop: windows of one hop are nested, so each takes over where
the shorter one ended. What a window adds, tiles and single events of the head, is taken slot by slot. The plain forms
are `read_windows`, `fold_events`, `replace_batch_side` and the tests' oracle.

Everything compiled is in this one file, longer than others for it: numba keeps compiled code by the file of a function,
and would go on using an old copy of a function that is called from another file. The constants that it takes from other
files are compiled in as well: who changes one deletes the compiled code (`make clean`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from materialize.kernel._partials import DISTINCT_KEEP
from materialize.kernel._program import HOP_HEAD, HOPS_AT, OUTPUT_SIZE, SLOT_SIZE

NOT_FOUND = 0
FOUND = 1
BAD_SHAPE = 2

META_SIZE = 5
"""Numbers that `merge_rows` needs of each row beside its words."""

_NO_TIME_MS = -(1 << 62)
_NO_INDEX = 1 << 62
_TABLE_SIZE = 1024
_TABLE_FULL = 768
_ALL = 0xFFFFFFFFFFFFFFFF


@njit(cache=True, nogil=True, error_model="numpy")
def _fold_event(program, at, slots, state, values, event, time):  # type: ignore[no-untyped-def]
    """One event into a hop's state."""
    for s in range(slots):
        partial = program[at + SLOT_SIZE * s]
        value = values[event, program[at + SLOT_SIZE * s + 1]]
        first = program[at + SLOT_SIZE * s + 2]
        if np.isnan(value):
            continue
        if partial == 0:
            state[first] += 1.0
        elif partial == 1:
            state[first] += value
        elif partial == 2:
            state[first] = min(state[first], value)
        elif partial == 3:
            state[first] = max(state[first], value)
        elif partial == 4:
            _add_moments(state, first, 1.0, value, 0.0)
        elif partial <= 6:
            _add_latest(state, first, float(time) if partial == 5 else -float(time), value)
        else:
            _add_decayed(state, first, float(time), value, program[at + SLOT_SIZE * s + 3])


@njit(cache=True, nogil=True, error_model="numpy")
def _add_moments(state, first, count, mean, spread):  # type: ignore[no-untyped-def]
    """Pairwise update of Chan, Golub and LeVeque (1979)."""
    total = state[first] + count
    apart = mean - state[first + 1]
    state[first + 2] += spread + apart * apart * state[first] * count / total
    state[first + 1] += apart * count / total
    state[first] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _add_latest(state, first, time, value):  # type: ignore[no-untyped-def]
    """The later one stays; the larger value among equal times."""
    if time > state[first] or (time == state[first] and value > state[first + 1]):
        state[first] = time
        state[first + 1] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _add_decayed(state, first, time, value, half_life):  # type: ignore[no-untyped-def]
    """The sum as of the later of both times. A state of no events has the time −∞, and nothing of it remains."""
    if time == -np.inf:
        return
    latest = max(state[first], time)
    own = 2.0 ** ((state[first] - latest) / half_life) * state[first + 1] if state[first] != -np.inf else 0.0
    state[first + 1] = own + 2.0 ** ((time - latest) / half_life) * value
    state[first] = latest


@njit(cache=True, nogil=True, error_model="numpy")
def _reset(program, at, slots, state):  # type: ignore[no-untyped-def]
    """The state of no events."""
    state[:] = 0.0
    for s in range(slots):
        partial = program[at + SLOT_SIZE * s]
        first = program[at + SLOT_SIZE * s + 2]
        if partial == 2:
            state[first] = np.inf
        elif partial == 3:
            state[first] = -np.inf
        elif partial == 5 or partial == 6:
            state[first] = -np.inf
            state[first + 1] = -np.inf
        elif partial == 7:
            state[first] = -np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def _add_hash(table, sizes, limits, which, value):  # type: ignore[no-untyped-def]
    """A hash into an open-addressing table of the smallest ones. False when it, and every larger one, has no place."""
    if value >= limits[which]:
        return False
    slot = value & np.uint64(_TABLE_SIZE - 1)
    while table[which, slot] != 0:
        if table[which, slot] == value:
            return True
        slot = (slot + np.uint64(1)) & np.uint64(_TABLE_SIZE - 1)
    table[which, slot] = value
    sizes[which] += 1
    if sizes[which] > _TABLE_FULL:
        kept = _smallest(table, which)
        table[which, :] = 0
        sizes[which] = 0
        for i in range(len(kept)):
            _add_hash(table, sizes, limits, which, kept[i])
        limits[which] = kept[-1] + np.uint64(1)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _smallest(table, which):  # type: ignore[no-untyped-def]
    """The DISTINCT_KEEP smallest hashes of a table that has at least as many, in order."""
    row = table[which]
    return np.sort(row[row != 0])[:DISTINCT_KEEP]


@njit(cache=True, nogil=True, error_model="numpy")
def _empty_tables(table, sizes, limits):  # type: ignore[no-untyped-def]
    """Tables of no hashes."""
    for s in range(len(sizes)):
        if sizes[s]:
            table[s, :] = 0
        sizes[s] = 0
        limits[s] = np.uint64(_ALL)


@njit(cache=True, nogil=True, error_model="numpy")
def _finalize(program, at, state, as_of, table, size):  # type: ignore[no-untyped-def]
    """One feature's value from its state; NaN for null. at: the output in the program."""
    function, a, b = program[at + 1], program[at + 2], program[at + 3]
    if function == 0:
        return state[a]
    if function == 1:
        return state[a] / state[b] if state[b] > 0.0 else np.nan
    if function == 2:
        return np.nan if np.isinf(state[a]) else state[a]
    if function == 3 or function == 4:
        if state[a] < 2.0:
            return np.nan
        variance = state[a + 2] / (state[a] - 1.0)
        return variance if function == 3 else np.sqrt(variance)
    if function == 5:
        return np.nan if np.isinf(state[a]) else state[b]
    if function == 7:
        return 0.0 if np.isinf(state[a]) else state[b] * 2.0 ** ((state[a] - as_of) / program[at + 5])
    if size < DISTINCT_KEEP:
        return float(size)
    return np.rint((DISTINCT_KEEP - 1) / (float(_smallest(table, program[at + 4])[-1]) / 2.0**64))


@njit(cache=True, nogil=True, error_model="numpy")
def _fold_hashes(program, at, sets, hashes, event, table, sizes, limits):  # type: ignore[no-untyped-def]
    """One event's hashes into the tables; 0 stands for null."""
    for s in range(sets):
        value = hashes[event, program[at + s]]
        if value != 0:
            _add_hash(table, sizes, limits, s, value)


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_tiles(program, at, slots, state, floats, base, width, first_tile, stop):  # type: ignore[no-untyped-def]
    """The tiles from `first_tile` to `stop`, by growing index, into a hop's state; floats[base:] has their states."""
    begin, end = base + first_tile * width, base + stop * width
    for s in range(slots):
        partial = program[at + SLOT_SIZE * s]
        first = program[at + SLOT_SIZE * s + 2]
        if partial <= 1:
            total = 0.0
            for i in range(begin + first, end + first, width):
                total += floats[i]
            state[first] += total
        elif partial == 2:
            least = state[first]
            for i in range(begin + first, end + first, width):
                least = floats[i] if floats[i] < least else least
            state[first] = least
        elif partial == 3:
            most = state[first]
            for i in range(begin + first, end + first, width):
                most = floats[i] if floats[i] > most else most
            state[first] = most
        elif partial == 4:
            _merge_moments(state, first, floats, begin + first, end + first, width)
        elif partial == 5:  # of tiles, the last with a value has the latest, and the first with one the earliest
            for i in range(end - width + first, begin + first - 1, -width):
                if floats[i] != -np.inf:
                    _add_latest(state, first, floats[i], floats[i + 1])
                    break
        elif partial == 6:
            for i in range(begin + first, end + first, width):
                if floats[i] != -np.inf:
                    _add_latest(state, first, floats[i], floats[i + 1])
                    break
        else:
            for i in range(end - width + first, begin + first - 1, -width):
                _add_decayed(state, first, floats[i], floats[i + 1], program[at + SLOT_SIZE * s + 3])


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_moments(state, first, floats, begin, end, width):  # type: ignore[no-untyped-def]
    """All moments at floats[begin:end:width] into a state: one division for all of them.

    Distances are taken from one of the means itself: near enough for no digit to cancel.
    """
    count, pivot, shifted = 0.0, 0.0, 0.0
    for i in range(begin, end, width):
        if floats[i] > 0.0:
            pivot = floats[i + 1] if count == 0.0 else pivot
            count += floats[i]
            shifted += floats[i] * (floats[i + 1] - pivot)
    if count == 0.0:
        return
    mean = pivot + shifted / count
    spread = 0.0
    for i in range(begin, end, width):
        apart = floats[i + 1] - mean if floats[i] > 0.0 else 0.0
        spread += floats[i + 2] + floats[i] * apart * apart
    _add_moments(state, first, count, mean, spread)


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_events(  # type: ignore[no-untyped-def]
    program, at, slots, state, words, floats, times_at, values_at, columns, first_event, stop
):
    """The events from `first_event` to `stop`, by growing time, into a hop's state.

    words[times_at:] has their times, floats[values_at:] their values, `columns` for each.
    """
    begin, end = values_at + first_event * columns, values_at + stop * columns
    for s in range(slots):
        partial = program[at + SLOT_SIZE * s]
        column = program[at + SLOT_SIZE * s + 1]
        first = program[at + SLOT_SIZE * s + 2]
        if partial == 0:
            for i in range(begin + column, end + column, columns):
                state[first] += 0.0 if np.isnan(floats[i]) else 1.0
        elif partial == 1:
            for i in range(begin + column, end + column, columns):
                state[first] += 0.0 if np.isnan(floats[i]) else floats[i]
        elif partial == 2:
            for i in range(begin + column, end + column, columns):
                if floats[i] < state[first]:
                    state[first] = floats[i]
        elif partial == 3:
            for i in range(begin + column, end + column, columns):
                if floats[i] > state[first]:
                    state[first] = floats[i]
        elif partial == 4:
            _merge_values(state, first, floats, begin + column, end + column, columns)
        elif partial <= 6:
            sign = 1 if partial == 5 else -1
            for e in range(first_event, stop):
                value = floats[values_at + e * columns + column]
                if not np.isnan(value):
                    _add_latest(state, first, float(sign * words[times_at + e]), value)
        else:
            for e in range(stop - 1, first_event - 1, -1):
                value = floats[values_at + e * columns + column]
                if not np.isnan(value):
                    _add_decayed(state, first, float(words[times_at + e]), value, program[at + SLOT_SIZE * s + 3])


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_values(state, first, floats, begin, end, columns):  # type: ignore[no-untyped-def]
    """The moments of the values at floats[begin:end:columns] into a state."""
    count, pivot, shifted = 0.0, 0.0, 0.0
    for i in range(begin, end, columns):
        if not np.isnan(floats[i]):
            pivot = floats[i] if count == 0.0 else pivot
            count += 1.0
            shifted += floats[i] - pivot
    if count == 0.0:
        return
    mean = pivot + shifted / count
    spread = 0.0
    for i in range(begin, end, columns):
        apart = 0.0 if np.isnan(floats[i]) else floats[i] - mean
        spread += apart * apart
    _add_moments(state, first, count, mean, spread)


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_sets(words, hashes, where, count, first_tile, stop, sets, table, sizes, limits):  # type: ignore[no-untyped-def]
    """The sets of the tiles from `first_tile` to `stop` into the tables; words[where:] has those of all tiles.

    False when where they end makes no sense.
    """
    for s in range(sets):
        stored = where + count
        total = words[stored - 1]
        for tile in range(first_tile, stop):
            begin = 0 if tile == 0 else words[where + tile - 1]
            end = words[where + tile]
            if begin < 0 or end < begin or end > total:
                return False
            for i in range(stored + begin, stored + end):
                if not _add_hash(table, sizes, limits, s, hashes[i]):
                    break
        where = stored + total
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_hashes(program, at, sets, hashes, hashes_at, distinct, begin, stop, table, sizes, limits):  # type: ignore[no-untyped-def]
    """The hashes of the events from `begin` to `stop` into the tables; 0 stands for null."""
    for s in range(sets):
        for e in range(begin, stop):
            value = hashes[hashes_at + e * distinct + program[at + s]]
            if value != 0:
                _add_hash(table, sizes, limits, s, value)


@njit(cache=True, nogil=True, error_model="numpy")
def _skip_sets(words, at, end, sets, count):  # type: ignore[no-untyped-def]
    """Where the sets of a hop's tiles end, or −1 when they do not end within the row."""
    for _ in range(sets):
        if at + count > end:
            return -1
        total = words[at + count - 1] if count else 0
        if total < 0 or total > end - at - count:
            return -1
        at += count + total
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def _first_not_below(words, begin, stop, limit):  # type: ignore[no-untyped-def]
    """The position of the first of words[begin:stop], which go up, that is not below `limit`."""
    while begin < stop:
        middle = (begin + stop) // 2
        if words[middle] < limit:
            begin = middle + 1
        else:
            stop = middle
    return begin


@njit(cache=True, nogil=True, error_model="numpy")
def _counting(extra, known, ids_at, head_count, batch_end, as_of, counts):  # type: ignore[no-untyped-def]
    """Which extra events count: not after `as_of`, not before the batch end, and not in the head already.

    Returns the newest time of those that do.
    """
    newest, total = _NO_TIME_MS, len(counts)
    for e in range(total):
        counts[e] = batch_end <= extra[e] <= as_of
        for i in range(ids_at, ids_at + head_count):
            if known[i] == extra[total + e]:
                counts[e] = False
        if counts[e]:
            newest = max(newest, extra[e])
    return newest


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_row(  # type: ignore[no-untyped-def]
    views, begin, end, meta, program, as_of, extras, counts, scratch, out
):
    """`merge_rows` for the row at words[begin:end]. Returns its outcome and newest event time."""
    words, floats, hashes = views
    extra, extra_floats, extra_hashes = extras
    state, table, sizes, limits = scratch
    head_count, tiles_newest, batch_end = meta[2], meta[3], meta[4]
    columns, distinct, extra_count = program[1], program[2], len(counts)
    ids_at = begin + head_count
    values_at = ids_at + head_count
    hashes_at = values_at + head_count * columns
    at = hashes_at + head_count * distinct
    if at > end:
        return BAD_SHAPE, _NO_TIME_MS
    there = end > begin
    newest = min(tiles_newest, as_of) if there else _NO_TIME_MS
    head_stop = _first_not_below(words, begin, ids_at, as_of + 1) - begin
    if head_stop > 0:
        newest = max(newest, words[begin + head_stop - 1])
    if extra_count:
        newest = max(newest, _counting(extra, words, ids_at, head_count, batch_end, as_of, counts))
    outcome, hop_at = NOT_FOUND, HOPS_AT
    for _ in range(program[0]):
        hop, width, slots = program[hop_at], program[hop_at + 1], program[hop_at + 2]
        sets, windows, next_hop = program[hop_at + 3], program[hop_at + 4], program[hop_at + 5]
        slots_at = hop_at + HOP_HEAD
        sets_at = slots_at + SLOT_SIZE * slots
        window_at = sets_at + sets
        count, index_at = 0, at
        if there:
            if at >= end or words[at] < 0 or words[at] > end - at:
                return BAD_SHAPE, _NO_TIME_MS
            count, index_at = words[at], at + 1
        states_at = index_at + count
        tile_sets_at = states_at + count * width
        at = _skip_sets(words, tile_sets_at, end, sets, count)
        if tile_sets_at > end or at < 0:
            return BAD_SHAPE, _NO_TIME_MS
        _reset(program, slots_at, slots, state)
        _empty_tables(table, sizes, limits)
        tile = _first_not_below(words, index_at, states_at, as_of // hop + 1) - index_at
        event, taken = head_stop, _NO_INDEX
        for _ in range(windows):
            tail = (as_of - program[window_at]) // hop * hop
            stop = tile
            tile = _first_not_below(words, index_at, index_at + stop, tail // hop) - index_at
            if tile < stop:
                outcome = FOUND
                _merge_tiles(program, slots_at, slots, state, floats, states_at, width, tile, stop)
                if not _merge_sets(words, hashes, tile_sets_at, count, tile, stop, sets, table, sizes, limits):
                    return BAD_SHAPE, _NO_TIME_MS
            stop = event
            event = _first_not_below(words, begin, begin + stop, tail) - begin
            if event < stop:
                outcome = FOUND
                _merge_events(program, slots_at, slots, state, words, floats, begin, values_at, columns, event, stop)
                _merge_hashes(program, sets_at, sets, hashes, hashes_at, distinct, event, stop, table, sizes, limits)
            for e in range(extra_count):
                if counts[e] and extra[e] >= tail and extra[e] < taken:
                    outcome = FOUND
                    _merge_events(
                        program, slots_at, slots, state, extra, extra_floats, 0, 2 * extra_count, columns, e, e + 1
                    )
                    _merge_hashes(
                        program, sets_at, sets, extra_hashes, (2 + columns) * extra_count, distinct, e, e + 1, table,
                        sizes, limits,
                    )  # fmt: skip
            taken = tail
            outputs = program[window_at + 1]
            window_at += 2
            for _ in range(outputs):
                size = sizes[program[window_at + 4]] if sets else 0
                out[program[window_at]] = _finalize(program, window_at, state, as_of, table, size)
                window_at += OUTPUT_SIZE
        hop_at = next_hop
    if there and at != end:
        return BAD_SHAPE, _NO_TIME_MS
    if outcome == NOT_FOUND:
        out[:] = np.nan
    return outcome, newest


@njit(cache=True, nogil=True, error_model="numpy")
def merge_rows(  # type: ignore[no-untyped-def]
    words, metas, row_views, programs, begins, as_of, extra, extra_begins, out, outcomes, newest
):
    """Write each row's values as of as_of[r] (ms) to out[r], float64[aggregations or more], NaN for null.

    words: int64[…], rows as `materialize.online` lays them out. metas: int64[rows, META_SIZE], for each row where its
    head begins and where it ends in `words` (the same for no row), events in the head, newest event time in the tiles,
    batch end. row_views: int64[rows], the view of each, those of one together; its program begins at begins[view] in
    `programs`, below 0 for a view without windows, whose rows are passed over. extra: events to count in unless a row
    has them, for row r extra[extra_begins[r]:extra_begins[r + 1]], laid out as a head is: times, ids, values, hashes.
    Writes NOT_FOUND, FOUND or BAD_SHAPE to outcomes[r], uint8, and the newest event time included to newest[r], int64.
    A row of bad shape has the values of no row: BAD_SHAPE is added to the outcome of the extra events alone.
    """
    views = (words, words.view(np.float64), words.view(np.uint64))
    extra_floats, extra_hashes = extra.view(np.float64), extra.view(np.uint64)
    nothing = np.zeros(META_SIZE, np.int64)
    first = 0
    while first < len(metas):
        view, last = row_views[first], first + 1
        while last < len(metas) and row_views[last] == view:
            last += 1
        if begins[view] >= 0:
            program = programs[begins[view] :]
            event_words, sets = 2 + program[1] + program[2], program[4]
            counts = np.empty(len(extra) // event_words, np.bool_)
            table, sizes = np.zeros((sets, _TABLE_SIZE), np.uint64), np.zeros(sets, np.int64)
            scratch = (np.empty(program[3], np.float64), table, sizes, np.empty(sets, np.uint64))
            for r in range(first, last):
                meta, begin, end = metas[r], extra_begins[r], extra_begins[r + 1]
                extras = (extra[begin:end], extra_floats[begin:end], extra_hashes[begin:end])
                counted = counts[: (end - begin) // event_words]
                outcomes[r], newest[r] = _merge_row(
                    views, meta[0], meta[1], meta, program, as_of[r], extras, counted, scratch, out[r]
                )
                if outcomes[r] == BAD_SHAPE:
                    outcome, newest[r] = _merge_row(
                        views, 0, 0, nothing, program, as_of[r], extras, counted, scratch, out[r]
                    )
                    outcomes[r] += outcome
        first = last


@njit(cache=True, nogil=True, error_model="numpy")
def _upper(times, begin, stop, limit):  # type: ignore[no-untyped-def]
    """The position after the last of times[begin:stop], which go up, that is not above `limit`."""
    while begin < stop:
        middle = (begin + stop) // 2
        if times[middle] <= limit:
            begin = middle + 1
        else:
            stop = middle
    return begin


@njit(cache=True, nogil=True, error_model="numpy")
def fold_tile_states(program, at, times, values, starts, states):  # type: ignore[no-untyped-def]
    """Write the state of each tile of one hop to `states`, float64[tiles, width]; starts: where its events begin."""
    slots, slots_at, columns = program[at + 2], at + HOP_HEAD, program[1]
    floats, stop = values.reshape(-1), len(times)
    for tile in range(len(starts) - 1, -1, -1):
        _reset(program, slots_at, slots, states[tile])
        _merge_events(program, slots_at, slots, states[tile], times, floats, 0, 0, columns, starts[tile], stop)
        stop = starts[tile]


@njit(cache=True, nogil=True, error_model="numpy")
def merge_as_of(  # type: ignore[no-untyped-def]
    program, at, events, known, tiles, set_hashes, set_ends, event_begins, tile_begins, query_keys, query_times, order,
    out,
):  # fmt: skip
    """Write the values of one hop's windows for each query to `out`, float64[queries, aggregations].

    program, at: the view's program, and where the hop's part of it begins. events: times, values, hashes, by entity and
    time. known: from when each event is known, int64[n], or int64[0] when all are from their own time on. tiles: index,
    states, where each tile's events begin, from when all of them are known, by entity and index. set_hashes, set_ends:
    the tiles' sets, of all distinct columns one after the other; set_ends[s, t] is where tile t ends in column s.
    event_begins, tile_begins: int64[entities + 1]. query_keys: entities, −1 for none. order: in which to go through the
    queries, best those of one entity together. Without any tile, all is taken from the events.
    """
    times, values, _ = events
    index, states, starts, whole_from = tiles
    floats, state_floats, columns, has_tiles = values.reshape(-1), states.reshape(-1), program[1], len(index) > 0
    hop, width, slots, sets, windows = program[at], program[at + 1], program[at + 2], program[at + 3], program[at + 4]
    slots_at, sets_at = at + HOP_HEAD, at + HOP_HEAD + SLOT_SIZE * slots
    windows_at = sets_at + sets
    state = np.empty(width, np.float64)
    table = np.zeros((sets, _TABLE_SIZE), np.uint64)
    sizes = np.zeros(sets, np.int64)
    limits = np.empty(sets, np.uint64)
    for q in order:
        key, as_of = query_keys[q], query_times[q]
        if key < 0:
            continue
        _reset(program, slots_at, slots, state)
        _empty_tables(table, sizes, limits)
        stop = _upper(times, event_begins[key], event_begins[key + 1], as_of)
        event, tile = stop, tile_begins[key]
        if has_tiles:
            tile = _upper(index, tile, tile_begins[key + 1], as_of // hop - 1)
        i = windows_at
        for _ in range(windows):
            tail = (as_of - program[i]) // hop
            first_ms = (as_of // hop if has_tiles else tail) * hop
            while event > event_begins[key] and times[event - 1] >= first_ms:
                event -= 1
            _merge_span(
                program, slots_at, slots, sets_at, sets, state, events, floats, columns, known, as_of, event, stop,
                table, sizes, limits,
            )  # fmt: skip
            stop, tiles_stop = event, tile
            while tile > tile_begins[key] and index[tile - 1] >= tail:
                tile -= 1
            while tiles_stop > tile:
                run = tiles_stop
                while run > tile and (len(known) == 0 or whole_from[run - 1] <= as_of):
                    run -= 1
                if run < tiles_stop:
                    _merge_tiles(program, slots_at, slots, state, state_floats, 0, width, run, tiles_stop)
                for s in range(sets):
                    for t in range(tiles_stop - 1, run - 1, -1):
                        for h in range(set_ends[s, t], set_ends[s, t + 1]):
                            if not _add_hash(table, sizes, limits, s, set_hashes[h]):
                                break
                tiles_stop = run
                if run > tile:  # a tile that is not known whole: those of its events that are
                    tiles_stop = run - 1
                    _merge_span(
                        program, slots_at, slots, sets_at, sets, state, events, floats, columns, known, as_of,
                        starts[run - 1], starts[run], table, sizes, limits,
                    )  # fmt: skip
            outputs = program[i + 1]
            for o in range(i + 2, i + 2 + OUTPUT_SIZE * outputs, OUTPUT_SIZE):
                size = sizes[program[o + 4]] if sets else 0
                out[q, program[o]] = _finalize(program, o, state, as_of, table, size)
            i += 2 + OUTPUT_SIZE * outputs


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_span(  # type: ignore[no-untyped-def]
    program, slots_at, slots, sets_at, sets, state, events, floats, columns, known, as_of, begin, stop, table, sizes,
    limits,
):  # fmt: skip
    """The events from `begin` to `stop` that are known as of `as_of` into a hop's state and tables; see merge_as_of."""
    times, _, hashes = events
    while begin < stop:
        end = stop
        if len(known):
            while begin < stop and known[begin] > as_of:
                begin += 1
            end = begin
            while end < stop and known[end] <= as_of:
                end += 1
        if begin < end:
            _merge_events(program, slots_at, slots, state, times, floats, 0, 0, columns, begin, end)
            for e in range(begin, end if sets else begin):
                _fold_hashes(program, sets_at, sets, hashes, e, table, sizes, limits)
        begin = end


@njit(cache=True, nogil=True, error_model="numpy")
def spread_events(codes, events, known, begins, out, out_known):  # type: ignore[no-untyped-def]
    """Copy events, which come by growing time, to `out`, by entity and then in the order in which they come.

    codes: int64[n], the entity of each, 0 ≤ code < entities. events, out: times, values, hashes. known: int64[n], or
    int64[0], to out_known. Writes where each entity's events begin to begins, int64[entities + 1].
    """
    times, values, hashes = events
    out_times, out_values, out_hashes = out
    begins[:] = 0
    for i in range(len(codes)):
        begins[codes[i] + 1] += 1
    for e in range(len(begins) - 1):
        begins[e + 1] += begins[e]
    filled = begins.copy()
    for i in range(len(codes)):
        at = filled[codes[i]]
        filled[codes[i]] = at + 1
        out_times[at] = times[i]
        for column in range(values.shape[1]):
            out_values[at, column] = values[i, column]
        for column in range(hashes.shape[1]):
            out_hashes[at, column] = hashes[i, column]
        if len(known):
            out_known[at] = known[i]


@njit(cache=True, nogil=True, error_model="numpy")
def group_events(codes, times, ids, begins, order, repeats):  # type: ignore[no-untyped-def]
    """Put events in order of row, time and identity; what is equal in all three keeps its order.

    codes: int64[n], the row of each event, 0 ≤ code < rows. Writes where each row's events begin to begins,
    int64[rows + 1]; the events' order to order, int64[n]; and to repeats, bool[n], whether an event has the identity of
    one that comes before it in its row.
    """
    rows = len(begins) - 1
    begins[:] = 0
    for i in range(len(codes)):
        begins[codes[i] + 1] += 1
    for r in range(rows):
        begins[r + 1] += begins[r]
    filled = begins[:rows].copy()
    for i in range(len(codes)):
        order[filled[codes[i]]] = i
        filled[codes[i]] += 1
    for r in range(rows):
        _sort_row(times, ids, order, begins[r], begins[r + 1])
        _find_repeats(ids, order, begins[r], begins[r + 1], repeats)


@njit(cache=True, nogil=True, error_model="numpy")
def _sort_row(times, ids, order, begin, end):  # type: ignore[no-untyped-def]
    """order[begin:end] by time, then identity. Events mostly come in order, so that there is little to move."""
    moves, most = 0, 8 * (end - begin)
    for i in range(begin + 1, end):
        one, at = order[i], i
        while at > begin and (
            times[order[at - 1]] > times[one] or (times[order[at - 1]] == times[one] and ids[order[at - 1]] > ids[one])
        ):
            order[at] = order[at - 1]
            at -= 1
            moves += 1
        order[at] = one
        if moves > most:
            break
    else:
        return
    part = order[begin:end].copy()
    part = part[np.argsort(ids[part], kind="mergesort")]
    order[begin:end] = part[np.argsort(times[part], kind="mergesort")]


@njit(cache=True, nogil=True, error_model="numpy")
def _find_repeats(ids, order, begin, end, repeats):  # type: ignore[no-untyped-def]
    """Which of order[begin:end] have an identity that came before."""
    repeats[begin:end] = False
    if end - begin <= 16:
        for i in range(begin + 1, end):
            for j in range(begin, i):
                if ids[order[i]] == ids[order[j]]:
                    repeats[i] = True
        return
    places = np.argsort(ids[order[begin:end]], kind="mergesort")
    for i in range(1, len(places)):
        if ids[order[begin + places[i]]] == ids[order[begin + places[i - 1]]]:
            repeats[begin + places[i]] = True


@njit(cache=True, nogil=True, error_model="numpy")
def newest_of(times, known, event_begins, query_keys, query_times, order, out):  # type: ignore[no-untyped-def]
    """Write each queried entity's newest event time up to the query's to `out`, int64[queries]; leave it for none.

    known: from when each event is known, or int64[0]; what is not known then does not count. order: see merge_as_of.
    """
    for q in order:
        key = query_keys[q]
        if key >= 0:
            event = _upper(times, event_begins[key], event_begins[key + 1], query_times[q])
            while len(known) and event > event_begins[key] and known[event - 1] > query_times[q]:
                event -= 1
            if event > event_begins[key]:
                out[q] = times[event - 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _find_sections(data, offset, head_count, program, sections):  # type: ignore[no-untyped-def]
    """Where everything is: head's times, ids, values, hashes; for each hop its tiles' count, index, states, sets.

    Written to `sections`, int64[4 + 4 × hops]. False when the sections are not exactly the row.
    """
    size, columns, distinct = len(data), program[1], program[2]
    sections[:] = 0
    if size == 0:
        return True
    sections[0] = offset
    sections[1] = offset + 8 * head_count
    sections[2] = offset + 16 * head_count
    sections[3] = sections[2] + 8 * head_count * columns
    offset = sections[3] + 8 * head_count * distinct
    at = HOPS_AT
    for hop in range(program[0]):
        width, sets = program[at + 1], program[at + 3]
        at = program[at + HOP_HEAD - 1]
        if offset + 8 > size:
            return False
        count = np.int64(data[offset : offset + 4].view(np.uint32)[0])
        sections[4 + 4 * hop] = count
        sections[5 + 4 * hop] = offset + 8
        sections[6 + 4 * hop] = offset + 8 + 8 * count
        offset += 8 + 8 * count * (1 + width)
        sections[7 + 4 * hop] = offset
        for _ in range(sets):
            offset += 8 * count
            if offset > size:
                return False
            hashes = data[offset - 8 : offset].view(np.int64)[0] if count else 0
            if hashes < 0 or hashes > size:
                return False
            offset += 8 * hashes
    return offset == size


@njit(cache=True, nogil=True, error_model="numpy")
def _insert(best, size, value):  # type: ignore[no-untyped-def]
    """A hash into best[:size], the smallest ones in order. Returns the new size."""
    if size == DISTINCT_KEEP and value > best[size - 1]:
        return size
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if best[middle] < value:
            low = middle + 1
        else:
            high = middle
    if low < size and best[low] == value:
        return size
    last = min(size, DISTINCT_KEEP - 1)
    for i in range(last, low, -1):
        best[i] = best[i - 1]
    best[low] = value
    return last + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _write_tiles(data, section, program, at, stored_from, first_index, folded, out, begin):  # type: ignore[no-untyped-def]
    """One hop's tiles, those stored before `stored_from` left out, with events in them, to out[begin:]; none that is
    before `first_index`. Returns the end.

    folded: times, values, hashes of the events, by time.
    """
    times, values, hashes = folded
    hop, width, slots, sets = program[at], program[at + 1], program[at + 2], program[at + 3]
    slots_at, sets_at = at + HOP_HEAD, at + HOP_HEAD + SLOT_SIZE * slots
    stored, events = section[0], len(times)
    index = data[section[1] : section[1] + 8 * stored].view(np.int64)
    states = data[section[2] : section[2] + 8 * stored * width].view(np.float64).reshape((stored, width))
    # First which tiles there will be: for each its index, the stored tile (or −1), and its events.
    plan = np.empty((stored + events, 4), np.int64)
    count, tile, event = 0, _first_not_below(index, 0, stored, stored_from), 0
    while tile < stored or event < events:
        of_event = times[event] // hop if event < events else _NO_INDEX
        of_tile = index[tile] if tile < stored else _NO_INDEX
        lowest = min(of_event, of_tile)
        plan[count, 0] = lowest
        plan[count, 1] = tile if of_tile == lowest else -1
        plan[count, 2] = event
        if of_tile == lowest:
            tile += 1
        while event < events and times[event] // hop == lowest:
            event += 1
        plan[count, 3] = event
        if lowest >= first_index:
            count += 1
    out[begin : begin + 4].view(np.uint32)[0] = count
    out[begin + 4 : begin + 8].view(np.uint32)[0] = 0
    begin += 8
    new_index = out[begin : begin + 8 * count].view(np.int64)
    begin += 8 * count
    new_states = out[begin : begin + 8 * count * width].view(np.float64).reshape((count, width))
    begin += 8 * count * width
    for i in range(count):
        new_index[i] = plan[i, 0]
        state = new_states[i]
        if plan[i, 1] >= 0:
            state[:] = states[plan[i, 1]]
        else:
            _reset(program, slots_at, slots, state)
        for e in range(plan[i, 2], plan[i, 3]):
            _fold_event(program, slots_at, slots, state, values, e, times[e])
    where = section[3]
    best = np.empty(DISTINCT_KEEP, np.uint64)
    for s in range(sets):
        ends = data[where : where + 8 * stored].view(np.int64)
        total = ends[stored - 1] if stored else 0
        old = data[where + 8 * stored : where + 8 * (stored + total)].view(np.uint64)
        where += 8 * (stored + total)
        new_ends = out[begin : begin + 8 * count].view(np.int64)
        begin += 8 * count
        kept = 0
        for i in range(count):
            size = 0
            if plan[i, 1] >= 0:
                first = ends[plan[i, 1] - 1] if plan[i, 1] > 0 else 0
                size = ends[plan[i, 1]] - first
                best[:size] = old[first : first + size]
            for e in range(plan[i, 2], plan[i, 3]):
                value = hashes[e, program[sets_at + s]]
                if value != 0:
                    size = _insert(best, size, value)
            out[begin + 8 * kept : begin + 8 * (kept + size)].view(np.uint64)[:] = best[:size]
            kept += size
            new_ends[i] = kept
        begin += 8 * kept
    return begin


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_applied(data, begin, count, partitions, offsets, fresh, out):  # type: ignore[no-untyped-def]
    """The applied offsets with those of the fresh events, by partition, to `out`. Returns how many partitions."""
    known = np.empty((count + len(partitions), 2), np.int64)
    for i in range(count):
        known[i, 0] = data[begin + 16 * i : begin + 16 * i + 8].view(np.int64)[0]
        known[i, 1] = data[begin + 16 * i + 8 : begin + 16 * i + 16].view(np.int64)[0]
    for e in range(len(partitions)):
        if not fresh[e]:
            continue
        at = 0
        while at < count and known[at, 0] < partitions[e]:
            at += 1
        if at == count or known[at, 0] != partitions[e]:
            for i in range(count, at, -1):
                known[i] = known[i - 1]
            known[at, 0] = partitions[e]
            known[at, 1] = offsets[e]
            count += 1
        else:
            known[at, 1] = max(known[at, 1], offsets[e])
    for i in range(count):
        out[16 * i : 16 * i + 8].view(np.int64)[0] = known[i, 0]
        out[16 * i + 8 : 16 * i + 16].view(np.int64)[0] = known[i, 1]
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _applied_offset(data, begin, count, partition):  # type: ignore[no-untyped-def]
    """The last offset that the row has applied from a partition; −1 for none."""
    for i in range(count):
        if data[begin + 16 * i : begin + 16 * i + 8].view(np.int64)[0] == partition:
            return data[begin + 16 * i + 8 : begin + 16 * i + 16].view(np.int64)[0]
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def _stored_head(data, sections, n, program):  # type: ignore[no-untyped-def]
    """The events of a row's head: times, ids, values, hashes."""
    columns, distinct = program[1], program[2]
    return (
        data[sections[0] : sections[0] + 8 * n].view(np.int64),
        data[sections[1] : sections[1] + 8 * n].view(np.uint64),
        data[sections[2] : sections[2] + 8 * n * columns].view(np.float64).reshape((n, columns)),
        data[sections[3] : sections[3] + 8 * n * distinct].view(np.uint64).reshape((n, distinct)),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _choose(events, fresh, old_times, old_ids, batch_end, newest, reach, slack, counts):  # type: ignore[no-untyped-def]
    """Which of a row's events are to be folded; counts what becomes of the others.

    events: times, ids, repeats. Returns a mask, and the newest event time with them.
    """
    times, ids, repeats = events
    use = fresh.copy()
    for e in range(len(times)):
        if not fresh[e]:
            counts[4] += 1
            continue
        if times[e] < batch_end:
            use[e] = False
            counts[2] += 1
            continue
        repeated = repeats[e]
        for i in range(len(old_times)):
            repeated = repeated or old_ids[i] == ids[e]
        if repeated:
            use[e] = False
            counts[1] += 1
        else:
            newest = max(newest, times[e])
    for e in range(len(times)):
        if use[e] and times[e] < newest - reach - slack:
            use[e] = False
            counts[3] += 1
    counts[0] += use.sum()
    return use, newest


@njit(cache=True, nogil=True, error_model="numpy")
def _in_order(old, keep, new, use):  # type: ignore[no-untyped-def]
    """The head's events that are kept and the chosen new ones, by time and identity: times, ids, values, hashes.

    old, new: times, ids, values, hashes, each in that order already. keep, use: which of them are taken.
    """
    size = keep.sum() + use.sum()
    times, ids = np.empty(size, np.int64), np.empty(size, np.uint64)
    values = np.empty((size, old[2].shape[1]), np.float64)
    hashes = np.empty((size, old[3].shape[1]), np.uint64)
    count, h, e = 0, 0, 0
    while h < len(keep) or e < len(use):
        if h < len(keep) and not keep[h]:
            h += 1
        elif e < len(use) and not use[e]:
            e += 1
        elif h < len(keep) and (
            e >= len(use) or old[0][h] < new[0][e] or (old[0][h] == new[0][e] and old[1][h] <= new[1][e])
        ):
            times[count], ids[count], values[count], hashes[count] = old[0][h], old[1][h], old[2][h], old[3][h]
            count += 1
            h += 1
        else:
            times[count], ids[count], values[count], hashes[count] = new[0][e], new[1][e], new[2][e], new[3][e]
            count += 1
            e += 1
    return times, ids, values, hashes


@njit(cache=True, nogil=True, error_model="numpy")
def _write_head(block, first, out, begin):  # type: ignore[no-untyped-def]
    """The events from `first` on to out[begin:]. Returns the end."""
    count, columns, distinct = len(block[0]) - first, block[2].shape[1], block[3].shape[1]
    out[begin : begin + 8 * count].view(np.int64)[:] = block[0][first:]
    begin += 8 * count
    out[begin : begin + 8 * count].view(np.uint64)[:] = block[1][first:]
    begin += 8 * count
    out[begin : begin + 8 * count * columns].view(np.float64)[:] = block[2][first:].ravel()
    begin += 8 * count * columns
    out[begin : begin + 8 * count * distinct].view(np.uint64)[:] = block[3][first:].ravel()
    return begin + 8 * count * distinct


@njit(cache=True, nogil=True, error_model="numpy")
def fold_row(data, applied_at, meta, layout, limits, events, log, out, counts):  # type: ignore[no-untyped-def]
    """One row with further events in it, as `fold_events` has it, but from bytes to bytes.

    data: the row, uint8[size], or empty. applied_at: where its applied offsets begin. meta: int64[4], in and out: head
    events, partitions, batch end, newest event time in tiles. layout: the program, where its hops begin, how far each
    reaches. limits: slack ms, events in the head at most. events: times, ids, values, hashes, by time and identity, and
    which repeat an identity that came before. log: their partitions and offsets. out: room for the new row from
    `applied_at` on. counts: int64[5], added to: folded, duplicates, owned by batch, too late, replayed.
    Returns the length of what was written, 0 when the row has every event already, −1 for a row whose sections are not
    exactly its bytes; and the newest event time.
    """
    program, hop_ats, reaches = layout
    slack, head_max = limits
    n, known = meta[0], meta[1]
    sections = np.empty(4 + 4 * program[0], np.int64)
    if not _find_sections(data, applied_at + 16 * known, n, program, sections):
        return -1, _NO_TIME_MS
    fresh = np.empty(len(events[0]), np.bool_)
    for e in range(len(fresh)):
        fresh[e] = log[1][e] > _applied_offset(data, applied_at, known, log[0][e])
    if not fresh.any():
        counts[4] += len(fresh)
        return 0, _NO_TIME_MS
    old = _stored_head(data, sections, n, program)
    newest = max(meta[3], old[0][n - 1]) if n else meta[3]
    use, newest = _choose(
        (events[0], events[1], events[4]), fresh, old[0], old[1], meta[2], newest, reaches.max(), slack, counts
    )
    block = _in_order(old, old[0] >= newest - reaches.max() - slack, events[:4], use)
    split = max(len(block[0]) - head_max, 0)
    if split:
        meta[3] = max(meta[3], block[0][split - 1])
    meta[0] = len(block[0]) - split
    meta[1] = _merge_applied(data, applied_at, known, log[0], log[1], fresh, out)
    at = _write_head(block, split, out, 16 * meta[1])
    for hop in range(program[0]):
        first_index = (newest - reaches[hop] - slack) // program[hop_ats[hop]]
        section = sections[4 + 4 * hop : 8 + 4 * hop]
        folded = (block[0][:split], block[2][:split], block[3][:split])
        at = _write_tiles(data, section, program, hop_ats[hop], -_NO_INDEX, first_index, folded, out, at)
    return at, newest


@njit(cache=True, nogil=True, error_model="numpy")
def fold_rows(  # type: ignore[no-untyped-def]
    data, row_spans, applied_at, metas, layout, limits, event_begins, events, log, out, out_begins, newest, counts
):
    """`fold_row` for many rows in one call: row r is data[row_spans[r, 0]:row_spans[r, 1]].

    Writes what each row becomes to out[out_begins[r]:out_begins[r + 1]], with room for what stands before its applied
    offsets (nothing for a row that has every event), its meta to metas[r], its newest event time to newest[r], what
    became of its events to counts[r]. A row whose sections are not exactly its bytes is taken for no row. Returns how
    many of these there were.
    """
    damaged = 0
    out_begins[0] = 0
    for r in range(len(row_spans)):
        a, b = event_begins[r], event_begins[r + 1]
        begin = out_begins[r] + applied_at
        row = data[row_spans[r, 0] : row_spans[r, 1]]
        its = (events[0][a:b], events[1][a:b], events[2][a:b], events[3][a:b], events[4][a:b])
        where = (log[0][a:b], log[1][a:b])
        written, latest = fold_row(row, applied_at, metas[r], layout, limits, its, where, out[begin:], counts[r])
        if written < 0:
            damaged += 1
            metas[r, 0] = metas[r, 1] = metas[r, 2] = 0
            metas[r, 3] = _NO_TIME_MS
            written, latest = fold_row(
                row[:0], applied_at, metas[r], layout, limits, its, where, out[begin:], counts[r]
            )
        out_begins[r + 1] = begin + written if written else out_begins[r]
        newest[r] = latest
    return damaged


@njit(cache=True, nogil=True, error_model="numpy")
def _has_tile_from(data, section, index):  # type: ignore[no-untyped-def]
    """Whether a hop has a stored tile of this index or a later one."""
    end = section[1] + 8 * section[0]
    return section[0] > 0 and data[end - 8 : end].view(np.int64)[0] >= index


@njit(cache=True, nogil=True, error_model="numpy")
def _is_among(ids, use, wanted):  # type: ignore[no-untyped-def]
    """Whether one of the chosen ids is the wanted one."""
    found = False
    for e in range(len(ids)):
        found = found or (use[e] and ids[e] == wanted)
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def replace_row(data, applied_at, meta, layout, limits, batch_end, events, out):  # type: ignore[no-untyped-def]
    """One row with everything before `batch_end` replaced by `events`, as `replace_batch_side` has it, but from bytes
    to bytes.

    All is as in `fold_row`, but `events` are those of history, and the row's applied offsets stay as they are. Returns
    the length of what was written, 0 for a row that has a later batch end, −1 for a row whose sections are not exactly
    its bytes; and the newest event time.
    """
    program, hop_ats, reaches = layout
    slack, head_max = limits
    n, known = meta[0], meta[1]
    sections = np.empty(4 + 4 * program[0], np.int64)
    if not _find_sections(data, applied_at + 16 * known, n, program, sections):
        return -1, _NO_TIME_MS
    if meta[2] > batch_end:
        return 0, _NO_TIME_MS
    old = _stored_head(data, sections, n, program)
    stays = False
    for hop in range(program[0]):
        first_kept = batch_end // program[hop_ats[hop]]
        stays = stays or _has_tile_from(data, sections[4 + 4 * hop : 8 + 4 * hop], first_kept)
    meta[2] = batch_end
    meta[3] = meta[3] if stays else _NO_TIME_MS
    newest = meta[3]
    if n and old[0][n - 1] >= batch_end:
        newest = max(newest, old[0][n - 1])
    times, repeats = events[0], events[4]
    use = np.empty(len(times), np.bool_)
    for e in range(len(times)):
        use[e] = times[e] < batch_end and not repeats[e]
        newest = max(newest, times[e]) if use[e] else newest
    keep_from = newest - reaches.max() - slack
    keep = np.empty(n, np.bool_)
    for i in range(n):
        keep[i] = old[0][i] >= max(batch_end, keep_from) and not _is_among(events[1], use, old[1][i])
    for e in range(len(times)):
        use[e] = use[e] and times[e] >= keep_from
    block = _in_order(old, keep, events[:4], use)
    split = max(len(block[0]) - head_max, 0)
    if split:
        meta[3] = max(meta[3], block[0][split - 1])
    meta[0] = len(block[0]) - split
    out[: 16 * known] = data[applied_at : applied_at + 16 * known]
    at = _write_head(block, split, out, 16 * known)
    folded = (block[0][:split], block[2][:split], block[3][:split])
    for hop in range(program[0]):
        length = program[hop_ats[hop]]
        first_index = (newest - reaches[hop] - slack) // length
        section = sections[4 + 4 * hop : 8 + 4 * hop]
        at = _write_tiles(data, section, program, hop_ats[hop], batch_end // length, first_index, folded, out, at)
    return at, newest


@njit(cache=True, nogil=True, error_model="numpy")
def replace_rows(  # type: ignore[no-untyped-def]
    data, row_spans, applied_at, metas, layout, limits, batch_end, event_begins, events, out, out_begins, newest
):
    """`replace_row` for many rows in one call, in all else as `fold_rows`. Returns how many rows were of bad shape."""
    damaged = 0
    out_begins[0] = 0
    for r in range(len(row_spans)):
        a, b = event_begins[r], event_begins[r + 1]
        begin = out_begins[r] + applied_at
        row = data[row_spans[r, 0] : row_spans[r, 1]]
        its = (events[0][a:b], events[1][a:b], events[2][a:b], events[3][a:b], events[4][a:b])
        written, latest = replace_row(row, applied_at, metas[r], layout, limits, batch_end, its, out[begin:])
        if written < 0:
            damaged += 1
            metas[r, 0] = metas[r, 1] = metas[r, 2] = 0
            metas[r, 3] = _NO_TIME_MS
            written, latest = replace_row(row[:0], applied_at, metas[r], layout, limits, batch_end, its, out[begin:])
        out_begins[r + 1] = begin + written if written else out_begins[r]
        newest[r] = latest
    return damaged
