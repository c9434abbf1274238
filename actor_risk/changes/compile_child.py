"""`python -m actor_risk.changes.compile_child REQUEST.json`: one version of a repository, in a process of its own.

 1. every file is parsed: what is not valid Python is told at once, and nothing is imported
 2. guards are put up: no network, no other program, no write but to temporary files, what is printed is kept
 3. every module is imported, as `feast apply` does, and applied to a registry in the output folder
 4. `definition.json` is written
 5. with a sample, its features are evaluated and weighed, and `outcome.json` says how that ended

What does not end in time is ended by a watchdog, which leaves behind where everything stood.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from actor_risk.changes.compile_request import (
    CRASHED,
    DEFINITION,
    EVALUATION_HUNG,
    EXITED,
    IMPORT_HUNG,
    OUTCOME,
    REGISTRY,
    WEIGHING_HUNG,
    CompileRequest,
    Outcome,
)
from actor_risk.changes.described import Problem, RepoDefinition
from actor_risk.changes.guarding import Guard, Printed, printing_kept
from actor_risk.changes.places import line_in, python_files, syntax_problems

_PRINTED = "printed.txt"
_NO_STORE = "it cannot be applied"


def main() -> int:
    """Compile what the request asks for. Returns 0; whatever is wrong with the repository is in the definition."""
    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=CompileRequest)
    sys.dont_write_bytecode = True
    repo, folder = Path(request.repo).resolve(), Path(request.folder)
    broken = [] if request.is_applied else syntax_problems(repo, python_files(repo))
    if broken:
        _write(folder / DEFINITION, RepoDefinition(problems=tuple(broken)))
        return 0
    _compile(request, repo, folder)
    return 0


def _compile(request: CompileRequest, repo: Path, folder: Path) -> None:
    # Feast, whose import takes seconds, comes only now; `materialize` is first, so that it comes quickly.
    import materialize  # noqa: F401
    from actor_risk.changes.describing import describe, import_repo, prepare
    from actor_risk.feast_repo import within_repo

    guard = Guard(repo, folder, [repo, *map(Path, request.protected)])
    guard.stand()
    if request.is_applied:
        _describe_registry(request, repo, folder)
        return
    process = os.getpid()
    with (folder / CRASHED).open("w") as crashed, within_repo(repo):
        faulthandler.enable(crashed)
        prepare(repo, folder / REGISTRY)
        with _ended_after(request.seconds, folder / IMPORT_HUNG), printing_kept(repo, folder / _PRINTED) as printed:
            _tell_exits(repo, folder / EXITED)
            imported = import_repo(repo, folder / REGISTRY)
        if os.getpid() != process:  # a process that a module forked, and that came back from there
            os._exit(0)
        with _ended_after(request.seconds, folder / IMPORT_HUNG):
            definition, store = describe(imported, folder, Path(request.data))
        _write(folder / DEFINITION, _with_guarded(definition, guard, printed))
        if store is not None:
            _evaluate(request, store, folder)
        else:
            _write(folder / OUTCOME, Outcome(values=_NO_STORE, costs=_NO_STORE))


def _describe_registry(request: CompileRequest, repo: Path, folder: Path) -> None:
    from actor_risk.changes.describing import applied_store
    from actor_risk.changes.registry_described import registry_definition

    store = applied_store(repo, folder / REGISTRY)
    _write(folder / DEFINITION, registry_definition(store, repo, Path(request.data)))
    _evaluate(request, store, folder)


def _evaluate(request: CompileRequest, store: Any, folder: Path) -> None:
    """The features on the sample, if there is one."""
    if not request.sample:
        return
    from actor_risk.changes.evaluating import evaluate
    from actor_risk.changes.weighing import weigh

    sample = Path(request.sample)
    with _ended_after(request.seconds, folder / EVALUATION_HUNG):
        values, values_s = _tried(lambda: evaluate(store, sample, folder))
    untold = f"weighing takes longer than {request.seconds:g} s"  # stands if the next step is ended
    _write(folder / OUTCOME, Outcome(values=values, costs=untold, seconds={"values": values_s}))
    with _ended_after(request.seconds, folder / WEIGHING_HUNG):
        costs, costs_s = _tried(lambda: weigh(store, sample, folder))
    _write(folder / OUTCOME, Outcome(values=values, costs=costs, seconds={"values": values_s, "costs": costs_s}))


def _tried(work: Callable[[], None]) -> tuple[str, float]:
    """Why it failed, "" if it did not, and how long it took. Its traceback is for the log of this process."""
    begun = time.perf_counter()
    try:
        work()
    except Exception as error:  # what can go wrong with a sample and a repository is not known here
        traceback.print_exc()
        return f"{type(error).__name__}: {error}", time.perf_counter() - begun
    return "", time.perf_counter() - begun


def _with_guarded(definition: RepoDefinition, guard: Guard, printed: Printed) -> RepoDefinition:
    """With what the guards saw; an import that failed only because it may not do that is told once."""
    problems = list(guard.refused)
    problems += [one for one in definition.problems if all(one.place != told.place for told in guard.refused)]
    text = printed.text
    if text.strip():
        first = text.strip().splitlines()[0][:80]
        problems.append(Problem(code="AR005", message=f"prints while it is imported: {first!r}", place=printed.place))
    return msgspec.structs.replace(definition, problems=tuple(problems), printed=text)


@contextmanager
def _ended_after(seconds: float, file: Path) -> Iterator[None]:
    """Ends this process when the block takes longer, and writes to `file` where every thread stood."""
    with file.open("w") as told:
        faulthandler.dump_traceback_later(seconds, exit=True, file=told)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    file.unlink(missing_ok=True)


def _tell_exits(repo: Path, file: Path) -> None:
    """`os._exit` says where it was called, since nothing else would."""
    leave, process = os._exit, os.getpid()

    def told(status: int) -> NoReturn:
        place = line_in(repo, sys._getframe())
        if os.getpid() == process and place:
            _write(file, Problem(code="AR002", message=f"it ends the process (os._exit({status}))", place=place))
        leave(status)

    os._exit = told


def _write(file: Path, content: msgspec.Struct) -> None:
    """Whole or not at all."""
    part = file.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(content))
    part.replace(file)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that a module started would keep the process
