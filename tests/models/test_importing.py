"""A model made elsewhere becomes a bundle that scores as it does, or nothing is published and the reason said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from models import BundleCorruptError, ExportMismatchError, GoldenMismatchError, InputError, ModelStore, Service
from models.bundle import version_of
from models.conformance import Expected
from models.importing import ImportSpec, features_of, import_model
from tests.models.builders import published
from tests.models.conformance.zoo import CASES, Case, of_sklearn

Floats = NDArray[np.float64]
REFS = tuple(f"view:feature_{i}" for i in range(6))


def spec(**changes: object) -> ImportSpec:
    given = {
        "model_name": "imported",
        "file": "model.onnx",
        "service": Service(name="a_service", fingerprint="abc"),
        "service_refs": (*REFS, "other:unused"),
        "features": REFS,
    }
    return ImportSpec(**(given | changes))  # type: ignore[arg-type]


def imported(root: Path, case: Case, **changes: object) -> tuple[ModelStore, str]:
    told = spec(**{"target": case.target} | changes)
    done = import_model(
        case.content, told, features_of(case.content, told), case.rows, Expected(case.rows, case.scores)
    )
    store = ModelStore(root)
    return store, store.publish(done.draft)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("catboost", {}),
        ("xgboost of classes", {}),
        ("lightgbm of values", {"review": 1.0, "block": 2.0}),
        ("sklearn logistic pipeline", {}),
        ("sklearn network", {"missing": {"*": 0.0}}),
    ],
)
def test_an_imported_bundle_scores_as_its_framework_does(tmp_path: Path, name: str, changes: dict[str, object]) -> None:
    case = CASES[name]()
    store, version = imported(tmp_path, case, **changes)
    bundle = store.load("imported", version)
    rows = bundle.vector(case.rows[:20])
    scores, explanation = bundle.score(rows), bundle.explain(rows, deadline_ms=10.0)
    np.testing.assert_allclose(scores.score, case.scores[:20], rtol=1e-6, atol=1e-6)
    sums = explanation.base_value + explanation.attributions.sum(axis=1)
    np.testing.assert_allclose(sums, scores.margin, rtol=1e-5, atol=1e-5)
    manifest = bundle.manifest
    assert (manifest.explanation.method, manifest.explanation.output_space) == (case.method, case.output_space)
    assert manifest.graph.preparation == case.preparation
    assert manifest.graph.target_name == (case.target or ("1" if name == "catboost" else manifest.graph.target_name))
    assert manifest.source is not None
    assert (manifest.source.file, len(manifest.source.sha256)) == ("model.onnx", 64)


def test_the_same_import_is_the_same_version(tmp_path: Path) -> None:
    case = CASES["catboost"]()
    assert imported(tmp_path / "a", case)[1] == imported(tmp_path / "b", case)[1]


def test_expected_scores_that_the_graph_does_not_give_refuse_the_import() -> None:
    case = CASES["xgboost"]()
    wrong = case.scores.copy()
    wrong[7] += 2e-6
    with pytest.raises(ExportMismatchError, match=r"equals the expected scores: 400 rows.*row 7"):
        import_model(case.content, spec(), features_of(case.content, spec()), case.rows, Expected(case.rows, wrong))


def test_large_numbers_that_float32_rounds_refuse_the_import() -> None:
    import lightgbm
    import onnxmltools

    from tests.models.conformance.zoo import with_tools

    rng = np.random.default_rng(3)
    rows = np.column_stack([1.7e9 + rng.integers(0, 500, 400), rng.normal(size=400)])
    model = lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1, num_threads=1)
    model.fit(rows, (rows[:, 0] % 100 < 50).astype(int))
    content = with_tools(model, onnxmltools.convert_lightgbm, 2, zipmap=False)
    told = spec(features=REFS[:2])
    with pytest.raises(ExportMismatchError, match="in double precision if it reads large numbers"):
        import_model(content, told, features_of(content, told), rows, Expected(rows, model.predict_proba(rows)[:, 1]))


def test_a_regression_needs_thresholds_in_its_unit(tmp_path: Path) -> None:
    case = CASES["lightgbm of values"]()
    with pytest.raises(InputError, match="its score is the value itself"):
        imported(tmp_path, case)
    store, version = imported(tmp_path, case, review=-1.5, block=0.5)
    assert store.manifest("imported", version).thresholds.review == -1.5


def test_a_model_that_cannot_take_missing_values_needs_replacements(tmp_path: Path) -> None:
    case = CASES["sklearn logistic"]()
    with pytest.raises(Exception, match="missing values"):
        imported(tmp_path, case)
    store, version = imported(tmp_path, case, missing={"feature_0": -1.0, "*": 0.0})
    bundle = store.load("imported", version)
    np.testing.assert_array_equal(bundle.vector(np.full((1, 6), np.nan)), [[-1.0, 0, 0, 0, 0, 0]])
    assert np.isfinite(bundle.score(bundle.vector(np.full((1, 6), np.nan))).score).all()


def with_metadata(content: bytes, **entries: str) -> bytes:
    model = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, {f"actor_risk.{key}": value for key, value in entries.items()})
    return model.SerializeToString()


def test_features_and_missing_values_come_from_the_file_unless_they_are_given() -> None:
    names = msgspec.json.encode([f"feature_{i}" for i in range(6)]).decode()
    content = with_metadata(CASES["xgboost"]().content, features=names, missing='{"feature_1": 0.5, "*": -1}')
    read = features_of(content, spec(features=()))
    assert [feature.ref for feature in read] == list(REFS)
    assert [feature.missing for feature in read] == [-1.0, 0.5, -1.0, -1.0, -1.0, -1.0]
    assert features_of(content, spec(features=REFS[::-1], missing={}))[0].ref == REFS[-1]


@pytest.mark.parametrize(
    ("entries", "changes", "reason"),
    [
        ({}, {"features": ()}, "nobody says which features"),
        ({"features": "{}"}, {"features": ()}, "no JSON list"),
        ({"features": "[1"}, {"features": ()}, "no JSON"),
        ({"missing": "[]"}, {}, "no JSON object"),
        ({}, {"features": ("feature_0", "elsewhere")}, "0 features 'elsewhere'"),
        ({}, {"missing": {"unused": 1.0}}, "does not read it"),
    ],
)
def test_features_that_cannot_be_told_are_refused(
    entries: dict[str, str], changes: dict[str, object], reason: str
) -> None:
    content = with_metadata(CASES["xgboost"]().content, **entries)
    with pytest.raises(Exception, match=reason):
        features_of(content, spec(**changes))


def test_features_in_another_number_than_the_graph_reads_are_refused() -> None:
    case = CASES["xgboost"]()
    with pytest.raises((ExportMismatchError, InputError), match="5"):
        import_model(case.content, spec(), features_of(case.content, spec(features=REFS[:5])), case.rows[:, :5])


def test_golden_rows_that_came_out_otherwise_refuse_a_sampled_bundle(tmp_path: Path) -> None:
    from sklearn.neural_network import MLPClassifier

    store, version = imported(tmp_path, CASES["sklearn network"](), missing={"*": 0.0})
    other = of_sklearn(MLPClassifier((8,), max_iter=20, random_state=2), "binary", "sampling", "log_odds")
    _, forged = imported(tmp_path / "other", other, missing={"*": 0.0})
    manifest = store.manifest("imported", version)
    graph = (tmp_path / "other" / "imported" / forged / "model.onnx").read_bytes()
    import hashlib

    files = manifest.files | {"model.onnx": hashlib.sha256(graph).hexdigest()}
    content = msgspec.json.encode(msgspec.structs.replace(manifest, files=files))
    target = tmp_path / "imported" / version_of(content)
    target.mkdir()
    for part in ("golden.parquet", "background.parquet"):
        (target / part).write_bytes((tmp_path / "imported" / version / part).read_bytes())
    (target / "model.onnx").write_bytes(graph)
    (target / "manifest.json").write_bytes(content)
    with pytest.raises(GoldenMismatchError, match="margin differs"):
        store.load("imported", target.name)


def first_schema(directory: Path) -> tuple[bytes, dict[str, object]]:
    """The manifest of a bundle as release 1 wrote it."""
    manifest = msgspec.json.decode((directory / "manifest.json").read_bytes())
    del manifest["graph"], manifest["source"], manifest["explanation"]["method"]
    manifest["schema_version"] = 1
    return msgspec.json.encode(manifest), manifest


def test_a_bundle_of_the_first_schema_still_loads(tmp_path: Path) -> None:
    store, version, directory = published(tmp_path)
    content, _ = first_schema(directory)
    (directory / "manifest.json").write_bytes(content)
    old = directory.with_name(version_of(content))
    directory.rename(old)
    bundle = store.load("ad_click_risk", old.name)
    assert (bundle.manifest.schema_version, bundle.manifest.graph.input_type) == (1, "double")
    assert bundle.score(np.array([[1.0, 0.0]])).margin[0] == 2.0
    assert version != old.name


def test_a_manifest_that_tells_another_graph_does_not_load(tmp_path: Path) -> None:
    store, _, directory = published(tmp_path)
    manifest = msgspec.json.decode((directory / "manifest.json").read_bytes())
    manifest["explanation"]["output_space"] = "probability"
    content = msgspec.json.encode(manifest)
    (directory / "manifest.json").write_bytes(content)
    forged = directory.with_name(version_of(content))
    directory.rename(forged)
    with pytest.raises(BundleCorruptError, match="the manifest says"):
        store.load("ad_click_risk", forged.name)
