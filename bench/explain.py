"""Exact SHAP of gradient-boosted trees: one row and batches, beside shap, LightGBM, XGBoost and CatBoost.

Beside it the score alone. Everything runs on one core. Before anything is timed, attributions are compared with shap's
of both kinds and with LightGBM's own, and with margins.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import xgboost

from bench.bars import Bar, Findings
from bench.gbdt import DEPTH, TREES, train_gbdt
from bench.peers.tree_shap import catboost_forms, lightgbm_form, shap_forms, xgboost_form
from bench.report import report
from bench.timing import Item, Timed, WrongValuesError, alternate, each, fastest, rounded
from models import BundleDraft, Feature, ModelCard, ModelStore, Service, Thresholds
from models.admission import read_graph
from models.explain import InterventionalTrees, PathDependentTrees, decode_tables, encode_tables, map_tables
from models.explain._trees import TreeTables, interventional_tables, path_dependent_tables
from models.export import export_lightgbm
from models.graph import normalise
from models.scorer import open_session
from models.tree_scorer import serving_scorer
from models.trees import Ensemble, read_trees

Floats = np.ndarray[Any, np.dtype[np.float64]]

FEATURES, BACKGROUND = 50, 1_000
TRAINING_ROWS, UNSEEN_ROWS, ROUNDS, ROWS, BATCH, BATCHES = 20_000, 6_000, 4, 150, 64, 4
CHECKED_ROWS, SLOW_ROWS, SLOWEST_ROWS = 20, 40, 8
_MADE_OF = bytes(32)


def run(as_json: bool) -> None:
    """Compare the values, then time explaining, scoring, building and loading."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    world = _World.drawn()
    found = _tables(world) | _agreement(world) | _explaining(world) | _scoring(world) | _own_models(world)
    f = found.figures
    bars = [
        Bar("ours_1_us", f["ours_1_us"], 300, at_most=True),
        Bar("shap_path_1_speedup", rounded(f["shap_path_1_us"] / f["ours_1_us"]), 6),
        Bar("shap_interventional100_1_speedup", rounded(f["shap_interventional100_1_us"] / f["ours_1_us"]), 30),
        Bar("shap_path_64_speedup", rounded(f["shap_path_64_us"] / f["ours_64_us"]), 20),
        Bar("max_rel_diff", f["max_rel_diff"], 1e-6, at_most=True),
        Bar("score_over_ort", rounded(f["score_1_us"] / f["ort_1_us"]), 1.3, at_most=True),
        Bar("build_s", f["build_s"], 3, at_most=True),
        Bar("table_mib", f["table_mib"], 64, at_most=True),
        Bar("load_s", f["load_s"], 0.3, at_most=True),
        *(Bar(f"{peer}_1_speedup", rounded(f[f"{peer}_1_us"] / f["ours_1_us"]), 8) for peer in ("lgb", "xgb", "cat")),
    ]
    report("explain", found.as_report(bars), as_json)


@dataclass(frozen=True)
class _World:
    """Rows, labels, a LightGBM model of them, its graph, its trees as the graph has them, and its tables."""

    rows: Floats
    labels: Floats
    booster: lightgbm.Booster
    onnx: bytes
    ensemble: Ensemble
    tables: TreeTables
    build_s: float

    @classmethod
    def drawn(cls) -> _World:
        rows, labels = draw_rows(TRAINING_ROWS + UNSEEN_ROWS, seed=11)
        booster = train_gbdt(rows[:TRAINING_ROWS], labels[:TRAINING_ROWS])
        onnx = export_lightgbm(booster)
        ensemble = read_trees(read_graph(onnx))
        interventional_tables(ensemble, rows[:BACKGROUND])  # compiles what is not compiled yet
        began = time.perf_counter()
        tables = interventional_tables(ensemble, rows[:BACKGROUND])
        return cls(rows, labels, booster, onnx, ensemble, tables, time.perf_counter() - began)

    @property
    def background(self) -> Floats:
        return self.rows[:BACKGROUND]

    def unseen(self, turn: int, count: int, size: int) -> list[Floats]:
        """`count` pieces of `size` rows that no model was fitted on, others in each round."""
        begin = TRAINING_ROWS + 1_000 * turn
        return [np.ascontiguousarray(self.rows[begin + i * size : begin + (i + 1) * size]) for i in range(count)]


def draw_rows(count: int, *, seed: int) -> tuple[Floats, Floats]:
    """Rows like an actor's features, float64[count, 50], a third of the columns with 15 % missing; labels, 1 in 5.

    Amounts, counts, ages and rates that depend on eight hidden traits; the label depends on 50 of them, not linearly.
    """
    rng = np.random.default_rng(seed)
    traits = rng.normal(size=(count, 8))
    rows = np.empty((count, FEATURES))
    for f in range(FEATURES):
        raw = traits @ rng.normal(size=8) + rng.normal(size=count)
        rows[:, f] = (raw, np.exp(raw / 2), np.floor(np.abs(raw) * 3), np.round(raw, 1), np.maximum(raw, 0))[f % 5]
        if f % 3 == 0:
            rows[rng.random(count) < 0.15, f] = np.nan
    known = np.nan_to_num(rows)
    risk = known @ rng.normal(size=FEATURES) / 20 + np.sin(2 * known[:, 0]) + (known[:, 5] > 1) * (known[:, 9] < 2)
    return rows, (risk + rng.normal(size=count) > np.quantile(risk, 0.8)).astype(np.float64)


def _tables(world: _World) -> Findings:
    """Building was timed; here the file is written and loaded, and a whole bundle is."""
    content = encode_tables(world.tables, _MADE_OF)
    names = [f"f{i}" for i in range(FEATURES)]
    card = ModelCard(
        model_name="bench",
        label="drawn",
        service=Service(name="bench", fingerprint="-"),
        features=tuple(Feature(ref=f"v:{name}", code=name.upper()) for name in names),
        thresholds=Thresholds(review=0.5, block=0.9),
        calibration="none",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tables.bin"
        path.write_bytes(content)
        mapped = _seconds(lambda: decode_tables(map_tables(path), _MADE_OF))
        store = ModelStore(Path(folder))
        draft = BundleDraft(card, world.onnx, world.background, "drawn", world.rows[:32])
        version = store.publish(draft)
        loaded = _seconds(lambda: store.load("bench", version))
    leaves = sum(tree.leaf_count for tree in world.ensemble.trees)
    return Findings(
        {
            "build_s": rounded(world.build_s),
            "table_mib": rounded(len(content) / 2**20),
            "load_s": rounded(loaded),
            "map_s": rounded(mapped),
        },
        notes={"trees": len(world.ensemble.trees), "leaves": leaves},
    )


def _agreement(world: _World) -> Findings:
    """The largest difference to shap of both kinds and to LightGBM, relative to the largest attribution."""
    rows = world.unseen(0, 1, CHECKED_ROWS)[0]
    ours = InterventionalTrees(world.tables, world.background, "r").explain(rows)
    path = PathDependentTrees(path_dependent_tables(world.ensemble), "covers").explain(rows)
    margin = world.booster.predict(rows, raw_score=True)
    gaps = {
        "shap_interventional": _gap(ours.attributions, shap_forms(world.ensemble, world.background)["method"](rows)),
        "shap_path": _gap(path.attributions, shap_forms(world.ensemble, None)["method"](rows)),
        "lightgbm": _gap(path.attributions, lightgbm_form(world.booster)(rows)),
    }
    additivity = float(np.abs(ours.base_value + ours.attributions.sum(axis=1) - margin).max())
    if not max(*gaps.values(), additivity) < 1e-5:
        raise WrongValuesError(f"attributions differ: {gaps}, additivity {additivity}")
    return Findings(
        {"max_rel_diff": float(f"{max(gaps.values()):.3g}")},
        notes={"rel_diff": {k: float(f"{v:.3g}") for k, v in gaps.items()}, "additivity": float(f"{additivity:.3g}")},
    )


def _gap(ours: Floats, theirs: Floats) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _as_served(tables: TreeTables) -> TreeTables:
    """The same, mapped from a file, as a server has them: aligned, and on the pages that the system gives a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tables.bin"
        path.write_bytes(encode_tables(tables, _MADE_OF))
        return decode_tables(map_tables(path), _MADE_OF)


def _explaining(world: _World) -> Findings:
    ours = InterventionalTrees(_as_served(world.tables), world.background, "r").explain
    path = PathDependentTrees(_as_served(path_dependent_tables(world.ensemble)), "covers").explain
    few = world.unseen(0, SLOWEST_ROWS, 1)
    shap_path, by_path = fastest({n: each(f) for n, f in shap_forms(world.ensemble, None).items()}, few)
    hundred = shap_forms(world.ensemble, world.background[:100])
    shap_100, by_hundred = fastest({n: each(f) for n, f in hundred.items()}, few)
    single = alternate(
        {
            "ours_1": each(ours),
            "ours_path_1": each(path),
            "shap_path_1": by_path,
            "shap_interventional100_1": _of_some(by_hundred, SLOW_ROWS),
            "lgb_1": each(lightgbm_form(world.booster)),
        },
        lambda turn: world.unseen(turn, ROWS, 1),
        ROUNDS,
    )
    many = alternate(
        {"ours_64": each(ours), "shap_path_64": by_path, "lgb_64": each(lightgbm_form(world.booster))},
        lambda turn: world.unseen(turn, BATCHES, BATCH),
        ROUNDS,
    )
    return Findings(
        {f"{n}_us": rounded(t.p50_us) for n, t in single.items()}
        | {f"{n}_us": rounded(t.p50_us / BATCH) for n, t in many.items()},
        {f"{n}_us": t.spread() for n, t in single.items()} | {f"{n}_us": t.spread(BATCH) for n, t in many.items()},
        {"shap_forms": [shap_path, shap_100]},
    )


def _scoring(world: _World) -> Findings:
    scorer, session = serving_scorer(world.onnx, world.background), open_session(world.onnx)
    outputs = [output.name for output in session.get_outputs()]
    times = alternate(
        {
            "score_1": each(scorer.score),
            "ort_1": each(lambda row: session.run(outputs, {"features": row})),
        },
        lambda turn: world.unseen(turn, ROWS, 1),
        ROUNDS,
    )
    return Findings(
        {f"{n}_us": rounded(t.p50_us) for n, t in times.items()}, {f"{n}_us": t.spread() for n, t in times.items()}
    )


def _own_models(world: _World) -> Findings:
    """XGBoost and CatBoost explain models of their own of that size; ours explains CatBoost's as its graph has it."""
    rows, labels = world.rows[:TRAINING_ROWS], world.labels[:TRAINING_ROWS]
    xgb = xgboost.train(
        {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.05, "min_child_weight": 0, "nthread": 1},
        xgboost.DMatrix(rows, labels),
        TREES,
    )
    cat = catboost.CatBoostClassifier(
        iterations=TREES, depth=DEPTH, verbose=0, thread_count=1, allow_writing_files=False, random_seed=3
    ).fit(rows, labels.astype(np.int64))
    form, by_cat = fastest({n: each(f) for n, f in catboost_forms(cat).items()}, world.unseen(0, 2, 1))
    of_cat = _of_catboost(cat, world.background)
    times = alternate(
        {
            "xgb_1": _of_some(each(xgboost_form(xgb)), SLOW_ROWS),
            "cat_1": _of_some(by_cat, SLOWEST_ROWS),
            "ours_cat_1": each(of_cat.explain),
        },
        lambda turn: world.unseen(turn, ROWS, 1),
        ROUNDS,
    )
    return Findings(
        {f"{n}_us": rounded(t.p50_us) for n, t in times.items()},
        {f"{n}_us": t.spread() for n, t in times.items()},
        {"catboost_form": form},
    )


def _of_catboost(model: catboost.CatBoost, background: Floats) -> InterventionalTrees:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.save_model(str(path), format="onnx")
        ensemble = read_trees(normalise(read_graph(path.read_bytes()), width=FEATURES))
    return InterventionalTrees(_as_served(interventional_tables(ensemble, background)), background, "r")


def _seconds(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[2]


def _of_some(timed: Timed[Item], count: int) -> Timed[Item]:
    """A slow contender takes only the first few of a round's items."""
    return lambda items: timed(items[:count])
