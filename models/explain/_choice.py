"""Which explainer a graph gets. The graph decides, nobody's say-so: what can be exact is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from models._arrays import Floats
from models.explain._core import Preparation, linear_of, preparation_of, reading_features, trees_of
from models.explain._linear import LinearExplainer
from models.explain._prepared import Prepared
from models.explain._protocol import Explainer
from models.explain._sampling import SamplingExplainer
from models.explain._trees import InterventionalTrees, interventional_tables
from models.graph import facts_of
from models.trees import Ensemble, read_trees

TREES, LINEAR, SAMPLING = "interventional_trees", "linear", "sampling"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An explainer, its method (TREES, LINEAR or SAMPLING), and the operators in front of the model that it passes."""

    explainer: Explainer
    method: str
    preparation: tuple[str, ...] = ()


def trees_behind(model: onnx.ModelProto) -> Ensemble | None:
    """The trees of a graph in the served form whose margin they make of the features themselves; else None.

    Raises UnsupportedModelError for trees that cannot be read.
    """
    trees = trees_of(model)
    steps = None if trees is None else preparation_of(model, trees.prepared)
    if trees is None or steps is None or steps.operators:
        return None
    return read_trees(reading_features(model, trees, model.graph.input[0].type.tensor_type.elem_type))


def is_exact(model: onnx.ModelProto) -> bool:
    """Whether a graph in the served form is explained exactly: it is trees or a linear model, known part by part."""
    part = trees_of(model) or linear_of(model)
    return part is not None and preparation_of(model, part.prepared) is not None


def explainer_of(
    model: onnx.ModelProto, background: Floats, reference: str, margin: Callable[[Floats], Floats]
) -> Chosen:
    """The explainer of a graph in the served form, against the background sample float64[B, F].

    Trees and linear models are explained exactly, also behind operators that treat each feature alone; everything else
    by sampling, with `margin`: float64[N, F] to the graph's margins float64[N], not called for the others.
    Raises UnsupportedModelError for trees that cannot be read, InputError for an empty background.
    """
    space = facts_of(model).output_space
    trees = trees_of(model)
    linear = None if trees else linear_of(model)
    part = trees or linear
    steps = None if part is None else preparation_of(model, part.prepared)
    if steps is None:
        return Chosen(SamplingExplainer(margin, background, reference, space), SAMPLING)
    preparation = Preparation(model, steps)
    if linear is not None:
        explainer = LinearExplainer(linear, preparation, background, reference, space)
        return Chosen(explainer, LINEAR, preparation.operators)
    assert trees is not None
    ensemble = read_trees(reading_features(model, trees, preparation.element_type))
    prepared = preparation.apply(background)
    exact = InterventionalTrees(interventional_tables(ensemble, prepared), prepared, reference, space)
    return Chosen(Prepared(exact, preparation) if steps.operators else exact, TREES, preparation.operators)
