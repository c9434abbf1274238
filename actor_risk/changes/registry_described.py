"""What a registry has, as plain data: of definitions whose sources nobody kept, and for lineage.

Feast gives back the objects that were applied, but for where they stand in the repository.
"""

from __future__ import annotations

from pathlib import Path

from feast import Entity, FeatureStore, ValueType
from feast.data_source import DataSource
from feast.repo_contents import RepoContents

from actor_risk.changes.described import RepoDefinition
from actor_risk.changes.describing import Telling
from actor_risk.changes.places import Places

FEASTS_OWN = "__dummy"
"""The entity that stands last among those of a repository."""


def registry_definition(store: FeatureStore, repo: Path, data: Path) -> RepoDefinition:
    """What the store's registry defines. repo, data: the folders that paths are told from."""
    contents = RepoContents(
        projects=[],
        data_sources=_sources(store),
        entities=_entities(store),
        feature_views=list(store.list_batch_feature_views()),
        on_demand_feature_views=list(store.list_on_demand_feature_views()),
        stream_feature_views=list(store.list_stream_feature_views()),
        label_views=[],
        feature_services=list(store.list_feature_services()),
        permissions=[],
    )
    return Telling(repo, data, contents, Places(repo, []), store, []).definition(store.project)


def _entities(store: FeatureStore) -> list[Entity]:
    """The entities, and last Feast's own."""
    found = [entity for entity in store.list_entities() if entity.name != FEASTS_OWN]
    return [*found, Entity(name=FEASTS_OWN, join_keys=["__dummy_id"], value_type=ValueType.STRING)]


def _sources(store: FeatureStore) -> list[DataSource]:
    """The sources; the history of a topic is told with it."""
    found = store.list_data_sources()
    histories = {source.batch_source.name for source in found if getattr(source, "batch_source", None) is not None}
    return [source for source in found if source.name not in histories]
