"""Applying: planned first, one at a time, whole or not at all, written down, and able to be undone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from feast import FeatureStore

from actor_risk.changes.apply_log import LOG, ApplyLog
from actor_risk.changes.applying import (
    Asked,
    ChangedMeanwhileError,
    Prepared,
    RefusedError,
    apply_prepared,
    history,
    prepare,
)
from actor_risk.changes.described import RepoDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.plan import Change, Plan
from actor_risk.changes.registry_file import registered_in
from actor_risk.errors import ActorRiskError
from actor_risk.feast_repo import advance_watermark, apply_repo
from actor_risk.home import Home
from materialize.definitions import open_feature_store
from materialize.online import FeatureReaderSync
from tests.changes.repos import edit, small_repo
from tests.support.children import start_child_of_tests

FILE = "definitions.py"
STEPS = ("copied", "applied to the copy", "kept", "announced", "written")
WAIT_S = 30


@pytest.fixture
def here(tmp_path: Path) -> Home:
    """A home with the small repository, and nothing applied."""
    return home_of(tmp_path)


def home_of(folder: Path) -> Home:
    repo = small_repo(folder)
    return Home.from_environment({"ACTOR_RISK_HOME": str(folder / "home"), "ACTOR_RISK_FEATURE_REPO": str(repo)})


def plan(*findings: Finding) -> Plan:
    change = Change(what="changed", kind="feature", name="ip_table:is_vpn")
    empty = RepoDefinition()
    return Plan(against="what was applied", old=empty, new=empty, changes=(change,), findings=findings)


def planned(*_: Path | None) -> Plan:
    return plan()


def unplanned(*_: Path | None) -> Plan:
    raise AssertionError("nothing is to be planned here")


def refusing(*_: Path | None) -> Plan:
    return plan(Finding(code="AR102", subject="ip_table:is_vpn", message="changed", instead="name it is_vpn_2"))


def asked(by: str = "ann@desk", **how: int | bool | None) -> Asked:
    return Asked(by=by, at_ms=1_000, **how)  # type: ignore[arg-type]


def applied(here: Home, planner: Callable[[Path | None, Path], Plan] = planned, who: Asked | None = None) -> str:
    """The fingerprint of the definitions after an apply."""
    question = who or asked()
    apply_prepared(here, question, prepare(here, question, planner))
    return registered_in(here.registry).fingerprint


def describe(here: Home, text: str) -> None:
    """Change the repository: what the field `is_vpn` says."""
    current = (here.feature_repo / FILE).read_text()
    before = current.split('name="is_vpn", dtype=Int64, description="')[1].split('"')[0]
    edit(here.feature_repo, FILE, f'description="{before}"', f'description="{text}"')


def test_the_first_apply_is_not_planned_and_is_written_down(here: Home) -> None:
    question = asked()
    done = apply_prepared(here, question, prepare(here, question, unplanned))
    assert (done.applied.views, done.applied.services) == (3, ("risk",))
    (entry,) = history(here)
    assert (entry.number, entry.by, entry.at_ms, entry.restores) == (1, "ann@desk", 1_000, None)
    assert entry.what == ("1 entity", "1 service", "4 sources", "3 views")
    assert entry.registered == registered_in(here.registry)
    assert (here.root / "applies" / entry.snapshot / FILE).read_text() == (here.feature_repo / FILE).read_text()


def test_the_same_definitions_are_neither_planned_nor_written_again(here: Home) -> None:
    applied(here)
    before = here.registry.read_bytes()
    applied(here, unplanned)
    assert here.registry.read_bytes() == before
    assert len(history(here)) == 1


def test_a_change_is_planned_against_the_sources_that_were_applied_last(here: Home) -> None:
    applied(here)
    describe(here, "1 behind a VPN")
    seen = []

    def planner(old: Path | None, new: Path) -> Plan:
        assert old is not None
        seen.append(("1 behind a VPN" in (old / FILE).read_text(), "1 behind a VPN" in (new / FILE).read_text()))
        return plan()

    applied(here, planner)
    assert seen == [(False, True)]
    assert history(here)[-1].what == ("changed feature ip_table:is_vpn",)


def test_what_the_plan_refuses_changes_nothing(here: Home) -> None:
    applied(here)
    describe(here, "other")
    before, log = here.registry.read_bytes(), (here.root / LOG).read_bytes()
    with pytest.raises(RefusedError) as refused:
        applied(here, refusing)
    assert refused.value.plan.refusals[0].instead == "name it is_vpn_2"
    assert (here.registry.read_bytes(), (here.root / LOG).read_bytes()) == (before, log)


def test_a_waived_finding_is_not_refused(here: Home) -> None:
    applied(here)
    describe(here, "other")
    applied(here, lambda *_: plan(Finding(code="AR102", subject="a:b", message="changed", waived="agreed")))
    assert len(history(here)) == 2


def test_going_back_applies_what_was_there_before_and_then_what_was_before_that(here: Home) -> None:
    found = [applied(here)]
    for text in ("second", "third"):
        describe(here, text)
        found.append(applied(here))
    assert len(set(found)) == 3
    assert applied(here, refusing, asked(go_back=True)) == found[1]
    assert applied(here, refusing, asked(go_back=True)) == found[0]
    assert [entry.restores for entry in history(here)] == [None, None, None, 2, 1]
    assert applied(here, refusing, asked(go_back=True, go_back_to=3)) == found[2]
    assert 'description="third"' in (here.feature_repo / FILE).read_text()


def test_going_back_from_what_somebody_else_wrote_leads_to_what_was_applied_last(here: Home) -> None:
    first = applied(here)
    describe(here, "by hand")
    apply_repo(here.feature_repo, here.registry, {"ACTOR_RISK_DATA": str(here.data)})
    assert applied(here, planned, asked(go_back=True)) == first
    assert [entry.restores for entry in history(here)] == [None, 1]


def test_a_home_inside_the_repository_is_refused(tmp_path: Path) -> None:
    repo = small_repo(tmp_path)
    here = Home.from_environment({"ACTOR_RISK_HOME": str(repo / "home"), "ACTOR_RISK_FEATURE_REPO": str(repo)})
    with pytest.raises(ActorRiskError, match="outside"):
        prepare(here, asked(), planned)


def test_there_must_be_something_to_go_back_to(here: Home) -> None:
    applied(here)
    for question in (asked(go_back=True), asked(go_back=True, go_back_to=7)):
        with pytest.raises(ActorRiskError, match="--history"):
            prepare(here, question, planned)


def test_of_two_at_once_the_second_is_told_what_changed_under_it(here: Home) -> None:
    applied(here)
    describe(here, "of ann")
    first = prepare(here, asked("ann@desk"), planned)
    second = prepare(here, asked("bob@desk"), planned)
    apply_prepared(here, asked("ann@desk"), first)
    with pytest.raises(ChangedMeanwhileError, match=r"ann@desk \(apply 2\).*changed view ip_table"):
        apply_prepared(here, asked("bob@desk"), second)
    assert [entry.by for entry in history(here)] == ["ann@desk", "ann@desk"]


def _apply_and_tell(here: Home, prepared: Prepared, by: str, told: Path) -> None:
    try:
        apply_prepared(here, asked(by), prepared)
        told.write_text("applied")
    except ChangedMeanwhileError as error:
        told.write_text(str(error))


@pytest.mark.parametrize(
    ("line", "why"),
    [("1 / 0", "ZeroDivisionError"), ("import sys; sys.exit(0)", "SystemExit"), ("def f(:", "SyntaxError")],
)
def test_what_cannot_be_imported_is_told_with_its_line(here: Home, line: str, why: str) -> None:
    (here.feature_repo / "zz.py").write_text(f"x = 1\n{line}\n")
    with pytest.raises(ActorRiskError, match=rf"feature_repo/zz\.py:2: {why}"):
        applied(here)
    assert not here.registry.exists()


def test_of_two_processes_at_once_one_wins(here: Home, tmp_path: Path) -> None:
    applied(here)
    describe(here, "new")
    prepared = prepare(here, asked(), planned)
    files = {by: tmp_path / f"{by}.txt" for by in ("ann", "bob")}
    children = [start_child_of_tests(_apply_and_tell, here, prepared, by, file) for by, file in files.items()]
    for child in children:
        child.join(WAIT_S)
    said = {by: file.read_text() for by, file in files.items()}
    (winner,) = [by for by, text in said.items() if text == "applied"]
    (loser,) = set(said) - {winner}
    assert f"{winner} (apply 2)" in said[loser]
    assert [entry.by for entry in history(here)] == ["ann@desk", winner]


def _apply_and_die(here: Home, at: str) -> None:
    def die(step: str) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGKILL)

    apply_prepared(here, asked("bob"), prepare(here, asked("bob"), planned), die)


@pytest.mark.parametrize("step", STEPS)
def test_an_apply_that_is_killed_has_happened_or_not_and_the_next_one_says_which(here: Home, step: str) -> None:
    before = applied(here)
    describe(here, "new")
    child = start_child_of_tests(_apply_and_die, here, step)
    child.join(WAIT_S)
    assert child.exitcode == -signal.SIGKILL
    after = registered_in(here.registry).fingerprint
    assert (after != before) == (step == "written")
    FeatureStore(config=open_feature_store(here.feature_repo, here.registry).config).list_feature_services()

    describe(here, "newer")
    newest = applied(here, planned, asked("eve"))
    assert newest not in (before, after)
    assert ApplyLog(here.root).unfinished() is None
    assert [entry.by for entry in history(here)] == ["ann@desk", *(["bob"] if step == "written" else []), "eve"]
    assert not [path.name for path in here.root.iterdir() if "draft" in path.name]
    assert not list((here.root / "applies").glob(".*"))


def test_a_line_of_the_log_that_was_cut_off_announced_nothing(here: Home) -> None:
    applied(here)
    with (here.root / LOG).open("ab") as log:
        log.write(b'{"line":"begun","num')
    describe(here, "new")
    applied(here)
    assert [entry.number for entry in history(here)] == [1, 2]


def test_a_registry_that_somebody_else_wrote_is_planned_without_old_sources(here: Home) -> None:
    applied(here)
    describe(here, "by hand")
    apply_repo(here.feature_repo, here.registry, {"ACTOR_RISK_DATA": str(here.data)})
    describe(here, "new")
    seen: list[Path | None] = []

    def planner(old: Path | None, _: Path) -> Plan:
        seen.append(old)
        return plan()

    applied(here, planner)
    assert seen == [None]


def test_files_that_are_changed_while_they_are_planned_are_not_applied(here: Home) -> None:
    applied(here)
    describe(here, "new")

    def planner(*_: Path | None) -> Plan:
        describe(here, "newer")
        return plan()

    with pytest.raises(ChangedMeanwhileError, match="run it again"):
        applied(here, planner)
    prepared = prepare(here, asked(), planned)
    describe(here, "newest")
    with pytest.raises(ChangedMeanwhileError, match="run it again"):
        apply_prepared(here, asked(), prepared)
    assert len(history(here)) == 1


def test_progress_that_a_backfill_enters_meanwhile_is_not_lost(here: Home) -> None:
    applied(here)
    describe(here, "new")
    store = open_feature_store(here.feature_repo, here.registry)
    backfill = threading.Thread(
        target=advance_watermark, args=(store, "ip_table", 0, 1_000, here.registry_lock, lambda _: None)
    )

    def at_step(step: str) -> None:
        if step == "kept":
            backfill.start()

    question = asked()
    apply_prepared(here, question, prepare(here, question, planned), at_step)
    backfill.join(WAIT_S)
    view = open_feature_store(here.feature_repo, here.registry).get_feature_view("ip_table")
    assert len(view.materialization_intervals) == 1
    assert "new" in [field.description for field in view.features]
    describe(here, "newer")
    applied(here)
    view = open_feature_store(here.feature_repo, here.registry).get_feature_view("ip_table")
    assert len(view.materialization_intervals) == 1


def test_whoever_reads_the_registry_meanwhile_finds_all_of_the_old_or_all_of_the_new(here: Home) -> None:
    applied(here)
    found, over = set(), threading.Event()

    def read() -> None:
        while not over.is_set():
            found.add(len(registered_in(here.registry).parts))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for text in ("a", "b", "c"):
            describe(here, text)
            applied(here)
    finally:
        over.set()
        reader.join(WAIT_S)
    assert found == {len(registered_in(here.registry).parts)}


def test_a_reader_that_runs_takes_the_new_definitions_over_beside_the_old_ones(here: Home) -> None:
    applied(here)
    reader = FeatureReaderSync(redis.Redis(), open_feature_store(here.feature_repo, here.registry))
    before = reader.plan("risk")
    assert not reader.refresh()
    describe(here, "new words")
    applied(here)
    assert reader.refresh()
    assert "new words" in reader.plan("risk").descriptions
    assert "new words" not in before.descriptions
    assert reader.plan("risk").fingerprint == before.fingerprint
