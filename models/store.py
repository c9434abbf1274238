"""Model versions on disk, and the names that point at them.

<root>/<model>/<version>/      one bundle, never changed after publishing
<root>/<model>/aliases.json    every change of an alias, oldest first; the last one of each alias counts
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from models.bundle import MANIFEST, Bundle, BundleDraft, build_files, read_bundle, verified_contents, version_of
from models.errors import BundleCorruptError, BundleNotFoundError, UnsafeNameError
from models.manifest import Manifest

CHAMPION = "champion"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[0-9a-f]{16}")
_ALIASES = "aliases.json"
_LOCK = ".lock"


class AliasChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `at_ms` (ms UTC) on, `alias` points at `version`; `by` says who or what decided it."""

    alias: str
    version: str
    at_ms: int
    by: str


class ModelStore:
    """Bundles under one directory. Several processes may publish, set aliases and load at the same time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, draft: BundleDraft) -> str:
        """Writes a bundle and returns its version; the same content again gives the same version.

        1. build every file in memory, 2. write them into a directory of their own, 3. load that as a server would,
        4. rename it to its version. Nothing is visible before step 4.

        Raises UnsupportedModelError, InputError or BundleError; then nothing was published.
        """
        files = build_files(draft)
        version = version_of(files[MANIFEST])
        model = self._model(draft.card.model_name)
        model.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".publish-", dir=model))
        try:
            _write_all(staging, files)
            read_bundle(staging, version)
            self._reveal(staging, model / version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return version

    def load(self, model: str, alias_or_version: str = CHAMPION) -> Bundle:
        """The proven bundle of a version, or of the version that an alias points at.

        Raises BundleNotFoundError, BundleCorruptError, GoldenMismatchError, UnsafeNameError.
        """
        version = self.resolve(model, alias_or_version)
        return read_bundle(self._existing(model, version), version)

    def resolve(self, model: str, alias_or_version: str) -> str:
        """The version meant by an alias, or the version itself."""
        if _VERSION.fullmatch(alias_or_version):
            return alias_or_version
        aliases = self.aliases(model)
        if _checked(alias_or_version) not in aliases:
            raise BundleNotFoundError(
                f"model {model!r} has no alias {alias_or_version!r} (there are {sorted(aliases)}): "
                "train and publish it, then set the alias"
            )
        return aliases[alias_or_version]

    def manifest(self, model: str, version: str) -> Manifest:
        """What a version says about itself, its files verified and its graph not loaded.

        Raises BundleNotFoundError, BundleCorruptError, UnsafeNameError.
        """
        return verified_contents(self._existing(model, version), version)[0]

    def set_alias(self, model: str, alias: str, version: str, *, at_ms: int, by: str) -> None:
        """Points `alias` at `version`, atomically, and appends that to the history.

        Raises BundleNotFoundError or BundleCorruptError when the version is not there intact.
        """
        verified_contents(self._existing(model, version), version)
        change = AliasChange(_checked(alias), version, at_ms, by)
        with _locked(self._model(model)):
            history = [*self.history(model), change]
            content = msgspec.json.format(msgspec.json.encode(history), indent=2) + b"\n"
            _replace(self._model(model) / _ALIASES, content)

    def history(self, model: str) -> list[AliasChange]:
        """Every change of an alias, oldest first. Raises BundleCorruptError when the file is damaged."""
        path = self._model(model) / _ALIASES
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[AliasChange])
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError as error:
            raise BundleCorruptError(
                f"{model}/{_ALIASES} is damaged ({error}): restore it or set the aliases"
            ) from error

    def aliases(self, model: str) -> dict[str, str]:
        """The version that each alias points at now."""
        return {change.alias: change.version for change in self.history(model)}

    def models(self) -> list[str]:
        """Names of the models with at least one version, sorted."""
        if not self._root.is_dir():
            return []
        names = sorted(path.name for path in self._root.iterdir() if _NAME.fullmatch(path.name))
        return [name for name in names if self.versions(name)]

    def versions(self, model: str) -> list[str]:
        """Published versions of a model, sorted; empty for an unknown model."""
        directory = self._model(model)
        if not directory.is_dir():
            return []
        return sorted(path.name for path in directory.iterdir() if _VERSION.fullmatch(path.name))

    def _model(self, model: str) -> Path:
        return self._root / _checked(model)

    def _existing(self, model: str, version: str) -> Path:
        if not _VERSION.fullmatch(version):
            raise UnsafeNameError(f"{version!r} is no version: pass the 16 hexadecimal digits that publishing returned")
        directory = self._model(model) / version
        if not directory.is_dir() or directory.is_symlink():
            raise BundleNotFoundError(f"model {model!r} has no version {version} (there are {self.versions(model)})")
        return directory

    def _reveal(self, staging: Path, target: Path) -> None:
        with _locked(target.parent):
            if not target.exists():
                staging.rename(target)
                _sync(target.parent)
        verified_contents(target, target.name)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UnsafeNameError(
            f"{name!r} is no name of a model or alias: use a lower-case letter, then up to 63 of a-z, 0-9, _ and -"
        )
    return name


def _write_all(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        _write_synced(directory / name, content)
    directory.chmod(0o755)
    _sync(directory)


def _replace(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, also after a crash."""
    staged = path.with_name(f".{path.name}.new")
    _write_synced(staged, content)
    staged.replace(path)
    _sync(path.parent)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
