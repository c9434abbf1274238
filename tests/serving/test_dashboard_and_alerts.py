"""The dashboard and the alerts: they parse, they name metrics that a server shows, and alerts lead to what to do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import read_page
from tests.serving.fakes import KEYS, SERVICE, World, build_world, click
from tests.serving.test_decision_log import MemoryLog

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/actor-risk.json").read_text())
GROUPS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
FUNCTIONS = {
    "abs", "absent", "and", "histogram_quantile", "ignoring", "increase", "label_values", "max", "max_over_time",
    "offset", "or", "rate", "sum", "topk",
}  # fmt: skip
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def expressions() -> Iterator[str]:
    yield from (alert["expr"] for alert in ALERTS)
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    yield from (variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable)


def names(expression: str) -> set[str]:
    """What an expression names beside labels, functions and numbers."""
    bare = re.sub(r'"[^"]*"', "", expression)
    for aside in (r"\{[^}]*\}", r"\[[^\]]*\]", r"\b(by|on|ignoring|group_left) \([^)]*\)", r"\boffset \w+", r", \w+\)"):
        bare = re.sub(aside, " ", bare)
    return set(re.findall(r"\b[a-zA-Z_]\w*", bare)) - FUNCTIONS


def labels(expression: str) -> set[str]:
    """The labels that an expression looks at."""
    found = {name for part in re.findall(r"\{([^}]*)\}", expression) for name in re.findall(r"(\w+)(?:=|!)", part)}
    for part in re.findall(r"\b(?:by|on|ignoring) \(([^)]*)\)", expression):
        found |= {name.strip() for name in part.split(",")}
    return found


@pytest.fixture(scope="module")
def page(published: Path) -> str:
    """What a server shows that has answered, failed, and been asked again."""
    log = MemoryLog()
    world: World = build_world(published, log)
    world.features.values[KEYS["ip"]] = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]

    async def fail() -> None:
        raise OSError

    async def ask() -> str:
        await world.service.load({SERVICE: "champion"})
        for _ in range(600):
            await world.score({"model": SERVICE, "entities": KEYS})
        await world.call("POST", "/v1/events", b'{"events": [{}]}')
        await world.call("GET", "/nowhere")
        world.publisher.fail = fail
        await world.score({"model": SERVICE, "event": click()})
        return (await world.call("GET", "/metrics")).body.decode()

    return asyncio.run(ask())


def test_every_name_in_an_expression_is_a_metric_of_the_server(page: str) -> None:
    kinds = re.findall(r"^# TYPE (\S+) (\w+)$", page, re.MULTILINE)
    shown = {name + suffix for name, kind in kinds for suffix in SUFFIXES[kind]}
    unknown = {name for expression in expressions() for name in names(expression)} - shown
    assert not unknown


def test_every_series_that_is_named_has_come_to_be(page: str) -> None:
    shown = set(re.findall(r"^([a-z_]+)", page, re.MULTILINE))
    assert {name for expression in expressions() for name in names(expression)} <= shown


def test_every_label_in_an_expression_is_one_of_the_servers(page: str) -> None:
    shown = set(re.findall(r'[{,](\w+)="', page)) | {"replica"}
    assert {label for expression in expressions() for label in labels(expression)} <= shown


def test_names_are_found_in_an_expression() -> None:
    assert names('sum by (a) (rate(b_total{c="d"}[5m] offset 1d)) / on (e) group_left () max(f) > 0.5') == {
        "b_total",
        "f",
    }


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_says_how_bad_it_is_and_leads_to_what_to_do(alert: dict[str, Any]) -> None:
    assert set(alert) <= {"alert", "expr", "for", "labels", "annotations"}
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"]
    path, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert anchor in read_page(ROOT / path).anchors


def test_alerts_have_names_of_their_own() -> None:
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)


def test_panels_neither_overlap_nor_share_an_id() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_variable_of_the_dashboard_is_defined() -> None:
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used <= defined
