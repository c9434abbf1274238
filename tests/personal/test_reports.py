"""An audit's report shows nobody's keys and no personal feature's values, however it is written."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from actor_risk.audit.html import html_report
from actor_risk.audit.persons import without_persons
from actor_risk.audit.report import AuditReport, Example, FeatureReport, Point
from actor_risk.audit.terminal import show
from materialize.personal import Personal

T_MS = 1_795_000_000_000
IP, EMAIL = "203.0.113.9", "swordfish@example.org"


def feature(name: str, online: str | float, offline: str | float) -> FeatureReport:
    example = Example(
        decision_id="d-1",
        as_of_ms=T_MS,
        entities={"ip": IP, "advertiser_id": "adv-1"},
        model_version="m 1",
        outcome="mismatched",
        online=online,
        offline=offline,
        status="PRESENT",
        age_ms=1,
    )
    return FeatureReport(
        service="s",
        feature=name,
        tolerance=0.0,
        compared=1,
        equal=0,
        late=0,
        mismatched=1,
        only_online=0,
        only_offline=0,
        worst=None,
        smape=None,
        not_compared={},
        examples=[example],
        points=[Point(T_MS, 7531.0, 7532.0, "mismatched")],
    )


@pytest.fixture
def report() -> AuditReport:
    found = AuditReport(
        log="/log",
        from_ms=T_MS,
        to_ms=T_MS + 1,
        tolerance=0.0,
        mismatch_rate_max=0.0,
        decisions=1,
        compared_decisions=1,
        own_events=0,
        set_apart={},
        cut_off_lines=0,
        unreadable_lines=0,
        sources=[],
        features=[feature("profile:email", EMAIL, "other@example.org"), feature("clicks:count_1h", 4321.0, 4322.0)],
        verdict="differs",
    )
    return without_persons(found, Personal(frozenset({"ip", "email"})))


def test_it_has_the_ids_of_decisions_and_other_values_but_none_of_persons(report: AuditReport) -> None:
    screen = io.StringIO()
    show(Console(file=screen, width=200), report, every_feature=True)
    for shown in (screen.getvalue(), html_report(report), msgspec.json.encode(report).decode()):
        assert IP not in shown
        assert "example.org" not in shown
        assert "***" in shown
        for other in ("d-1", "adv-1", "4321"):
            assert other in shown.replace(",", "")
    assert [len(one.points) for one in report.features] == [0, 1]
