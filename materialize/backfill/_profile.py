"""What the values of one column in one span look like: a small summary that merges, and can be compared.

Distinct values are counted exactly to 255, then estimated from the 256 smallest hashes (k minimum values, Bar-Yossef et
al. 2002; standard error 6 %). Drift is the population stability index over at most ten bins of equal weight in the
earlier span; numbers are binned by their logarithm in steps of 9 %, other values by their hash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from materialize.kernel import EventBlock, ViewSpec, hash_values

SKETCH_MAX = 256
HASH_BINS = 32
DRIFT_BINS = 10
DRIFT_VALUES_MIN = 500
"""Spans with fewer values are not compared: of 500 the index of two samples of one distribution is 0.04 already."""

_ZERO_BIN = 8_700  # beyond the bin of any float64: -1074 and 1024 are its exponents
_BINS_PER_DOUBLING = 8

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


class ColumnProfile(msgspec.Struct, frozen=True):
    """`rows` values, `nulls` of them null. low, high: of numbers only. `smallest`: hashes, little-endian uint64."""

    rows: int = 0
    nulls: int = 0
    low: float | None = None
    high: float | None = None
    smallest: bytes = b""
    bins: dict[int, int] = {}

    @property
    def null_rate(self) -> float:
        """The share of nulls; 0 of no rows."""
        return self.nulls / self.rows if self.rows else 0.0

    @property
    def distinct(self) -> int:
        """How many different values there are, null aside."""
        hashes = _unpacked(self.smallest)
        if len(hashes) < SKETCH_MAX:
            return len(hashes)
        return round((SKETCH_MAX - 1) * 2.0**64 / float(hashes[-1]))

    def merged(self, other: ColumnProfile) -> ColumnProfile:
        """The profile of the rows of both."""
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return ColumnProfile(
            self.rows + other.rows,
            self.nulls + other.nulls,
            min(lows, default=None),
            max(highs, default=None),
            _packed(np.concatenate([_unpacked(self.smallest), _unpacked(other.smallest)])),
            {place: self.bins.get(place, 0) + other.bins.get(place, 0) for place in {*self.bins, *other.bins}},
        )


Profile = Mapping[str, ColumnProfile]


def merged(profiles: Sequence[Profile]) -> dict[str, ColumnProfile]:
    """The profile of all spans together, column by column."""
    out: dict[str, ColumnProfile] = {}
    for profile in profiles:
        for name, column in profile.items():
            out[name] = out[name].merged(column) if name in out else column
    return out


def profile_table(table: pa.Table) -> dict[str, ColumnProfile]:
    """The profile of each column of an Arrow table."""
    return {name: _of_arrow(table.column(name)) for name in table.column_names}


def profile_events(spec: ViewSpec, block: EventBlock) -> dict[str, ColumnProfile]:
    """The profile of each column that a stream view aggregates, as its transformation gives it."""
    numbers = {name: _of_numbers(block.values[:, place]) for place, name in enumerate(spec.value_columns)}
    counted = {
        name: _of_hashes(len(block), *np.unique(hashes[hashes != 0], return_counts=True))
        for name, hashes in zip(spec.distinct_columns, block.hashes.T, strict=True)
    }
    return {**counted, **numbers}


def drift(before: ColumnProfile, now: ColumnProfile) -> float | None:
    """The population stability index of the values that are not null; None where there are too few to say.

    Siddiqi, Credit Risk Scorecards (2006): up to 0.1 nothing to see, beyond 0.25 another population.
    """
    counts = (before.rows - before.nulls, now.rows - now.nulls)
    if min(counts) < DRIFT_VALUES_MIN:
        return None
    edges = _edges(before.bins, counts[0])
    earlier, later = (_shares(profile.bins, edges) for profile in (before, now))
    return float(np.sum((later - earlier) * np.log(later / earlier)))


def _edges(bins: Mapping[int, int], total: int) -> list[int]:
    """The last place of each group of bins, so that the groups have about equal weight."""
    edges, inside = [], 0
    for place in sorted(bins):
        inside += bins[place]
        if inside * DRIFT_BINS >= total:
            edges.append(place)
            inside = 0
    return edges


def _shares(bins: Mapping[int, int], edges: list[int]) -> Floats:
    """The share of each group, none of which is empty: half a value is added to each."""
    counts = np.full(len(edges) + 1, 0.5)
    places = np.searchsorted(edges, sorted(bins))
    np.add.at(counts, places, [bins[place] for place in sorted(bins)])
    shares: Floats = counts / counts.sum()
    return shares


def _of_arrow(column: pa.ChunkedArray) -> ColumnProfile:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
        kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return _of_numbers(np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        counted = pc.value_counts(column.drop_null())
        values, counts = counted.field("values").to_pylist(), counted.field("counts").to_numpy()
        return _of_hashes(len(column), hash_values(values), counts)
    return ColumnProfile(len(column), column.null_count)


def _of_numbers(numbers: Floats) -> ColumnProfile:
    there = numbers[~np.isnan(numbers)] + 0.0
    nulls = len(numbers) - len(there)
    if not len(there):
        return ColumnProfile(len(numbers), nulls)
    different = np.asarray(pc.unique(pa.array(there)).to_numpy(zero_copy_only=False))
    return ColumnProfile(
        len(numbers),
        nulls,
        float(there.min()),
        float(there.max()),
        _packed(_mixed(different.view(np.uint64))),
        _binned(there),
    )


def _of_hashes(rows: int, hashes: Hashes, counts: Any) -> ColumnProfile:
    bins = np.bincount((hashes % np.uint64(HASH_BINS)).astype(np.int64), counts, HASH_BINS).astype(np.int64)
    filled = {place: int(count) for place, count in enumerate(bins.tolist()) if count}
    return ColumnProfile(rows, rows - int(np.sum(counts)), smallest=_packed(hashes), bins=filled)


def _binned(numbers: Floats) -> dict[int, int]:
    sizes = np.clip(np.abs(numbers), 5e-324, 1.7e308)
    magnitudes = _ZERO_BIN + np.floor(_BINS_PER_DOUBLING * np.log2(sizes)).astype(np.int64)
    places = np.where(numbers == 0, 0, np.sign(numbers).astype(np.int64) * magnitudes)
    lowest = int(places.min())
    counts = np.bincount(places - lowest)
    return {int(place) + lowest: int(counts[place]) for place in np.flatnonzero(counts)}


def _mixed(bits: Hashes) -> Hashes:
    """A hash of 64 bits (the finalizer of SplitMix64, Steele et al. 2014)."""
    mixed = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _packed(hashes: Hashes) -> bytes:
    return np.unique(hashes)[:SKETCH_MAX].astype("<u8").tobytes()


def _unpacked(data: bytes) -> Hashes:
    return np.frombuffer(data, "<u8")


def rounded(value: float | None) -> float | None:
    """To four digits, for people."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
