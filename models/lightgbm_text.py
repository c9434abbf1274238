"""Read LightGBM's own text format into plain trees, with its rules for missing values and categories kept exactly.

The text is read and not `dump_model()`, because the JSON form caps an infinite threshold at 1e300. Rules: LightGBM's
documentation of `use_missing` and `zero_as_missing`; `decision_type` is a bit field (1 categorical, 2 default left,
12 missing type: none, zero, NaN). A split of categories goes left for those whose bit is set, by the value without what
is behind the point; missing, negative and unknown ones go right.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from models._operators import Members
from models.errors import UnsupportedModelError
from models.trees import Ensemble, Tree, TreeBuilder

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_NONE, _MISSING_ZERO, _MISSING_NAN = range(3)
_ZERO = float(np.float32(1e-35))
"""LightGBM takes every value within ± this for 0.0, in prediction too."""
_BELOW_ZERO = math.nextafter(-_ZERO, -math.inf)
_MAX_NODES = 1_000_000
_WORD_BITS = 32


def read_lightgbm(text: str) -> Ensemble:
    """The trees of `Booster.model_to_string()`, leaf values in log-odds, with covers unless zeros count as missing
    somewhere.

    Raises UnsupportedModelError for anything but a binary objective with one tree per iteration and constant leaves.
    """
    header, *blocks = text.split("\n\n\nend of trees")[0].split("\nTree=")
    scale = _log_odds_scale(_Fields.of(header))
    return Ensemble(
        _Fields.of(header).integers("max_feature_idx")[0] + 1,
        tuple(_read_tree(_Fields.of(block), scale) for block in blocks),
    )


@dataclass(frozen=True, slots=True)
class _Fields:
    """The `name=values` lines of one section."""

    lines: dict[str, str]

    @classmethod
    def of(cls, section: str) -> _Fields:
        return cls({name: rest for name, found, rest in (row.partition("=") for row in section.splitlines()) if found})

    def text(self, name: str) -> str:
        return self.lines.get(name, "")

    def integers(self, name: str) -> list[int]:
        return [int(word) for word in self.text(name).split()]

    def numbers(self, name: str) -> list[float]:
        return [float(word) for word in self.text(name).split()]


def _log_odds_scale(header: _Fields) -> float:
    objective, *options = header.text("objective").split() or [""]
    if objective != "binary" or header.text("num_tree_per_iteration") != "1":
        raise UnsupportedModelError(f"objective {objective!r} has no log-odds: train with objective='binary'")
    sigmoid = [float(option.removeprefix("sigmoid:")) for option in options if option.startswith("sigmoid:")]
    return sigmoid[0] if sigmoid else 1.0


def _read_tree(fields: _Fields, scale: float) -> Tree:
    if fields.text("is_linear") not in ("", "0"):
        raise UnsupportedModelError("leaves with linear models are not exported: train with linear_tree=False")
    sets = _sets(fields)
    splits = [
        _Split(*row, sets[int(row[1])] if row[2] & _CATEGORICAL else None)
        for row in zip(
            fields.integers("split_feature"),
            fields.numbers("threshold"),
            fields.integers("decision_type"),
            fields.integers("left_child"),
            fields.integers("right_child"),
            strict=True,
        )
    ]
    values = [value * scale for value in fields.numbers("leaf_value")]
    # A split that is unfolded repeats its subtrees, whose leaves then share out their rows in an unknown way.
    counts = fields.numbers("leaf_count") if all(split.members or len(split.cuts()) == 2 for split in splits) else []
    counts = counts if len(counts) == len(values) else []
    counts = counts if splits else [1.0]  # LightGBM says 0 of a tree of one leaf, which all rows come by
    return _grow(splits, values, counts)


def _sets(fields: _Fields) -> list[Members]:
    """The categories that go left, by the number of their bitset."""
    bounds, words = fields.integers("cat_boundaries"), fields.integers("cat_threshold")
    return [
        Members(tuple(float(i) for i in range(_WORD_BITS * (end - begin)) if _has_bit(words[begin:end], i)), True)
        for begin, end in itertools.pairwise(bounds)
    ]


def _has_bit(words: list[int], place: int) -> bool:
    return bool(words[place // _WORD_BITS] >> (place % _WORD_BITS) & 1)


@dataclass(frozen=True, slots=True)
class _Split:
    feature: int
    threshold: float
    decision: int
    left: int
    right: int
    members: Members | None

    @property
    def default_left(self) -> bool:
        return bool(self.decision & _DEFAULT_LEFT)

    def cuts(self) -> list[tuple[float, bool]]:
        """`(upper end, goes left)` of consecutive intervals of the feature's values; the last one is open above."""
        if (self.decision >> 2) & 3 != _MISSING_ZERO:
            return [(_around_zero(self.threshold), True), (math.inf, False)]
        ends = [*sorted({self.threshold, _BELOW_ZERO, _ZERO}), math.inf]
        cuts: list[tuple[float, bool]] = []
        for end in ends:
            left = self.default_left if _BELOW_ZERO < end <= _ZERO else end <= self.threshold
            if cuts and cuts[-1][1] == left:
                cuts.pop()
            cuts.append((end, left))
        return cuts

    def missing_left(self) -> bool:
        """Side of NaN: the default, unless the split saw no missing values; then NaN counts as zero."""
        if (self.decision >> 2) & 3 == _MISSING_NONE:
            return self.threshold >= 0.0
        return self.default_left


def _around_zero(threshold: float) -> float:
    """The threshold that gives for a tiny `x` what LightGBM's gives for 0.0."""
    if not _BELOW_ZERO < threshold < _ZERO:
        return threshold
    return _ZERO if threshold >= 0.0 else _BELOW_ZERO


def _grow(splits: list[_Split], values: list[float], counts: list[float]) -> Tree:
    """The tree, each split of several intervals unfolded into a chain of `<=` nodes (only with zero_as_missing)."""
    builder = TreeBuilder()
    waiting = [(0 if splits else -1, builder.reserve())]
    while waiting:
        source, node = waiting.pop()
        if len(builder.rows) > _MAX_NODES:
            raise UnsupportedModelError("zero_as_missing unfolds into too many nodes: train with zero_as_missing=False")
        if source < 0:
            builder.set_leaf(node, values[~source], counts[~source] if counts else None)
            continue
        waiting.extend(_unfold(splits[source], node, builder))
    return builder.build()


def _unfold(split: _Split, node: int, builder: TreeBuilder) -> list[tuple[int, int]]:
    """Writes the chain of one split from `node` on; gives `(source, node)` of the subtrees below it."""
    if split.members is not None:
        left, right = builder.reserve(), builder.reserve()
        builder.set_members(node, split.feature, split.members, False, left, right)
        return [(split.left, left), (split.right, right)]
    below = []
    *chain, (_, last_goes_left) = split.cuts()
    for end, goes_left in chain:
        left, right = builder.reserve(), builder.reserve()
        builder.set_split(node, split.feature, end, goes_left == split.missing_left(), left, right)
        below.append((split.left if goes_left else split.right, left))
        node = right
    return [*below, (split.left if last_goes_left else split.right, node)]
