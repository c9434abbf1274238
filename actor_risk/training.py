"""From labels to a published model: point-in-time features by Feast, then `models.train`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from feast import FeatureStore
from numpy.typing import NDArray

from actor_risk.errors import ActorRiskError
from materialize.online import read_plan
from models import CHAMPION, ModelStore, ReasonText
from models.report import write_report
from models.train import TrainedModel, TrainSettings, publish_trained, train
from models.training_set import TrainingSet

EVENT_TIMESTAMP = "event_timestamp"
SAMPLE_SEED = 11


@dataclass(frozen=True)
class Recipe:
    """What a model is made of: its name, the service that it reads, the table of its labels, and what 1 means there."""

    model: str
    service: str
    labels: str
    label: str


RECIPES = {
    recipe.model: recipe
    for recipe in (
        Recipe("ad_click_risk", "ad_click_risk", "ad_click_risk.parquet", "1 = invalid click"),
        Recipe("advertiser_risk", "advertiser_risk", "advertiser_risk.parquet", "1 = abusive account"),
    )
}
CONVERSION = Recipe(
    "ad_click_conversion", "ad_click_risk", "ad_click_risk.parquet", "1 = the click led to an install (not: fraud)"
)


@dataclass(frozen=True)
class Published:
    """A model that is now the champion of its name."""

    trained: TrainedModel
    version: str
    rows: int
    report: Path | None = None


def build_training_set(store: FeatureStore, recipe: Recipe, data: Path, rows_max: int | None) -> TrainingSet:
    """The features of every labelled row as of its time; of more than `rows_max` rows, a seeded sample.

    Raises ActorRiskError when there are no labels.
    """
    labels, share = _labels(data / "labels" / recipe.labels, rows_max)
    plan = read_plan(store, recipe.service)
    names = [ref.split(":")[1] for ref in plan.features]
    frame = store.get_historical_features(
        entity_df=labels.drop(columns=["label"]), features=store.get_feature_service(recipe.service)
    ).to_df()
    return TrainingSet(
        refs=plan.features,
        matrix=frame[names].to_numpy(dtype=np.float64, na_value=np.nan),
        labels=labels["label"].to_numpy(np.int8),
        times_ms=labels[EVENT_TIMESTAMP].dt.tz_localize(None).to_numpy("datetime64[ms]").astype(np.int64),
        label=recipe.label,
        descriptions=plan.descriptions,
        families=plan.families,
        reasons=tuple(ReasonText(family=r.name, code=r.code, analyst=r.analyst, actor=r.actor) for r in plan.reasons),
        groups=_groups(labels),
        share=share,
    )


def train_and_publish(
    store: FeatureStore,
    recipe: Recipe,
    training_set: TrainingSet,
    models: Path | str,
    settings: TrainSettings,
    progress: Callable[[int, int], None] | None = None,
    *,
    reports: Path | None = None,
) -> Published:
    """Train, publish the bundle, and make it the champion; below `reports`, if given, write what was found out.

    Raises what `models.train` raises: TrainingError, ExportMismatchError.
    """
    trained = train(training_set, settings=settings, progress=progress)
    bundles = ModelStore(models)
    version = publish_trained(
        bundles,
        trained,
        model_name=recipe.model,
        service=recipe.service,
        service_fingerprint=read_plan(store, recipe.service).fingerprint,
    )
    report = None
    if reports is not None:
        report = write_report(bundles.load(recipe.model, version), training_set, reports / recipe.model)
    bundles.set_alias(recipe.model, CHAMPION, version, at_ms=time.time_ns() // 1_000_000, by="actor-risk train")
    return Published(trained, version, len(training_set.labels), report)


def _labels(path: Path, rows_max: int | None) -> tuple[pd.DataFrame, float]:
    """The labelled rows, and which share of all there are they are."""
    if not path.exists():
        raise ActorRiskError(f"no labels at {path}: make some with `actor-risk simulate`, or set ACTOR_RISK_DATA")
    labels: pd.DataFrame = pq.read_table(path).to_pandas().rename(columns={"event_time": EVENT_TIMESTAMP})
    share = 1.0
    if rows_max is not None and len(labels) > rows_max:
        share = rows_max / len(labels)
        labels = labels.sample(rows_max, random_state=SAMPLE_SEED).sort_index()
    return labels.reset_index(drop=True), share


def _groups(labels: pd.DataFrame) -> dict[str, NDArray[np.object_]]:
    """The columns of texts, which a report is cut by; a missing text is empty."""
    texts = labels.select_dtypes(["object", "string"]).drop(columns=["event_id"], errors="ignore")
    return {str(name): texts[name].fillna("").astype(str).to_numpy(dtype=object) for name in texts}
