"""Shapley values of any model, estimated by sampling orders of the features.

In one order, features change one after the other from a background row's values to the row's own; what the margin
moves by at a feature's turn is its share in that order. The mean over orders and background rows is the Shapley value
(Castro, Gómez and Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009). Each order is
followed by its reverse, which cancels much of the noise (Mitchell et al., "Sampling permutations for Shapley value
estimation", 2022). An order and its reverse are one *pair*; pair m goes with background row m, so that a whole round of
pairs uses each of them once.

    pair m:  z ── x₃ ── x₃x₁ ── x₃x₁x₂ = x      and back:  z ── x₂ ── x₂x₁ ── x₂x₁x₃ = x

Every pair moves from the margin of its background row to the row's margin. After whole rounds the shares therefore add
up to margin − base value, the mean over the background. When a deadline ends a round early, what the used background
rows are off the base value is given to the features in proportion to how much they move: a feature that moves nothing
keeps exactly nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats, as_matrix
from models.errors import InputError
from models.explain._protocol import Explanation

PAIRS = 100
"""Pairs of orders for a row, when no deadline strikes; for many features fewer, by _ROW_VALUES_MAX."""
PAIRS_MIN = 2
"""Fewer tell nothing about their error."""
_BATCH_VALUES_MAX = 2**20
"""Numbers in one call of the model: more costs memory and saves no time."""
_ROW_VALUES_MAX = 2**24
"""Numbers that the model reads at most to explain one row: 100 pairs to 290 features, 2 from 2,000 on."""
_GOLDEN_RATIO = (5**0.5 - 1) / 2


class SamplingExplainer:
    """Explains margins of any model as differences from a background sample float64[B, F].

    The same row gets the same answer, but for how many pairs a deadline lets it have, which the answer says.
    """

    def __init__(
        self,
        margin: Callable[[Floats], Floats],
        background: Floats,
        reference: str,
        output_space: str,
        *,
        pairs: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`margin` maps float64[N, F] to float64[N]; `clock` gives seconds. `pairs` for a row: by its width by default.

        Raises InputError for an empty background or fewer than PAIRS_MIN pairs.
        """
        if not len(background):
            raise InputError("an explanation compares with a background: give at least one row")
        self.pairs = _affordable(background.shape[1]) if pairs is None else pairs
        if self.pairs < PAIRS_MIN:
            raise InputError(f"an estimate needs at least {PAIRS_MIN} pairs of orders, got {pairs}")
        self._margin = margin
        self._background = background[_spread(len(background))]
        self._background_margins = margin(self._background)
        self._reference = reference
        self._output_space = output_space
        self._clock = clock
        self.base_value = float(self._background_margins.mean())

    def explain(self, matrix: Floats, deadline_ms: float | None = None) -> Explanation:
        """The estimate for float64[N, F], with standard errors.

        Ends after about `deadline_ms` milliseconds for all rows together, or after all pairs; every row gets at least
        PAIRS_MIN pairs. Raises InputError for another width.
        """
        rows = as_matrix(matrix, self._background.shape[1])
        ends_at = None if deadline_ms is None else self._clock() + deadline_ms / 1000
        shares, errors = np.zeros(rows.shape), np.zeros(rows.shape)
        pairs = np.zeros(len(rows), np.int64)
        margins = self._margin(rows) if len(rows) else np.empty(0)
        for n, row in enumerate(rows):
            share_ends_at = None if ends_at is None else self._share_of(ends_at, len(rows) - n)
            moves = self._moves(row, float(margins[n]), share_ends_at)
            pairs[n] = len(moves)
            shares[n] = self._additive(moves, float(margins[n]))
            errors[n] = moves.std(axis=0, ddof=1) / np.sqrt(len(moves))
        return Explanation(self.base_value, shares, self._reference, self._output_space, errors, pairs)

    def _share_of(self, ends_at: float, rows_left: int) -> float:
        now = self._clock()
        return now + (ends_at - now) / rows_left

    def _moves(self, row: Floats, margin: float, ends_at: float | None) -> Floats:
        """What each feature moves the margin by, float64[pairs, F], the mean of both directions of a pair."""
        random = np.random.default_rng(_seed(row))
        batch_max = max(1, _BATCH_VALUES_MAX // (2 * row.size * row.size))
        done: list[Floats] = []
        count, started = 0, self._clock()
        while count < self.pairs:
            size = min(batch_max, self.pairs - count, count or 1)  # doubles, so that its cost is known before it is big
            done.append(self._batch(row, margin, count, size, random))
            count += size
            now = self._clock()
            if (
                ends_at is not None
                and count >= PAIRS_MIN
                and now + self._next(now - started, count, batch_max) > ends_at
            ):
                break
        return np.concatenate(done)

    def _next(self, elapsed: float, count: int, batch_max: int) -> float:
        """Seconds that the next batch will take, by what a pair has taken so far."""
        return elapsed / count * min(batch_max, self.pairs - count, count)

    def _batch(self, row: Floats, margin: float, first: int, size: int, random: np.random.Generator) -> Floats:
        count = row.size
        places = np.arange(first, first + size) % len(self._background)
        ranks = np.empty((2 * size, count), np.int64)
        for pair in range(size):
            ranks[2 * pair] = random.permutation(count)
            ranks[2 * pair + 1] = count - 1 - ranks[2 * pair]
        starts = np.repeat(self._background[places], 2, axis=0)
        path = np.empty((2 * size, count + 1))
        path[:, 0], path[:, count] = np.repeat(self._background_margins[places], 2), margin
        if count > 1:
            path[:, 1:count] = self._inner_margins(row, starts, ranks)
        steps = np.take_along_axis(np.diff(path, axis=1), ranks, axis=1)
        pairs: Floats = steps.reshape(size, 2, count).mean(axis=1)
        return pairs

    def _inner_margins(self, row: Floats, starts: Floats, ranks: NDArray[np.int64]) -> Floats:
        """Margins along each order, without its two ends: float64[orders, F - 1]."""
        count = row.size
        turns = np.arange(1, count)
        per_call = max(1, _BATCH_VALUES_MAX // count)
        flat = np.empty(len(ranks) * (count - 1))
        for begin in range(0, flat.size, per_call):
            order, turn = np.divmod(np.arange(begin, min(begin + per_call, flat.size)), count - 1)
            mixed = np.where(ranks[order] < turns[turn][:, None], row, starts[order])
            flat[begin : begin + per_call] = self._margin(mixed)
        return flat.reshape(len(ranks), count - 1)

    def _additive(self, moves: Floats, margin: float) -> Floats:
        """The mean moves, with what they lack to margin − base value given out by how much features move."""
        shares: Floats = moves.mean(axis=0)
        missing = margin - self.base_value - float(shares.sum())
        sizes = np.abs(moves).mean(axis=0)
        total = float(sizes.sum())
        return shares + missing * (sizes / total if total > 0 else np.full(sizes.size, 1 / sizes.size))


def _affordable(width: int) -> int:
    return min(PAIRS, max(PAIRS_MIN, _ROW_VALUES_MAX // (2 * width * width)))


def _spread(count: int) -> NDArray[np.int64]:
    """0 to count - 1 in an order whose beginnings are spread evenly: a background is often sorted."""
    return np.argsort(np.arange(1, count + 1) * _GOLDEN_RATIO % 1.0, kind="stable").astype(np.int64)


def _seed(row: Floats) -> int:
    """The same for equal rows; a missing value has one bit pattern."""
    plain = np.where(np.isnan(row), np.nan, row + 0.0)  # −0.0 becomes 0.0
    return int.from_bytes(hashlib.blake2b(plain.tobytes(), digest_size=8).digest())
