"""Model versions, and the names that point at them.

<root>/<model>/<version>/               one bundle, never changed after publishing; its manifest is written last
<root>/<model>/aliases/00000001.json    one change of an alias each, with the aliases as they were after it: the file
                                        with the highest number says what counts
<root>/<model>/aliases.json             changes made by releases that kept them in one file; read, and never written
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from models.bundle import (
    MANIFEST,
    Bundle,
    BundleDraft,
    build_files,
    checked_manifest,
    read_bundle,
    verified_contents,
    version_of,
)
from models.errors import AliasMovedError, BundleCorruptError, BundleNotFoundError, UnsafeNameError
from models.manifest import Manifest
from models.storage import Storage, storage_of

CHAMPION, CHALLENGER, SHADOW = "champion", "challenger", "shadow"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[0-9a-f]{16}")
_CHANGE = re.compile(r"([0-9]{8})\.json")
_ALIASES, _OLD_ALIASES = "aliases", "aliases.json"
_TRIES = 100
_JSON_BYTES_MAX = 16 * 2**20
"""Of a manifest, and of a file of aliases."""

T = TypeVar("T")


class AliasChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `at_ms` (ms UTC) on, `alias` points at `version`; `by` says who or what decided it."""

    alias: str
    version: str
    at_ms: int
    by: str


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one file of `aliases/` holds: a change, and all aliases after it."""

    change: AliasChange
    aliases: dict[str, str]


class ModelStore:
    """Bundles below one root. Any number of processes may publish, set aliases and load at the same time.

    The same on every kind of storage: a reader finds a version whole and proven or not at all; of two writers that
    change the same alias at once one succeeds and the other is told; a change that was made is never lost. Where a kind
    cannot promise that, it refuses: see `models.storage.Storage`.
    """

    def __init__(self, place: Path | str | Storage, cache: Path | None = None) -> None:
        """`place`: a directory, or an address that fsspec knows, such as s3://bucket/models.

        Bundles of an address are kept in the directory `cache` of this machine; without one they are brought each time.
        Raises UnsupportedStoreError for an address that cannot be opened.
        """
        self._storage = storage_of(place, cache) if isinstance(place, (Path, str)) else place

    def publish(self, draft: BundleDraft) -> str:
        """Writes a bundle and returns its version; the same content again gives the same version.

        1. build every file in memory, 2. see which of them the store has already, 3. load them all from a directory
        apart as a server would, 4. write what it has not, but the manifest, 5. read that back, 6. write the manifest.
        There is no version before step 6, and a writer that is killed leaves files that the next one writes over.

        A version that was damaged is mended: files that are as they were published stay, so whoever reads meanwhile
        finds each file as it should be, or damaged still and refused by its hash.
        Raises UnsupportedModelError, InputError or BundleError; then nothing was published.
        """
        model = checked_name(draft.card.model_name)
        files = build_files(draft)
        version = version_of(files[MANIFEST])
        folder = f"{model}/{version}"
        lacking = {name: content for name, content in files.items() if not self._holds(f"{folder}/{name}", content)}
        if not lacking:
            return version
        _prove(files, version)
        manifest = lacking.pop(MANIFEST, None)
        for name, content in lacking.items():
            self._storage.write(f"{folder}/{name}", content)
        for name, content in lacking.items():
            if not self._holds(f"{folder}/{name}", content):
                raise BundleCorruptError(f"{folder}/{name} was stored otherwise than it was sent: publish again")
        if manifest is not None:
            self._storage.write(f"{folder}/{MANIFEST}", manifest)
        return version

    def load(self, model: str, alias_or_version: str = CHAMPION) -> Bundle:
        """The proven bundle of a version, or of the version that an alias points at.

        Raises BundleNotFoundError, BundleCorruptError, GoldenMismatchError, UnsafeNameError, StoreUnavailableError.
        """
        version = self.resolve(model, alias_or_version)
        return self._use(model, version, lambda directory: read_bundle(directory, version))

    def resolve(self, model: str, alias_or_version: str) -> str:
        """The version meant by an alias, or the version itself."""
        if _VERSION.fullmatch(alias_or_version):
            return alias_or_version
        aliases = self.aliases(model)
        if checked_name(alias_or_version) not in aliases:
            raise BundleNotFoundError(
                f"model {model!r} has no alias {alias_or_version!r} (there are {sorted(aliases)}): "
                "train and publish it, then set the alias"
            )
        return aliases[alias_or_version]

    def manifest(self, model: str, version: str) -> Manifest:
        """What a version says about itself, its files verified and its graph not loaded.

        Raises BundleNotFoundError, BundleCorruptError, UnsafeNameError.
        """
        return self._use(model, version, lambda directory: verified_contents(directory, version)[0])

    def set_alias(
        self, model: str, alias: str, version: str, *, at_ms: int, by: str, instead_of: str | None = None
    ) -> None:
        """Points `alias` at `version`, atomically, and adds that to the history.

        The alias must point where it points now, or, if given, at `instead_of`, until this change is made.
        Raises AliasMovedError when it does not; BundleNotFoundError or BundleCorruptError when the version is not there
        intact; UnsupportedStoreError where two writers could not be told apart.
        """
        checked_name(alias)
        expected = instead_of or self.aliases(model).get(alias)
        self._use(model, version, lambda directory: verified_contents(directory, version))
        for _ in range(_TRIES):
            number, aliases = self._newest(model)
            if aliases.get(alias) != expected:
                raise AliasMovedError(
                    f"{model}@{alias} points at {aliases.get(alias)} now, no longer at {expected}: look in the "
                    "history who changed it, and set it again if you still want to"
                )
            change = _Change(AliasChange(alias, version, at_ms, by), {**aliases, alias: version})
            content = msgspec.json.format(msgspec.json.encode(change), indent=2) + b"\n"
            try:
                self._storage.create(f"{model}/{_ALIASES}/{number + 1:08}.json", content)
            except FileExistsError:  # another change has this number: of another alias, or of this one
                continue
            return
        raise AliasMovedError(f"the aliases of {model} changed {_TRIES} times meanwhile: set {alias} again")

    def history(self, model: str) -> list[AliasChange]:
        """Every change of an alias, oldest first. Raises BundleCorruptError when one of its files is damaged."""
        changes = [self._change(model, number).change for number in self._numbers(model)]
        return [*self._old_history(model), *changes]

    def aliases(self, model: str) -> dict[str, str]:
        """The version that each alias points at now."""
        return self._newest(model)[1]

    def models(self) -> list[str]:
        """Names of the models with at least one version, sorted."""
        return [name for name in self._storage.names("") if _NAME.fullmatch(name) and self.versions(name)]

    def versions(self, model: str) -> list[str]:
        """Published versions of a model, sorted; empty for an unknown model."""
        found = [name for name in self._storage.names(checked_name(model)) if _VERSION.fullmatch(name)]
        return [version for version in found if self._has(model, version)]

    def _holds(self, name: str, content: bytes) -> bool:
        """Whether the store itself, not a copy of this machine, has a file with this content."""
        try:
            return self._storage.read(name) == content
        except (FileNotFoundError, BundleCorruptError):
            return False

    def _has(self, model: str, version: str) -> bool:
        return MANIFEST in self._storage.names(f"{model}/{version}")

    def _use(self, model: str, version: str, use: Callable[[Path], T]) -> T:
        if not _VERSION.fullmatch(version):
            raise UnsafeNameError(f"{version!r} is no version: pass the 16 hexadecimal digits that publishing returned")
        folder = f"{checked_name(model)}/{version}"

        def files() -> list[str]:
            manifest = checked_manifest(self._storage.read(f"{folder}/{MANIFEST}", _JSON_BYTES_MAX), version)
            return [MANIFEST, *manifest.files]

        try:
            return self._storage.fetch(folder, files, use)
        except FileNotFoundError as error:
            raise BundleNotFoundError(
                f"model {model!r} has no version {version} (there are {self.versions(model)})"
            ) from error

    def _newest(self, model: str) -> tuple[int, dict[str, str]]:
        """The number of the last change, and the aliases after it."""
        numbers = self._numbers(model)
        if not numbers:
            return 0, {change.alias: change.version for change in self._old_history(model)}
        return numbers[-1], self._change(model, numbers[-1]).aliases

    def _numbers(self, model: str) -> list[int]:
        names = self._storage.names(f"{checked_name(model)}/{_ALIASES}")
        return [int(found[1]) for found in map(_CHANGE.fullmatch, names) if found]

    def _change(self, model: str, number: int) -> _Change:
        name = f"{model}/{_ALIASES}/{number:08}.json"
        return _decoded(name, self._storage.read(name, _JSON_BYTES_MAX), _Change)

    def _old_history(self, model: str) -> list[AliasChange]:
        name = f"{checked_name(model)}/{_OLD_ALIASES}"
        try:
            return _decoded(name, self._storage.read(name, _JSON_BYTES_MAX), list[AliasChange])
        except FileNotFoundError:
            return []


def checked_name(name: str) -> str:
    """The name of a model or alias itself. Raises UnsafeNameError for one that could be something else."""
    if not _NAME.fullmatch(name):
        raise UnsafeNameError(
            f"{name!r} is no name of a model or alias: use a lower-case letter, then up to 63 of a-z, 0-9, _ and -"
        )
    return name


def _decoded(name: str, content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise BundleCorruptError(f"{name} is damaged ({error}): restore it or set the aliases") from error


def _prove(files: Mapping[str, bytes], version: str) -> None:
    """Loads the files as a server would."""
    with tempfile.TemporaryDirectory(prefix="publish-") as apart:
        directory = Path(apart) / version
        directory.mkdir()
        for name, content in files.items():
            (directory / name).write_bytes(content)
        read_bundle(directory, version)
