"""Twenty mistakes in the demo's feature repository, each found by its code and no other; six harmless edits.

Each version is imported, applied to a registry of its own and evaluated on a simulated sample, as the command's child
does it; only that all of them are imported in this one process, one after the other, since Feast takes seconds to
import. Their modules are dropped in between. What a process of its own adds is in test_compiling.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actor_risk.changes.checks import find
from actor_risk.changes.described import RepoDefinition, ServedModel
from actor_risk.changes.differences import changes
from actor_risk.changes.evaluating import evaluate
from actor_risk.changes.findings import CODES, Finding
from actor_risk.changes.profiling import compare_values, problems_on_sample
from actor_risk.simulate import FILES, SimulationSettings, simulate, write
from tests.changes.repos import demo_repo, opened
from tests.changes.seeded import HARMLESS, MISTAKES, NOT_HARMLESS, Edit

START_MS = 1_763_596_800_000
SETTINGS = SimulationSettings(
    seed=11,
    start_ms=START_MS,
    end_ms=START_MS + 86_400_000,
    advertisers=60,
    creators=60,
    ips=400,
    devices=400,
    ad_events_per_day=1_500,
    account_events_per_day=500,
    label_noise=0.25,
)


@dataclass(frozen=True)
class Version:
    """A version as plain data, and the folder with its values."""

    definition: RepoDefinition
    folder: Path


Compile = Callable[[Edit | None], Version]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """What compiles and evaluates an edited version on the same sample."""
    sample = tmp_path_factory.mktemp("sample")
    write(simulate(SETTINGS), sample)
    add_columns(sample)

    def version(edit: Edit | None) -> Version:
        folder = tmp_path_factory.mktemp("version")
        repo = demo_repo(folder)
        if edit is not None:
            edit.make(repo)
        with opened(repo, sample, folder / "registry") as (definition, store):
            if store is not None:
                evaluate(store, sample, folder / "values")
        return Version(definition, folder / "values")

    return version


def add_columns(sample: Path) -> None:
    """Columns that no repository should read: when a click was attributed, and what a reviewer thought of it."""
    file = sample / FILES["ad_events"]
    events = pq.read_table(file)
    labels = pq.read_table(sample / FILES["ad_click_labels"])
    told = dict(zip(labels["event_id"].to_pylist(), labels["label"].to_pylist(), strict=True))
    quality = np.array([told.get(one, np.nan) for one in events["event_id"].to_pylist()], dtype=np.float64)
    events = events.append_column("quality", pa.array(quality))
    pq.write_table(events.append_column("attributed_time", pa.array(quality + 1)), file)


@pytest.fixture(scope="module")
def old(compiled: Compile) -> Version:
    """The demo's repository as it is."""
    return compiled(None)


def findings(old: Version, new: Version) -> tuple[Finding, ...]:
    """All findings of the change, where a model in use reads each service."""
    models = tuple(
        ServedModel(
            model=service.name,
            version="v1",
            aliases=("champion",),
            service=service.name,
            service_fingerprint=service.fingerprint,
            features=service.features,
        )
        for service in old.definition.services
    )
    problems = (*new.definition.problems, *problems_on_sample(new.folder))
    definition = msgspec.structs.replace(new.definition, problems=problems)
    values = compare_values(old.folder, new.folder, old.definition, definition)
    return find(old.definition, definition, changes(old.definition, definition, models), models, values, None)


def told(found: tuple[Finding, ...]) -> str:
    return "\n".join(f"{one.code} {one.subject}: {one.message}" for one in found)


@pytest.mark.parametrize("seeded", MISTAKES, ids=lambda one: one.name)
def test_a_mistake_is_found_by_its_code_and_no_other(seeded: Edit, compiled: Compile, old: Version) -> None:
    found = findings(old, compiled(seeded))
    assert {one.code for one in found} == seeded.codes, told(found)
    assert all(one.place and one.instead for one in found)


@pytest.mark.parametrize("edit", HARMLESS, ids=lambda one: one.name)
def test_a_harmless_change_gives_nothing(edit: Edit, compiled: Compile, old: Version) -> None:
    found = findings(old, compiled(edit))
    assert not found, told(found)


@pytest.mark.parametrize("edit", NOT_HARMLESS, ids=lambda one: one.name)
def test_what_only_looks_harmless_is_told(edit: Edit, compiled: Compile, old: Version) -> None:
    found = findings(old, compiled(edit))
    assert {one.code for one in found} == edit.codes, told(found)


def test_there_are_twenty_mistakes_and_six_harmless_changes() -> None:
    assert (len(MISTAKES), len(HARMLESS)) == (20, 6)
    assert frozenset().union(*(one.codes for one in MISTAKES)) <= set(CODES)
