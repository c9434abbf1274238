"""A row: what the online store keeps of one entity in one stream view, and how it is folded and read.

    ┌ batch side: event time < batch_end ┐┌ stream side: event time ≥ batch_end ┐
    tiles … tiles … tiles                  tiles … tiles     head: newest events as they came

The newest HEAD_MAX events are kept as they are; older ones are folded into tiles. The head makes three things exact: a
read as of a moment within it leaves out what came later, an event that is delivered or sent twice is known by its
identity, and the event being scored is merged as one more event, unless it is there already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from materialize.kernel._blocks import EventBlock, concat_blocks, empty_block
from materialize.kernel._partials import DISTINCT_KEEP, Floats
from materialize.kernel._tiles import Tiles, finalize, fold_tiles, merge_tiles, no_tiles, total
from materialize.kernel._views import HopLayout, ViewSpec

HEAD_MAX = 32
"""Events that a row keeps as they are: the horizon, in events of the row, within which a duplicate is recognised."""

KEEP_SLACK_MS = 10 * 60_000
"""How much longer than its longest window a tile is kept, so that a clock ahead of the events loses nothing."""

NO_TIME_MS = -(1 << 62)
"""Stands for the time of no event: earlier than any."""

LAST_INDEX = 1 << 62
"""Later than the index of any tile."""


ROW_BYTES_MAX = 8 << 20
"""No view is compiled whose rows could take more than this."""


@dataclass(frozen=True)
class Row:
    """The state of one entity in one stream view.

    head: the newest events, in order. tiles: for each hop of the view. batch_end_ms: events before it belong to the
    backfill. tiles_newest_ms: the newest event time that is in a tile and not in the head.
    """

    head: EventBlock
    tiles: tuple[Tiles, ...]
    batch_end_ms: int = 0
    tiles_newest_ms: int = NO_TIME_MS

    @property
    def newest_ms(self) -> int:
        """The newest event time, or NO_TIME_MS."""
        return max(int(self.head.times[-1]) if len(self.head) else NO_TIME_MS, self.tiles_newest_ms)


@dataclass(frozen=True)
class FoldCounts:
    """What became of the events given to a fold: all of them are in one of these numbers."""

    folded: int = 0
    duplicates: int = 0
    owned_by_batch: int = 0
    too_late: int = 0


@dataclass(frozen=True)
class WindowValues:
    """The view's values as of a time: float64[aggregations], NaN for null.

    `found` is false when no window covers any event. `newest_ms` is the newest event time covered by the read.
    `exact` is false for a read so far back that newer events, folded into tiles, could not be left out, or that tiles
    which it would need may have been dropped.
    """

    values: Floats
    found: bool
    newest_ms: int
    exact: bool = True


def row_bytes_max(spec: ViewSpec) -> int:
    """What the state of one row can take, bytes: a full head, every tile there, and every set of a tile full."""
    columns = 2 + len(spec.value_columns) + len(spec.distinct_columns)
    return 8 * HEAD_MAX * columns + sum(_tiles_bytes_max(layout) for layout in spec.hops)


def _tiles_bytes_max(layout: HopLayout) -> int:
    tiles = (layout.reach_ms + KEEP_SLACK_MS) // layout.hop_ms + 2
    return tiles * 8 * (1 + layout.width + len(layout.distinct) * (1 + DISTINCT_KEEP))


@lru_cache(maxsize=256)
def empty_row(spec: ViewSpec) -> Row:
    """The row of an entity of which nothing is known."""
    return Row(
        empty_block(len(spec.value_columns), len(spec.distinct_columns)),
        tuple(no_tiles(layout) for layout in spec.hops),
    )


def fold_events(spec: ViewSpec, row: Row, block: EventBlock) -> tuple[Row, FoldCounts]:
    """The row with the block's events in it, and what became of each. Order and repetition do not matter.

    Events before the row's batch end belong to the backfill and are left out, as are those that no window can reach
    any more.
    """
    given = len(block)
    block = block.take(block.times >= row.batch_end_ms)
    owned = given - len(block)
    fresh = block.in_order()
    fresh = fresh.take(~np.isin(fresh.ids, row.head.ids))
    duplicates = given - owned - len(fresh)
    if not len(fresh):
        return row, FoldCounts(0, duplicates, owned, 0)
    newest_ms = max(row.newest_ms, int(fresh.times[-1]))
    reachable = fresh.take(fresh.times >= _keep_from(spec.reach_ms, newest_ms))
    counts = FoldCounts(len(reachable), duplicates, owned, len(fresh) - len(reachable))
    return _settle(spec, row, concat_blocks([row.head, reachable]).in_order(), newest_ms), counts


def replace_batch_side(spec: ViewSpec, row: Row, history: EventBlock, batch_end_ms: int) -> Row:
    """The row with everything before `batch_end_ms` replaced by `history`; what came from `batch_end_ms` on stays.

    `batch_end_ms` is a multiple of `spec.batch_step_ms`, and every event of `history` lies before it. Doing it again
    with the same history changes nothing. A row that already has a later batch end is left as it is.
    """
    if batch_end_ms % spec.batch_step_ms:
        raise ValueError(f"the batch end {batch_end_ms} is not a multiple of {spec.batch_step_ms} ms")
    if row.batch_end_ms > batch_end_ms:
        return row
    history = history.take(history.times < batch_end_ms).in_order()
    recent = row.head.take(row.head.times >= batch_end_ms)
    kept = tuple(
        tiles.between(batch_end_ms // layout.hop_ms, LAST_INDEX) if len(tiles) else tiles
        for layout, tiles in zip(spec.hops, row.tiles, strict=True)
    )
    stream_side = Row(recent, kept, batch_end_ms, row.tiles_newest_ms if any(map(len, kept)) else NO_TIME_MS)
    newest = max(stream_side.newest_ms, int(history.times[-1]) if len(history) else NO_TIME_MS)
    return _settle(spec, stream_side, concat_blocks([history, recent]).in_order(), newest)


def read_windows(spec: ViewSpec, row: Row, as_of_ms: int, extra: EventBlock | None = None) -> WindowValues:
    """The view's values as of `as_of_ms`, with the events of `extra` counted in unless the row has them already.

    An extra event before the batch end is the batch's, as it is for `fold_events`.
    """
    events = row.head
    if extra is not None:
        fresh = (extra.times >= row.batch_end_ms) & ~np.isin(extra.ids, events.ids)
        events = concat_blocks([events, extra.take(fresh)]).in_order()
    events = events.take(events.times <= as_of_ms)
    tail_ms = spec.tail_ms(as_of_ms)
    values = np.empty((1, len(spec.aggregations)))
    found = bool(len(events)) and int(events.times[-1]) >= tail_ms
    for layout, stored in zip(spec.hops, row.tiles, strict=True):
        tiles = merge_tiles(
            layout, [stored.between(tail_ms // layout.hop_ms, as_of_ms // layout.hop_ms), fold_tiles(layout, events)]
        )
        for window, outputs in layout.outputs:
            first_ms = window.tail_ms(as_of_ms)
            covered = tiles.between(first_ms // layout.hop_ms, as_of_ms // layout.hop_ms)
            found = found or (first_ms == tail_ms and bool(len(covered)))
            finalize(outputs, *total(layout, covered), as_of_ms, into=values)
    newest_ms = max(
        int(events.times[-1]) if len(events) else NO_TIME_MS,
        min(row.tiles_newest_ms, as_of_ms),
    )
    if not found:
        values[:] = np.nan
    exact = row.tiles_newest_ms <= as_of_ms and row.newest_ms - KEEP_SLACK_MS <= as_of_ms
    return WindowValues(values[0], found, newest_ms, exact)


def _keep_from(reach_ms: int, newest_ms: int) -> int:
    """The time before which nothing is kept, since no window needs it as of the newest event or the slack before."""
    return newest_ms - reach_ms - KEEP_SLACK_MS


def _settle(spec: ViewSpec, row: Row, events: EventBlock, newest_ms: int) -> Row:
    """The row whose head is the newest of `events`, with the rest folded into its tiles and old tiles dropped."""
    events = events.take(events.times >= _keep_from(spec.reach_ms, newest_ms))
    split = max(len(events) - HEAD_MAX, 0)
    folded, head = events.take(slice(0, split)), events.take(slice(split, None))
    tiles = tuple(
        _settle_tiles(layout, stored, folded, newest_ms) for layout, stored in zip(spec.hops, row.tiles, strict=True)
    )
    newest_folded = max(row.tiles_newest_ms, int(folded.times[-1]) if len(folded) else NO_TIME_MS)
    return replace(row, head=head, tiles=tiles, tiles_newest_ms=newest_folded)


def _settle_tiles(layout: HopLayout, stored: Tiles, folded: EventBlock, newest_ms: int) -> Tiles:
    """The stored tiles with the events in them, without those that are too old."""
    tiles = merge_tiles(layout, [stored, fold_tiles(layout, folded)]) if len(folded) else stored
    return tiles.between(_keep_from(layout.reach_ms, newest_ms) // layout.hop_ms, LAST_INDEX) if len(tiles) else tiles
