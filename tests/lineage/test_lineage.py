"""Lineage: from the column of a source to the decision, and back, with nothing in it that is not on the way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actor_risk.changes.described import FeatureDefinition, RepoDefinition, SourceDefinition, ViewDefinition
from actor_risk.lineage import (
    Graph,
    Lineage,
    ReadingModel,
    UnknownNameError,
    as_json,
    as_mermaid,
    as_text,
    graph_of,
    lineage_of,
)
from tests.changes.repos import described, small_repo

MODEL = ReadingModel(
    model="risk",
    version="0123456789abcdef",
    aliases=("champion", "shadow"),
    service="risk",
    reasons={"ip_stats:clicks_24h": "CLICKS", "ratios:usd_per_click": "PRICE", "ip_table:is_vpn": "KIND"},
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    folder = tmp_path_factory.mktemp("lineage")
    return graph_of(described(small_repo(folder), folder / "registry"), [MODEL])


def before(lineage: Lineage) -> set[str]:
    return {node.id for node in lineage.before}


def after(lineage: Lineage) -> set[str]:
    return {node.id for node in lineage.after}


def test_a_windowed_feature_is_followed_to_the_columns_of_its_source(graph: Graph) -> None:
    assert before(lineage_of(graph, "clicks_24h")) == {
        "aggregation:ip_stats:clicks_24h",
        "derived:ip_stats.click",
        "column:events.event_type",
        "column:events.ip",
        "column:events.event_time",
        "source:events",
        "view:ip_stats",
        "entity:ip",
    }


def test_a_feature_is_followed_to_the_decision_and_only_by_its_own_reasons(graph: Graph) -> None:
    assert after(lineage_of(graph, "ip_stats:usd_24h")) == {
        "feature:ratios:usd_per_click",
        "service:risk",
        "model:risk@0123456789abcdef",
        "reason:risk@0123456789abcdef:PRICE",
        "decisions",
    }


def test_an_on_demand_feature_is_made_from_what_its_function_reads(graph: Graph) -> None:
    found = before(lineage_of(graph, "ratios:usd_per_click", down=False))
    assert {"feature:ip_stats:clicks_24h", "feature:ip_stats:usd_24h", "column:events.amount_usd"} <= found
    assert "column:asked.amount_usd" not in found
    assert "feature:ip_table:is_vpn" not in found
    assert "feature ip_stats:clicks_24h  (INT64: Clicks)" in as_text(lineage_of(graph, "ratios:usd_per_click"))


def test_a_column_is_followed_to_all_that_is_made_from_it(graph: Graph) -> None:
    found = after(lineage_of(graph, "events.amount_usd"))
    assert "feature:ip_stats:usd_24h" in found
    assert "feature:ip_stats:clicks_24h" not in found
    assert "feature:ip_stats:clicks_24h" in after(lineage_of(graph, "events.ip"))


def test_a_stored_feature_comes_from_the_column_that_its_source_maps_to_it() -> None:
    source = SourceDefinition(name="table", kind="table", mapped={"verified": "ip_verified"}, path="t.parquet")
    feature = FeatureDefinition(name="ip_verified", kind="INT64")
    view = ViewDefinition(name="v", kind="batch", source="table", features=(feature,))
    found = lineage_of(graph_of(RepoDefinition(sources=(source,), views=(view,))), "ip_verified")
    assert "column:table.verified" in before(found)


def test_a_name_that_a_service_and_a_model_share_means_both(graph: Graph) -> None:
    found = lineage_of(graph, "risk")
    assert {node.kind for node in found.starts} == {"service", "model"}
    assert "source:events" in before(found)
    assert "decisions" in after(found)


@pytest.mark.parametrize(
    "name", ["risk@champion", "risk@shadow", "risk@0123456789abcdef", "model:risk@0123456789abcdef"]
)
def test_a_model_is_asked_for_by_alias_or_version(graph: Graph, name: str) -> None:
    assert [node.id for node in lineage_of(graph, name).starts] == ["model:risk@0123456789abcdef"]


def test_a_view_is_made_from_what_its_features_are_made_from(graph: Graph) -> None:
    found = lineage_of(graph, "ip_stats")
    assert {"column:events.amount_usd", "column:events.event_type", "entity:ip"} <= before(found)
    assert {"feature:ip_stats:clicks_24h", "feature:ratios:usd_per_click", "decisions"} <= after(found)
    assert "made column ip_stats.usd" in as_text(found)


def test_an_entity_and_a_reason_can_be_asked_about(graph: Graph) -> None:
    assert "view:ip_table" in after(lineage_of(graph, "ip"))
    found = before(lineage_of(graph, "CLICKS"))
    assert "feature:ip_stats:clicks_24h" in found
    assert "feature:ip_table:is_vpn" not in found


def test_the_nearest_names_are_told_for_one_that_there_is_not(graph: Graph) -> None:
    with pytest.raises(UnknownNameError, match="clicks_24h"):
        lineage_of(graph, "click_24h")
    with pytest.raises(UnknownNameError, match="nothing is named"):
        lineage_of(graph, "%%%")


def test_the_text_draws_each_way_and_nothing_twice(graph: Graph) -> None:
    text = as_text(lineage_of(graph, "clicks_24h"))
    assert "├─ aggregation count(click) over 24h, hop 1h" in text
    assert "model risk@0123456789abcdef  (champion, shadow)" in text
    assert "reason code CLICKS" in text
    assert "PRICE" in text
    assert "KIND" not in text
    assert text.count("topic events") == 1
    assert "read by" not in as_text(lineage_of(graph, "clicks_24h", down=False))


def test_json_has_every_end_of_its_edges(graph: Graph) -> None:
    found = json.loads(as_json(lineage_of(graph, "clicks_24h")))
    ids = {node["id"] for node in found["nodes"]}
    assert found["starts"] == ["feature:ip_stats:clicks_24h"]
    assert {end for edge in found["edges"] for end in (edge["from"], edge["to"])} <= ids


NODE = re.compile(r'    (n\d+)(\[\(|\[\[|\[|\()"([^"<>]|<br/>)*"(\)\]|\]\]|\]|\))')
EDGE = re.compile(r'    (n\d+) -->\|"[a-z ]+"\| (n\d+)')
STYLE = re.compile(r"    style (n\d+) stroke-width:3px")


@given(st.text(min_size=1))
def test_mermaid_is_valid_whatever_names_have_in_them(name: str) -> None:
    feature = FeatureDefinition(name=name, kind="INT64", description=name)
    source = SourceDefinition(name=name, kind="table", path=name)
    view = ViewDefinition(name="v", kind="batch", source=name, features=(feature,))
    graph = graph_of(RepoDefinition(sources=(source,), views=(view,)))
    first, *lines = as_mermaid(lineage_of(graph, f"feature:v:{name}")).split("\n")
    assert first == "flowchart LR"
    made = set()
    for line in lines:
        node, edge, style = NODE.fullmatch(line), EDGE.fullmatch(line), STYLE.fullmatch(line)
        assert node or edge or style, line
        made |= {node[1]} if node else set()
        assert not edge or {edge[1], edge[2]} <= made


def test_mermaid_of_the_small_repository(graph: Graph) -> None:
    text = as_mermaid(lineage_of(graph, "clicks_24h"))
    assert '("feature<br/>ip_stats:clicks_24h")' in text
    assert '-->|"aggregated by"|' in text


def test_without_models_it_ends_at_the_service(tmp_path: Path) -> None:
    graph = graph_of(described(small_repo(tmp_path), tmp_path / "registry"))
    assert after(lineage_of(graph, "is_vpn")) == {"service:risk"}
