"""Tiles: the partial aggregates of one hop, by tile index (event time // hop), only where there are events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from materialize.kernel._blocks import EventBlock
from materialize.kernel._partials import Floats, Ints, Sets, fold_sets, merge_sets
from materialize.kernel._views import HopLayout, Output


@dataclass(frozen=True)
class Tiles:
    """`m` tiles of one hop, by growing index.

    index: int64[m]. states: float64[m, layout.width]. sets: for each distinct column, m sets.
    """

    index: Ints
    states: Floats
    sets: tuple[Sets, ...]

    def __len__(self) -> int:
        return len(self.index)

    def between(self, first_index: int, last_index: int) -> Tiles:
        """The tiles with first_index ≤ index ≤ last_index."""
        first, stop = np.searchsorted(self.index, (first_index, last_index + 1))
        if first == 0 and stop == len(self):
            return self
        return Tiles(
            self.index[first:stop],
            self.states[first:stop],
            tuple(sets.select(int(first), int(stop)) for sets in self.sets),
        )


def no_tiles(layout: HopLayout) -> Tiles:
    """No tile at all."""
    none = Sets(np.empty(0, np.uint64), np.empty(0, np.int64))
    return Tiles(np.empty(0, np.int64), np.empty((0, layout.width)), (none,) * len(layout.distinct))


def fold_tiles(layout: HopLayout, block: EventBlock) -> Tiles:
    """The tiles of a block of events, in any order."""
    if not len(block):
        return no_tiles(layout)
    index = block.times // layout.hop_ms
    order = np.argsort(index, kind="stable")
    block, index = block.take(order), index[order]
    starts = _starts(index)
    states, sets = fold_segments(layout, block, starts)
    return Tiles(index[starts], states, sets)


def fold_segments(layout: HopLayout, block: EventBlock, starts: Ints) -> tuple[Floats, tuple[Sets, ...]]:
    """One state, and one set for each distinct column, for each segment of the block."""
    states = np.empty((len(starts), layout.width))
    for slot in layout.slots:
        states[:, slot.first : slot.stop] = slot.partial.fold(block.values[:, slot.position], block.times, starts)
    return states, tuple(fold_sets(block.hashes[:, position], starts) for position in layout.distinct)


def merge_tiles(layout: HopLayout, parts: Sequence[Tiles]) -> Tiles:
    """One tile for each index that any part has."""
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else no_tiles(layout)
    index = np.concatenate([part.index for part in parts])
    order = np.argsort(index, kind="stable")
    index = index[order]
    starts = _starts(index)
    states = np.concatenate([part.states for part in parts])[order]
    sets = tuple(
        merge_sets(_reorder(_concat([part.sets[i] for part in parts]), order), starts)
        for i in range(len(layout.distinct))
    )
    return Tiles(index[starts], _merge_states(layout, states, starts), sets)


def total(layout: HopLayout, tiles: Tiles) -> tuple[Floats, list[Floats]]:
    """All tiles merged: the state, float64[1, width], and the size of each distinct column's set, float64[1]."""
    if not len(tiles):
        return layout.identity[None, :], [np.zeros(1) for _ in layout.distinct]
    starts = np.zeros(1, np.int64)
    return _merge_states(layout, tiles.states, starts), [merge_sets(sets, starts).sizes() for sets in tiles.sets]


def finalize(outputs: Sequence[Output], states: Floats, sizes: Sequence[Floats], as_of_ms: int, into: Floats) -> None:
    """Write each output's values, for float64[k, width] states, into its column of float64[k, aggregations]."""
    for output in outputs:
        if output.distinct is not None:
            into[:, output.place] = sizes[output.distinct]
        else:
            into[:, output.place] = output.function.finalize(states[:, list(output.state)], as_of_ms)


def _merge_states(layout: HopLayout, states: Floats, starts: Ints) -> Floats:
    merged = np.empty((len(starts), layout.width))
    for slot in layout.slots:
        merged[:, slot.first : slot.stop] = slot.partial.merge(states[:, slot.first : slot.stop], starts)
    return merged


def _starts(index: Ints) -> Ints:
    return np.flatnonzero(np.concatenate(([True], index[1:] != index[:-1]))).astype(np.int64)


def _concat(parts: Sequence[Sets]) -> Sets:
    offsets = np.cumsum([0] + [len(part.hashes) for part in parts[:-1]])
    return Sets(
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.ends + offset for part, offset in zip(parts, offsets, strict=True)]),
    )


def _reorder(sets: Sets, order: Any) -> Sets:
    """The sets in another order."""
    lengths = np.diff(sets.ends, prepend=0)[order]
    return Sets(sets.hashes[gather_ranges(sets.starts[order], lengths)], np.cumsum(lengths))


def gather_ranges(starts: Ints, lengths: Ints) -> Ints:
    """The positions of all ranges [start, start + length), one after the other."""
    begins = np.cumsum(lengths) - lengths
    return np.repeat(starts - begins, lengths) + np.arange(int(lengths.sum()))
