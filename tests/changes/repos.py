"""Versions of a feature repository for tests: the demo's, edited by replacing text, or a small one; and compiled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from feast import FeatureStore

from actor_risk.changes.described import RepoDefinition
from actor_risk.changes.describing import imported_repo

DEMO = Path(__file__).resolve().parents[2] / "feature_repo"

SMALL: Mapping[str, str] = {
    "feature_store.yaml": (
        "project: small\nprovider: local\nregistry: ../registry.db\nentity_key_serialization_version: 3\n"
        "online_store:\n  type: materialize.online.feast_store.PackedRedisOnlineStore\n"
    ),
    "definitions.py": '''"""One of everything, as little of it as there can be."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, RequestSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import stream_feature_view
from feast.types import Float64, Int64, String

DATA = Path(os.environ["ACTOR_RISK_DATA"])
DAY = timedelta(days=1)

ip = Entity(name="ip", join_keys=["ip"], value_type=ValueType.STRING, description="An IP address.")
events = KafkaSource(
    name="events",
    topic="events",
    kafka_bootstrap_servers="localhost:9092",
    message_format=JsonFormat(
        schema_json="event_id string, event_time timestamp, event_type string, ip string, amount_usd double"
    ),
    timestamp_field="event_time",
    batch_source=FileSource(name="events_history", path=str(DATA / "events"), timestamp_field="event_time"),
)
table = FileSource(name="table", path=str(DATA / "table.parquet"), timestamp_field="event_time")
asked = RequestSource(name="asked", schema=[Field(name="amount_usd", dtype=Float64)])


@stream_feature_view(
    source=events,
    mode="python",
    timestamp_field="event_time",
    ttl=timedelta(days=2),
    entities=[ip],
    owner="risk",
    description="What an IP does.",
    tags={"tier": "1", "pii": "ip"},
    aggregations=[
        Aggregation(column="click", function="count", time_window=DAY, name="clicks_24h"),
        Aggregation(column="usd", function="sum", time_window=DAY, name="usd_24h"),
    ],
    schema=[
        Field(name="ip", dtype=String),
        Field(name="clicks_24h", dtype=Int64, description="Clicks"),
        Field(name="usd_24h", dtype=Float64, description="US dollars"),
    ],
)
def ip_stats(events):
    """Marks clicks."""
    import numpy as np

    click = events["event_type"] == "click"
    return {"click": np.where(click, 1.0, np.nan), "usd": np.where(click, events["amount_usd"], np.nan)}


ip_table = FeatureView(
    name="ip_table",
    entities=[ip],
    ttl=timedelta(days=30),
    source=table,
    owner="risk",
    description="What is known of an IP.",
    tags={"tier": "2", "pii": "ip"},
    schema=[Field(name="ip", dtype=String), Field(name="is_vpn", dtype=Int64, description="1 for a VPN")],
)


@on_demand_feature_view(
    sources=[ip_stats, asked],
    mode="python",
    owner="risk",
    description="Compares.",
    schema=[Field(name="usd_per_click", dtype=Float64)],
    tags={"describe:usd_per_click": "US dollars per click"},
)
def ratios(inputs):
    """Divides."""
    pairs = zip(inputs["usd_24h"], inputs["clicks_24h"], strict=True)
    return {"usd_per_click": [None if a is None or not b else a / b for a, b in pairs]}


risk = FeatureService(name="risk", features=[ip_stats, ip_table, ratios], owner="risk", description="All of it.")
''',
}
"""A repository of one entity, a topic, a table, three views and one service."""


def demo_repo(folder: Path) -> Path:
    """A copy of the demo's feature repository in `folder`."""
    return Path(shutil.copytree(DEMO, folder / "feature_repo", ignore=shutil.ignore_patterns("__pycache__")))


def small_repo(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """The repository SMALL in `folder`, with `files` (name → text) added or written over."""
    repo = folder / "feature_repo"
    for name, text in {**SMALL, **(files or {})}.items():
        file = repo / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return repo


def edit(repo: Path, file: str, old: str, new: str, *, times: int | None = 1) -> None:
    """Replaces `old` by `new` in a file, where it must stand exactly `times` times; any number for None."""
    text = (repo / file).read_text()
    found = text.count(old)
    assert found > 0, f"{file} has no {old!r}"
    assert times is None or found == times, f"{file} has {old!r} {found} times"
    (repo / file).write_text(text.replace(old, new))


@contextmanager
def opened(repo: Path, data: Path, folder: Path) -> Iterator[tuple[RepoDefinition, FeatureStore | None]]:
    """The repository compiled in this process, which takes tenths of a second, and its store; data: ACTOR_RISK_DATA.

    `folder` takes its registry. Only the command's own child is clean: tests of that use `compile_versions`.
    """
    before = os.environ.get("ACTOR_RISK_DATA")
    os.environ["ACTOR_RISK_DATA"] = str(data)
    try:
        with imported_repo(repo, folder, data) as (definition, store):
            yield definition, store
    finally:
        if before is None:
            del os.environ["ACTOR_RISK_DATA"]
        else:
            os.environ["ACTOR_RISK_DATA"] = before


def described(repo: Path, folder: Path, data: Path | None = None) -> RepoDefinition:
    """The repository as plain data; `folder` is a new or empty one for its registry."""
    with opened(repo, data or folder / "data", folder) as (definition, _):
        return definition
