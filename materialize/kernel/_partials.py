"""Partial aggregates: what a tile keeps of its events.

A partial folds the values of each segment of a sorted array into one state, and merges the states of each segment
into one. Merging is associative and commutative, so order, batches and tile boundaries do not matter. *Segments* are
given by the positions where they start; they are contiguous, non-empty and cover the array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

DISTINCT_EXACT_MAX = 255
"""`count_distinct` is exact up to this many values …"""
DISTINCT_KEEP = DISTINCT_EXACT_MAX + 1
DISTINCT_RELATIVE_STD_ERROR = (DISTINCT_KEEP - 2) ** -0.5
"""… and beyond it an estimate with this relative standard error (6.3 %)."""


class Partial(Protocol):
    """A fixed number of float64 slots per state."""

    @property
    def name(self) -> str:
        """Two partials of one column with the same name share their slots."""
        ...

    @property
    def kind(self) -> str:
        """What the compiled core knows it by."""
        ...

    @property
    def parameter(self) -> int:
        """A number that the compiled core needs, 0 for none."""
        ...

    @property
    def identity(self) -> tuple[float, ...]:
        """The state of no events: one number per slot."""
        ...

    def fold(self, values: Floats, times: Ints, starts: Ints) -> Floats:
        """States of shape (segments, slots) from one column's values, NaN meaning null."""
        ...

    def merge(self, states: Floats, starts: Ints) -> Floats:
        """States of shape (segments, slots) from states of shape (states, slots)."""
        ...


@dataclass(frozen=True)
class Count:
    """How many values are not null."""

    name: str = "count"
    kind: str = "count"
    parameter: int = 0
    identity: tuple[float, ...] = (0.0,)

    def fold(self, values: Floats, times: Ints, starts: Ints) -> Floats:
        return np.add.reduceat((~np.isnan(values)).astype(np.float64), starts)[:, None]

    def merge(self, states: Floats, starts: Ints) -> Floats:
        return np.add.reduceat(states, starts, axis=0)


@dataclass(frozen=True)
class Sum:
    """The sum of the values that are not null."""

    name: str = "sum"
    kind: str = "sum"
    parameter: int = 0
    identity: tuple[float, ...] = (0.0,)

    def fold(self, values: Floats, times: Ints, starts: Ints) -> Floats:
        return np.add.reduceat(np.where(np.isnan(values), 0.0, values), starts)[:, None]

    def merge(self, states: Floats, starts: Ints) -> Floats:
        return np.add.reduceat(states, starts, axis=0)


@dataclass(frozen=True)
class Min:
    """The smallest value; infinity for none."""

    name: str = "min"
    kind: str = "min"
    parameter: int = 0
    identity: tuple[float, ...] = (np.inf,)

    def fold(self, values: Floats, times: Ints, starts: Ints) -> Floats:
        return np.minimum.reduceat(np.where(np.isnan(values), np.inf, values), starts)[:, None]

    def merge(self, states: Floats, starts: Ints) -> Floats:
        return np.minimum.reduceat(states, starts, axis=0)


@dataclass(frozen=True)
class Max:
    """The largest value; minus infinity for none."""

    name: str = "max"
    kind: str = "max"
    parameter: int = 0
    identity: tuple[float, ...] = (-np.inf,)

    def fold(self, values: Floats, times: Ints, starts: Ints) -> Floats:
        return np.maximum.reduceat(np.where(np.isnan(values), -np.inf, values), starts)[:, None]

    def merge(self, states: Floats, starts: Ints) -> Floats:
        return np.maximum.reduceat(states, starts, axis=0)


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared distances from the mean: never a sum of squares, which cancels.

    Merging is the pairwise update of Chan, Golub and LeVeque (1979), for any number of parts at once.
    """

    name: str = "moments"
    kind: str = "moments"
    parameter: int = 0
    identity: tuple[float, ...] = (0.0, 0.0, 0.0)

    def fold(self, values: Floats, times: Ints, starts: Ints) -> Floats:
        there = ~np.isnan(values)
        states = np.zeros((len(values), 3))
        states[:, 0] = there
        states[:, 1] = np.where(there, values, 0.0)
        return self.merge(states, starts)

    def merge(self, states: Floats, starts: Ints) -> Floats:
        count, mean, spread = states.T
        total = np.add.reduceat(count, starts)
        segment = _segment_of(starts, len(states))
        # Distances are taken from one of the segment's own means: near enough for no digit to cancel.
        pivot = mean[_last_where(count > 0, starts)]
        shift = np.where(count > 0, mean - pivot[segment], 0.0)
        shift_mean = np.add.reduceat(count * shift, starts) / np.maximum(total, 1.0)
        apart = np.where(count > 0, mean - (pivot + shift_mean)[segment], 0.0)
        merged = np.stack(
            [total, pivot + shift_mean, np.add.reduceat(spread + count * apart * apart, starts)],
            axis=1,
        )
        merged[total == 0] = self.identity
        return merged


@dataclass(frozen=True)
class Latest:
    """The value of the newest event (`sign` 1) or of the oldest (`sign` −1); the larger value among equal times.

    Slots: signed time, value.
    """

    sign: int
    parameter: int = 0
    identity: tuple[float, ...] = (-np.inf, -np.inf)

    @property
    def name(self) -> str:
        return "last" if self.sign > 0 else "first"

    @property
    def kind(self) -> str:
        return self.name

    def fold(self, values: Floats, times: Ints, starts: Ints) -> Floats:
        there = ~np.isnan(values)
        states = np.stack(
            [np.where(there, self.sign * times.astype(np.float64), -np.inf), np.where(there, values, -np.inf)], axis=1
        )
        return self.merge(states, starts)

    def merge(self, states: Floats, starts: Ints) -> Floats:
        segment = _segment_of(starts, len(states))
        order = np.lexsort((states[:, 1], states[:, 0], segment))
        ends = np.append(starts[1:], len(states)) - 1
        latest: Floats = states[order][ends]
        return latest


@dataclass(frozen=True)
class Decayed:
    """A sum in which a value counts half as much with every half-life that passed since its event.

    Slots: a time, and the sum as of that time; minus infinity and 0 for no events. Merging takes both sums to the later
    of both times.
    """

    half_life_ms: int
    kind: str = "decayed"
    identity: tuple[float, ...] = (-np.inf, 0.0)

    @property
    def name(self) -> str:
        return f"decayed {self.half_life_ms}"

    @property
    def parameter(self) -> int:
        return self.half_life_ms

    def fold(self, values: Floats, times: Ints, starts: Ints) -> Floats:
        there = ~np.isnan(values)
        states = np.stack([np.where(there, times.astype(np.float64), -np.inf), np.where(there, values, 0.0)], axis=1)
        return self.merge(states, starts)

    def merge(self, states: Floats, starts: Ints) -> Floats:
        times, sums = states.T
        latest = np.maximum.reduceat(times, starts)
        ages_ms = np.where(np.isinf(times), 0.0, latest[_segment_of(starts, len(states))] - times)
        return np.stack([latest, np.add.reduceat(sums * decay(ages_ms, self.half_life_ms), starts)], axis=1)


def decay(ages_ms: Floats, half_life_ms: int) -> Floats:
    """What is left of 1 after each age: a half after one half-life."""
    return np.asarray(np.exp2(-ages_ms / half_life_ms))


@dataclass(frozen=True)
class Sets:
    """Sets of hashes, one per state, as one array and where each ends in it.

    A set keeps its `DISTINCT_KEEP` smallest hashes. Below that it is the whole set; from there on the largest one kept
    tells how densely the hashes lie, and so how many there are (k minimum values: Bar-Yossef et al., 2002).
    """

    hashes: Hashes
    ends: Ints

    @property
    def starts(self) -> Ints:
        return np.concatenate(([0], self.ends[:-1])).astype(np.int64)

    def sizes(self) -> Floats:
        """The number of distinct values in each set, float64[sets]: exact up to DISTINCT_EXACT_MAX."""
        kept = np.diff(self.ends, prepend=0).astype(np.float64)
        full = kept >= DISTINCT_KEEP
        if full.any():
            largest = self.hashes[self.ends[full] - 1].astype(np.float64)
            kept[full] = np.rint((DISTINCT_KEEP - 1) / (largest / 2.0**64))
        return kept

    def select(self, first: int, last: int) -> Sets:
        """The sets `first` to `last` (exclusive)."""
        begin = int(self.ends[first - 1]) if first else 0
        ends = self.ends[first:last]
        stop = int(ends[-1]) if len(ends) else begin
        return Sets(self.hashes[begin:stop], ends - begin)


def fold_sets(hashes: Hashes, starts: Ints) -> Sets:
    """One set for each segment of hashes; the hash 0 stands for null."""
    return _sets_of(hashes, _segment_of(starts, len(hashes)), len(starts))


def merge_sets(sets: Sets, starts: Ints) -> Sets:
    """One set for each segment of sets."""
    owner = np.repeat(_segment_of(starts, len(sets.ends)), np.diff(sets.ends, prepend=0))
    return _sets_of(sets.hashes, owner, len(starts))


def _sets_of(hashes: Hashes, owner: Ints, count: int) -> Sets:
    """The set of each owner, 0 ≤ owner < count, from (hash, owner) pairs in any order."""
    there = hashes != 0
    hashes, owner = hashes[there], owner[there]
    distinct = _unique(hashes)
    # One integer for owner and hash, so that a single sort without positions does: several times faster than lexsort.
    pairs = _unique(owner * max(len(distinct), 1) + np.searchsorted(distinct, hashes))
    owner, place = np.divmod(pairs, max(len(distinct), 1))
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = rank < DISTINCT_KEEP
    ends = np.cumsum(np.bincount(owner[kept], minlength=count)).astype(np.int64)
    return Sets(distinct[place[kept]], ends)


def _unique(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The distinct numbers in order. (np.unique goes by a hash table for integers, which takes longer than sorting.)"""
    ordered = np.sort(numbers)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if len(ordered) else ordered


def _segment_of(starts: Ints, length: int) -> Ints:
    marks = np.zeros(length, dtype=np.int64)
    marks[starts[1:]] = 1
    return np.cumsum(marks)


def _last_where(mask: np.ndarray[Any, np.dtype[np.bool_]], starts: Ints) -> Ints:
    """The position of the last true element of each segment, or the segment's start."""
    positions = np.where(mask, np.arange(len(mask)), -1)
    return np.maximum(np.maximum.reduceat(positions, starts), starts)
