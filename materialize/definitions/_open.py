"""Opening the Feast store of a repository."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from feast import FeatureStore
from feast.repo_config import RepoConfig

from materialize.definitions._errors import DefinitionError


def open_feature_store(repo_path: Path, registry_path: Path | None = None) -> FeatureStore:
    """The Feast store that `feature_store.yaml` in `repo_path` describes, with another registry file if one is given.

    Raises DefinitionError when there is no such file.
    """
    return FeatureStore(config=repo_config(repo_path, registry_path))


def repo_config(repo_path: Path, registry_path: Path | None = None) -> RepoConfig:
    """The configuration of a repository, as Feast reads it, with another registry file if one is given."""
    file = repo_path / "feature_store.yaml"
    if not file.exists():
        raise DefinitionError(f"no feature_store.yaml in {repo_path}: give the folder of the feature repository")
    described = yaml.safe_load(os.path.expandvars(file.read_text()))
    if registry_path is not None:
        described["registry"] = str(registry_path)
    config = RepoConfig(**described)
    config.repo_path = repo_path
    return config
