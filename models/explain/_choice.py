"""Which explainer a graph gets. The graph decides, nobody's say-so: what can be exact is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from models._arrays import Floats
from models._operators import check_nodes, read_nodes
from models.errors import InputError
from models.explain._core import Preparation, Trees, linear_of, preparation_of, reading_features, trees_of
from models.explain._linear import LinearExplainer
from models.explain._prepared import Prepared
from models.explain._protocol import Explainer
from models.explain._sampling import SamplingExplainer
from models.explain._trees import (
    PATH_DEPENDENT,
    InterventionalTrees,
    PathDependentTrees,
    TreeTables,
    interventional_tables,
    path_dependent_tables,
)
from models.graph import facts_of
from models.trees import Ensemble, read_trees

TREES, PATH_TREES, LINEAR, SAMPLING = "interventional_trees", "path_dependent_trees", "linear", "sampling"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An explainer, its method (TREES, PATH_TREES, LINEAR or SAMPLING), the operators in front of the model that it
    passes, and the tables of trees."""

    explainer: Explainer
    method: str
    preparation: tuple[str, ...] = ()
    tables: TreeTables | None = None


def trees_behind(model: onnx.ModelProto) -> Ensemble | None:
    """The trees of a graph in the served form whose margin they make of the features themselves; else None.

    Raises UnsupportedModelError for trees that cannot be read.
    """
    trees = trees_of(model)
    steps = None if trees is None else preparation_of(model, trees.prepared)
    if trees is None or steps is None or steps.operators:
        return None
    return _read(model, trees, model.graph.input[0].type.tensor_type.elem_type)


def is_exact(model: onnx.ModelProto) -> bool:
    """Whether a graph in the served form is explained exactly: it is trees or a linear model, known part by part."""
    part = trees_of(model) or linear_of(model)
    return part is not None and preparation_of(model, part.prepared) is not None


def explainer_of(
    model: onnx.ModelProto,
    background: Floats,
    reference: str,
    margin: Callable[[Floats], Floats],
    *,
    path_dependent: bool = False,
    tables: TreeTables | None = None,
) -> Chosen:
    """The explainer of an admitted graph in the served form, against the background sample float64[B, F].

    Trees and linear models are explained exactly, also behind operators that treat each feature alone; everything else
    by sampling, with `margin`: float64[N, F] to the graph's margins float64[N], not called for the others.
    `path_dependent`: trees with covers, by these instead of the background. `tables`: what was built before for this
    graph and background, else they are built now.
    Raises UnsupportedModelError for trees that cannot be read, InputError for an empty background, for covers that are
    asked for and not there, and for path-dependent explanations of anything but trees.
    """
    space = facts_of(model).output_space
    trees = trees_of(model)
    linear = None if trees else linear_of(model)
    part = trees or linear
    steps = None if part is None else preparation_of(model, part.prepared)
    if path_dependent and (steps is None or trees is None):
        raise InputError("only trees have path-dependent explanations: explain this model against its background")
    if steps is None:
        return Chosen(SamplingExplainer(margin, background, reference, space), SAMPLING)
    preparation = Preparation(model, steps)
    if linear is not None:
        linear_explainer = LinearExplainer(linear, preparation, background, reference, space)
        return Chosen(linear_explainer, LINEAR, preparation.operators)
    assert trees is not None
    if tables is None or path_dependent != (tables.kind == PATH_DEPENDENT):
        ensemble = _read(model, trees, preparation.element_type)
        tables = _built(ensemble, preparation.apply(background), path_dependent)
    elif steps.operators:  # behind arithmetic, nobody knew yet how many columns they read
        check_nodes(trees.operator, facts_of(model).width)
    else:
        read_nodes(trees.operator)
    exact: Explainer = (
        PathDependentTrees(tables, reference, space)
        if path_dependent
        else InterventionalTrees(tables, preparation.apply(background), reference, space)
    )
    explainer = Prepared(exact, preparation) if steps.operators else exact
    return Chosen(explainer, PATH_TREES if path_dependent else TREES, preparation.operators, tables)


def _read(model: onnx.ModelProto, trees: Trees, element_type: int) -> Ensemble:
    return read_trees(reading_features(model, trees, element_type)).scaled(trees.factor, trees.offset)


def _built(ensemble: Ensemble, background: Floats, path_dependent: bool) -> TreeTables:
    return path_dependent_tables(ensemble) if path_dependent else interventional_tables(ensemble, background)
