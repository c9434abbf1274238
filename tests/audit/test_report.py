"""Reports: what counts as a failure, and what people are shown."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from actor_risk.audit.charts import over_time, scatter, time_ticks
from actor_risk.audit.html import html_report
from actor_risk.audit.report import AuditReport, Example, FeatureReport, Outcome, Point, SourceEnd, verdict_of
from actor_risk.audit.terminal import show
from actor_risk.reporting.drawing import nice_ticks
from actor_risk.reporting.words import share

T_MS = 1_795_000_000_000


def example(outcome: Outcome, online: Any, offline: Any) -> Example:
    return Example(
        decision_id="d-1",
        as_of_ms=T_MS,
        entities={"ip": "<script>alert(1)</script>"},
        model_version="m 1",
        outcome=outcome,
        online=online,
        offline=offline,
        status="PRESENT",
        age_ms=61_000,
    )


def feature(name: str, points: list[Point] | None = None, **counts: int) -> FeatureReport:
    given = {"equal": 0, "late": 0, "mismatched": 0, "only_online": 0, "only_offline": 0} | counts
    return FeatureReport(
        service="s",
        feature=name,
        tolerance=0.0,
        compared=sum(given.values()),
        worst=3.0 if given["mismatched"] else None,
        smape=0.25,
        not_compared={"beyond_history": 4},
        examples=[example("mismatched", 7.0, 4.0)] if given["mismatched"] else [],
        points=points or [],
        **given,
    )


def report(features: list[FeatureReport], rate: float = 0.0) -> AuditReport:
    return AuditReport(
        log="/log",
        from_ms=T_MS,
        to_ms=T_MS + 86_400_000,
        tolerance=1e-9,
        mismatch_rate_max=rate,
        decisions=12,
        compared_decisions=10,
        own_events=1,
        set_apart={"other_definition": 2},
        cut_off_lines=1,
        unreadable_lines=0,
        sources=[SourceEnd("ad_events_history", T_MS)],
        features=features,
        verdict=verdict_of(features, rate),
    )


@pytest.mark.parametrize(
    ("counts", "rate", "code"),
    [
        ({"equal": 10}, 0.0, 0),
        ({"equal": 9, "late": 1}, 0.0, 0),
        ({"equal": 9, "mismatched": 1}, 0.0, 1),
        ({"equal": 9, "only_online": 1}, 0.0, 1),
        ({"equal": 9, "only_offline": 1}, 0.0, 1),
        ({"equal": 9, "mismatched": 1}, 0.1, 0),
        ({"equal": 8, "mismatched": 1, "only_online": 1}, 0.1, 1),
        ({}, 0.0, 2),
    ],
)
def test_the_exit_code_tells_equal_from_different_from_nothing(counts: dict[str, int], rate: float, code: int) -> None:
    assert report([feature("v:f", **counts)], rate).exit_code == code


def test_one_bad_feature_among_many_good_ones_fails() -> None:
    good = [feature(f"v:f{number}", equal=1_000) for number in range(200)]
    assert report([*good, feature("v:bad", equal=900, mismatched=100)], 0.05).exit_code == 1


POINTS = [
    Point(T_MS, 7.0, 4.0, "mismatched"),
    Point(T_MS + 5_000, 3.0, None, "only_online"),
    Point(T_MS + 9_000, None, 0.5, "only_offline"),
    Point(T_MS + 9_000, 2.0, 2.0, "equal"),
]


class Checker(HTMLParser):
    """Whether every element that is opened is closed, in order, and what is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.circles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]
        self.circles += tag == "circle"
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_fetches_nothing_and_draws_each_feature_that_differs() -> None:
    page = html_report(report([feature("v:good", equal=5), feature("v:bad", POINTS, equal=1, mismatched=1)]))
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert not checker.fetched
    assert page.count("<svg") == 2
    assert checker.circles == 2 * len(POINTS)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in re.sub(r"charset", "", page)
    assert "prefers-color-scheme: dark" in page


def test_an_audit_that_found_nothing_wrong_draws_nothing() -> None:
    page = html_report(report([feature("v:good", POINTS, equal=5)]))
    assert "<svg" not in page
    assert "Served equals recomputed" in page


@pytest.mark.parametrize(
    "points",
    [POINTS, POINTS[:1], POINTS[1:2], [Point(T_MS, 0.0, 0.0, "equal")], [Point(T_MS, -1e300, 1e300, "mismatched")]],
)
def test_every_point_lies_within_its_picture(points: list[Point]) -> None:
    for picture in (scatter(points), over_time(points)):
        width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', picture).groups())  # type: ignore[union-attr]
        places = re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', picture)
        assert len(places) == len(points)
        assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in places)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 251.2), (1e-9, 2e-9), (5, 1e15)])
def test_ticks_are_few_round_and_cover_the_values(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high * (1 - 1e-9)
    assert 2 <= len(ticks) <= 9


def test_times_are_ticked_at_round_moments() -> None:
    times, labels = time_ticks(T_MS, T_MS + 86_400_000)
    assert all(time_ms % 3_600_000 == 0 for time_ms in times)
    assert 2 <= len(labels) <= 6
    assert time_ticks(T_MS, T_MS + 1)[0]


def test_the_terminal_says_what_differs_with_examples_and_what_was_not_compared() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80)
    show(
        console,
        report([feature("v:good", equal=5), feature("v:bad_" + "x" * 60, equal=1, mismatched=1)]),
        every_feature=False,
    )
    told = out.getvalue()
    assert "2 decisions set apart: other_definition" in told
    assert "beyond_history" in told
    assert "served 7 (PRESENT), recomputed 4" in told
    assert "v:good" not in told
    assert "v:bad_" + "x" * 60 in told
    assert "served differs from recomputed" in told


@pytest.mark.parametrize(
    ("value", "told"), [(0, "0"), (1, "100"), (0.00001, "< 0.01"), (0.99999, "> 99.99"), (0.5, "50")]
)
def test_a_small_share_is_not_rounded_to_none(value: float, told: str) -> None:
    assert share(value) == f"{told}\N{NO-BREAK SPACE}%"
