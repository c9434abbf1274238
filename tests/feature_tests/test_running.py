"""`actor-risk test`: what passes, what fails and with which words, without Redis and without a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.feature_tests.small import ROLLED, Ran, run, small_repo

TWO_CLICKS = """
view: traffic
cases:
  - name: clicks of five minutes
    events:
      - {time: -5m, event_type: click, amount_usd: 0.5}
      - {time: -5m-1ms, event_type: click, amount_usd: 4}
      - {time: -1m, event_type: click, amount_usd: 0.25, device_id: other}
      - {time: -1m, event_type: impression, amount_usd: 1}
    expect:
      0: {clicks: CLICKS, usd: ~ 1.75 ± 0.001, devices: 2}
      -10m: {clicks: null}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A repository, with a folder of tests of this test's own beside it."""
    return small_repo(tmp_path)


def test_a_right_expectation_passes_in_every_way_in_which_events_may_arrive(own: Path) -> None:
    ran = run(own, files={"traffic.yaml": TWO_CLICKS.replace("CLICKS", "2")})
    assert ran.exit_code == 0, ran.output
    assert set(ran.outcomes.values()) == {"passed"}
    assert ran.report["cases"][0]["checks"][0]["ways"] > 10
    assert not (own / "nowhere").exists()


def test_a_wrong_expectation_fails_with_both_values_and_the_events_of_the_window(own: Path) -> None:
    ran = run(own, files={"traffic.yaml": TWO_CLICKS.replace("CLICKS", "3")})
    assert ran.exit_code == 1
    check = ran.report["cases"][0]["checks"][0]
    assert (check["outcome"], check["expected"], check["batch"], check["stream"]) == ("wrong", "3", 2, 2)
    assert "e1 at -5m: click = 1.0" in ran.output
    assert "e2 at -5m1ms (before the window)" in ran.output
    assert "e4 at -1m: click = null" in ran.output
    assert "traffic.yaml:11" in ran.output
    assert "DIFFER" not in ran.output


def test_a_view_that_looks_at_neighbouring_events_differs_between_its_two_forms(tmp_path: Path) -> None:
    ran = run(small_repo(tmp_path, ROLLED), files={"traffic.yaml": TWO_CLICKS.replace("CLICKS", "2")})
    assert ran.exit_code == 1
    assert ran.outcomes["usd"] == "differs"
    assert ran.outcomes["devices"] == "passed"
    assert "BATCH AND STREAM DIFFER" in ran.output
    assert "differ between training and serving" in ran.output


def test_a_view_whose_code_fails_is_told_with_its_error(tmp_path: Path) -> None:
    ran = run(small_repo(tmp_path, 'events["amuont"]'), files={"traffic.yaml": TWO_CLICKS.replace("CLICKS", "2")})
    assert ran.exit_code == 1
    assert ran.outcomes["clicks"] == "failed"
    assert "amuont" in ran.output


def test_profiles_request_values_and_events_meet_in_a_service(own: Path) -> None:
    case = """
service: risk
cases:
  - name: all of it
    request: {price: 3}
    events:
      - {time: -2m, event_type: click, amount_usd: 1}
      - {time: -1m, event_type: click, amount_usd: 1}
    profiles:
      - {time: -2d, is_vpn: 1}
      - {time: -1d, vpn: 0}
    expect:
      0: {clicks: 2, usd: 2, is_vpn: 0, price_per_click: 1.5}
      -25h: {clicks: null, is_vpn: 1, price_per_click: null}
      +24h1ms: {is_vpn: null}
"""
    ran = run(own, files={"risk.yaml": case})
    assert ran.exit_code == 0, ran.output


def test_cases_may_be_a_table_in_python(own: Path) -> None:
    table = """
BURST = [{"time": f"-{n}s", "event_type": "click"} for n in range(1, 41)]
CASES = [
    {"name": "forty clicks", "view": "traffic", "events": BURST, "expect": {"0": {"clicks": 40}}},
    {"name": "as before the last", "view": "traffic", "events": BURST, "expect": {"-2s": {"clicks": 38}}},
]
"""
    ran = run(own, files={"burst.py": table})
    assert ran.exit_code == 1
    assert [case["line"] for case in ran.report["cases"]] == [4, 5]
    assert ran.outcomes == {"clicks": "passed"}
    assert ran.report["cases"][1]["checks"][0]["batch"] == 39


def test_only_the_tests_that_are_named_run(own: Path) -> None:
    files = {"a.yaml": TWO_CLICKS.replace("CLICKS", "2"), "b.yaml": TWO_CLICKS.replace("CLICKS", "7")}
    assert run(own, "-k", "A.YAML", files=files).exit_code == 0
    ran = run(own, "-k", "nothing such")
    assert ran.exit_code == 2
    assert "none of the 2 tests" in ran.output


def test_a_wrong_ratio_is_told_with_what_it_was_made_of(own: Path) -> None:
    case = """
view: prices
cases:
  - name: the price over all clicks
    request: {price: 3}
    events: [{time: -1m, event_type: click}, {time: -2m, event_type: click}]
    expect: {0: {price_per_click: 3}}
"""
    ran = run(own, files={"prices.yaml": case})
    assert ran.exit_code == 1
    assert "computed on demand by prices, which reads price = 3.0, clicks = 2" in ran.output


def test_the_demos_features_are_what_their_tests_say(project_root: Path, tmp_path: Path) -> None:
    ran = run(project_root / "feature_repo", project_root / "feature_tests", home=tmp_path)
    assert ran.exit_code == 0, ran.output
    assert len(ran.report["cases"]) >= 25


@pytest.mark.parametrize("subject", ["traffic", "known", "prices", "risk"])
def test_a_first_file_of_tests_passes(own: Path, subject: str) -> None:
    text = run(own, "--new", subject)
    assert text.exit_code == 0, text.output
    ran = run(own, files={"new.yaml": text.written})
    assert ran.exit_code == 0, ran.output + text.written


def test_a_repository_that_does_not_import_is_no_failed_test(tmp_path: Path) -> None:
    repo = small_repo(tmp_path)
    (repo / "broken.py").write_text("import nothing_of_that_name\n")
    ran: Ran = run(repo, files={"traffic.yaml": TWO_CLICKS})
    assert ran.exit_code == 2
    assert "nothing_of_that_name" in ran.output
