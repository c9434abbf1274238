"""Which fields are personal, by the registry's tags."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.aggregation import Aggregation
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.types import String

from actor_risk.errors import ActorRiskError
from actor_risk.personal import personal_by, personal_in
from tests.support.world import World

SOURCE = FileSource(name="profiles", path="profiles.parquet", timestamp_field="event_time")


def view(**tags: str) -> FeatureView:
    schema = [
        Field(name="email", dtype=String, tags={"pii": "true"}),
        Field(name="city", dtype=String),
        Field(name="street", dtype=String),
    ]
    return FeatureView(name="profile", entities=[], source=SOURCE, ttl=timedelta(days=1), schema=schema, tags=tags)


def test_a_view_names_them_a_field_or_an_entity_says_so_itself() -> None:
    registry = Registry()
    registry.feature_views.append(view(pii="street, ip  device_id", tier="1").to_proto())
    account = Entity(name="account", join_keys=["account_id"], value_type=ValueType.STRING, tags={"pii": "true"})
    registry.entities.append(account.to_proto())
    registry.entities.append(Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING).to_proto())
    assert personal_by(registry).names == {"email", "street", "ip", "device_id", "account_id"}


@pytest.mark.parametrize(("function", "is_personal"), [("last", True), ("sum", True), ("count", False)])
def test_a_window_over_a_personal_column_is_personal_unless_it_counts(function: str, is_personal: bool) -> None:
    """Of a single event even a sum is somebody's value."""
    registry = Registry()
    spec = registry.stream_feature_views.add().spec
    spec.tags["pii"] = "amount"
    window = Aggregation(column="amount", function=function, time_window=timedelta(hours=1), name="amount_1h")
    spec.aggregations.append(window.to_proto())
    names = personal_by(registry).names
    assert names is not None
    assert ("amount_1h" in names) == is_personal


def test_without_tags_nothing_is_personal_and_without_a_registry_everything(tmp_path: Path) -> None:
    assert personal_by(Registry()).names == frozenset()
    assert personal_in(tmp_path / "registry.db").names is None


def test_a_damaged_registry_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ActorRiskError, match="no Feast registry"):
        personal_in(tmp_path / "registry.db")


def test_in_the_repository_ips_and_devices_are_personal(world: World) -> None:
    assert personal_in(world.registry_path).names == {"ip", "device_id"}
