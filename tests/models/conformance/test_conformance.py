"""Every model file goes through the kit: it loads, scores as its framework does, explains, and adds up."""

from __future__ import annotations

import numpy as np
import pytest

from models.admission import read_graph
from models.conformance import Expected, check_model
from models.explain import TREES, explainer_of
from models.graph import RAW_MARGIN
from models.scorer import Scorer
from models.tree_scorer import TreeScorer, fastest_scorer
from tests.models.conformance.zoo import CASES


@pytest.mark.parametrize("name", CASES)
def test_a_model_holds_everything_that_serving_needs(name: str) -> None:
    case = CASES[name]()
    report = check_model(case.content, expected=Expected(case.rows, case.scores), target=case.target)
    assert not report.failures, report.failures
    assert report.facts is not None
    assert report.facts.output_space == case.output_space
    assert report.onnx is not None
    scorer = Scorer(report.onnx)
    usable = case.rows[:4]
    graph = read_graph(report.onnx)
    chosen = explainer_of(graph, usable, "four rows", scorer.margin)
    assert (chosen.method, chosen.preparation) == (case.method, case.preparation)
    serving = fastest_scorer(graph, report.facts, scorer, case.rows)
    is_plain_trees = case.method == TREES and not case.preparation and case.output_space != RAW_MARGIN
    assert isinstance(serving, TreeScorer) == is_plain_trees
    np.testing.assert_array_equal(serving.score(case.rows).margin, scorer.score(case.rows).margin)
