"""A mistake in a file of tests is told with its line and what to write; nothing is run then."""

from __future__ import annotations

from pathlib import Path

import pytest

from actor_risk.feature_tests import CaseError, read_cases
from actor_risk.feature_tests.expected import expected, same
from actor_risk.feature_tests.moments import moment, moment_ms, span
from actor_risk.feature_tests.nodes import Node, scalar
from tests.feature_tests.small import run, small_repo

NOW_MS = moment_ms("2026-01-01 12:00:00", 0)
MISTAKES = [
    ("{", 1, "no YAML"),
    ("cases:\n\t- name: x", 2, "no YAML"),
    ("", 1, "--new"),
    ("view: traffic", 1, "list of cases"),
    ("view: traffic\nkases: []", 2, "did you mean 'cases'?"),
    ("view: a\ncases:\n  - events: []", 3, "needs a `name`"),
    ("cases:\n  - name: a\n    expect: {0: {clicks: 1}}", 2, "no `view` and no `service`"),
    ("view: a\ncases:\n  - name: a\n    view: b\n    view: c", 5, "there twice"),
    ("view: a\ncases:\n  - name: a\n    events: []", 3, "expects nothing"),
    ("view: a\ncases:\n  - name: a\n    expect:\n      0: {}", 5, "nothing is expected"),
    ("view: a\ncases:\n  - name: a\n    expect:\n      noon: {clicks: 1}", 5, "'noon' is no time"),
    ("view: a\ncases:\n  - name: a\n    events: {x: 5}\n    expect: {0: {a: 1}}", 4, "is a list"),
    ("view: a\ncases:\n  - name: a\n    event: []\n    expect: {0: {a: 1}}", 4, "did you mean 'events'?"),
]
BOUND = [
    ("view: trafic", "      - {time: 0, event_type: click}", "{clicks: 1}", 1, "did you mean 'traffic'?"),
    ("view: traffic", "      - {time: 0, event_type: click}", "{click: 1}", 7, "did you mean 'clicks'?"),
    ("view: traffic", "      - {time: 0, event_type: click}", "{clicks: many}", 7, "'many' is no INT64"),
    ("view: traffic", "      - {time: 0}", "{clicks: 1}", 5, "write one of click, conversion, impression"),
    ("view: traffic", "      - {event_type: click}", "{clicks: 1}", 5, "no `time`"),
    ("view: traffic", "      - {time: 0, event_type: clik}", "{clicks: 1}", 5, "would put this event aside"),
    ("view: traffic", "      - {time: 0, event_type: click, amount: 1}", "{clicks: 1}", 5, "'amount_usd'?"),
    ("view: traffic", "      - {time: 0, event_type: click, ip: null}", "{clicks: 1}", 5, "aside"),
    ("view: traffic", "      - {time: 0, event_type: click}", "{clicks: 1, entity: {id: 1}}", 7, "no join key 'id'"),
    ("view: known", "      - {time: 0, event_type: click}", "{is_vpn: 1}", 5, "reads no events"),
]


@pytest.mark.parametrize(("text", "line", "told"), MISTAKES)
def test_a_mistake_in_the_form_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(text)
    with pytest.raises(CaseError) as raised:
        read_cases(file)
    assert str(raised.value).startswith(f"{file}:{line}: "), raised.value
    assert told in str(raised.value)


def test_all_mistakes_of_all_files_are_told_at_once_and_exit_with_two(tmp_path: Path) -> None:
    files = {
        f"{number}.yaml": f"{subject}\ncases:\n  - name: a\n    events:\n{event}\n    expect:\n      0: {expect}\n"
        for number, (subject, event, expect, _, _) in enumerate(BOUND)
    }
    ran = run(small_repo(tmp_path), files=files)
    assert ran.exit_code == 2
    assert not ran.report
    for number, (*_, line, told) in enumerate(BOUND):
        [found] = [one for one in ran.output.splitlines() if f"/{number}.yaml:" in one]
        assert f"/{number}.yaml:{line}: " in found
        assert told in found


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("CASES = [", 1, "no Python"),
        ("x = 1\n\ny = x.nothing", 3, "does not run"),
        ("x = 1", 1, "CASES"),
        ("CASES = [\n    {'view': 'a'},\n]", 2, "needs a `name`"),
    ],
)
def test_a_mistake_in_a_python_table_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    file = tmp_path / "cases.py"
    file.write_text(text)
    with pytest.raises(CaseError) as raised:
        read_cases(file)
    assert str(raised.value).startswith(f"{file}:{line}: "), raised.value
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("0", 0), ("-5m", -300_000), ("+1ms", 1), ("-1h30m", -5_400_000), ("-5m+1ms", -299_999), ("+1d2h", 93_600_000)],
)
def test_relative_times_are_read_and_written(text: str, ms: int) -> None:
    assert moment_ms(text, NOW_MS) == NOW_MS + ms
    assert moment_ms(span(ms), NOW_MS) == NOW_MS + ms


def test_absolute_times_are_utc_unless_they_say() -> None:
    assert moment(NOW_MS) == "2026-01-01 12:00:00"
    assert moment(NOW_MS + 7) == "2026-01-01 12:00:00.007"
    assert moment_ms("2026-01-01T13:00:00+01:00", 0) == NOW_MS
    assert moment_ms("2026-01-01", 0) == NOW_MS - 43_200_000


def test_words_that_look_like_words_are_words() -> None:
    assert [scalar(text) for text in ("NO", "12:00", "1_000", "~", "null", "true", "-3", "1e3", "1.5")] == [
        "NO", "12:00", "1_000", None, None, True, -3, 1000.0, 1.5,
    ]  # fmt: skip


def test_what_is_about_a_value_is_within_its_tolerance_and_null_is_not() -> None:
    about = expected(Node(1, "~ 1.5 ± 0.01", "~ 1.5 ± 0.01"), "DOUBLE")
    assert about.met_by(1.509, 0.0)
    assert not about.met_by(1.52, 0.0)
    assert not about.met_by(None, 0.0)
    assert same(0.1 + 0.2, 0.3, 1e-9)
    assert not same(0.1 + 0.2, 0.3, 0.0)
    assert same(None, None, 0.0)
    assert not same(0, None, 0.0)
