"""Definitions into the registry: planned first, by one at a time, written down, and able to be undone.

1. What the registry has, and the files of the repository, are looked at.      nothing is locked, nothing is written
2. The plan is made of the one and the other; what it refuses is refused.
3. The registry's lock is taken, the same that backfills enter their progress under.
4. If the registry is not what the plan was made against, it is said who changed what, and that is all.
5. The repository is applied to a copy of the registry.
6. The sources are kept, and the log says what is about to be written.
7. The copy takes the registry's place, at once.
8. The log says that this is done.

Killed before 7, nothing has changed; killed after it, all has. The next command finds which, and completes the log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from actor_risk.changes.apply_log import ApplyLog, Begun, Ended, Ending, digest_of, sources_of
from actor_risk.changes.checkout import commit_of
from actor_risk.changes.plan import Plan
from actor_risk.changes.registered import Registered, counted, differences, in_a_line
from actor_risk.changes.registry_file import registered_in
from actor_risk.errors import ActorRiskError
from actor_risk.feast_repo import Applied, apply_repo
from actor_risk.home import Home
from actor_risk.local.server import exclusive

Planner = Callable[[Path | None, Path], Plan]
"""Makes the plan of two repositories, old and new; no old one: the registry has what nobody kept the sources of."""


class RefusedError(ActorRiskError):
    """The plan refuses the change. `plan` says what, why, and what to write instead."""

    def __init__(self, plan: Plan) -> None:
        found = len(plan.refusals)
        super().__init__(
            f"not applied: {found} finding{'s' if found > 1 else ''} to mend, or to waive by a tag with the reason"
        )
        self.plan = plan


class ChangedMeanwhileError(ActorRiskError):
    """The registry, or the repository, is not what the plan was made of any more."""


@dataclass(frozen=True)
class Asked:
    """Who applies, and when, milliseconds UTC. go_back: to the apply before this one, or to one by its number."""

    by: str
    at_ms: int
    go_back: bool = False
    go_back_to: int | None = None


@dataclass(frozen=True)
class Prepared:
    """What there is to apply, as it was looked at. plan: None where there is nothing to compare with, or no change.

    repo: the folder to apply; snapshot: the digest of its files. before: what the registry defined. restores: the apply
    that is gone back to.
    """

    repo: Path
    snapshot: str
    before: Registered
    plan: Plan | None
    restores: Begun | None

    @property
    def is_first(self) -> bool:
        """Whether the registry is empty."""
        return not self.before.parts


@dataclass(frozen=True)
class Done:
    """What is in the registry now. entry: of the log; None where nothing was different, and nothing was written."""

    applied: Applied
    entry: Begun | None


def prepare(home: Home, asked: Asked, planner: Planner) -> Prepared:
    """Look at the registry and the repository, and plan. Writes nothing.

    Raises ActorRiskError for an apply to go back to that there is not, or a home inside the repository.
    """
    _require_apart(home)
    log = ApplyLog(home.root)
    before = registered_in(home.registry)
    restores = _to_go_back_to(log, asked, before) if asked.go_back else None
    repo = home.feature_repo if restores is None else log.folder(restores.snapshot)
    snapshot = digest_of(sources_of(repo))
    last = _last_applied(log, before)
    is_planned = bool(before.parts) and (last is None or last.snapshot != snapshot)
    old = None if last is None else log.folder(last.snapshot)
    plan = planner(old, repo) if is_planned else None
    if digest_of(sources_of(repo)) != snapshot:
        raise ChangedMeanwhileError(f"files in {repo} were changed while they were looked at: run it again")
    return Prepared(repo, snapshot, before, plan, restores)


def apply_prepared(
    home: Home, asked: Asked, prepared: Prepared, at_step: Callable[[str], None] = lambda _: None
) -> Done:
    """Put what was prepared into the registry. `at_step` is told of each step of writing before it is begun.

    Raises RefusedError, ChangedMeanwhileError, and ActorRiskError with Feast's words; then nothing has changed. Going
    back to what served before is never refused.
    """
    if prepared.plan is not None and prepared.plan.refusals and prepared.restores is None:
        raise RefusedError(prepared.plan)
    with registry_lock(home):
        log = ApplyLog(home.root)
        repair(home, log, asked.at_ms)
        _require_unchanged(home, log, prepared)
        with _draft_of(home.registry) as draft:
            at_step("copied")
            applied = apply_repo(prepared.repo, draft, _environment(home))
            files = sources_of(prepared.repo)
            if digest_of(files) != prepared.snapshot:
                raise ChangedMeanwhileError(f"files in {prepared.repo} were changed meanwhile: run it again")
            entry = _entry(log, asked, prepared, registered_in(draft))
            if entry is None:
                return Done(applied, None)
            at_step("applied to the copy")
            log.keep(files)
            at_step("kept")
            log.add(entry)
            at_step("announced")
            _replace(draft, home.registry)
            at_step("written")
            log.add(Ended(number=entry.number, at_ms=asked.at_ms, how="applied"))
    return Done(applied, entry)


def first_apply(home: Home, asked: Asked) -> Applied:
    """Apply the repository to an empty registry: nothing can break, so nothing is planned."""
    _require_apart(home)
    repo = home.feature_repo
    return apply_prepared(home, asked, Prepared(repo, digest_of(sources_of(repo)), Registered(), None, None)).applied


@contextlib.contextmanager
def registry_lock(home: Home) -> Iterator[None]:
    """Hold what everybody holds who writes the registry of this home. Raises DeadlineError after two minutes."""
    with exclusive(home.registry_lock):
        yield


def repair(home: Home, log: ApplyLog, at_ms: int) -> None:
    """Complete the log after a killed process, and remove what it left. Needs the lock."""
    for draft in home.registry.parent.glob(f"{home.registry.name}.draft*"):
        draft.unlink(missing_ok=True)
    log.clean()
    entry = log.unfinished()
    if entry is not None:
        how = _how_it_ended(entry, registered_in(home.registry).fingerprint)
        log.add(Ended(number=entry.number, at_ms=at_ms, how=how, found=True))


def history(home: Home) -> list[Begun]:
    """What was applied, oldest first. An apply under way, or one that was killed, is not in it."""
    return ApplyLog(home.root).applies()


def _require_apart(home: Home) -> None:
    if home.root.resolve().is_relative_to(home.feature_repo.resolve()):
        raise ActorRiskError(
            f"{home.root} is inside the feature repository, and Feast would import the sources that are kept there: "
            "set ACTOR_RISK_HOME to a folder outside of it"
        )


def _how_it_ended(entry: Begun, registered: str) -> Ending:
    if registered == entry.registered.fingerprint:
        return "applied"
    return "not applied" if registered == entry.before else "overwritten"


def _to_go_back_to(log: ApplyLog, asked: Asked, registered: Registered) -> Begun:
    """Going back again goes further back: what was left by going back is not gone back to.

    Where somebody else has changed the registry since, going back leads to what was applied last.
    """
    applies = log.applies()
    current = _last_applied(log, registered)
    if asked.go_back_to is not None:
        found = [entry for entry in applies if entry.number == asked.go_back_to]
    elif current is None:
        found = applies[-1:]
    else:
        earlier = [entry for entry in applies if entry.number < current.original and entry.restores is None]
        found = [entry for entry in earlier if entry.snapshot != current.snapshot]
    if not found:
        wanted = "before this one" if asked.go_back_to is None else asked.go_back_to
        raise ActorRiskError(f"no apply {wanted} to go back to: `actor-risk apply --history` lists them")
    folder = log.folder(found[-1].snapshot)
    if not folder.is_dir():
        raise ActorRiskError(f"the sources of apply {found[-1].number} are gone: {folder}")
    return found[-1]


def _last_applied(log: ApplyLog, registered: Registered) -> Begun | None:
    """The newest apply that made the registry what it is; None when somebody else did, or its sources are gone."""
    entries = [*log.applies(), *([] if (open_ := log.unfinished()) is None else [open_])]
    found = [entry for entry in entries if entry.registered.fingerprint == registered.fingerprint]
    return found[-1] if found and log.folder(found[-1].snapshot).is_dir() else None


def _require_unchanged(home: Home, log: ApplyLog, prepared: Prepared) -> None:
    now = registered_in(home.registry)
    if now.fingerprint == prepared.before.fingerprint:
        return
    last = _last_applied(log, now)
    who = "somebody, not by `actor-risk apply`," if last is None else f"{last.by} (apply {last.number})"
    raise ChangedMeanwhileError(
        f"not applied: the registry was changed meanwhile. {who} did this: "
        f"{in_a_line(differences(prepared.before, now))}. Run it again: it is planned against that then"
    )


def _entry(log: ApplyLog, asked: Asked, prepared: Prepared, registered: Registered) -> Begun | None:
    """What the log is to say; None when the registry would say what it says already, and the log knows its sources."""
    last = _last_applied(log, registered)
    is_known = last is not None and last.snapshot == prepared.snapshot
    if registered.fingerprint == prepared.before.fingerprint and is_known:
        return None
    return Begun(
        number=log.next_number(),
        at_ms=asked.at_ms,
        by=asked.by,
        what=tuple(_in_words(prepared, registered)),
        registered=registered,
        before=prepared.before.fingerprint,
        snapshot=prepared.snapshot,
        commit=commit_of(prepared.repo) if prepared.restores is None else prepared.restores.commit,
        restores=None if prepared.restores is None else prepared.restores.original,
    )


def _in_words(prepared: Prepared, registered: Registered) -> list[str]:
    """As the plan names them; where it names none, what is written otherwise; of the first apply how much there is."""
    if prepared.is_first:
        return counted(registered)
    changes = () if prepared.plan is None else prepared.plan.changes
    named = [f"{change.what} {change.kind} {change.name}" for change in changes]
    return named or differences(prepared.before, registered)


def _environment(home: Home) -> dict[str, str]:
    """What the repository and its online store read. Redis is needed only to delete the rows of a view that is gone."""
    found = {"ACTOR_RISK_DATA": str(home.data)}
    if home.kafka_servers is not None:
        found["KAFKA_BOOTSTRAP_SERVERS"] = home.kafka_servers
    with contextlib.suppress(ActorRiskError):
        found["REDIS_URL"] = home.redis_url()
    return found


@contextlib.contextmanager
def _draft_of(registry: Path) -> Iterator[Path]:
    """A copy of the registry beside it, which is gone afterwards."""
    registry.parent.mkdir(parents=True, exist_ok=True)
    draft = registry.with_name(f"{registry.name}.draft")
    if registry.exists():
        shutil.copy2(registry, draft)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _replace(draft: Path, registry: Path) -> None:
    """Whoever reads the registry finds all of the new one or all of the old; also after a power failure."""
    _to_disk(draft)
    draft.replace(registry)
    _to_disk(registry.parent)


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
