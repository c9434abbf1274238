"""Everything that a model file must hold before it is served, checked one by one and told one by one.

The same list runs over the models of four frameworks in the tests, in `actor-risk models check`, and, as a condition,
in `actor-risk models import`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from models._arrays import Floats, as_matrix
from models.admission import check_trees, named, needs_trial, read_graph
from models.bundle import check_outputs
from models.errors import ExportMismatchError, InputError, ModelError, UnsupportedModelError
from models.explain import SAMPLING, Chosen, Explanation, explainer_of, is_exact, trees_behind
from models.graph import GraphFacts, facts_of, is_served_form, normalise
from models.original import Original, answer_of
from models.probes import example_rows, probes_of
from models.scorer import Scorer
from models.tree_scorer import fastest_scorer
from models.trial import TRIAL_ROWS, try_out

TOLERANCE = 1e-6
"""Largest allowed difference of a score from the original's or the expected one, absolute below 1, relative above."""
_EXPLAINED_ROWS_MAX = 16
_BACKGROUND_ROWS_MAX = 32
_EXAMPLES = 256
_FLOAT32_WHOLE_MAX = 2.0**24
"""From here on float32 skips whole numbers."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked, whether it holds (None: it could not be checked), and what was found."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Expected:
    """Reference rows float64[N, F] and the scores float64[N] that the model's own framework gives them."""

    rows: Floats
    scores: Floats

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.scores.shape != (len(self.rows),) or not len(self.scores):
            raise InputError(f"rows {self.rows.shape} and scores {self.scores.shape} do not fit: one for each row")


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked in order, the model in the served form, and its facts; both None when it has none."""

    checks: tuple[Check, ...]
    onnx: bytes | None
    facts: GraphFacts | None

    @property
    def failures(self) -> tuple[Check, ...]:
        """What does not hold."""
        return tuple(check for check in self.checks if check.passed is False)


def check_model(
    content: bytes,
    *,
    rows: Floats | None = None,
    expected: Expected | None = None,
    target: str | None = None,
    width: int | None = None,
    replacements: Floats | Sequence[float] | float | None = None,
) -> Report:
    """Puts an ONNX file through every check, until one fails that the others build on. Raises nothing of ModelError.

    rows         float64[N, F], real ones if there are; those of `expected` by default, else made up
    target       label or index of the class or target that is scored
    width        number of features, for graphs that leave it open
    replacements float64[F] or one for all, what a missing value becomes (NaN or None: it stays missing)
    """
    run = _Run(content, target, width)
    try:
        run.take_form()
        run.score(rows, expected, np.nan if replacements is None else replacements)
        run.explain()
    except ModelError as error:
        run.fail(str(error))
    return Report(tuple(run.checks), run.onnx, run.facts)


class _Run:
    """The checks of one file, in order; `step` is the one at work."""

    def __init__(self, content: bytes, target: str | None, width: int | None) -> None:
        self.checks: list[Check] = []
        self.onnx: bytes | None = None
        self.facts: GraphFacts | None = None
        self._content, self._target, self._width = content, target, width
        self._step = ""

    def fail(self, reason: str) -> None:
        self.onnx = None
        self.checks.append(Check(self._step, False, reason))

    def _passed(self, detail: str) -> None:
        self.checks.append(Check(self._step, True, detail))

    def _noted(self, detail: str) -> None:
        self.checks.append(Check(self._step, None, detail))

    def take_form(self) -> None:
        """From bytes to a loaded graph in the served form."""
        self._step = "admitted"
        self._given = read_graph(self._content)
        operators = sorted({node.op_type for node in self._given.graph.node})
        self._passed(f"{len(self._content):,} bytes, {len(self._given.graph.node)} operators: {', '.join(operators)}")
        self._step = "one input, one answer"
        self._model = normalise(self._given, target=self._target, width=self._width)
        self.facts = facts_of(self._model)
        check_trees(self._model)  # again, now that the number of features is known
        self._served = self._model.SerializeToString(deterministic=True)
        answer = f"class {self.facts.target_name!r}" if self.facts.target_name else f"target {self.facts.target}"
        self._passed(
            f"{self.facts.width} features in {self.facts.input_type}; {answer}, margin in {self.facts.output_space}"
        )
        self._step = "tried apart"
        if self._tried(self._model):
            self._passed(f"scored {TRIAL_ROWS:,} rows within the limits of memory and time")
        else:
            self._passed("not needed: no operator of it can grow")
        self._step = "loads"
        trees_behind(self._model)
        self._scorer = Scorer(self._served)
        self.onnx = self._served
        self._passed("in ONNX Runtime, on one thread")

    def score(
        self, rows: Floats | None, expected: Expected | None, replacements: Floats | Sequence[float] | float
    ) -> None:
        """Against the original, against the expected scores, alone and in company."""
        assert self.facts is not None
        self._fill = np.broadcast_to(np.asarray(replacements, np.float64), self.facts.width)
        if rows is None:
            rows = example_rows(self._model, self.facts, _EXAMPLES) if expected is None else expected.rows
        self._step = "rows"
        self._rows = self._filled(as_matrix(rows, self.facts.width))
        if not len(self._rows):
            raise InputError("there are no rows to check with")
        self._equals_original()
        if expected is not None:
            self._step = "equals the expected scores"
            found = self._scorer.score(self._filled(as_matrix(expected.rows, self.facts.width))).score
            self._equal(found, expected.scores, f"{len(found):,} rows")
        self._step = "alone as in company"
        some = self._rows[:_EXPLAINED_ROWS_MAX]
        alone = np.concatenate([self._scorer.score(row[None]).score for row in some])
        self._equal(self._scorer.score(some).score, alone, f"{len(some)} rows")
        self._step = "served by"
        is_ours = fastest_scorer(self._model, self.facts, self._scorer, self._rows) is not self._scorer
        ours = "our own loop over trees, whose margins are bit for bit those of ONNX Runtime"
        self._passed(ours if is_ours else "ONNX Runtime")
        self._missing_and_large()

    def _equals_original(self) -> None:
        assert self.facts is not None
        self._step = "equals the original"
        if is_served_form(self._given):
            self._passed("it is in the served form already")
            return
        answer = answer_of(self._given)
        try:
            self._tried(answer)
            original = Original(answer, self.facts)
        except UnsupportedModelError as error:
            self._noted(f"the file itself cannot be scored, which its served form can: {named(error, 200)}")
            return
        for name, probes in probes_of(self._model, self.facts, self._rows).items():
            self._equal(self._scorer.score(probes).score, original.scores(probes), f"{len(probes):,} {name}")

    def _tried(self, model: onnx.ModelProto) -> bool:
        """Whether a form of the model needed to be tried out apart. Raises UnsupportedModelError when that failed."""
        assert self.facts is not None
        needed = needs_trial(model) or not is_exact(self._model)
        if needed:
            try_out(model.SerializeToString(deterministic=True), self.facts)
        return needed

    def _missing_and_large(self) -> None:
        assert self.facts is not None
        self._step = "missing values"
        nothing = self._filled(np.full((1, self.facts.width), np.nan))
        if np.isfinite(self._scorer.score(nothing).score).all():
            self._passed("a row without any value gets a score")
        else:
            self._noted("a missing value gives no score: say what replaces it")
        sizes = np.abs(self._rows[np.isfinite(self._rows)])
        if self.facts.input_type == "float" and sizes.size and sizes.max() >= _FLOAT32_WHOLE_MAX:
            self._step = "float32 input"
            self._noted(
                f"values up to {sizes.max():.3g} are rounded to float32, which skips whole numbers from 2^24: compare "
                "with expected scores, or export in double"
            )

    def explain(self) -> None:
        """How margins are explained, and that they add up."""
        assert self.facts is not None
        self._step = "explains"
        usable = self._rows[np.isfinite(self._scorer.score(self._rows).score)]
        if not len(usable):
            raise InputError("no row gets a score: give rows without missing values, or say what replaces them")
        background = usable[:_BACKGROUND_ROWS_MAX]
        chosen = explainer_of(self._model, background, "rows of the check", self._scorer.margin)
        explanation = chosen.explainer.explain(usable[:_EXPLAINED_ROWS_MAX])
        self._passed(_told(chosen, explanation))
        self._step = "adds up"
        scores = self._scorer.score(usable[:_EXPLAINED_ROWS_MAX])
        check_outputs(self.facts, scores, explanation)
        gap = np.abs(explanation.base_value + explanation.attributions.sum(axis=1) - scores.margin).max()
        self._passed(f"base value + attributions = margin to {gap:.1g}")

    def _filled(self, rows: Floats) -> Floats:
        return np.where(np.isnan(rows), self._fill, rows)

    def _equal(self, found: Floats, wanted: Floats, where: str) -> None:
        """Raises ExportMismatchError above TOLERANCE; two values that are both no number are equal."""
        gaps = np.abs(found - wanted) / np.maximum(np.abs(wanted), 1.0)
        gaps[(np.isnan(found) & np.isnan(wanted)) | (found == wanted)] = 0.0
        worst = int(np.argmax(np.where(np.isnan(gaps), np.inf, gaps)))
        if not gaps[worst] <= TOLERANCE:
            raise ExportMismatchError(
                f"{where}: scores {found[worst]!r} where {wanted[worst]!r} was wanted (row {worst}), more than "
                f"{TOLERANCE:g} apart: export the model again, in double precision if it reads large numbers"
            )
        self._passed(f"{where}, to {gaps[worst]:.1g}")


def _told(chosen: Chosen, explanation: Explanation) -> str:
    if chosen.method != SAMPLING or explanation.standard_errors is None or explanation.pairs is None:
        return f"exactly, as {chosen.method}" + "".join(f" behind {name}" for name in chosen.preparation)
    worst = explanation.standard_errors.max()
    return f"by {SAMPLING}, {explanation.pairs.min()} pairs of orders; standard errors up to {worst:.2g}"
