"""A model held against the feature service that it reads, before it may answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from materialize.definitions import DefinitionError, JoinKey, RequestField
from materialize.online import OnlineStoreError, ReadPlan
from models.errors import ModelError
from models.manifest import Manifest, Metrics
from models.reasons import ReasonIndex
from serving.decision import ModelCard, ServiceVersion, Thresholds
from serving.drift import ScoreReference, reference_of
from serving.errors import ModelLoadError
from serving.inputs import InputReader
from serving.logged import FeatureLayout, layout_of
from serving.policy import Choice, Policy
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


@dataclass(frozen=True, slots=True)
class Loaded:
    """What can be served under a name: the choice, its models (alias or version → model), and why the choices before
    it were refused."""

    choice: Choice
    models: Mapping[str, ServedModel]
    refusals: Sequence[str]


class HeldModels:
    """A source that has the models in memory that it was told to hold: a change of a policy loads only what is new."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._held: Mapping[tuple[str, str], Model] = {}

    def load(self, model: str, alias_or_version: str) -> Model:
        """A proven model. Raises models.errors.ModelError."""
        version = self._source.resolve(model, alias_or_version)
        return self._held.get((model, version)) or self._source.load(model, version)

    def hold(self, served: Iterable[ServedModel]) -> None:
        """Hold these, and no others."""
        self._held = {(model.card.name, model.model.version): model.model for model in served}


def load_models(
    source: HeldModels, reader: FeatureSource, choices: Mapping[str, Sequence[Choice]]
) -> dict[str, Loaded]:
    """Of each name the first choice whose models can all be served, checked against the registry as it is now.

    Raises ModelLoadError, saying what to do, when there is no name, or none of its choices can be served.
    """
    if not choices:
        raise ModelLoadError("no model to serve: name at least one, such as {'ad_click_risk': 'champion'}")
    return {name: _first(source, reader, name, given) for name, given in choices.items()}


def _first(source: HeldModels, reader: FeatureSource, name: str, choices: Sequence[Choice]) -> Loaded:
    refusals: list[ModelLoadError] = []
    for choice in choices:
        try:
            return Loaded(choice, _models_of(source, reader, name, choice), [str(error) for error in refusals])
        except ModelLoadError as error:
            refusals.append(error)
    raise refusals[0]


def _models_of(source: HeldModels, reader: FeatureSource, name: str, choice: Choice) -> dict[str, ServedModel]:
    if choice.refusal is not None:
        raise ModelLoadError(choice.refusal)
    policy = choice.policy
    models = {alias: load_model(source, reader, name, alias, policy.thresholds) for alias in policy.names}
    _check_canary(name, policy, models)
    _check_fallback(name, policy, models)
    return models


def load_model(
    source: HeldModels, reader: FeatureSource, name: str, alias: str, thresholds: Thresholds | None = None
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


def _check_fallback(name: str, policy: Policy, models: Mapping[str, ServedModel]) -> None:
    """What a request says to who would have answered, it must say to the fallback model, too."""
    if policy.fallback_model is None:
        return
    fallback = models[policy.fallback_model].plan
    answering = [policy.champion] if policy.canary is None else [policy.champion, policy.canary.model]
    for plan in (models[alias].plan for alias in answering):
        beyond = set(fallback.join_keys).difference(plan.join_keys)
        given = {field.name: field.kind for field in plan.request_fields}
        otherwise = {field for field in fallback.request_fields if given.get(field.name, field.kind) != field.kind}
        if beyond or otherwise:
            raise ModelLoadError(
                f"{name}@{policy.fallback_model} needs {_named(beyond | otherwise)}, which the requests of feature "
                f"service {plan.service!r} do not give: fall back to a model of the same keys, or of fewer"
            )


def _named(keys: Iterable[JoinKey | RequestField]) -> str:
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
