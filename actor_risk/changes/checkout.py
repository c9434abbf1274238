"""What a change is compared with: the repository's folder at a commit, taken out of git, or another folder.

Without `--against`, it is where this branch left `main`: what a reviewer of it sees, with what is not committed yet.
On `main` itself that is the last commit, and where nothing differs from that, the commit before it; before the first
commit there is no old version. A name is taken as
it stands: `origin/main` is its newest commit. `origin/main...`, as `git diff` has it, is where this branch left it.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from actor_risk.errors import ActorRiskError

MAINS = ("origin/main", "main", "origin/master", "master")
FEATURE_STORE = "feature_store.yaml"
_GIT_SECONDS = 60
_SINCE_BRANCH = "..."
_OF_ANOTHER_TREE = frozenset(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"))
"""What git tells its hooks of where it runs: with it, git would not look where the repository is."""


@dataclass(frozen=True)
class Against:
    """The old version. folder: None where the repository did not exist then, so that everything is new."""

    name: str
    folder: Path | None
    registry: Path | None = None
    """A registry's file, for an old version of which only that is left."""


@contextmanager
def old_version(repo: Path, against: str | None = None) -> Iterator[Against]:
    """The version that `against` names: a commit, a folder with a feature_store.yaml, or the default for None.

    A commit's files are in a temporary folder as long as the context is. Nothing is written to the repository or to
    its .git. Raises ActorRiskError without git, outside of one, and for a name that is no commit of it.
    """
    folder = Path(against) if against is not None else None
    if folder is not None and (folder / FEATURE_STORE).is_file():
        yield Against(str(against), folder.resolve())
        return
    tree = _Tree.around(repo, against)
    if against in (None, "HEAD") and tree.has_no_commit():
        yield Against("nothing: there is no commit yet", None)
        return
    name, commit = tree.commit(against)
    with TemporaryDirectory(prefix="actor-risk-plan-") as apart:
        yield Against(name, tree.taken_out(commit, Path(apart)))


@dataclass(frozen=True)
class _Tree:
    """A git work tree. inside: the repository's path below its top, `/` between parts, `.` for the top itself."""

    top: Path
    inside: str

    @staticmethod
    def around(repo: Path, against: str | None) -> _Tree:
        """The one that the repository is in."""
        if not repo.is_dir():
            raise ActorRiskError(f"no folder {repo}: set ACTOR_RISK_FEATURE_REPO, or run this beside feature_repo/")
        try:
            top = _git(repo, "rev-parse", "--show-toplevel")
        except ActorRiskError as error:
            instead = "--against PATH compares with another folder"
            named = "" if against is None else f", and {against!r} is no folder with a {FEATURE_STORE}"
            raise ActorRiskError(f"{repo} is in no git repository{named}: {instead} ({error})") from error
        root = Path(top).resolve()
        return _Tree(root, repo.resolve().relative_to(root).as_posix())

    def has_no_commit(self) -> bool:
        """Whether the first commit is still to be made."""
        return self._output("rev-parse", "--verify", "--quiet", "HEAD^{commit}") is None

    def commit(self, against: str | None) -> tuple[str, str]:
        """How it is called, and its hash."""
        if against is None:
            return self._default()
        if against.endswith(_SINCE_BRANCH):
            name = against.removesuffix(_SINCE_BRANCH)
            commit = self._left(self._known(name))
            if commit is None:
                raise ActorRiskError(
                    f"this branch and {name!r} have no commit in common: fetch their history "
                    "(`git fetch --unshallow`, or `fetch-depth: 0` in CI)"
                )
            return self._called(f"where this branch left {name}", commit), commit
        commit = self._known(against)
        return self._called(against, commit), commit

    def taken_out(self, commit: str, folder: Path) -> Path | None:
        """The repository's folder as it was in the commit, below `folder`; None if it was not there."""
        if self._output("cat-file", "-t", f"{commit}:{'' if self.inside == '.' else self.inside}") != "tree":
            return None
        archive = _git_bytes(self.top, "archive", "--format=tar", commit, "--", self.inside)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        return folder / self.inside

    def _default(self) -> tuple[str, str]:
        head = self._known("HEAD")
        for main in MAINS:
            known = self._output("rev-parse", "--verify", "--quiet", f"{main}^{{commit}}")
            left = self._left(known) if known is not None else None
            if left is not None and left != head:
                return self._called(f"where this branch left {main}", left), left
        before = self._output("rev-parse", "--verify", "--quiet", "HEAD~1^{commit}")
        if before is None or self._differs(head):
            return self._called("HEAD", head), head
        return self._called("HEAD~1", before), before

    def _known(self, name: str) -> str:
        commit = self._output("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if commit is None:
            raise ActorRiskError(
                f"{name!r} is no commit of {self.top}, and no folder with a {FEATURE_STORE}: fetch it first, or see "
                "`git branch --all`"
            )
        return commit

    def _left(self, commit: str) -> str | None:
        """The newest commit that HEAD and `commit` have in common."""
        return self._output("merge-base", commit, "HEAD")

    def _differs(self, commit: str) -> bool:
        """Whether the folder is not as it was in the commit, files that git does not know yet included."""
        changed = self._output("diff", "--name-only", commit, "--", self.inside)
        unknown = self._output("ls-files", "--others", "--exclude-standard", "--", self.inside)
        return bool(changed or unknown)

    def _called(self, name: str, commit: str) -> str:
        return name if commit.startswith(name) else f"{name} ({commit[:12]})"

    def _output(self, *words: str) -> str | None:
        try:
            return _git(self.top, *words)
        except _GitFailedError:
            return None


class _GitFailedError(ActorRiskError):
    """Git was there and said no."""


def commit_of(folder: Path) -> str:
    """The commit that a folder is at, with `+` where its files differ from it; "" outside of git."""
    try:
        commit, differs = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--", ".")
    except ActorRiskError:
        return ""
    return f"{commit}+" if differs else commit


def _git(folder: Path, *words: str) -> str:
    return _git_bytes(folder, *words).decode(errors="surrogateescape").strip()


def _git_bytes(folder: Path, *words: str) -> bytes:
    """What git says. Locks that it would take only to be faster next time are left out: nothing is written."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    environment = {name: text for name, text in os.environ.items() if name not in _OF_ANOTHER_TREE}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS, check=False, env=environment)
    except FileNotFoundError as error:
        raise ActorRiskError("git is not installed: install it, or say --against PATH of another folder") from error
    except subprocess.TimeoutExpired as error:
        raise ActorRiskError(f"git {words[0]} takes longer than {_GIT_SECONDS} s in {folder}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise _GitFailedError(said.splitlines()[0] if said else f"git {words[0]} failed")
    return done.stdout
