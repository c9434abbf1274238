"""Both versions of a repository, compiled at the same time, each in a clean process: see `compile_child`.

A process that hangs, dies or ends itself is no reason to fail: it is a Problem of the version that it compiled.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from actor_risk.changes.compile_request import (
    CRASHED,
    DEFINITION,
    EVALUATION_HUNG,
    EXITED,
    IMPORT_HUNG,
    OUTCOME,
    REGISTRY,
    CompileRequest,
    Outcome,
)
from actor_risk.changes.described import Problem, RepoDefinition
from actor_risk.local import start_child
from actor_risk.local.processes import log_tail

IMPORT_SECONDS = 60.0
_START_SECONDS = 120.0
"""For what is ours: a Python that starts, and Feast's import, on a machine that has other things to do."""
_POLL_SECONDS = 0.02
_LOG = "child.log"
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


@dataclass(frozen=True)
class CompileSettings:
    """data: what ACTOR_RISK_DATA is for the repository. folder: takes a folder for each version.

    sample: evaluated in each version, None for none. protected: files and folders that nothing may write to.
    seconds: that importing, evaluating and weighing a version may each take. environ: what the processes get besides.
    """

    data: Path
    folder: Path
    sample: Path | None = None
    protected: tuple[Path, ...] = ()
    seconds: float = IMPORT_SECONDS
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class AppliedRegistry:
    """A version of which only the registry's file is left. repo: a folder whose feature_store.yaml it goes with."""

    file: Path
    repo: Path


@dataclass(frozen=True)
class Compiled:
    """One version. folder: what its process wrote. outcome: of the sample, None when nothing was evaluated."""

    definition: RepoDefinition
    folder: Path
    outcome: Outcome | None = None


@dataclass(frozen=True)
class _Started:
    child: subprocess.Popen[bytes]
    repo: Path
    folder: Path


def compile_versions(versions: Mapping[str, Path | AppliedRegistry], settings: CompileSettings) -> dict[str, Compiled]:
    """Each of the versions (name → folder of the repository) by its name, all at once.

    Call it from a thread that lives until it returns: on Linux the processes end with it. No process of theirs is left
    when it returns, whether they were done, failed or hung.
    """
    phases = 4 if settings.sample is not None else 2
    deadline = time.monotonic() + _START_SECONDS + phases * settings.seconds
    started: dict[str, _Started] = {}
    try:
        for name, version in versions.items():
            started[name] = _start(version, settings.folder / name, settings)
        return {name: _result(one, _ended(one, deadline), settings) for name, one in started.items()}
    finally:
        for one in started.values():
            _end(one.child)


def _start(version: Path | AppliedRegistry, folder: Path, settings: CompileSettings) -> _Started:
    folder.mkdir(parents=True)
    repo = (version.repo if isinstance(version, AppliedRegistry) else version).resolve()
    if isinstance(version, AppliedRegistry):
        shutil.copyfile(version.file, folder / REGISTRY)
    request = CompileRequest(
        repo=str(repo),
        data=str(settings.data),
        folder=str(folder),
        is_applied=isinstance(version, AppliedRegistry),
        sample=str(settings.sample.resolve()) if settings.sample is not None else "",
        protected=tuple(map(str, settings.protected)),
        seconds=settings.seconds,
    )
    file = folder / "request.json"
    file.write_bytes(msgspec.json.encode(request))
    variables = {
        **settings.environ,
        "ACTOR_RISK_DATA": str(settings.data),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # the same objects in the same order, in both versions
        "OMP_NUM_THREADS": "1",  # one core each
    }
    command = [sys.executable, "-m", "actor_risk.changes.compile_child", str(file)]
    return _Started(start_child(command, folder / _LOG, env=variables), repo, folder)


def _ended(one: _Started, deadline: float) -> int | None:
    """The exit code; None when it had to be ended. What it started goes with it."""
    while one.child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    code = one.child.poll()
    _end(one.child)
    return code


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the process and its whole group, which it leads."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _result(one: _Started, code: int | None, settings: CompileSettings) -> Compiled:
    try:
        definition = msgspec.json.decode((one.folder / DEFINITION).read_bytes(), type=RepoDefinition)
    except FileNotFoundError:
        return Compiled(RepoDefinition(problems=(_why_none(one, code, settings),)), one.folder)
    if settings.sample is None or definition.is_unreadable:
        return Compiled(definition, one.folder)
    try:
        outcome = msgspec.json.decode((one.folder / OUTCOME).read_bytes(), type=Outcome)
    except FileNotFoundError:
        problem = _why_not_evaluated(one, code, settings)
        if problem.place:  # a function of the repository is at fault, and not a machine that has other things to do
            definition = msgspec.structs.replace(definition, problems=(*definition.problems, problem))
        return Compiled(definition, one.folder, Outcome(values=problem.message, costs=problem.message))
    return Compiled(definition, one.folder, outcome)


def _why_none(one: _Started, code: int | None, settings: CompileSettings) -> Problem:
    """Why the process wrote no definition."""
    with suppress(FileNotFoundError):
        return msgspec.json.decode((one.folder / EXITED).read_bytes(), type=Problem)
    hung = _place(one, IMPORT_HUNG)
    if hung is not None or code is None:
        message = f"importing it takes longer than {settings.seconds:g} s; it was ended at this line"
        return Problem(code="AR003", message=message, place=hung or "")
    return Problem(code="AR002", message=_death(one, code), place=_place(one, CRASHED) or "")


def _why_not_evaluated(one: _Started, code: int | None, settings: CompileSettings) -> Problem:
    """Why the process ended after it wrote the definition, and before it was done with the sample."""
    hung = _place(one, EVALUATION_HUNG)
    if hung is not None or code is None:
        where = "; it was ended at this line" if hung else ""
        message = f"evaluating it on the sample takes longer than {settings.seconds:g} s{where}"
        return Problem(code="AR304", message=message, place=hung or "")
    return Problem(code="AR304", message=f"on the sample, {_death(one, code)}", place=_place(one, CRASHED) or "")


def _death(one: _Started, code: int) -> str:
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"the process that imports it died ({how}): {log_tail(one.folder / _LOG)}"


def _place(one: _Started, file: str) -> str | None:
    """The innermost line of the repository that stood in the traceback, "" without one; None without a traceback."""
    try:
        text = (one.folder / file).read_text(errors="replace")
    except FileNotFoundError:
        return None
    if not text.strip():
        return None
    for frame in _FRAME.finditer(text):  # most recent call first
        path = Path(frame["file"])
        if path.is_relative_to(one.repo):
            return f"{path.relative_to(one.repo)}:{frame['line']}"
    return ""
