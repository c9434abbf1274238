"""A model held against the feature service that it reads, before it may answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from materialize.definitions import DefinitionError, JoinKey
from materialize.online import OnlineStoreError, ReadPlan
from models.errors import ModelError
from models.manifest import Manifest, Metrics
from models.reasons import ReasonIndex
from serving.decision import ModelCard, ServiceVersion, Thresholds
from serving.drift import ScoreReference, reference_of
from serving.errors import ModelLoadError
from serving.inputs import InputReader
from serving.logged import FeatureLayout, layout_of
from serving.policy import Policy
from serving.ports import FeatureSource, Model, ModelSource


@dataclass(frozen=True, slots=True)
class ServedFeature:
    """What an answer says about one feature of a model."""

    ref: str
    description: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that fits its feature service. `columns` int64[F]: place of each model feature in the plan's vector.
    `layout`: what the decision log says of the plan's features. `reference`: the scores that it is expected to give."""

    card: ModelCard
    model: Model
    plan: ReadPlan
    inputs: InputReader
    features: tuple[ServedFeature, ...]
    reasons: ReasonIndex
    columns: NDArray[np.int64]
    layout: FeatureLayout
    reference: ScoreReference


def load_models(
    source: ModelSource, reader: FeatureSource, policies: Mapping[str, Policy]
) -> dict[str, dict[str, ServedModel]]:
    """The models of each name's policy (alias or version → model), checked against the registry as it is now.

    Raises ModelLoadError, saying what to do, when there is none, or one cannot be served.
    """
    if not policies:
        raise ModelLoadError("no model to serve: name at least one, such as {'ad_click_risk': 'champion'}")
    loaded = {}
    for name, policy in policies.items():
        models = {alias: load_model(source, reader, name, alias, policy.thresholds) for alias in policy.names}
        _check_canary(name, policy, models)
        loaded[name] = models
    return loaded


def load_model(
    source: ModelSource, reader: FeatureSource, name: str, alias: str, thresholds: Thresholds | None = None
) -> ServedModel:
    """The model that `alias` points at, checked against the registry. `thresholds`: instead of its own.

    Raises ModelLoadError, saying what to do, when it is not there, not intact, or made for other features.
    """
    try:
        model = source.load(name, alias)
        plan = reader.plan(model.manifest.service.name)
    except (ModelError, OnlineStoreError, DefinitionError) as error:
        raise ModelLoadError(f"{name}@{alias}: {error}") from error
    called = f"{name}@{alias} (version {model.version})"
    _check_service(called, model.manifest, plan)
    features = _features(model.manifest, plan)
    return ServedModel(
        card=_card(model, plan, name, alias, thresholds),
        model=model,
        plan=plan,
        inputs=_input_reader(called, plan),
        features=features,
        reasons=_reasons(model.manifest, features),
        columns=_columns(called, model.manifest, plan),
        layout=layout_of(plan),
        reference=reference_of(model.background_scores()),
    )


def with_plan(served: ServedModel, plan: ReadPlan) -> ServedModel:
    """The same model reading by another plan of its feature service. Raises ModelLoadError when it does not fit."""
    called = f"{served.card.name}@{served.card.alias} (version {served.model.version})"
    manifest = served.model.manifest
    _check_service(called, manifest, plan)
    features = _features(manifest, plan)
    return replace(
        served,
        plan=plan,
        inputs=_input_reader(called, plan),
        features=features,
        reasons=_reasons(manifest, features),
        columns=_columns(called, manifest, plan),
        layout=layout_of(plan),
    )


def _check_canary(name: str, policy: Policy, models: Mapping[str, ServedModel]) -> None:
    """A request that the champion can answer must be one that the canary can answer, too."""
    if policy.canary is None:
        return
    wanted, given = (set(models[alias].plan.join_keys) for alias in (policy.canary.model, policy.champion))
    if wanted != given:
        raise ModelLoadError(
            f"{name}@{policy.canary.model} is about {_named(wanted)}, the champion about {_named(given)}: a canary "
            "answers the champion's requests, so make it a shadow, or serve it under a name of its own"
        )


def _named(keys: Iterable[JoinKey]) -> str:
    return ", ".join(sorted(f"{key.name} ({key.kind})" for key in keys))


def _check_service(called: str, manifest: Manifest, plan: ReadPlan) -> None:
    if manifest.service.fingerprint != plan.fingerprint:
        raise ModelLoadError(
            f"{called} was trained on feature service {plan.service!r} {manifest.service.fingerprint}, "
            f"the registry has {plan.fingerprint}: apply the definitions that it was trained on, or train it again"
        )


def _columns(called: str, manifest: Manifest, plan: ReadPlan) -> NDArray[np.int64]:
    places = {ref: place for place, ref in enumerate(plan.features)}
    absent = [feature.ref for feature in manifest.features if feature.ref not in places]
    if absent:
        raise ModelLoadError(
            f"{called} reads {', '.join(absent)}, which feature service {plan.service!r} does not give: "
            "add them to the service, or train the model again"
        )
    return np.array([places[feature.ref] for feature in manifest.features], dtype=np.int64)


def _input_reader(called: str, plan: ReadPlan) -> InputReader:
    try:
        return InputReader(plan)
    except KeyError as error:
        raise ModelLoadError(
            f"{called}: feature service {plan.service!r} has an entity or a request field of type {error.args[0]}, "
            "which a JSON request cannot give: use a string or a number"
        ) from error


def _features(manifest: Manifest, plan: ReadPlan) -> tuple[ServedFeature, ...]:
    described = dict(zip(plan.features, plan.descriptions, strict=True))
    return tuple(ServedFeature(f.ref, f.description or described.get(f.ref, "") or f.ref) for f in manifest.features)


def _reasons(manifest: Manifest, features: tuple[ServedFeature, ...]) -> ReasonIndex:
    """By the bundle's own catalogue: a decision is worded as its model was published."""
    return ReasonIndex(manifest.features, manifest.reasons, [feature.description for feature in features])


def _card(model: Model, plan: ReadPlan, name: str, alias: str, thresholds: Thresholds | None) -> ModelCard:
    manifest = model.manifest
    return ModelCard(
        name=name,
        alias=alias,
        version=model.version,
        service=ServiceVersion(plan.service, plan.fingerprint),
        entities=[key.name for key in plan.join_keys],
        request_fields=[field.name for field in plan.request_fields],
        feature_count=len(manifest.features),
        thresholds=thresholds or Thresholds(manifest.thresholds.review, manifest.thresholds.block),
        metrics=_metrics(manifest.metrics),
    )


def _metrics(metrics: Metrics | None) -> dict[str, float]:
    if metrics is None:
        return {}
    names = ("roc_auc", "pr_auc", "log_loss", "base_rate", "rows", "positives")
    return {name: float(getattr(metrics, name)) for name in names}
