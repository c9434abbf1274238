"""The versions of models that some alias or rollout names: what a change must not break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from actor_risk.changes.described import ServedModel
from models.errors import ModelError
from models.rollouts import Rollouts
from models.store import ModelStore
from serving.policy import Policy


def served_models(place: Path | str, cache: Path) -> tuple[tuple[ServedModel, ...], tuple[str, ...]]:
    """The models in use, and what could not be told of them, in words. Raises nothing for a store that is away."""
    if isinstance(place, Path) and not place.is_dir():
        return (), (f"models that read the features: there is no model store at {place}",)
    found: list[ServedModel] = []
    missing: list[str] = []
    try:
        store, rollouts = ModelStore(place, cache), Rollouts(place, cache)
        names = store.models()
    except (ModelError, OSError) as error:
        return (), (f"models that read the features: {error}",)
    for name in names:
        try:
            found += _versions(store, rollouts, name)
        except (ModelError, OSError) as error:
            missing.append(f"model {name}: {error}")
    return tuple(found), tuple(missing)


def _versions(store: ModelStore, rollouts: Rollouts, name: str) -> Iterator[ServedModel]:
    called: dict[str, dict[str, None]] = {}
    for alias, version in sorted(store.aliases(name).items()):
        called.setdefault(version, {})[alias] = None
    for role, named in _rolled_out(rollouts, name):
        called.setdefault(store.resolve(name, named), {})[role] = None
    for version, aliases in called.items():
        manifest = store.manifest(name, version)
        yield ServedModel(
            model=name,
            version=version,
            aliases=tuple(aliases),
            service=manifest.service.name,
            service_fingerprint=manifest.service.fingerprint,
            features=tuple(feature.ref for feature in manifest.features),
        )


def _rolled_out(rollouts: Rollouts, name: str) -> Iterator[tuple[str, str]]:
    """What the newest rollout makes of which alias or version."""
    newest = rollouts.newest(name)
    if newest is None or newest.policy is None:
        return
    try:
        policy = msgspec.convert(newest.policy, Policy)
    except msgspec.ValidationError:  # of another release; its aliases are known nevertheless
        return
    yield "champion", policy.champion
    if policy.canary is not None:
        yield "canary", policy.canary.model
    for shadow in policy.shadows:
        yield "shadow", shadow
