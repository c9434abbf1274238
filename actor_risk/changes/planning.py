"""The plan of a change, put together: both versions compiled, what differs, what that does, and to whom.

    old folder ──► process ──► definition, values, costs ─┐
    new folder ──► process ──► definition, values, costs ─┼─► changes ──► findings ──► Plan
    model store ───────────────────────────────► models ──┘

Nothing is written but into a temporary folder, and neither Redis nor the event log is asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from actor_risk.changes import checks
from actor_risk.changes.checkout import Against
from actor_risk.changes.compiling import IMPORT_SECONDS, AppliedRegistry, Compiled, CompileSettings, compile_versions
from actor_risk.changes.costing import costs, untold_costs
from actor_risk.changes.described import RepoDefinition, ServedModel
from actor_risk.changes.differences import changes
from actor_risk.changes.plan import Change, Plan
from actor_risk.changes.profiling import compare_values, problems_on_sample, untold_values
from actor_risk.changes.values import Costs, SampleValues
from actor_risk.errors import ActorRiskError
from actor_risk.home import Home

OLD, NEW = "old", "new"
_WITH_VALUES = ("view", "feature")


@dataclass(frozen=True)
class PlanSettings:
    """sample: evaluated in both versions, None for none. repo: the new version, None for that of the home.

    seconds: that importing a version, and evaluating it, may take.
    """

    sample: Path | None = None
    seconds: float = IMPORT_SECONDS
    repo: Path | None = None


def make_plan(home: Home, against: Against, settings: PlanSettings | None = None) -> Plan:
    """What the change from `against` to the repository does.

    Whatever is wrong with the new version is a finding, what could not be told is in `missing`. Raises ActorRiskError
    for a sample or a folder that is not there. Call it from a thread that lives until it returns.
    """
    begun = time.monotonic()
    settings = settings or PlanSettings()
    repo = settings.repo or home.feature_repo
    _require(settings.sample, repo)
    with TemporaryDirectory(prefix="actor-risk-plan-") as folder, ThreadPoolExecutor(1) as beside:
        reading = beside.submit(_served_models, home)
        compiled = _compile(home, against, repo, settings, Path(folder))
        models, missing = reading.result()
        old, new = (_with_sample_problems(compiled[name], name) for name in (OLD, NEW))
        found = changes(old, new, models)
        values, costs_of_both, untold = _of_sample(compiled, old, new, found, settings)
    plan = Plan(
        against=against.name,
        old=old,
        new=new,
        models=models,
        changes=() if new.is_unreadable else found,
        values=values,
        costs=costs_of_both,
        missing=(*missing, *_of_old(old, against), *untold),
    )
    findings = checks.find(old, new, found, models, values, costs_of_both)
    return msgspec.structs.replace(plan, findings=findings, seconds=round(time.monotonic() - begun, 2))


def live_places(home: Home) -> tuple[Path, ...]:
    """Where this installation keeps what is live: nothing that is only looked at may write there."""
    places = (home.root, home.data, home.decisions, home.models)
    return tuple(place for place in places if isinstance(place, Path))


def _require(sample: Path | None, repo: Path) -> None:
    if not repo.is_dir():
        raise ActorRiskError(f"no folder {repo}: set ACTOR_RISK_FEATURE_REPO, or run this beside feature_repo/")
    if sample is not None and not sample.exists():
        raise ActorRiskError(f"no sample at {sample}: give a folder like .local/data, or one Parquet file of events")


def _compile(home: Home, against: Against, repo: Path, settings: PlanSettings, folder: Path) -> dict[str, Compiled]:
    versions: dict[str, Path | AppliedRegistry] = {NEW: repo}
    if against.registry is not None:
        versions[OLD] = AppliedRegistry(against.registry, repo)
    elif against.folder is not None:
        versions[OLD] = against.folder
    compile_settings = CompileSettings(
        data=home.data, folder=folder, sample=settings.sample, protected=live_places(home), seconds=settings.seconds
    )
    found = compile_versions(versions, compile_settings)
    return {OLD: Compiled(RepoDefinition(), folder / "none"), **found}


def _served_models(home: Home) -> tuple[tuple[ServedModel, ...], tuple[str, ...]]:
    from actor_risk.changes.served import served_models  # brings ONNX Runtime, whose import takes a while

    return served_models(home.models)


def _with_sample_problems(compiled: Compiled, name: str) -> RepoDefinition:
    """The definition; that of the new version with what failed on the sample."""
    definition = compiled.definition
    found = problems_on_sample(compiled.folder) if name == NEW else ()
    return msgspec.structs.replace(definition, problems=(*definition.problems, *found)) if found else definition


def _of_sample(
    compiled: dict[str, Compiled],
    old: RepoDefinition,
    new: RepoDefinition,
    found: tuple[Change, ...],
    settings: PlanSettings,
) -> tuple[SampleValues | None, Costs | None, list[str]]:
    """Values and costs, and what could not be told of them."""
    if new.is_unreadable:
        return None, None, []
    folders = compiled[OLD].folder, compiled[NEW].folder
    costs_of_both = costs(*folders, old, new)
    if settings.sample is None:
        return None, costs_of_both, ["values, and costs per actor: give a --sample"]
    renames = {change.name: change.was for change in found if change.what == "renamed" and change.kind in _WITH_VALUES}
    values = compare_values(*folders, old, new, renames)
    missing = [*untold_values(folders[1]), *untold_costs(folders[1])]
    for name, one in compiled.items():
        if one.outcome is not None:
            missing += _failed(name, one.outcome.values, "values") + _failed(name, one.outcome.costs, "costs")
    return values, costs_of_both, missing


def _failed(version: str, why: str, what: str) -> list[str]:
    return [f"{what} of the {version} version: {why}"] if why else []


def _of_old(old: RepoDefinition, against: Against) -> list[str]:
    """What is wrong with the old version keeps nobody from mending it."""
    told = _some(f"{problem.place} {problem.message}".strip() for problem in old.problems)
    if old.is_unreadable:
        return [f"what differs: {against.name} cannot be compiled, so all counts as new: {told}"]
    return [f"all of {against.name}: {told}"] if told else []


def _some(texts: Iterable[str]) -> str:
    every = list(texts)
    return "; ".join(every[:3]) + (f"; and {len(every) - 3} more" if len(every) > 3 else "")
