"""Small models of four frameworks, trained on the spot: what each exporter writes, and what its framework scores."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import catboost
import lightgbm
import numpy as np
import onnxmltools
import xgboost
from numpy.typing import NDArray
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import SVC

from models.export import export_lightgbm

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A model file, rows float64[N, F], the framework's scores of them, the class to score, and what must be found."""

    content: bytes
    rows: Floats
    scores: Floats
    target: str | None
    method: str
    output_space: str
    preparation: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """Rows that float32 holds exactly, with holes if asked for, and a label of each kind."""

    rows: Floats
    binary: NDArray[np.int64]
    classes: NDArray[np.int64]
    value: Floats

    @property
    def count(self) -> Floats:
        return np.floor(np.abs(self.value))


@functools.cache
def data(features: int = 6, holes: bool = False, rows: int = 400) -> Data:
    rng = np.random.default_rng(features)
    matrix = rng.normal(size=(rows, features)).astype(np.float32).astype(np.float64)
    signal = matrix[:, 0] * 2 - matrix[:, 1] + (matrix[:, 2] > 0.3) * matrix[:, 0]
    noisy = signal + rng.normal(scale=0.5, size=rows)
    if holes:
        matrix[rng.random(matrix.shape) < 0.15] = np.nan
    return Data(matrix, (noisy > 0.5).astype(np.int64), np.digitize(noisy, [-1.0, 1.0]), np.round(noisy, 3))


def with_tools(model: Any, convert: Callable[..., Any], features: int, **options: Any) -> bytes:
    return convert(model, initial_types=[("input", ToolsFloat([None, features]))], **options).SerializeToString()


def with_skl(model: Any, features: int, *, double: bool = False, zipmap: bool = False) -> bytes:
    kind = DoubleTensorType if double else FloatTensorType
    options = {id(model): {"zipmap": zipmap}} if hasattr(model, "predict_proba") else None
    return to_onnx(model, initial_types=[("input", kind([None, features]))], options=options).SerializeToString()


def written_by_catboost(model: Any) -> bytes:
    with TemporaryDirectory() as folder:
        model.save_model(str(Path(folder) / "model.onnx"), format="onnx")
        return (Path(folder) / "model.onnx").read_bytes()


def lightgbm_model(kind: str, **settings: Any) -> tuple[Any, Data]:
    drawn = data(holes=True)
    model = {"binary": lightgbm.LGBMClassifier, "classes": lightgbm.LGBMClassifier, "value": lightgbm.LGBMRegressor}[
        kind
    ]
    common = {"n_estimators": 12, "verbosity": -1, "num_threads": 1, "min_child_samples": 5}
    return model(**(common | settings)).fit(drawn.rows, getattr(drawn, kind)), drawn


def xgboost_model(kind: str, **settings: Any) -> tuple[Any, Data]:
    drawn = data(holes=True)
    model = xgboost.XGBRegressor if kind == "value" else xgboost.XGBClassifier
    common = {"n_estimators": 12, "nthread": 1}
    return model(**(common | settings)).fit(drawn.rows, getattr(drawn, kind)), drawn


def catboost_model(kind: str, **settings: Any) -> tuple[Any, Data]:
    drawn = data(holes=True)
    model = catboost.CatBoostRegressor if kind == "value" else catboost.CatBoostClassifier
    common = {"iterations": 12, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    return model(**(common | settings)).fit(drawn.rows, getattr(drawn, kind)), drawn


def probability(model: Any, rows: Floats, place: int = 1) -> Floats:
    return np.asarray(model.predict_proba(rows), np.float64)[:, place]


def value(model: Any, rows: Floats) -> Floats:
    return np.asarray(model.predict(rows), np.float64)


TREES, LINEAR, SAMPLING = "interventional_trees", "linear", "sampling"


def lightgbm_binary() -> Case:
    model, drawn = lightgbm_model("binary")
    content = with_tools(model, onnxmltools.convert_lightgbm, 6, zipmap=False)
    return Case(content, drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def lightgbm_zipmap() -> Case:
    model, drawn = lightgbm_model("binary", num_leaves=60, min_child_samples=1)
    content = with_tools(model, onnxmltools.convert_lightgbm, 6)
    return Case(content, drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def lightgbm_classes() -> Case:
    model, drawn = lightgbm_model("classes")
    content = with_tools(model, onnxmltools.convert_lightgbm, 6)
    return Case(content, drawn.rows, probability(model, drawn.rows, 2), "2", TREES, "raw_margin")


def lightgbm_value() -> Case:
    model, drawn = lightgbm_model("value")
    content = with_tools(model, onnxmltools.convert_lightgbm, 6)
    return Case(content, drawn.rows, value(model, drawn.rows), None, TREES, "value")


def lightgbm_double() -> Case:
    model, drawn = lightgbm_model("binary")
    return Case(export_lightgbm(model.booster_), drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def lightgbm_constant() -> Case:
    model, drawn = lightgbm_model("binary", min_child_samples=1_000)
    content = with_tools(model, onnxmltools.convert_lightgbm, 6, zipmap=False)
    return Case(content, drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def lightgbm_wide() -> Case:
    drawn = data(2_000, rows=120)
    model = lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1, num_threads=1, min_child_samples=5)
    model.fit(drawn.rows, drawn.binary)
    content = with_tools(model, onnxmltools.convert_lightgbm, 2_000, zipmap=False)
    return Case(content, drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def xgboost_binary() -> Case:
    model, drawn = xgboost_model("binary", max_depth=3)
    content = with_tools(model, onnxmltools.convert_xgboost, 6)
    return Case(content, drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def xgboost_deep() -> Case:
    model, drawn = xgboost_model("binary", max_depth=12, min_child_weight=0)
    content = with_tools(model, onnxmltools.convert_xgboost, 6)
    return Case(content, drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def xgboost_stumps() -> Case:
    model, drawn = xgboost_model("binary", max_depth=1)
    content = with_tools(model, onnxmltools.convert_xgboost, 6)
    return Case(content, drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def xgboost_classes() -> Case:
    model, drawn = xgboost_model("classes", max_depth=3)
    content = with_tools(model, onnxmltools.convert_xgboost, 6)
    return Case(content, drawn.rows, probability(model, drawn.rows, 0), "0", TREES, "raw_margin")


def xgboost_value() -> Case:
    model, drawn = xgboost_model("value", max_depth=4)
    content = with_tools(model, onnxmltools.convert_xgboost, 6)
    return Case(content, drawn.rows, value(model, drawn.rows), None, TREES, "value")


def xgboost_one_leaf() -> Case:
    model, drawn = xgboost_model("value", n_estimators=3, min_child_weight=10_000)
    content = with_tools(model, onnxmltools.convert_xgboost, 6)
    return Case(content, drawn.rows, value(model, drawn.rows), None, TREES, "value")


def catboost_binary() -> Case:
    model, drawn = catboost_model("binary")
    return Case(written_by_catboost(model), drawn.rows, probability(model, drawn.rows), None, TREES, "log_odds")


def catboost_classes() -> Case:
    model, drawn = catboost_model("classes")
    return Case(written_by_catboost(model), drawn.rows, probability(model, drawn.rows), "1", TREES, "raw_margin")


def catboost_value() -> Case:
    model, drawn = catboost_model("value")
    return Case(written_by_catboost(model), drawn.rows, value(model, drawn.rows), None, TREES, "value")


def of_sklearn(
    model: Any,
    kind: str,
    method: str,
    space: str,
    *,
    holes: bool = False,
    double: bool = False,
    zipmap: bool = False,
    features: int = 6,
    rows: int = 400,
    preparation: tuple[str, ...] = (),
) -> Case:
    drawn = data(features, holes, rows)
    model.fit(drawn.rows, getattr(drawn, kind))
    scores = value(model, drawn.rows) if kind in ("value", "count") else probability(model, drawn.rows)
    content = with_skl(model, features, double=double, zipmap=zipmap)
    return Case(content, drawn.rows, scores, "1" if kind == "classes" else None, method, space, preparation)


def sklearn_cases() -> dict[str, Callable[[], Case]]:
    forest = {"max_depth": 5, "n_estimators": 8, "random_state": 1, "n_jobs": 1}
    network = {"hidden_layer_sizes": (8,), "max_iter": 60, "random_state": 1}
    prepared = [SimpleImputer(), StandardScaler()]
    make = functools.partial
    return {
        "sklearn forest": make(of_sklearn, RandomForestClassifier(**forest), "binary", TREES, "probability"),
        "sklearn forest of classes": make(
            of_sklearn, RandomForestClassifier(**forest), "classes", TREES, "probability"
        ),
        "sklearn forest of values": make(of_sklearn, RandomForestRegressor(**forest), "value", TREES, "value"),
        "sklearn boosting": make(of_sklearn, GradientBoostingClassifier(n_estimators=8), "binary", TREES, "log_odds"),
        "sklearn forest in double": make(
            of_sklearn, RandomForestClassifier(**forest), "binary", TREES, "probability", double=True
        ),
        "sklearn boosting in double": make(
            of_sklearn, GradientBoostingClassifier(n_estimators=8), "binary", TREES, "log_odds", double=True
        ),
        "sklearn boosting of values in double": make(
            of_sklearn, GradientBoostingRegressor(n_estimators=8), "value", TREES, "value", double=True
        ),
        "sklearn scaled boosting": make(
            of_sklearn,
            make_pipeline(SimpleImputer(), MinMaxScaler(), GradientBoostingClassifier(n_estimators=8)),
            *("binary", TREES, "log_odds"),
            holes=True,
            preparation=("Imputer", "Cast", "Mul", "Add"),
        ),
        "sklearn logistic": make(of_sklearn, LogisticRegression(), "binary", LINEAR, "log_odds", zipmap=True),
        "sklearn logistic in double": make(of_sklearn, LogisticRegression(), "binary", LINEAR, "log_odds", double=True),
        "sklearn logistic of classes": make(of_sklearn, LogisticRegression(), "classes", LINEAR, "raw_margin"),
        "sklearn logistic of classes in double": make(
            of_sklearn, LogisticRegression(), "classes", LINEAR, "raw_margin", double=True
        ),
        "sklearn wide logistic": make(
            of_sklearn, LogisticRegression(), "binary", LINEAR, "log_odds", features=2_000, rows=120
        ),
        "sklearn logistic pipeline": make(
            of_sklearn,
            make_pipeline(*prepared, LogisticRegression()),
            "binary",
            LINEAR,
            "log_odds",
            holes=True,
            preparation=("Imputer", "Scaler"),
        ),
        "sklearn scaled logistic in double": make(
            of_sklearn,
            make_pipeline(StandardScaler(), LogisticRegression()),
            "binary",
            LINEAR,
            "log_odds",
            double=True,
            preparation=("Sub", "Div"),
        ),
        "sklearn ridge pipeline": make(
            of_sklearn,
            make_pipeline(SimpleImputer(strategy="median"), RobustScaler(), Ridge()),
            "value",
            LINEAR,
            "value",
            holes=True,
            preparation=("Imputer", "Scaler"),
        ),
        "sklearn least squares": make(of_sklearn, LinearRegression(), "value", LINEAR, "value", double=True),
        "sklearn gradient descent": make(
            of_sklearn, SGDClassifier(loss="log_loss", random_state=1), "binary", LINEAR, "log_odds"
        ),
        "sklearn network": make(of_sklearn, MLPClassifier(**network), "binary", SAMPLING, "log_odds"),
        "sklearn network in double": make(
            of_sklearn, MLPClassifier(**network), "binary", SAMPLING, "log_odds", double=True
        ),
        "sklearn network of classes": make(of_sklearn, MLPClassifier(**network), "classes", SAMPLING, "raw_margin"),
        "sklearn network of values": make(of_sklearn, MLPRegressor(**network), "value", SAMPLING, "value"),
        "sklearn network pipeline": make(
            of_sklearn, make_pipeline(*prepared, MLPClassifier(**network)), "binary", SAMPLING, "log_odds", holes=True
        ),
        "sklearn products of features": make(
            of_sklearn,
            make_pipeline(SimpleImputer(), PolynomialFeatures(2), Ridge()),
            "value",
            SAMPLING,
            "value",
            holes=True,
        ),
        "sklearn counts": make(of_sklearn, PoissonRegressor(), "count", SAMPLING, "value", double=True),
        "sklearn vectors": make(of_sklearn, SVC(probability=True, random_state=1), "binary", SAMPLING, "probability"),
    }


CASES: dict[str, Callable[[], Case]] = {
    "lightgbm": lightgbm_binary,
    "lightgbm with ZipMap, deep": lightgbm_zipmap,
    "lightgbm of classes": lightgbm_classes,
    "lightgbm of values": lightgbm_value,
    "lightgbm in double": lightgbm_double,
    "lightgbm constant": lightgbm_constant,
    "lightgbm wide": lightgbm_wide,
    "xgboost": xgboost_binary,
    "xgboost deep": xgboost_deep,
    "xgboost stumps": xgboost_stumps,
    "xgboost of classes": xgboost_classes,
    "xgboost of values": xgboost_value,
    "xgboost one leaf": xgboost_one_leaf,
    "catboost": catboost_binary,
    "catboost of classes": catboost_classes,
    "catboost of values": catboost_value,
    **sklearn_cases(),
}
