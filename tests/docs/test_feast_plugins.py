"""The repository in docs/howto/use-the-feast-plugins.md works as the page says."""

from __future__ import annotations

import contextlib
import io
import runpy
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from actor_risk.feast_repo import apply_repo, view_names
from materialize.definitions import open_feature_store
from tests.docs.pages import read_page
from tests.support.world import materialize_views

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "use-the-feast-plugins.md"
BEGIN_MS = 1_700_000_000_000


@pytest.fixture
def workplace(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page, under a project name of their own."""
    project = f"docs_{uuid.uuid4().hex}"
    files = read_page(PAGE).named_files
    assert set(files) == {"repo/feature_store.yaml", "repo/features.py", "history.py", "read.py"}
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content.replace("project: shop", f"project: {project}"))
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"{project}:*"):
            client.unlink(key)


def test_online_and_historical_values_are_those_of_the_data(workplace: Path) -> None:
    repo = workplace / "repo"
    _run("history.py")
    registry = repo / "data" / "registry.db"
    assert apply_repo(repo, registry).services == ("shop",)
    store = open_feature_store(repo, registry)
    assert view_names(store) == ["user_orders", "user_profile"]
    materialize_views(store, BEGIN_MS, time.time_ns() // 1_000_000, view_names(store))
    names = _run("read.py")
    assert names["online"] == {
        "user_id": ["u1", "nobody"],
        "age_days": [400.0, None],
        "orders_24h": [3, None],
        "order_usd_7d": [50.0, None],
    }
    (row,) = names["history"].drop(columns=["event_timestamp"]).to_dict("records")
    assert row == {"user_id": "u1", "age_days": 400.0, "orders_24h": 3, "order_usd_7d": 50.0}


def _run(script: str) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        return runpy.run_path(script)
