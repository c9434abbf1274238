from __future__ import annotations

from pathlib import Path

import pytest

from models import ModelStore
from tests.serving.fakes import World, build_world, loaded_world, publish_model


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one champion, for reading only."""
    root = tmp_path_factory.mktemp("models")
    publish_model(ModelStore(root))
    return root


@pytest.fixture
def world(published: Path) -> World:
    """A server that answers."""
    return loaded_world(published)


@pytest.fixture(scope="module")
def shared_world(published: Path) -> World:
    """A server that answers, for all tests of a module that leave it as it is."""
    return loaded_world(published)


@pytest.fixture
def empty_world(tmp_path: Path) -> World:
    """A server with an empty model store of its own."""
    return build_world(tmp_path)
