"""What people and programs are told of a plan."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console

from actor_risk.changes import report
from actor_risk.changes.described import EntityDefinition, RepoDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.plan import Change, Plan
from actor_risk.changes.report._escaping import block, code, prose
from actor_risk.changes.report.markdown import fair_shares
from actor_risk.changes.report.summary import moved
from tests.changes.plans import (
    HOSTILE,
    SECRET,
    broken_plan,
    full_plan,
    hostile_plan,
    large_plan,
    masked_plan,
    plan,
)

ENTITY = EntityDefinition(name="ip", key="ip", key_kind="STRING")

PLANS: dict[str, Callable[[], Plan]] = {
    "unchanged": plan,
    "full": full_plan,
    "hostile": hostile_plan,
    "broken": broken_plan,
    "large": lambda: large_plan(300),
    "masked": lambda: masked_plan("new"),
}


@pytest.fixture(params=PLANS.values(), ids=PLANS)
def any_plan(request: pytest.FixtureRequest) -> Plan:
    """Each plan in turn."""
    make: Callable[[], Plan] = request.param
    return make()


def at_terminal(shown: Plan, width: int = 120, *, colour: bool = False, strict: bool = False) -> str:
    out = io.StringIO()
    report.terminal(
        shown, Console(file=out, width=width, force_terminal=colour or None, highlight=False), strict=strict
    )
    return out.getvalue()


def on_screen(shown: Plan, width: int) -> list[str]:
    """The lines as they stand on a screen of that width, without colour."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, highlight=False)
    report.terminal(shown, console, strict=False)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return re.sub(r"\x1b\[[\d;]*m", "", written).splitlines()


# The verdict


@pytest.mark.parametrize(
    ("shown", "strict", "verdict", "code", "headline"),
    [
        (plan(), False, "unchanged", 0, "Nothing changes"),
        (plan(changes=(Change(what="added", kind="view", name="v"),)), True, "passes", 0, "Nothing is refused"),
        (full_plan(), False, "refused", 1, "Refused: 1 error, 1 warning"),
        (replace(full_plan(), findings=full_plan().findings[:1]), False, "warned", 0, "Nothing is refused: 1 warning"),
        (replace(full_plan(), findings=full_plan().findings[:1]), True, "refused", 1, "Refused: 1 warning (--strict)"),
        (replace(full_plan(), findings=full_plan().findings[2:]), True, "passes", 0, "Nothing is refused"),
        (broken_plan(), False, "refused", 1, "Refused: 1 error"),
    ],
)
def test_the_verdict_and_the_exit_code_follow_from_the_worst_finding(
    shown: Plan, strict: bool, verdict: str, code: int, headline: str
) -> None:
    assert report.verdict(shown, strict=strict) == verdict
    assert report.exit_code(shown, strict=strict) == code
    assert report.headline(shown, strict=strict) == headline
    assert at_terminal(shown, strict=strict).splitlines()[0] == headline
    assert headline in report.markdown(shown, strict=strict).replace("&#8203;", "")
    assert f"<h1>{headline}</h1>" in report.html(shown, strict=strict)
    assert report.read_json(report.json(shown, strict=strict)).verdict == verdict


def test_a_problem_that_is_a_finding_too_is_told_once() -> None:
    broken = broken_plan()
    (problem,) = broken.new.problems
    finding = Finding(code=problem.code, subject="repo", message=problem.message)
    assert report.headline(replace(broken, findings=(finding,))) == "Refused: 1 error"


# Every form says what there is to say


TOLD = (
    "ip_ad_stats:ip_clicks_24h",
    "window: 24h → 12h",
    "ad_click_risk@ae39865a02b97013",
    "AR102",
    "ad_views.py:31",
    'windowed("ip_clicks", "click", "count", "12h", "Clicks")',
    "agreed with the platform's owners",
    "1,234,567",
    "1.25 min",
    "1,000 B → 1,200 B (+20",
    "8 → 9",
    "actor-risk backfill --view ip_ad_stats",
    "0.41",
    "words only",
)


def test_every_form_tells_changes_findings_costs_and_values() -> None:
    shown = full_plan()
    for form in (at_terminal(shown), unescape(report.markdown(shown)), unescape(report.html(shown))):
        assert [text for text in TOLD if text not in form] == []


def test_what_could_not_be_told_is_said() -> None:
    shown = plan(missing=("costs: no sample",))
    for form in (at_terminal(shown), report.markdown(shown), report.html(shown)):
        assert "costs: no sample" in form
        assert "there is no sample" in form


def test_the_summary_names_every_area_and_a_broken_repository_first() -> None:
    told = report.markdown(broken_plan())
    areas = re.findall(r"^\| \S+ \| ([a-z ]+) \|", told, re.MULTILINE)
    assert areas == ["repository", "all else"]
    for form in (at_terminal(broken_plan()), told, report.html(broken_plan())):
        assert "nothing that changes is read" not in form


def test_a_part_of_the_repository_that_can_be_told_is_told() -> None:
    (problem,) = broken_plan().new.problems
    whole = replace(full_plan(), new=RepoDefinition(entities=(ENTITY,), problems=(replace(problem, code="AR004"),)))
    areas = re.findall(r"^\| \S+ \| ([a-z ]+) \|", report.markdown(whole), re.MULTILINE)
    assert areas[:7] == ["changes", "repository", "what it breaks", "leakage", "values", "costs", "conventions"]


@pytest.mark.parametrize(
    ("old", "new", "noise", "told"),
    [
        (100.0, 120.0, 0.0, "100 → 120 (+20\N{NO-BREAK SPACE}%)"),
        (10_000.0, 9_999.0, 0.0, "10,000 → 9,999"),
        (1.4, 1.3, 0.0, "1"),
        (100.0, 109.0, 0.1, "109"),
        (100.0, 111.0, 0.1, "100 → 111 (+11\N{NO-BREAK SPACE}%)"),
        (None, 5.0, 0.1, "– → 5"),
        (5.0, None, 0.1, "5 → –"),
        (None, None, 0.1, "–"),
        (0.0, 5.0, 0.1, "0 → 5"),
    ],
)
def test_two_numbers_are_told_apart_where_they_differ(old: float, new: float, noise: float, told: str) -> None:
    assert moved(old, new, "{:,.0f}".format, noise=noise) == told


def test_a_finding_links_to_its_page_where_pages_have_an_address() -> None:
    assert "(https://pages/docs/findings.md#ar102)" in report.markdown(full_plan(), pages="https://pages/docs")
    assert "](" not in report.markdown(full_plan())


# Personal values


@pytest.mark.parametrize("side", ["old", "new"])
def test_of_a_feature_that_either_version_tags_as_personal_only_counts_are_shown(side: str) -> None:
    shown = masked_plan(side)
    secret = re.compile(r"192[,.]?168[,.]?001[,.]?07|1\.92168e")
    for form in (at_terminal(shown), report.markdown(shown), report.html(shown), report.json(shown).decode()):
        assert "v:address" in re.sub(r"</?span>", "", form)
        assert not secret.search(form)
    assert not re.search(r"<rect|<svg", report.html(shown))
    assert int(SECRET) == 192168001077


# Markdown


def test_a_comment_is_never_longer_than_one_may_be_and_says_how_much_it_left_out() -> None:
    told = report.markdown(large_plan())
    assert 50_000 < len(told) <= report.LENGTH_MAX
    left = {noun: int(count.replace(",", "")) for count, noun in re.findall(r"([\d,]+) (\w+)s left out", told)}
    assert left.keys() == {"change", "finding", "feature"}
    assert all(4_000 < count < 5_000 for count in left.values())
    assert_well_folded(told)


def test_long_texts_in_every_part_do_not_make_it_longer() -> None:
    assert (
        len(report.markdown(replace(large_plan(2_000), missing=("<" * 9_000,) * 50, against="|" * 9_000)))
        <= report.LENGTH_MAX
    )


def test_folds_are_closed_and_tables_have_equal_columns(any_plan: Plan) -> None:
    assert_well_folded(report.markdown(any_plan))


def assert_well_folded(told: str) -> None:
    depth = 0
    for tag in re.findall(r"</?details[^>]*>", told):
        depth += -1 if tag == "</details>" else 1
        assert depth in (0, 1)
    assert depth == 0
    assert told.count("<summary>") == told.count("</summary>") == told.count("<details")
    for table in re.findall(r"(?:^\|.*\n)+", told, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_hostile_texts_show_as_themselves_and_do_nothing_in_markdown() -> None:
    told = report.markdown(hostile_plan())
    for harmful in ("<script", "\x1b", "\u202e", "\r"):
        assert harmful not in told
    outside = re.sub(r"<pre>.*?</pre>|<code>.*?</code>|`[^`\n]*`", "", told, flags=re.DOTALL)
    for harmful in ("**x**", "https://x", "www.x", "`"):
        assert harmful not in outside
    for harmful in ("@team", "#12"):
        assert harmful not in unescape(outside)
    assert not re.search(r"^# ", outside, re.MULTILINE)
    assert {tag.lower() for tag in re.findall(r"<(\w+)", told)} <= {"details", "summary", "br", "code", "pre"}


NASTY = st.text(st.sampled_from("ab_1 |`<>&*[]()#@!\\~:/.-\n\r\x1b\u202e\u200bwg") | st.characters(), max_size=60)


@given(NASTY)
def test_any_text_is_one_line_without_structure(text: str) -> None:
    for shown in (prose(text), code(text)):
        assert "\n" not in shown
        assert "|" not in shown
        spans = re.sub(r"`[^`]*`|</?code>", "", shown)
        assert not re.search(r"[`<>*\[\]~\\]", spans)
        assert not re.search(r"&(?!#\d+;)", spans)
    assert not re.search(r"[@#]\w", unescape(re.sub(r"`[^`]*`|<code>.*?</code>", "", prose(text))))
    assert "<" not in block(text).removeprefix("<pre>").removesuffix("</pre>")


@given(st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="`"), max_size=200))
def test_what_is_escaped_reads_as_it_was_written(text: str) -> None:
    shown = prose(text, 900)
    assert unescape(shown).replace("\N{ZERO WIDTH SPACE}", "") == text


@given(st.lists(st.integers(0, 1_000), max_size=8), st.integers(0, 3_000))
def test_room_is_shared_fairly(wanted: list[int], room: int) -> None:
    shares = fair_shares(wanted, room)
    assert sum(shares) <= room
    assert all(0 <= share <= want for share, want in zip(shares, wanted, strict=True))
    short = [share for share, want in zip(shares, wanted, strict=True) if share < want]
    assert not short or max(shares) - min(short) <= 1
    assert not short or room - sum(shares) < len(wanted)


# HTML


class Reader(HTMLParser):
    """Whether every element that is opened is closed in order, what is fetched, and which elements there are."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(any_plan: Plan) -> None:
    page = report.html(any_plan)
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert not reader.fetched
    assert "script" not in reader.seen
    assert "\x1b" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_each_feature_with_other_values_has_a_picture_and_its_quantiles() -> None:
    page = report.html(full_plan())
    assert page.count("<svg") == 2  # not of the feature whose values stayed
    assert page.count('<rect class="old"') == 3
    assert page.count('<rect class="new"') == 6
    assert "<td>50\N{NO-BREAK SPACE}%</td><td class='n'>5</td><td class='n'>2.5</td>" in page
    for place in re.findall(r'<rect class="\w+" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', page):
        x, y, width, height = map(float, place)
        assert 0 <= x <= x + width <= 460
        assert 0 <= y <= y + height <= 150


def test_a_large_change_is_told_in_full_with_pictures_of_some() -> None:
    page = report.html(large_plan(300))
    assert page.count("<article class=") == 300
    assert page.count("<svg") == 200


# The terminal


def test_piped_output_has_no_colour_and_a_terminal_has() -> None:
    assert "\x1b" not in at_terminal(full_plan())
    assert "\x1b[" in at_terminal(full_plan(), colour=True)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_lines_fit_the_screen_and_nothing_is_lost_on_a_narrow_one(any_plan: Plan, width: int) -> None:
    shown = on_screen(any_plan, width)
    assert max(map(len, shown)) <= width
    assert shown[0].startswith(report.headline(any_plan)[: width - 1].split("(")[0].strip()[:20])


def test_a_narrow_screen_tells_the_numbers_too() -> None:
    told = " ".join(" ".join(on_screen(full_plan(), 60)).split())
    for text in ("bytes of an actor 1,000 B → 1,200 B", "drift 0.41", "to fill: events 1,234,567"):
        assert text in told


def test_hostile_texts_do_not_steer_a_terminal() -> None:
    told = at_terminal(hostile_plan())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", told)
    assert "[31mred" in told  # shown, not obeyed
    assert HOSTILE not in told


# JSON


def test_json_reads_back_to_the_same_plan(any_plan: Plan) -> None:
    written = report.json(any_plan)
    document = report.read_json(written)
    assert document.format == report.FORMAT == "actor-risk plan 1"
    assert report.json(document.plan) == written
    assert document.errors + document.warnings + document.notes == len(any_plan.findings) + len(any_plan.new.problems)
    if not any(values.new and values.new.masked for values in (any_plan.values.features if any_plan.values else ())):
        assert document.plan == any_plan


def test_json_of_another_format_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        report.read_json(report.json(plan()).replace(b"actor-risk plan 1", b"actor-risk plan 2"))
