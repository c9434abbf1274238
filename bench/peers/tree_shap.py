"""Exact SHAP of the same trees by others, each in its fastest form for one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import catboost
import lightgbm
import numpy as np
import shap
import xgboost
from shap import _cext
from shap.explainers._tree import feature_perturbation_codes, output_transform_codes

from models.trees import Ensemble
from tests.models.builders import shap_trees

Floats = np.ndarray[Any, np.dtype[np.float64]]
Explain = Callable[[Floats], Floats]


def shap_forms(ensemble: Ensemble, background: Floats | None) -> dict[str, Explain]:
    """float64[N, F] to float64[N, F]: the explainer as one calls it, and its C function called alone."""
    kind = "tree_path_dependent" if background is None else "interventional"
    masker = None if background is None else shap.maskers.Independent(background, max_samples=len(background))
    explainer = shap.TreeExplainer({"trees": shap_trees(ensemble)}, data=masker, feature_perturbation=kind)
    model = explainer.model
    tables = (
        model.children_left,
        model.children_right,
        model.children_default,
        model.features,
        model.thresholds,
        model.threshold_types,
        model.values,
        model.node_sample_weight,
        model.max_depth,
    )
    codes = feature_perturbation_codes[kind], output_transform_codes["identity"]

    def method(rows: Floats) -> Floats:
        return np.asarray(explainer.shap_values(rows, check_additivity=False)).reshape(rows.shape)

    def function(rows: Floats) -> Floats:
        phi = np.zeros((len(rows), rows.shape[1] + 1, 1))
        missing = np.isnan(rows)
        _cext.dense_tree_shap(
            *tables,
            rows,
            missing,
            None,
            explainer.data,
            explainer.data_missing,
            model.values.shape[0],
            model.base_offset,
            phi,
            *codes,
            False,
        )
        return np.asarray(phi[:, :-1, 0])

    return {"method": method, "function": function}


def lightgbm_form(booster: lightgbm.Booster) -> Explain:
    """`pred_contrib`, one thread."""
    return lambda rows: np.asarray(booster.predict(rows, pred_contrib=True, num_threads=1))[:, :-1]


def xgboost_form(booster: xgboost.Booster) -> Explain:
    """`pred_contribs`, one thread, from a row to a matrix of its own kind and on."""
    booster.set_param({"nthread": 1})
    return lambda rows: np.asarray(booster.predict(xgboost.DMatrix(rows, nthread=1), pred_contribs=True))[:, :-1]


def catboost_forms(model: catboost.CatBoost) -> dict[str, Explain]:
    """`ShapValues`, one thread, with and without what it can compute ahead within a call."""

    def form(mode: str) -> Explain:
        return lambda rows: np.asarray(
            model.get_feature_importance(catboost.Pool(rows), type="ShapValues", shap_mode=mode, thread_count=1)
        )[:, :-1]

    return {mode: form(mode) for mode in ("UsePreCalc", "NoPreCalc")}
