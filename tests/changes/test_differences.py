"""Two versions as plain data, and what differs between them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actor_risk.changes.described import (
    EntityDefinition,
    FeatureDefinition,
    RepoDefinition,
    ServedModel,
    ServiceDefinition,
    SourceDefinition,
    ViewDefinition,
    WindowDefinition,
)
from actor_risk.changes.differences import changes
from actor_risk.changes.plan import Change
from materialize.definitions import canonical_code

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

STATS = '''
def ip_stats(events):
    """Marks clicks."""
    import numpy as np

    click = events["event_type"] == "click"
    return {"click": np.where(click, 1.0, np.nan), "usd": np.where(click, events["amount_usd"], np.nan)}
'''
RATIOS = """
def ratios(inputs):
    def ratio(above, below):
        return [None if a is None or not b else a / b for a, b in zip(above, below)]

    return {
        "usd_per_click": ratio(inputs["usd_24h"], inputs["clicks_24h"]),
        "clicks_per_device": ratio(inputs["clicks_24h"], inputs["devices_24h"]),
    }
"""


def windowed(name: str, column: str, function: str, kind: str, length_ms: int = DAY_MS) -> FeatureDefinition:
    window = WindowDefinition(column=column, function=function, length_ms=length_ms, hop_ms=HOUR_MS)
    return FeatureDefinition(name=name, kind=kind, description=name, window=window)


CLICKS = windowed("clicks_24h", "click", "count", "INT64")
USD = windowed("usd_24h", "usd", "sum", "DOUBLE")
DEVICES = windowed("devices_24h", "device_id", "count_distinct", "INT64")
IS_VPN = FeatureDefinition(name="is_vpn", kind="INT64")
COUNTRY = FeatureDefinition(name="country", kind="STRING")
IP = EntityDefinition(name="ip", key="ip", key_kind="STRING")
EVENTS = SourceDefinition(
    name="events",
    kind="stream",
    topic="events",
    timestamp_field="event_time",
    columns={
        "event_id": "string",
        "event_type": "string",
        "ip": "string",
        "device_id": "string",
        "amount_usd": "double",
    },
)
TABLE = SourceDefinition(name="table", kind="table", path="table.parquet", mapped={"vpn": "is_vpn"})


def stats(*features: FeatureDefinition, code: str = STATS, **fields: Any) -> ViewDefinition:
    """The stream view; its fingerprint changes with what it is made of."""
    found = features or (CLICKS, USD, DEVICES)
    canonical = canonical_code(code)
    made = {
        "name": "ip_stats",
        "kind": "stream",
        "entities": ("ip",),
        "keys": {"ip": "STRING"},
        "source": "events",
        "timestamp_field": "event_time",
        "ttl_ms": 8 * DAY_MS,
        "features": found,
        "code": canonical,
        "code_text": code,
        **fields,
    }
    windows = [(one.name, one.window) for one in found]
    made["fingerprint"] = f"{hash((made['name'], canonical, *map(str, windows))) & (2**64 - 1):016x}"
    return ViewDefinition(**made)


PROFILE = ViewDefinition(
    name="ip_table",
    kind="batch",
    entities=("ip",),
    keys={"ip": "STRING"},
    source="table",
    ttl_ms=30 * DAY_MS,
    features=(IS_VPN, COUNTRY),
    fingerprint="1",
)


def ratios(code: str = RATIOS, **fields: Any) -> ViewDefinition:
    return ViewDefinition(
        name="ratios",
        kind="on_demand",
        features=(
            FeatureDefinition(name="usd_per_click", kind="DOUBLE"),
            FeatureDefinition(name="clicks_per_device", kind="DOUBLE"),
        ),
        code=canonical_code(code),
        code_text=code,
        **{"inputs": ("ip_stats:clicks_24h", "ip_stats:usd_24h", "ip_stats:devices_24h"), **fields},
    )


RISK = ServiceDefinition(
    name="risk",
    fingerprint="1",
    features=("ip_stats:clicks_24h", "ip_table:is_vpn", "ratios:usd_per_click"),
    reads=("ip_stats", "ip_table"),
)
MODEL = ServedModel(
    model="risk",
    version="0123456789abcdef",
    aliases=("champion",),
    service="risk",
    service_fingerprint="1",
    features=("ratios:usd_per_click",),
)


def repo(*others: ViewDefinition, **fields: Any) -> RepoDefinition:
    """A repository in which `others` stand for the views of the same name, or are added."""
    views = {view.name: view for view in (stats(), PROFILE, ratios())} | {view.name: view for view in others}
    made = {"entities": (IP,), "sources": (EVENTS, TABLE), "views": tuple(views.values()), "services": (RISK,)}
    return RepoDefinition(**{**made, **fields})


def named(found: tuple[Change, ...]) -> dict[tuple[str, str], Change]:
    return {(change.kind, change.name): change for change in found}


def without(view: ViewDefinition, **fields: Any) -> ViewDefinition:
    return msgspec.structs.replace(view, **fields)


def test_nothing_differs_between_a_version_and_itself() -> None:
    assert changes(repo(), repo(), (MODEL,)) == ()


def test_another_order_of_definitions_is_no_change() -> None:
    turned = msgspec.structs.replace(repo(), views=repo().views[::-1], sources=repo().sources[::-1])
    assert changes(repo(), turned) == ()


def test_comments_layout_and_docstrings_of_a_function_are_no_change() -> None:
    code = STATS.replace('"""Marks clicks."""', '"""Marks what is a click."""\n    # nothing else').replace(
        "    click =", "\n    click ="
    )
    assert changes(repo(), repo(stats(code=code))) == ()


def test_a_window_cut_in_half_changes_its_feature_the_rows_and_what_is_computed_from_it() -> None:
    half = windowed("clicks_24h", "click", "count", "INT64", 12 * HOUR_MS)
    found = named(changes(repo(), repo(stats(half, USD, DEVICES)), (MODEL,)))
    assert found["feature", "ip_stats:clicks_24h"].details == ("window: 24h → 12h",)
    assert found["feature", "ratios:usd_per_click"].details == ("its input ip_stats:clicks_24h",)
    assert found["feature", "ratios:clicks_per_device"].details == ("its input ip_stats:clicks_24h",)
    assert found["view", "ip_stats"].details == ("its rows are laid out anew",)
    assert found["service", "risk"].details == ("other values: ip_stats:clicks_24h, ratios:usd_per_click",)
    assert ("feature", "ip_stats:usd_24h") not in found


def test_whoever_reads_a_feature_through_a_function_is_named() -> None:
    half = windowed("clicks_24h", "click", "count", "INT64", 12 * HOUR_MS)
    found = named(changes(repo(), repo(stats(half, USD, DEVICES)), (MODEL,)))
    assert found["feature", "ip_stats:clicks_24h"].served_by == ("risk", "risk@0123456789abcdef")
    assert found["service", "risk"].served_by == ("risk@0123456789abcdef",)


def test_a_column_that_is_computed_otherwise_changes_the_features_of_it_alone() -> None:
    cents = STATS.replace('events["amount_usd"]', 'events["amount_usd"] * 100')
    found = named(changes(repo(), repo(stats(code=cents))))
    assert found["feature", "ip_stats:usd_24h"].details == ("its function",)
    assert found["view", "ip_stats"].details == ("its function",)
    assert ("feature", "ip_stats:clicks_24h") not in found
    assert ("feature", "ip_stats:devices_24h") not in found
    assert ("feature", "ratios:clicks_per_device") not in found


def test_what_every_column_is_made_of_changes_every_feature_that_reads_one() -> None:
    sales = STATS.replace('== "click"', '== "sale"')
    found = named(changes(repo(), repo(stats(code=sales))))
    assert {name for kind, name in found if kind == "feature" and name.startswith("ip_stats")} == {
        "ip_stats:clicks_24h",
        "ip_stats:usd_24h",
    }


def test_a_function_that_gives_another_key_changes_every_feature() -> None:
    keyed = STATS.replace('{"click":', '{"ip": events["ip"], "click":')
    found = named(changes(repo(), repo(stats(code=keyed))))
    assert {name for kind, name in found if kind == "feature" and name.startswith("ip_stats")} == {
        "ip_stats:clicks_24h",
        "ip_stats:usd_24h",
        "ip_stats:devices_24h",
    }


def test_a_function_of_another_form_changes_every_feature_since_nobody_can_tell() -> None:
    loop = "def ip_stats(events):\n    found = {}\n    for name in ():\n        found[name] = 1\n    return found\n"
    found = named(changes(repo(), repo(stats(code=loop))))
    assert found["feature", "ip_stats:devices_24h"].details == ("its function",)


def test_type_hop_function_and_column_are_told_in_words() -> None:
    window = WindowDefinition(column="usd", function="max", length_ms=DAY_MS, hop_ms=HOUR_MS // 2)
    moved = FeatureDefinition(name="clicks_24h", kind="DOUBLE", description="clicks_24h", window=window)
    found = named(changes(repo(), repo(stats(moved, USD, DEVICES))))
    assert found["feature", "ip_stats:clicks_24h"].details == (
        "type: INT64 → DOUBLE",
        "column: click → usd",
        "function: count → max",
        "hop: 1h → 30m",
    )


def test_a_shorter_ttl_changes_the_view_and_none_of_its_features() -> None:
    found = changes(repo(), repo(stats(ttl_ms=2 * DAY_MS)))
    assert [(change.kind, change.name, change.details) for change in found] == [("view", "ip_stats", ("ttl: 8d → 2d",))]


def test_words_alone_change_no_value() -> None:
    said = without(CLICKS, description="Clicks of the IP", tags={"pii": "no"})
    (view, feature) = changes(repo(), repo(stats(said, USD, DEVICES, owner="others", tags={"tier": "1"})))
    assert (view.meaning, view.details) == (False, ("owner: none → others", "tag tier: none → 1"))
    assert (feature.meaning, feature.details) == (False, ("description", "tag pii: none → no"))


def test_a_new_feature_and_a_removed_one_that_differ_are_not_a_rename() -> None:
    new = windowed("clicks_1h", "click", "count", "INT64", HOUR_MS)
    found = named(changes(repo(), repo(stats(new, USD, DEVICES))))
    assert found["feature", "ip_stats:clicks_1h"].what == "added"
    assert found["feature", "ip_stats:clicks_24h"].what == "removed"
    assert found["feature", "ip_stats:clicks_24h"].served_by == ("risk",)


def test_a_feature_that_is_called_otherwise_is_renamed() -> None:
    found = named(changes(repo(), repo(stats(without(CLICKS, name="n_clicks_24h"), USD, DEVICES))))
    change = found["feature", "ip_stats:n_clicks_24h"]
    assert (change.what, change.was, change.served_by) == ("renamed", "ip_stats:clicks_24h", ("risk",))


def test_what_could_be_two_renames_is_none() -> None:
    two = (without(CLICKS, name="a"), without(CLICKS, name="b"))
    found = named(changes(repo(), repo(stats(*two, USD, DEVICES))))
    assert "renamed" not in {change.what for change in found.values()}


def test_a_field_of_a_table_is_renamed_only_if_it_is_the_same_column() -> None:
    vpn = without(IS_VPN, name="vpn_exit")
    mapped = without_source(mapped={"vpn": "vpn_exit"})
    kept = named(changes(repo(), repo(without(PROFILE, features=(vpn, COUNTRY)), sources=(EVENTS, mapped))))
    assert kept["feature", "ip_table:vpn_exit"].what == "renamed"
    other = named(changes(repo(), repo(without(PROFILE, features=(vpn, COUNTRY)))))
    assert other["feature", "ip_table:vpn_exit"].what == "added"


def without_source(**fields: Any) -> SourceDefinition:
    return msgspec.structs.replace(TABLE, **fields)


def test_a_field_that_is_read_from_another_column_is_changed() -> None:
    found = named(changes(repo(), repo(sources=(EVENTS, without_source(mapped={"proxy": "is_vpn"})))))
    assert found["feature", "ip_table:is_vpn"].details == ("its source table",)
    assert ("feature", "ip_table:country") not in found


def test_a_view_that_is_called_otherwise_is_renamed_with_its_features() -> None:
    code = STATS.replace("def ip_stats", "def ip_statistics")
    views = (stats(code=code, name="ip_statistics"), PROFILE, ratios())
    found = named(changes(repo(), msgspec.structs.replace(repo(), views=views)))
    view = found["view", "ip_statistics"]
    assert (view.what, view.was, view.served_by) == ("renamed", "ip_stats", ("risk",))
    assert not [name for kind, name in found if kind == "feature" and name.startswith("ip_stat")]


def test_an_entity_that_is_called_otherwise_is_renamed_and_its_views_say_so() -> None:
    address = EntityDefinition(name="address", key="ip", key_kind="STRING")
    new = repo(stats(entities=("address",)), without(PROFILE, entities=("address",)), entities=(address,))
    (change,) = changes(repo(), new)
    assert (change.what, change.was, change.name) == ("renamed", "ip", "address")
    assert change.served_by == ("risk",)


def test_another_topic_changes_every_feature_of_its_views() -> None:
    moved = msgspec.structs.replace(EVENTS, topic="events_v2")
    found = named(changes(repo(), repo(sources=(moved, TABLE))))
    assert found["source", "events"].details == ("topic: events → events_v2",)
    assert found["feature", "ip_stats:devices_24h"].details == ("its source events",)


def test_a_column_of_another_type_changes_what_is_computed_from_it() -> None:
    moved = msgspec.structs.replace(EVENTS, columns={**EVENTS.columns, "amount_usd": "long"})
    found = named(changes(repo(), repo(sources=(moved, TABLE))))
    assert found["source", "events"].details == ("column amount_usd: double → long",)
    assert found["feature", "ip_stats:usd_24h"].details == ("its source events",)
    assert ("feature", "ip_stats:clicks_24h") not in found


def test_a_further_column_of_a_source_changes_no_value() -> None:
    wider = msgspec.structs.replace(EVENTS, columns={**EVENTS.columns, "os": "string"})
    (change,) = changes(repo(), repo(sources=(wider, TABLE)))
    assert (change.details, change.meaning) == (("column os added",), False)


def test_another_order_matters_to_a_service() -> None:
    turned = msgspec.structs.replace(RISK, features=RISK.features[::-1], fingerprint="2")
    (change,) = changes(repo(), repo(services=(turned,)), (MODEL,))
    assert (change.kind, change.details, change.meaning) == ("service", ("order of its features",), True)


def test_another_order_matters_to_no_feature_of_a_view() -> None:
    (change,) = changes(repo(), repo(without(PROFILE, features=(COUNTRY, IS_VPN))))
    assert (change.kind, change.details, change.meaning) == ("view", ("order of its features",), False)


def test_what_a_service_gains_and_loses_is_listed() -> None:
    other = msgspec.structs.replace(
        RISK, features=("ip_stats:clicks_24h", "ratios:usd_per_click", "ip_stats:usd_24h"), fingerprint="2"
    )
    (change,) = changes(repo(), repo(services=(other,)))
    assert change.details == ("+ ip_stats:usd_24h", "− ip_table:is_vpn")


@pytest.mark.parametrize("side", ["old", "new"])
def test_what_only_one_version_has_is_added_or_removed_whole(side: str) -> None:
    pair = (repo(), RepoDefinition()) if side == "old" else (RepoDefinition(), repo())
    found = changes(*pair)
    assert {change.what for change in found} == {"removed" if side == "old" else "added"}
    assert [change.kind for change in found] == ["entity", "source", "source", "view", "view", "view", "service"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["clicks_24h", "usd_24h", "devices_24h"]), unique=True, min_size=1), st.booleans())
def test_what_is_added_one_way_is_removed_the_other(names: list[str], renames: bool) -> None:
    features = [one for one in (CLICKS, USD, DEVICES) if one.name in names]
    if renames:
        features[0] = without(features[0], name="another")
    one, other = repo(services=()), repo(stats(*features), services=())
    forth, back = (
        {(change.what, change.kind, change.name, change.was) for change in changes(*pair)}
        for pair in ((one, other), (other, one))
    )
    turned = {"added": "removed", "removed": "added", "changed": "changed", "renamed": "renamed"}
    assert {
        (turned[what], kind, *((was, name) if what == "renamed" else (name, was))) for what, kind, name, was in forth
    } == back
