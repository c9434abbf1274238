"""The model versions that read features, and the reason codes by which they tell of them, from the model store."""

from __future__ import annotations

from pathlib import Path

from actor_risk.changes.served import VersionInUse, versions_in_use
from actor_risk.lineage.graph import ReadingModel


def reading_models(place: Path | str) -> tuple[list[ReadingModel], tuple[str, ...]]:
    """The versions that some alias or the newest rollout names, and what could not be read of them, in words."""
    found, missing = versions_in_use(place)
    return [_reading(one) for one in found], missing


def _reading(one: VersionInUse) -> ReadingModel:
    codes = {reason.family: reason.code for reason in one.manifest.reasons}
    return ReadingModel(
        model=one.model,
        version=one.version,
        aliases=one.called,
        service=one.manifest.service.name,
        reasons={feature.ref: codes.get(feature.family, feature.code) for feature in one.manifest.features},
    )
