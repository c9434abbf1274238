"""A home of its own for backfill commands: the real feature repository over a small simulated world."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.support.backfills import BackfillHome
from tests.support.world import build_world, delete_keys


@pytest.fixture(scope="package")
def home(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[BackfillHome]:
    """What is in it comes from the tests; each begins with `home.clear()`."""
    directory = tmp_path_factory.mktemp("backfill")
    world = build_world(directory, request.config.rootpath / "feature_repo", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        yield BackfillHome(directory, world, client)
    delete_keys(redis_url, world.project)


@pytest.fixture
def clean_home(home: BackfillHome) -> BackfillHome:
    """The home without rows, manifests and watermarks."""
    home.clear()
    return home
