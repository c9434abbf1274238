"""A bundle serves exactly what was published, or refuses to load and says why."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import models
from models import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    Feature,
    GoldenMismatchError,
    InputError,
    ModelStore,
    Scorer,
    Thresholds,
    UnsupportedModelError,
)
from models.export import export_trees
from models.golden import decode_golden, encode_background, encode_golden
from models.manifest import reason_code
from tests.models.builders import draft, published, stump

MODEL = "ad_click_risk"


def test_a_published_bundle_scores_and_explains_what_its_trees_say(tmp_path: Path) -> None:
    store, version, _ = published(tmp_path)
    bundle = store.load(MODEL, version)
    rows = bundle.vector(np.array([[0.0, 5.0], [1.0, np.nan]]))
    explanation = bundle.explain(rows)
    np.testing.assert_array_equal(bundle.score(rows).margin, [-1.0, 2.0])
    np.testing.assert_array_equal(explanation.attributions, [[-1.5, 0.0], [1.5, 0.0]])
    assert explanation.base_value == bundle.manifest.explanation.base_value == 0.5
    assert (bundle.version, bundle.manifest.explanation.reference) == (version, "two rows")


def test_the_same_content_has_the_same_version_and_other_content_another(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    first = store.publish(draft())
    assert store.publish(draft()) == first
    assert store.publish(draft(high=3.0)) != first
    assert len(store.versions(MODEL)) == 2


def test_a_missing_value_becomes_what_the_manifest_says(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    version = store.publish(draft(missing=1.0))
    bundle = store.load(MODEL, version)
    rows = bundle.vector(np.full((1, 2), np.nan))
    np.testing.assert_array_equal(rows, [[1.0, np.nan]])
    assert bundle.score(rows).margin[0] == 2.0


def test_without_replacements_missing_values_reach_the_model(tmp_path: Path) -> None:
    store, version, _ = published(tmp_path)
    np.testing.assert_array_equal(store.load(MODEL, version).vector(np.full((1, 2), np.nan)), [[np.nan, np.nan]])


def test_a_vector_of_another_width_is_refused(tmp_path: Path) -> None:
    store, version, _ = published(tmp_path)
    with pytest.raises(InputError, match="reads 2 features"):
        store.load(MODEL, version).vector(np.zeros((1, 3)))


def test_reason_codes_come_from_the_feature_reference() -> None:
    assert reason_code("ip_clicks:count-1h") == "IP_CLICKS_COUNT_1H"


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.parquet", "background.parquet", "tables.bin"])
def test_a_bundle_with_a_missing_file_does_not_load(tmp_path: Path, name: str) -> None:
    store, version, directory = published(tmp_path)
    (directory / name).unlink()
    with pytest.raises(BundleNotFoundError, match=name):
        store.load(MODEL, version)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.parquet", "background.parquet", "tables.bin"])
def test_a_bundle_with_one_changed_byte_does_not_load(tmp_path: Path, name: str) -> None:
    store, version, directory = published(tmp_path)
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(bytes(content))
    with pytest.raises(BundleCorruptError, match="publish"):
        store.load(MODEL, version)


def test_a_bundle_with_a_link_for_a_file_does_not_load(tmp_path: Path) -> None:
    store, version, directory = published(tmp_path)
    shutil.move(directory / "model.onnx", tmp_path / "elsewhere.onnx")
    (directory / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleCorruptError, match="link"):
        store.load(MODEL, version)


def forge(root: Path, change: Callable[[dict[str, bytes]], None], **manifest_changes: object) -> tuple[ModelStore, str]:
    """A bundle changed by someone who also knows how to hash: names and hashes are right again."""
    store, _, directory = published(root)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    change(files)
    manifest = msgspec.json.decode(files.pop("manifest.json")) | manifest_changes
    manifest["files"] = manifest_changes.get("files") or {n: hashlib.sha256(c).hexdigest() for n, c in files.items()}
    content = msgspec.json.encode(manifest)
    version = hashlib.sha256(content).hexdigest()[:16]
    target = root / MODEL / version
    target.mkdir()
    for name, part in (files | {"manifest.json": content}).items():
        (target / name).write_bytes(part)
    return store, version


def no_change(files: dict[str, bytes]) -> None:
    assert files


def test_another_graph_fails_the_golden_rows(tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["model.onnx"] = export_trees(stump(high=2.0 + 1e-8))
        del files["tables.bin"]

    store, version = forge(tmp_path, change)
    with pytest.raises(GoldenMismatchError, match="margin differs"):
        store.load(MODEL, version)


def test_another_background_fails_the_golden_rows(tmp_path: Path) -> None:
    _, _, directory = published(tmp_path / "other")
    other = ModelStore(tmp_path / "other")
    changed = other.publish(dataclasses.replace(draft(), background=np.ones((1, 2))))
    background = (directory.parent / changed / "background.parquet").read_bytes()

    def change(files: dict[str, bytes]) -> None:
        files["background.parquet"] = background
        del files["tables.bin"]

    store, version = forge(tmp_path, change)
    with pytest.raises(GoldenMismatchError, match="attribution differs"):
        store.load(MODEL, version)


def test_another_base_value_does_not_load(tmp_path: Path) -> None:
    spec = {"base_value": 0.6, "reference": "r", "output_space": "log_odds", "background": "background.parquet"}
    store, version = forge(tmp_path, no_change, explanation=spec)
    with pytest.raises(BundleCorruptError, match="base value"):
        store.load(MODEL, version)


def test_a_graph_with_external_data_does_not_load(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(export_trees(stump()))
    tensor = helper.make_tensor("w", TensorProto.DOUBLE, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    model.graph.initializer.append(tensor)

    def replaced(files: dict[str, bytes]) -> None:
        del files["tables.bin"]
        files["model.onnx"] = model.SerializeToString()

    store, version = forge(tmp_path, replaced)
    with pytest.raises(BundleCorruptError, match="other files"):
        store.load(MODEL, version)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "extra.bin"])
def test_a_manifest_that_names_other_files_does_not_load(tmp_path: Path, name: str) -> None:
    store, version = forge(tmp_path, no_change, files={"model.onnx": "0", "golden.parquet": "0", name: "0"})
    with pytest.raises(BundleCorruptError, match="names the files"):
        store.load(MODEL, version)


def test_a_manifest_with_another_background_path_does_not_load(tmp_path: Path) -> None:
    spec = {"base_value": 0.5, "reference": "r", "output_space": "log_odds", "background": "../x.parquet"}
    store, version = forge(tmp_path, no_change, explanation=spec)
    with pytest.raises(BundleCorruptError, match="background"):
        store.load(MODEL, version)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"surprise": 1}, "surprise"),
        ({"thresholds": {"review": 0.9, "block": 0.1}}, "review <= block"),
        ({"features": []}, "distinct"),
    ],
)
def test_a_manifest_outside_its_schema_does_not_load(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    store, version = forge(tmp_path, no_change, **changes)
    with pytest.raises(BundleCorruptError, match=reason):
        store.load(MODEL, version)


@pytest.mark.parametrize("name", ["golden.parquet", "background.parquet"])
def test_tables_that_are_no_parquet_do_not_load(tmp_path: Path, name: str) -> None:
    store, version = forge(tmp_path, lambda files: files.update({name: b"no table"}))
    with pytest.raises(BundleCorruptError, match="no Parquet"):
        store.load(MODEL, version)


def test_tables_without_the_features_do_not_load(tmp_path: Path) -> None:
    swapped = draft()
    features = tuple(Feature(ref=f"x:{i}", code=f"X{i}") for i in range(2))
    card = msgspec.structs.replace(swapped.card, features=features)
    other = ModelStore(tmp_path / "other")
    version = other.publish(dataclasses.replace(swapped, card=card))
    golden = (tmp_path / "other" / MODEL / version / "golden.parquet").read_bytes()
    store, forged = forge(tmp_path, lambda files: files.update({"golden.parquet": golden}))
    with pytest.raises(BundleCorruptError, match="lacks the columns"):
        store.load(MODEL, forged)


def test_a_draft_with_more_features_than_the_graph_is_not_published(tmp_path: Path) -> None:
    wide = dataclasses.replace(draft(), onnx=export_trees(stump(3)))
    with pytest.raises(UnsupportedModelError, match="reads 3 features"):
        ModelStore(tmp_path).publish(wide)
    assert ModelStore(tmp_path).models() == []


def test_features_must_be_distinct_and_thresholds_in_order() -> None:
    with pytest.raises(InputError, match="distinct ref"):
        msgspec.structs.replace(draft().card, features=(Feature(ref="a:b", code="A"), Feature(ref="a:b", code="B")))
    with pytest.raises(InputError, match="review <= block"):
        Thresholds(review=0.6, block=0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
@pytest.mark.parametrize("name", ["review_precision", "block_precision", "review_per_day"])
def test_a_promise_that_nobody_can_keep_is_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        Thresholds(review=0.5, block=0.9, **{name: value})


@pytest.mark.parametrize("review", [0.0, -0.1])
def test_a_classifier_that_would_review_everyone_is_not_published(tmp_path: Path, review: float) -> None:
    everyone = msgspec.structs.replace(draft().card, thresholds=Thresholds(review=review, block=0.5))
    with pytest.raises(InputError, match="0 < review"):
        ModelStore(tmp_path).publish(dataclasses.replace(draft(), card=everyone))


def test_publishing_leaves_nothing_but_the_version(tmp_path: Path) -> None:
    store, version, directory = published(tmp_path)
    assert [path.name for path in directory.parent.iterdir()] == [version]
    assert store.models() == [MODEL]


def remove(path: Path) -> None:
    path.unlink()


def link_elsewhere(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [remove, link_elsewhere, make_pipe])
@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "tables.bin"])
def test_publishing_again_mends_a_directory(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    store, version, directory = published(tmp_path)
    damage(directory / name)
    with pytest.raises(BundleError):
        store.load(MODEL, version)
    assert store.publish(draft()) == version
    assert store.load(MODEL, version).version == version


def test_a_bundle_that_is_being_served_is_not_disturbed_by_mending(tmp_path: Path) -> None:
    store, version, directory = published(tmp_path)
    bundle = store.load(MODEL, version)
    rows = bundle.vector(np.array([[1.0, 2.0]]))
    before = bundle.explain(rows).attributions
    (directory / "tables.bin").unlink()  # the mapped file stays with who has it
    (directory / "tables.bin").write_bytes(b"damaged")
    store.publish(draft())
    np.testing.assert_array_equal(bundle.explain(rows).attributions, before)


def test_a_bundle_without_background_rows_says_what_it_lacks(tmp_path: Path) -> None:
    empty = encode_background(np.empty((0, 2)), [feature.ref for feature in draft().card.features])

    def change(files: dict[str, bytes]) -> None:
        files["background.parquet"] = empty
        made_of = [hashlib.sha256(files[name]).digest() for name in ("model.onnx", "background.parquet")]
        tables = bytearray(files["tables.bin"])
        tables[48:80] = hashlib.sha256(b"".join(made_of)).digest()
        files["tables.bin"] = bytes(tables)

    store, version = forge(tmp_path, change)
    with pytest.raises(BundleCorruptError, match="at least one row"):
        store.load(MODEL, version)


def test_a_bundle_whose_scores_do_not_follow_from_its_margins_does_not_load(tmp_path: Path) -> None:
    """Also when its golden rows agree: somebody made them with this graph."""
    model = onnx.load_model_from_string(export_trees(stump()))
    (sigmoid,) = [node for node in model.graph.node if node.op_type == "Sigmoid"]
    sigmoid.op_type = "Tanh"
    content = model.SerializeToString()

    def change(files: dict[str, bytes]) -> None:
        refs = [feature.ref for feature in draft().card.features]
        golden = decode_golden(files["golden.parquet"], refs)
        scores = Scorer(content).score(golden.values)
        files["golden.parquet"] = encode_golden(dataclasses.replace(golden, scores=scores), refs)
        files["model.onnx"] = content
        del files["tables.bin"]

    store, version = forge(tmp_path, change)
    with pytest.raises(BundleCorruptError, match="cannot be served"):
        store.load(MODEL, version)


def test_an_alias_never_points_at_a_damaged_version(tmp_path: Path) -> None:
    store, version, directory = published(tmp_path)
    (directory / "golden.parquet").write_bytes(b"")
    with pytest.raises(BundleCorruptError):
        store.set_alias(MODEL, "champion", version, at_ms=1, by="t")
    assert store.history(MODEL) == []


def test_damaged_aliases_are_named(tmp_path: Path) -> None:
    store, version, directory = published(tmp_path)
    (directory.parent / "aliases.json").write_text("[{]")
    with pytest.raises(BundleCorruptError, match=r"aliases\.json is damaged"):
        store.aliases(MODEL)
    (directory.parent / "aliases.json").unlink()
    store.set_alias(MODEL, "champion", version, at_ms=1, by="t")
    (directory.parent / "aliases" / "00000001.json").write_text("{")
    with pytest.raises(BundleCorruptError, match=r"00000001\.json is damaged"):
        store.aliases(MODEL)


def test_the_public_names_are_these() -> None:
    assert sorted(models.__all__) == [
        "AliasChange",
        "AliasMovedError",
        "Bundle",
        "BundleCorruptError",
        "BundleDraft",
        "BundleError",
        "BundleNotFoundError",
        "CHALLENGER",
        "CHAMPION",
        "Explainer",
        "Explanation",
        "ExplanationSpec",
        "ExportMismatchError",
        "Feature",
        "GoldenMismatchError",
        "InputError",
        "Manifest",
        "Meaning",
        "Metrics",
        "ModelCard",
        "ModelError",
        "ModelStore",
        "OperatingPoint",
        "Reason",
        "ReasonIndex",
        "ReasonText",
        "Reasons",
        "SHADOW",
        "Scorer",
        "Scores",
        "Service",
        "StoreUnavailableError",
        "Thresholds",
        "TrainingData",
        "TrainingError",
        "UnsafeNameError",
        "UnsupportedModelError",
        "UnsupportedStoreError",
    ]
    assert all(hasattr(models, name) for name in models.__all__)
