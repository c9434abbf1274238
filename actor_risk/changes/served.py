"""The versions of models that some alias or rollout names: what a change must not break."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from actor_risk.changes.described import ServedModel
from models.errors import ModelError
from models.manifest import Manifest
from models.rollouts import Rollouts
from models.store import ModelStore
from serving.policy import Policy


@dataclass(frozen=True)
class VersionInUse:
    """One version. called: the aliases and the parts in the newest rollout that name it."""

    model: str
    version: str
    called: tuple[str, ...]
    manifest: Manifest


def versions_in_use(place: Path | str) -> tuple[list[VersionInUse], tuple[str, ...]]:
    """The versions in use, and what could not be told of them, in words. Raises nothing for a store that is away.

    Nothing is written to this machine: of a store elsewhere, files are brought each time.
    """
    if isinstance(place, Path) and not place.is_dir():
        return [], (f"models that read the features: there is no model store at {place}",)
    found: list[VersionInUse] = []
    missing: list[str] = []
    try:
        store, rollouts = ModelStore(place), Rollouts(place)
        names = store.models()
    except (ModelError, OSError) as error:
        return [], (f"models that read the features: {error}",)
    for name in names:
        try:
            found += _versions(store, rollouts, name)
        except (ModelError, OSError) as error:
            missing.append(f"model {name}: {error}")
    return found, tuple(missing)


def served_models(place: Path | str) -> tuple[tuple[ServedModel, ...], tuple[str, ...]]:
    """The same, with the features that they read."""
    found, missing = versions_in_use(place)
    return tuple(map(_served, found)), missing


def _served(one: VersionInUse) -> ServedModel:
    return ServedModel(
        model=one.model,
        version=one.version,
        aliases=one.called,
        service=one.manifest.service.name,
        service_fingerprint=one.manifest.service.fingerprint,
        features=tuple(feature.ref for feature in one.manifest.features),
    )


def _versions(store: ModelStore, rollouts: Rollouts, name: str) -> Iterator[VersionInUse]:
    called: dict[str, dict[str, None]] = {}
    for alias, version in sorted(store.aliases(name).items()):
        called.setdefault(version, {})[alias] = None
    for role, named in _rolled_out(rollouts, name):
        called.setdefault(store.resolve(name, named), {})[role] = None
    for version, names in called.items():
        yield VersionInUse(name, version, tuple(names), store.manifest(name, version))


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
