from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.fakes import World, build_world, loaded_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A server that answers."""
    return loaded_world(tmp_path)


@pytest.fixture
def empty_world(tmp_path: Path) -> World:
    """A server that has not loaded a model yet."""
    return build_world(tmp_path)
