"""A small feature repository over `ad_events`, and the command run on it in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from actor_risk.cli._test import test

STORE = """
project: small
provider: local
registry: nowhere/registry.db
entity_key_serialization_version: 3
online_store: {type: materialize.online.feast_store.PackedRedisOnlineStore, connection_string: "redis://127.0.0.1:1/0"}
offline_store: {type: materialize.offline.feast_store.WindowedParquetOfflineStore}
batch_engine: {type: materialize.backfill.feast_engine.BackfillEngine}
"""

FEATURES = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, RequestSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import stream_feature_view
from feast.types import Float64, Int64, String

MINUTES = timedelta(minutes=5)
ip = Entity(name="ip", join_keys=["ip"], value_type=ValueType.STRING)
events = KafkaSource(
    name="ad_events",
    topic="ad_events",
    kafka_bootstrap_servers="localhost:1",
    message_format=JsonFormat(schema_json="event_id string"),
    timestamp_field="event_time",
    batch_source=FileSource(name="history", path="/nowhere/events", timestamp_field="event_time"),
)
table = FileSource(
    name="table", path="/nowhere/table", timestamp_field="event_time", field_mapping={"vpn": "is_vpn"}
)
asked = RequestSource(name="asked", schema=[Field(name="price", dtype=Float64)])


@stream_feature_view(
    source=events, mode="python", timestamp_field="event_time", ttl=timedelta(days=1), entities=[ip],
    aggregations=[
        Aggregation(column="click", function="count", time_window=MINUTES, name="clicks"),
        Aggregation(column="usd", function="sum", time_window=MINUTES, name="usd"),
        Aggregation(column="device_id", function="count_distinct", time_window=MINUTES, name="devices"),
    ],
    schema=[
        Field(name="ip", dtype=String), Field(name="clicks", dtype=Int64), Field(name="usd", dtype=Float64),
        Field(name="devices", dtype=Int64),
    ],
)
def traffic(events):
    import numpy as np

    click = events["event_type"] == "click"
    return {"click": np.where(click, 1.0, np.nan), "usd": USD}


known = FeatureView(
    name="known", entities=[ip], ttl=timedelta(days=2), source=table,
    schema=[Field(name="ip", dtype=String), Field(name="is_vpn", dtype=Int64)],
)


@on_demand_feature_view(
    sources=[traffic, asked], mode="python", schema=[Field(name="price_per_click", dtype=Float64)]
)
def prices(inputs):
    pairs = zip(inputs["price"], inputs["clicks"], strict=True)
    return {"price_per_click": [None if a is None or not b else a / b for a, b in pairs]}


risk = FeatureService(name="risk", features=[traffic, known, prices])
"""
PER_EVENT = 'events["amount_usd"]'
ROLLED = 'np.roll(events["amount_usd"], 1)'


@dataclass(frozen=True)
class Ran:
    """What the command said, what of it to the output alone, its exit code, and its JSON where it ran."""

    exit_code: int
    output: str
    written: str
    report: dict[str, Any]

    @property
    def outcomes(self) -> dict[str, str]:
        """feature → outcome, of the first case."""
        return {check["feature"]: check["outcome"] for check in self.report["cases"][0]["checks"]}


def small_repo(folder: Path, usd: str = PER_EVENT) -> Path:
    """The repository in a folder; usd: how its view computes the column `usd`."""
    repo = folder / "repo"
    repo.mkdir(parents=True, exist_ok=True)
    (repo / "feature_store.yaml").write_text(STORE)
    (repo / "features.py").write_text(FEATURES.replace("USD", usd))
    return repo


def run(repo: Path, *arguments: object, files: Mapping[str, str] | None = None, home: Path | None = None) -> Ran:
    """The command on a repository. `files` are written to a folder in `home`, by default the one that the repository is
    in, and that folder is tested unless a path is among the arguments."""
    home = home or repo.parent
    tests = home / "feature_tests"
    tests.mkdir(exist_ok=True)
    for name, text in (files or {}).items():
        (tests / name).write_text(text)
    json_file = home / "report.json"
    json_file.unlink(missing_ok=True)
    says_what = "--new" in arguments or any(isinstance(argument, Path) for argument in arguments)
    given = [str(argument) for argument in (*arguments, *([] if says_what else [tests]))]
    environment = {"ACTOR_RISK_HOME": str(home / "home"), "ACTOR_RISK_FEATURE_REPO": str(repo), "COLUMNS": "200"}
    done = CliRunner().invoke(test, [*given, "--json", str(json_file)], env=environment)
    report = json.loads(json_file.read_text()) if json_file.exists() else {}
    return Ran(done.exit_code, done.output, done.stdout, report)
