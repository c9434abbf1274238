"""Opening the Feast store of a repository."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import yaml
from feast import FeatureStore
from feast.repo_config import RepoConfig

from materialize.definitions._errors import DefinitionError
from materialize.definitions._registry_file import WholeFileRegistryStore


def open_feature_store(
    repo_path: Path, registry_path: Path | None = None, redis_url: str | None = None
) -> FeatureStore:
    """The Feast store that `feature_store.yaml` in `repo_path` describes; see `repo_config` for the rest.

    Raises DefinitionError when there is no such file.
    """
    return FeatureStore(config=repo_config(repo_path, registry_path, redis_url))


def repo_config(repo_path: Path, registry_path: Path | None = None, redis_url: str | None = None) -> RepoConfig:
    """The configuration of a repository, as Feast reads it, with another registry file or Redis if one is given.

    Raises DefinitionError when there is no feature_store.yaml in `repo_path`.
    """
    hush_feast()
    file = repo_path / "feature_store.yaml"
    if not file.exists():
        raise DefinitionError(f"no feature_store.yaml in {repo_path}: give the folder of the feature repository")
    described = yaml.safe_load(os.path.expandvars(file.read_text()))
    registry = described.get("registry")
    if registry_path is not None:
        described["registry"] = _whole_file(registry_path)
    elif isinstance(registry, str) and "://" not in registry:
        described["registry"] = _whole_file((repo_path / registry).resolve())  # Feast takes it from where it is started
    if redis_url is not None:
        described["online_store"]["connection_string"] = redis_url
    config = RepoConfig(**described)
    config.repo_path = repo_path
    return config


def _whole_file(path: Path) -> dict[str, str]:
    """A registry that is a file, written so that nobody reads a part of it."""
    return {"path": str(path), "registry_store_type": f"{WholeFileRegistryStore.__module__}.WholeFileRegistryStore"}


def hush_feast() -> None:
    """Silence Feast's warnings, at every use of a stream or on-demand view, that these are in development."""
    for about in ("Stream feature views are experimental", "On demand feature view is an experimental"):
        warnings.filterwarnings("ignore", message=about, category=RuntimeWarning)
