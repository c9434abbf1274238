"""The model versions that read features, and the reason codes by which they tell of them, from the model store."""

from __future__ import annotations

from pathlib import Path

from actor_risk.changes.served import served_models
from actor_risk.lineage.graph import ReadingModel
from models.errors import ModelError
from models.store import ModelStore


def reading_models(place: Path | str, cache: Path) -> tuple[list[ReadingModel], list[str]]:
    """The versions that some alias or the newest rollout names, and what could not be read of them, in words."""
    served, missing = served_models(place, cache)
    found: list[ReadingModel] = []
    unread = list(missing)
    for one in served:
        try:
            reasons = _reasons(ModelStore(place, cache), one.model, one.version)
        except (ModelError, OSError) as error:
            unread.append(f"model {one.model}@{one.version}: {error}")
            continue
        found.append(
            ReadingModel(
                model=one.model, version=one.version, aliases=one.aliases, service=one.service, reasons=reasons
            )
        )
    return found, unread


def _reasons(store: ModelStore, model: str, version: str) -> dict[str, str]:
    manifest = store.manifest(model, version)
    codes = {reason.family: reason.code for reason in manifest.reasons}
    return {feature.ref: codes.get(feature.family, feature.code) for feature in manifest.features}
