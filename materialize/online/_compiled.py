"""Rows opened, read and sealed many at a time, on their bytes: the compiled form of `_header` and `_batch_rows`.

Rows lie one after the other in one array of 64-bit words. Everything compiled of this package is in this one file, and
calls nothing of another: numba keeps compiled code by the file of a function, and would go on using an old copy. The
constants that it takes from other files are compiled in as well: who changes one deletes the compiled code
(`make clean`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from materialize.online._header import BATCH_ROW, FORMAT_VERSION, MAGIC, PREFIX_SIZE, REASONS, STREAM_ROW

FINE, NO_ROW = REASONS.index(""), REASONS.index("no_row")
_TOO_SHORT, _NOT_A_ROW = REASONS.index("too_short"), REASONS.index("not_a_row")
_OTHER_FORMAT, _DAMAGED = REASONS.index("other_format"), REASONS.index("damaged")
_OTHER_KIND, _OTHER_SCHEMA = REASONS.index("other_kind"), REASONS.index("other_schema")
_BAD_SHAPE = REASONS.index("bad_shape")

DOUBLE, TIMESTAMP, INTEGER, FLOAT, SPAN = range(5)
"""How a batch row holds a field: 8 bytes, 8 bytes, as narrow as the row's integers, 4 bytes, a place in the section."""

OPENED_SIZE = 6
"""Numbers that `open_rows` gives of a row: those of `merge_rows`, then its event time."""

VIEW_KIND, VIEW_TTL, VIEW_SLOT, VIEW_SLOTS, VIEW_PROGRAM, VIEW_SLACK, VIEW_SIZE = range(7)
"""What `read_rows` knows of a view: kind, TTL in ms, first input slot, how many, where its program begins, and for a
stream view how many ms beyond the newest event its tiles are kept."""

PRESENT, NULL, ABSENT, EXPIRED = 1, 2, 3, 4
"""FeatureStatus, by its numbers."""

EXACT_MAX = 2**53
"""Integers up to here are the same as float64."""

_WORD = np.uint64(MAGIC[0] | MAGIC[1] << 8)
_P1, _P2 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_P3, _P4 = np.uint64(0x165667B19E3779F9), np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


@njit(cache=True, nogil=True, error_model="numpy")
def _rotated(value, by):  # type: ignore[no-untyped-def]
    return (value << np.uint64(by)) | (value >> np.uint64(64 - by))


@njit(cache=True, nogil=True, error_model="numpy")
def _round(lane, word):  # type: ignore[no-untyped-def]
    return _rotated(lane + word * _P2, 31) * _P1


@njit(cache=True, nogil=True, error_model="numpy")
def _merged(digest, lane):  # type: ignore[no-untyped-def]
    return (digest ^ _round(np.uint64(0), lane)) * _P1 + _P4


@njit(cache=True, nogil=True, error_model="numpy")
def xxh64_words(words, begin, end, seed):  # type: ignore[no-untyped-def]
    """XXH64 of words[begin:end], uint64, with a seed (xxHash specification 0.1.1)."""
    at = begin
    if end - begin >= 4:
        a, b, c, d = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
        while at + 4 <= end:
            a, b = _round(a, words[at]), _round(b, words[at + 1])
            c, d = _round(c, words[at + 2]), _round(d, words[at + 3])
            at += 4
        digest = _rotated(a, 1) + _rotated(b, 7) + _rotated(c, 12) + _rotated(d, 18)
        digest = _merged(_merged(_merged(_merged(digest, a), b), c), d)
    else:
        digest = seed + _P5
    digest += np.uint64(8 * (end - begin))
    while at < end:
        digest = _rotated(digest ^ _round(np.uint64(0), words[at]), 27) * _P1 + _P4
        at += 1
    digest ^= digest >> np.uint64(33)
    digest *= _P2
    digest ^= digest >> np.uint64(29)
    digest *= _P3
    return digest ^ (digest >> np.uint64(32))


@njit(cache=True, nogil=True, error_model="numpy")
def _checksum(words, begin, end):  # type: ignore[no-untyped-def]
    """What bytes 4 to 8 of the row words[begin:end] must say."""
    return xxh64_words(words, begin + 1, end, words[begin] & np.uint64(0xFFFFFFFF)) & np.uint64(0xFFFFFFFF)


@njit(cache=True, nogil=True, error_model="numpy")
def _opened(words, begin, end, kind, fingerprint):  # type: ignore[no-untyped-def]
    """What is wrong with the prefix of the row words[begin:end]; FINE for nothing. In the order of `unseal`."""
    if end == begin:
        return NO_ROW
    if 8 * (end - begin) < PREFIX_SIZE:
        return _TOO_SHORT
    first = words[begin]
    if first & np.uint64(0xFFFF) != _WORD:
        return _NOT_A_ROW
    if (first >> np.uint64(16)) & np.uint64(0xFF) != FORMAT_VERSION:
        return _OTHER_FORMAT
    if _checksum(words, begin, end) != first >> np.uint64(32):
        return _DAMAGED
    if (first >> np.uint64(24)) & np.uint64(15) != kind:
        return _OTHER_KIND
    if words[begin + 1] != fingerprint:
        return _OTHER_SCHEMA
    least = 7 if kind == STREAM_ROW else 3
    return FINE if end - begin >= least else _BAD_SHAPE


@njit(cache=True, nogil=True, error_model="numpy")
def open_rows(words, begins, row_views, views, fingerprints, opened, reasons):  # type: ignore[no-untyped-def]
    """What the headers of rows say; row r is words[begins[r]:begins[r + 1]], of the view views[row_views[r]].

    Writes to reasons[r], uint8, what is wrong, by REASONS; and to opened[r], int64[OPENED_SIZE], for a stream row what
    `merge_rows` needs, then its event time; for a batch row where it begins and ends, and its event time at the end.
    """
    unsigned = words.view(np.uint64)
    for r in range(len(row_views)):
        begin, end = begins[r], begins[r + 1]
        view = row_views[r]
        kind = views[view, VIEW_KIND]
        reasons[r] = _opened(unsigned, begin, end, kind, fingerprints[view])
        opened[r, :] = 0
        if reasons[r] != FINE:
            continue
        opened[r, 1] = end
        if kind == BATCH_ROW:
            opened[r, 0] = begin
            opened[r, 5] = words[begin + 2]
        else:
            counts = unsigned[begin + 6]
            opened[r, 0] = min(begin + 7 + 2 * np.int64((counts >> np.uint64(16)) & np.uint64(0xFFFF)), end)
            opened[r, 2] = np.int64(counts & np.uint64(0xFFFF))
            opened[r, 3] = words[begin + 5]
            opened[r, 4] = words[begin + 4]
            opened[r, 5] = words[begin + 3]


@njit(cache=True, nogil=True, error_model="numpy")
def _read_batch_row(words, row, program, slot, slots, values, statuses):  # type: ignore[no-untyped-def]
    """The asked fields of one batch row. Returns how many long integers there are, −1 for a row of bad shape.

    words: as 64-bit integers and as all narrower kinds. program: wide slots, integers, floats, fields, then for each
    slot: class, index within the class, field.
    """
    longs, doubles, chars, shorts, ints, floats = words
    begin, end = row[0], row[1]
    flags = (longs[begin] >> 28) & 15
    code = flags & 3
    wide_at = begin + 3 + (flags >> 2 & 1)
    integers_at = 8 * (wide_at + program[0])
    floats_at = (integers_at + (program[1] << code) + 3) // 4 * 4
    bitmap_at = floats_at + 4 * program[2]
    if bitmap_at + (program[3] + 7) // 8 > 8 * end:
        return -1
    long_ones = 0
    for s in range(slots):
        kind, index, field = program[4 + 3 * s], program[5 + 3 * s], program[6 + 3 * s]
        if not (chars[bitmap_at + field // 8] >> (field % 8)) & 1:
            values[slot + s] = np.nan
            statuses[slot + s] = NULL
            continue
        statuses[slot + s] = PRESENT
        if kind == DOUBLE:
            values[slot + s] = doubles[wide_at + index]
            if np.isnan(values[slot + s]):
                statuses[slot + s] = NULL
        elif kind == FLOAT:
            values[slot + s] = floats[floats_at // 4 + index]
            if np.isnan(values[slot + s]):
                statuses[slot + s] = NULL
        elif kind == SPAN:
            values[slot + s] = np.nan
        else:
            if kind == TIMESTAMP:
                number = longs[wide_at + index]
            elif code == 0:
                number = np.int64(chars[integers_at + index])
            elif code == 1:
                number = np.int64(shorts[integers_at // 2 + index])
            elif code == 2:
                number = np.int64(ints[integers_at // 4 + index])
            else:
                number = longs[integers_at // 8 + index]
            values[slot + s] = number
            long_ones += number > EXACT_MAX or number < -EXACT_MAX
    return long_ones


@njit(cache=True, nogil=True, error_model="numpy")
def _nothing(slot, slots, status, values, statuses):  # type: ignore[no-untyped-def]
    values[slot : slot + slots] = np.nan
    statuses[slot : slot + slots] = status


@njit(cache=True, nogil=True, error_model="numpy")
def read_rows(  # type: ignore[no-untyped-def]
    words, opened, reasons, inexact, owners, views, programs, as_of, merges, values, statuses, ages, found
):
    """Write what each entity's rows give to its input slots: values float64, statuses uint8, ages int64, [N, slots].

    opened, reasons: of each row, from `open_rows`. owners: int64[views, N], which row an entity has of a view.
    as_of: int64[N], of each entity. merges: merged, outcomes and newest of each stream row, from `merge_rows`. inexact:
    uint8[rows], is set to 1 for a row that is read further into the past than it can answer exactly. A row of bad shape
    is marked so in `reasons`. found: int64[N], how many rows there were of each entity. Returns how many integers there
    were that float64 may not hold, and how many rows were refused or inexact.
    """
    merged, outcomes, newest = merges
    long_integers = 0
    found[:] = 0
    kinds = (
        words, words.view(np.float64), words.view(np.int8), words.view(np.int16), words.view(np.int32),
        words.view(np.float32),
    )  # fmt: skip
    for v in range(len(views)):
        kind, ttl, slot, slots = views[v, VIEW_KIND], views[v, VIEW_TTL], views[v, VIEW_SLOT], views[v, VIEW_SLOTS]
        program = programs[views[v, VIEW_PROGRAM] :]
        for n in range(owners.shape[1]):
            r = owners[v, n]
            found[n] += reasons[r] != NO_ROW
            if kind == BATCH_ROW:
                there, time = reasons[r] == FINE, opened[r, 5]
                age = max(as_of[n] - time, 0)
            else:
                there, time = outcomes[r] & 1 != 0, newest[r]
                age = as_of[n] - time
            if not there:
                _nothing(slot, slots, ABSENT, values[n], statuses[n])
                age = -1
            elif ttl and age > ttl:
                _nothing(slot, slots, EXPIRED, values[n], statuses[n])
            elif kind == BATCH_ROW:
                long_ones = _read_batch_row(kinds, opened[r], program, slot, slots, values[n], statuses[n])
                if long_ones < 0:
                    reasons[r] = _BAD_SHAPE
                    _nothing(slot, slots, ABSENT, values[n], statuses[n])
                    age = -1
                else:
                    long_integers += long_ones
            else:
                for s in range(slots):
                    value = merged[r, program[s]]
                    values[n, slot + s] = value
                    statuses[n, slot + s] = NULL if np.isnan(value) else PRESENT
            ages[n, slot : slot + slots] = age
    return long_integers, _mark(opened, reasons, inexact, outcomes, owners, views, as_of)


@njit(cache=True, nogil=True, error_model="numpy")
def read_batch_rows(  # type: ignore[no-untyped-def]
    words, begins, row_views, reasons, inexact, owners, views, fingerprints, programs, as_of, values, statuses, ages,
    found,
):  # fmt: skip
    """`open_rows` and `read_rows` in one, where no view has windows."""
    count = len(row_views)
    opened = np.empty((count, OPENED_SIZE), np.int64)
    open_rows(words, begins, row_views, views, fingerprints, opened, reasons)
    merges = (np.empty((count, 0)), np.empty(count, np.uint8), np.empty(count, np.int64))
    return read_rows(
        words, opened, reasons, inexact, owners, views, programs, as_of, merges, values, statuses, ages, found
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(opened, reasons, inexact, outcomes, owners, views, as_of):  # type: ignore[no-untyped-def]
    """Mark the rows that turned out to be of bad shape, and those that are read further back than they are exact.

    Returns how many rows are refused, for whatever reason, or marked.
    """
    inexact[:] = 0
    for v in range(len(views)):
        is_stream = views[v, VIEW_KIND] == STREAM_ROW
        for n in range(owners.shape[1]):
            r = owners[v, n]
            if is_stream and outcomes[r] & 2:
                reasons[r] = _BAD_SHAPE
            if reasons[r] == FINE:
                late = opened[r, 5] > as_of[n]
                if is_stream:
                    late = opened[r, 3] > as_of[n] or opened[r, 5] - views[v, VIEW_SLACK] > as_of[n]
                inexact[r] |= late
    odd = 0
    for r in range(len(reasons)):
        odd += reasons[r] > NO_ROW or inexact[r] != 0
    return odd


@njit(cache=True, nogil=True, error_model="numpy")
def seal_rows(words, begins):  # type: ignore[no-untyped-def]
    """Write the checksum of each row words[begins[r]:begins[r + 1]], uint64, into its prefix; rows may be empty."""
    for r in range(len(begins) - 1):
        begin, end = begins[r], begins[r + 1]
        if end > begin:
            words[begin] = words[begin] & np.uint64(0xFFFFFFFF) | _checksum(words, begin, end) << np.uint64(32)


@njit(cache=True, nogil=True, error_model="numpy")
def seal_stream_rows(words, begins, fingerprint, versions, newest, metas):  # type: ignore[no-untyped-def]
    """Write the header of each stream row words[begins[r]:begins[r + 1]], uint64; rows may be empty.

    versions: uint64[rows]. newest: int64[rows], newest event time. metas: int64[rows, 4], as of `fold_rows`: events in
    the head, partitions, batch end, newest event time in the tiles.
    """
    for r in range(len(begins) - 1):
        begin = begins[r]
        if begins[r + 1] == begin:
            continue
        words[begin] = _WORD | np.uint64(FORMAT_VERSION) << np.uint64(16) | np.uint64(STREAM_ROW) << np.uint64(24)
        words[begin + 1] = fingerprint
        words[begin + 2] = versions[r]
        words[begin + 3] = np.uint64(newest[r])
        words[begin + 4] = np.uint64(metas[r, 2])
        words[begin + 5] = np.uint64(metas[r, 3])
        words[begin + 6] = np.uint64(metas[r, 0]) | np.uint64(metas[r, 1]) << np.uint64(16)
    seal_rows(words, begins)
