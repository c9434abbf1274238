"""What is rolled out under a model's name: a new entry from the one that counts, or back to one before it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from actor_risk.client import Client
from actor_risk.errors import ActorRiskError
from models.errors import BundleNotFoundError
from models.rollouts import Rollout, Rollouts
from models.store import CHAMPION, ModelStore
from serving.policy import Policy

UNTOUCHED: dict[str, Any] = {"champion": CHAMPION}
"""The policy of a model that has no rollout yet."""
ASKED = 8
"""So often a server is asked in a row: behind one address each answer may be another replica's."""
TAKEN_WITHIN_S = 20.0
"""Replicas look every second; a model that is new to them has to be loaded and proven."""
_PAUSE_S = 0.25


def next_entry(
    store: ModelStore, rollouts: Rollouts, model: str, changes: Mapping[str, Any], *, at_ms: int, by: str, why: str
) -> Rollout:
    """The entry that follows, with `changes` (fields of a Policy) made to the policy that counts.

    Aliases are replaced by the versions that they point at, so that all replicas serve the same whenever they start.
    Versions that `changes` names are loaded here and proven by their golden rows first.
    Raises ActorRiskError for what is no policy, ModelError for a version that is not there or not as it was published.
    """
    newest = rollouts.newest(model)
    said = UNTOUCHED if newest is None or newest.policy is None else newest.policy
    policy = _pinned(store, model, _policy({**said, **changes}))
    before = () if newest is None or newest.policy is None else _policy(newest.policy).names
    for version in policy.names if _names_models(changes) else []:
        if version not in before:
            store.load(model, version)
    number = 1 if newest is None else newest.number + 1
    return Rollout(number=number, at_ms=at_ms, by=by, why=why, policy=msgspec.to_builtins(policy))


def way_back(rollouts: Rollouts, model: str, to: int | None, *, at_ms: int, by: str, why: str) -> Rollout:
    """The entry that makes the one before the newest count again, or the entry `to`; 0 is the server's configuration.

    Going back again goes further back: what was left by going back is not gone back to.
    """
    newest = rollouts.newest(model)
    if newest is None:
        raise ActorRiskError(f"{model} has no rollout to go back from")
    number = to if to is not None else _original(newest) - 1
    found = rollouts.entry(model, number) if number > 0 else None
    if number < 0 or (number > 0 and found is None):
        raise ActorRiskError(f"{model} has no rollout {number}" if to is not None else f"{model} has none before it")
    return Rollout(
        number=newest.number + 1,
        at_ms=at_ms,
        by=by,
        why=why,
        policy=None if found is None else found.policy,
        restores=0 if found is None else _original(found),
    )


def described(policy: Mapping[str, Any] | None) -> str:
    """A policy in a line."""
    if policy is None:
        return "as the server is configured"
    found = _policy(policy)
    parts = [f"champion {found.champion}"]
    if found.canary is not None:
        parts.append(f"canary {found.canary.model} for {100 * found.canary.share:g} % of the actors")
    parts += [f"shadow {shadow}" for shadow in found.shadows]
    if found.thresholds is not None:
        parts.append(f"review from {found.thresholds.review:g}, block from {found.thresholds.block:g}")
    parts += [f"store away: {found.store_away}", f"late: {found.late}"]
    if found.fallback_model is not None:
        parts.append(f"fallback model {found.fallback_model}")
    if found.fallback_score is not None:
        parts.append(f"fallback score {found.fallback_score:g}")
    return ", ".join([*([] if found.is_on else ["OFF"]), *parts])


def served(client: Client, model: str) -> tuple[set[int], list[str]]:
    """The rollouts by which the replicas behind an address serve a model, and what they note. Raises ClientError."""
    cards = [card for _ in range(ASKED) for card in client.models() if card.name == model]
    notes = [note for _ in range(ASKED) for note in client.ready().notes]
    return {card.rollout for card in cards}, list(dict.fromkeys(notes))


def wait_until_taken(client: Client, model: str, number: int, timeout_s: float = TAKEN_WITHIN_S) -> None:
    """Return when all replicas serve by this rollout. Raises ActorRiskError with the reason when one refuses it."""
    until = time.monotonic() + timeout_s
    while True:
        numbers, notes = served(client, model)
        if numbers == {number}:
            return
        refused = [note for note in notes if note.startswith(f"rollout {number} of {model} is refused")]
        if refused:
            raise ActorRiskError(refused[0])
        if time.monotonic() > until:
            told = f"by rollout {', '.join(map(str, sorted(numbers)))}" if numbers else "not at all"
            raise ActorRiskError(f"after {timeout_s:.0f} s {model} is served {told}: see the notes of /readyz")
        time.sleep(_PAUSE_S)


def _names_models(changes: Mapping[str, Any]) -> bool:
    return not {"champion", "canary", "shadows", "fallback_model"}.isdisjoint(changes)


def _original(entry: Rollout) -> int:
    return entry.number if entry.restores is None else entry.restores


def _policy(said: Mapping[str, Any]) -> Policy:
    try:
        return msgspec.convert(said, Policy)
    except msgspec.ValidationError as error:
        raise ActorRiskError(f"this is no policy: {error}") from error


def _pinned(store: ModelStore, model: str, policy: Policy) -> Policy:
    """The same policy with versions in the place of aliases."""
    versions = {name: _version(store, model, name) for name in policy.names}
    canary = policy.canary and msgspec.structs.replace(policy.canary, model=versions[policy.canary.model])
    shadows: Sequence[str] = [versions[shadow] for shadow in policy.shadows]
    fallback = policy.fallback_model and versions[policy.fallback_model]
    return msgspec.structs.replace(
        policy, champion=versions[policy.champion], canary=canary, shadows=shadows, fallback_model=fallback
    )


def _version(store: ModelStore, model: str, name: str) -> str:
    version = store.resolve(model, name)
    if version not in store.versions(model):
        raise BundleNotFoundError(f"model {model!r} has no version {version} (there are {store.versions(model)})")
    return version
