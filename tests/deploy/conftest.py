from __future__ import annotations

from pathlib import Path

import pytest

from models import ModelStore
from tests.serving.fakes import World, loaded_world, publish_model


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A server that answers."""
    publish_model(ModelStore(tmp_path))
    return loaded_world(tmp_path)
