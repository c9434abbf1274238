"""What single rows of a retrieval know: events of their own beside history, and nothing that came to be known too late.

For audits. A decision counted the event that it was about, which history need not have; and it could not count what
the log took after it. Each row gets its entity's events copied, in parts that bound the memory; the kernel does the
rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from materialize.definitions import StreamView
from materialize.events import Columns
from materialize.kernel import EventBlock, ViewSpec, concat_blocks, values_as_of
from materialize.offline._keys import Codes, Column, entity_codes

COPIED_MAX = 2_000_000
"""As many events are copied at a time, or those of one row if they are more."""

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class OwnEvents:
    """Events of one topic, each known to one row. rows: int64[k], the row; columns: k events."""

    rows: Ints
    columns: Columns


@dataclass(frozen=True)
class Knowledge:
    """What q rows know. own: topic → events that count for their row alone, and once if history has them too.

    known_ms: int64[q], or None: what was created later than this does not count for the row, its own events aside.
    """

    own: Mapping[str, OwnEvents]
    known_ms: Ints | None = None


def values_as_known(
    view: StreamView,
    columns: Columns,
    identities: Hashes | None,
    created_ms: Ints,
    query_keys: Sequence[Column],
    query_times: Ints,
    knowledge: Knowledge,
) -> tuple[Floats, Mask, Ints]:
    """As `materialize.kernel.values_as_of`, each of q queries with its own knowledge.

    columns: the history of the view's topic, with the hashes of its identities (`identities_of`) and created_ms,
    int64[n]. query_keys: one column of length q for each join key.
    """
    seen = view.events(columns, identities)
    codes, asked = entity_codes(seen.keys, query_keys)
    events = _Sorted(codes, seen.block, created_ms[seen.rows])
    own_rows, own = _own_events(view, query_keys, knowledge.own.get(view.topic))
    begins, ends = events.spans(asked, view.spec, query_times)
    values = np.full((len(asked), len(view.fields)), np.nan)
    found = np.zeros(len(asked), dtype=bool)
    newest = np.zeros(len(asked), dtype=np.int64)
    for part in _parts(ends - begins):
        copied, rows = _ranges(begins[part], ends[part])
        block, created, rows = events.block.take(copied), events.created_ms[copied], rows + part.start
        if knowledge.known_ms is not None:
            known = created <= knowledge.known_ms[rows]
            block, rows = block.take(known), rows[known]
        if own is not None:
            mine = (own_rows >= part.start) & (own_rows < part.stop)
            block, rows = concat_blocks([block, own.take(mine)]), np.concatenate([rows, own_rows[mine]])
        numbers = np.arange(part.start, part.stop)
        values[part], found[part], newest[part] = values_as_of(view.spec, rows, block, numbers, query_times[part])
    return values, found, newest


class _Sorted:
    """Events by entity and time."""

    def __init__(self, codes: Codes, block: EventBlock, created_ms: Ints) -> None:
        order = np.lexsort((block.times, codes))
        self.block, self.created_ms, self._codes = block.take(order), created_ms[order], codes[order]

    def spans(self, asked: Codes, spec: ViewSpec, times: Ints) -> tuple[Ints, Ints]:
        """Where the events of each query begin and end: its entity's, in its longest window."""
        if not len(self._codes):
            return np.zeros_like(asked), np.zeros_like(asked)
        first = int(self.block.times.min())
        span = max(int(self.block.times.max()), int(times.max())) - first + 2
        ranks = self._codes * span + (self.block.times - first)
        tails = np.min([(times - w.length_ms) // w.hop_ms * w.hop_ms for w in spec.distinct_windows], axis=0)
        begins = np.searchsorted(ranks, asked * span + np.clip(tails - first, 0, span - 1), "left")
        ends = np.searchsorted(ranks, asked * span + np.clip(times - first, -1, span - 2), "right")
        there = asked >= 0
        return np.where(there, begins, 0), np.where(there, np.maximum(ends, begins), 0)


def _own_events(
    view: StreamView, query_keys: Sequence[Column], own: OwnEvents | None
) -> tuple[Ints, EventBlock | None]:
    """The rows' own events as the view sees them, those that are about another entity of the view left out."""
    if own is None or not len(own.rows):
        return np.empty(0, np.int64), None
    seen = view.events(own.columns)
    rows = own.rows[seen.rows]
    mine = np.ones(len(rows), dtype=bool)
    for key, asked in zip(seen.keys, query_keys, strict=True):
        mine &= np.asarray(key == asked[rows], dtype=bool)
    return rows[mine], seen.block.take(mine)


def _parts(lengths: Ints) -> Iterator[slice]:
    """Slices of the queries whose events, together, are at most COPIED_MAX, or of one query."""
    begin, count = 0, 0
    for place, length in enumerate(lengths.tolist()):
        if count and count + length > COPIED_MAX:
            yield slice(begin, place)
            begin, count = place, 0
        count += length
    if begin < len(lengths):
        yield slice(begin, len(lengths))


def _ranges(begins: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """All positions from each begin to its end, one range after the other, and which range each belongs to."""
    lengths = ends - begins
    which = np.repeat(np.arange(len(begins)), lengths)
    offsets = np.arange(len(which)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return begins[which] + offsets, which
