"""Exact Shapley values of trees, by tables: `InterventionalTrees` and `PathDependentTrees`.

Both give shares of the margin that add up to it. The first compares with a background of rows, the second with what the
training rows were like at each node; see docs/explanations.md for what that means to a reader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models._arrays import Floats, Ints, as_matrix
from models.errors import InputError, UnsupportedModelError
from models.explain import _layout as at
from models.explain._fill import fill_interventional, fill_path_dependent, quadrature, shapley_weights
from models.explain._games import margins, play_forest, play_leaves, slots_of
from models.explain._kernels import explain_rows
from models.explain._protocol import LOG_ODDS, PROBABILITY, Explanation
from models.explain._tables import compile_ensemble
from models.trees import Ensemble

TABLE_BYTES_MAX = 64 * 2**20
_SLOTS_MAX = 2**28
"""Background rows times slots, as many as are held: 1 GiB."""
INTERVENTIONAL, PATH_DEPENDENT = "interventional", "path_dependent"


@dataclass(frozen=True, slots=True)
class TreeTables:
    """What publishing computes once: the arrays of `_layout`, the kind of explanation, and its base value."""

    kind: str
    base_value: float
    constant: float
    ints: Ints
    floats: Floats

    @property
    def feature_count(self) -> int:
        return int(self.ints[at.FEATURES])


def interventional_tables(
    ensemble: Ensemble, background: Floats, *, table_bytes_max: int = TABLE_BYTES_MAX
) -> TreeTables:
    """Tables that compare with a background float64[B, F].

    Raises InputError for an empty background or one of another width.
    """
    rows = as_matrix(background, ensemble.feature_count)
    _check_background(rows)
    compiled = compile_ensemble(ensemble, path_dependent=False, table_bytes_max=table_bytes_max)
    fill_interventional(compiled, rows)
    theirs = margins(compiled.ints, compiled.floats, slots_of(compiled.ints, compiled.floats, rows))
    base_value = ensemble.constant + math.fsum(theirs) / len(rows)
    return _frozen(INTERVENTIONAL, base_value, ensemble.constant, compiled.ints, compiled.floats)


def path_dependent_tables(ensemble: Ensemble, *, table_bytes_max: int = TABLE_BYTES_MAX) -> TreeTables:
    """Tables that compare with the training rows, as the trees' covers count them.

    Raises InputError for trees without covers, and for an inner node that no training row came by.
    """
    if not ensemble.has_covers:
        raise InputError(
            "a path-dependent explanation needs the training rows in each leaf, which this graph does not have: "
            "give leaf_covers to read_trees, or explain against a background"
        )
    if any(bool(np.any(tree.cover[tree.feature >= 0] <= 0)) for tree in ensemble.trees if tree.cover is not None):
        raise InputError("no training row came by an inner node: a path-dependent explanation is not defined there")
    compiled = compile_ensemble(ensemble, path_dependent=True, table_bytes_max=table_bytes_max)
    fill_path_dependent(compiled)
    means = [math.fsum(tree.value * tree.cover) / tree.cover[0] for tree in ensemble.trees if tree.cover is not None]
    return _frozen(PATH_DEPENDENT, ensemble.constant + math.fsum(means), 0.0, compiled.ints, compiled.floats)


def _check_background(rows: Floats) -> None:
    if not len(rows):
        raise InputError("an explanation compares with a background: give at least one row")


def _frozen(kind: str, base_value: float, constant: float, ints: Ints, floats: Floats) -> TreeTables:
    """Read-only, like the arrays of a mapped file: compiled code is made for one of the two."""
    ints.flags.writeable = floats.flags.writeable = False
    return TreeTables(kind, float(base_value), float(constant), ints, floats)


class InterventionalTrees:
    """Explains rows of an ensemble as differences from a background sample float64[B, F]."""

    def __init__(self, tables: TreeTables, background: Floats, reference: str, output_space: str = LOG_ODDS) -> None:
        """`output_space` is that of the margin.

        Raises InputError for a background that is empty, of another width, or too large to be held.
        """
        rows = as_matrix(background, tables.feature_count)
        _check_background(rows)
        if len(rows) * int(tables.ints[at.SLOTS]) > _SLOTS_MAX:
            raise InputError(f"{len(rows):,} background rows are too many for trees of so many tests: give fewer rows")
        self._tables = tables
        self._reference = reference
        self._output_space = output_space
        self._background = slots_of(tables.ints, tables.floats, rows)
        self._weights = shapley_weights(int(tables.ints[at.PATH_MAX]))
        self._even = np.full(len(rows), 1.0 / len(rows))
        self.base_value = tables.base_value

    @classmethod
    def of(
        cls, ensemble: Ensemble, background: Floats, reference: str, *, table_bytes_max: int = TABLE_BYTES_MAX
    ) -> InterventionalTrees:
        """Builds the tables first, about a second for some hundred trees; see `interventional_tables`."""
        tables = interventional_tables(ensemble, background, table_bytes_max=table_bytes_max)
        return cls(tables, background, reference)

    def explain(self, matrix: Floats) -> Explanation:
        """The explanation of float64[N, F], NaN for a missing value. Raises InputError for another width."""
        ints, floats = self._tables.ints, self._tables.floats
        rows = as_matrix(matrix, self._tables.feature_count)
        attributions = np.zeros(rows.shape)
        explain_rows(ints, floats, rows, attributions)
        if ints[at.REST]:
            for ours, out in zip(slots_of(ints, floats, rows), attributions, strict=True):
                play_forest(ints, floats, at.REST, ours, self._background, self._even, self._weights, out)
        return Explanation(self.base_value, attributions, self._reference, self._output_space)

    def explain_probability(self, matrix: Floats) -> Explanation:
        """Shares of the probability σ(margin) instead: base value + attributions = probability.

        Defined as the shap library defines it: the shares of the margin against each single background row are scaled
        by (σ(f(x)) − σ(f(z))) / (f(x) − f(z)) and then averaged. One game for each background row: slow, not for the
        hot path. Raises UnsupportedModelError unless the margin is log-odds, InputError for another width.
        """
        if self._output_space != LOG_ODDS:
            raise UnsupportedModelError(f"the margin is {self._output_space}, only log-odds become a probability by σ")
        ints, floats = self._tables.ints, self._tables.floats
        rows = as_matrix(matrix, self._tables.feature_count)
        slots = slots_of(ints, floats, rows)
        theirs = self._tables.constant + margins(ints, floats, self._background)
        attributions = np.zeros(rows.shape)
        for margin, ours, out in zip(
            self._tables.constant + margins(ints, floats, slots), slots, attributions, strict=True
        ):
            scale = _slopes(float(margin), theirs) * self._even
            play_forest(ints, floats, at.WHOLE, ours, self._background, scale, self._weights, out)
        base_value = math.fsum(_sigmoid(theirs)) / len(theirs)
        return Explanation(base_value, attributions, self._reference, PROBABILITY)


class PathDependentTrees:
    """Explains rows of an ensemble as differences from its training rows, as the covers count them."""

    def __init__(self, tables: TreeTables, reference: str, output_space: str = LOG_ODDS) -> None:
        self._tables = tables
        self._reference = reference
        self._output_space = output_space
        self._rules = quadrature(int(tables.ints[at.PATH_MAX]))
        self.base_value = tables.base_value

    def explain(self, matrix: Floats) -> Explanation:
        """The explanation of float64[N, F], NaN for a missing value. Raises InputError for another width."""
        ints, floats = self._tables.ints, self._tables.floats
        rows = as_matrix(matrix, self._tables.feature_count)
        attributions = np.zeros(rows.shape)
        explain_rows(ints, floats, rows, attributions)
        if ints[at.LEAVES]:
            for ours, out in zip(slots_of(ints, floats, rows), attributions, strict=True):
                play_leaves(ints, floats, ours, *self._rules, out)
        return Explanation(self.base_value, attributions, self._reference, self._output_space)


def _sigmoid(margin: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-margin)), np.float64)


def _slopes(margin: float, theirs: Floats) -> Floats:
    """(σ(f(x)) − σ(f(z))) / (f(x) − f(z)) for each background row; 1 where both margins are equal, as in shap."""
    gaps = margin - theirs
    same = gaps == 0
    rises = _sigmoid(np.array([margin])) - _sigmoid(theirs)
    return np.where(same, 1.0, rises / np.where(same, 1.0, gaps))
