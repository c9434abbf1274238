"""What is rolled out under each model's name: a policy after the other, with who set it, when and why.

<root>/<model>/rollouts/00000001.json   one entry each, never changed; the file with the highest number says what counts

A policy is JSON whose meaning is the server's affair. Entry 0 is none: what the server's own configuration says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from models.errors import BundleCorruptError, RolloutMovedError
from models.storage import Storage, storage_of
from models.store import checked_name

_ENTRY = re.compile(r"([0-9]{8})\.json")
_FOLDER = "rollouts"
_BYTES_MAX = 1 << 20


class Rollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From `at_ms` (ms UTC) on, `policy` says what answers; None: the server's own configuration does.

    by, why: who decided it, and for what reason. restores: the number of the entry whose policy this is again, 0 for
    none, when it was a rollback.
    """

    number: int
    at_ms: int
    by: str
    policy: dict[str, Any] | None
    why: str = ""
    restores: int | None = None


class Rollouts:
    """The entries of all models in one model store, for any number of readers and writers at the same time."""

    def __init__(self, place: Path | str | Storage, cache: Path | None = None) -> None:
        """`place` and `cache` as `ModelStore` takes them. Raises UnsupportedStoreError."""
        self._storage = storage_of(place, cache) if isinstance(place, (Path, str)) else place

    def newest(self, model: str, beyond: int = 0) -> Rollout | None:
        """The entry that counts, if its number is above `beyond`. Raises BundleError."""
        numbers = self._numbers(model)
        return self._read(model, numbers[-1]) if numbers and numbers[-1] > beyond else None

    def history(self, model: str, last: int | None = None) -> list[Rollout]:
        """The entries, or the `last` so many of them, oldest first. Raises BundleError."""
        return [self._read(model, number) for number in self._numbers(model)[-last if last else 0 :]]

    def entry(self, model: str, number: int) -> Rollout | None:
        """One entry; None when there is none of that number."""
        return self._read(model, number) if number in self._numbers(model) else None

    def add(self, model: str, entry: Rollout) -> None:
        """Make an entry count. Its number must be the next one, so that nobody's entry is passed over unseen.

        Raises RolloutMovedError when somebody else was first; UnsupportedStoreError where two writers could not be told
        apart.
        """
        numbers = self._numbers(model)
        content = msgspec.json.format(msgspec.json.encode(entry), indent=2) + b"\n"
        try:
            if entry.number != (numbers[-1] if numbers else 0) + 1:
                raise FileExistsError
            self._storage.create(_path(model, entry.number), content)
        except FileExistsError as error:
            raise RolloutMovedError(
                f"the rollout of {model} was changed meanwhile: look at it, and set it again if you still want to"
            ) from error

    def _numbers(self, model: str) -> list[int]:
        names = self._storage.names(f"{checked_name(model)}/{_FOLDER}")
        return [int(found[1]) for found in map(_ENTRY.fullmatch, names) if found]

    def _read(self, model: str, number: int) -> Rollout:
        name = _path(model, number)
        try:
            found = msgspec.json.decode(self._storage.read(name, _BYTES_MAX), type=Rollout)
        except msgspec.MsgspecError as error:
            raise BundleCorruptError(f"{name} is damaged ({error}): restore it, or set the rollout anew") from error
        if found.number != number:
            raise BundleCorruptError(f"{name} says that it is entry {found.number}: restore it")
        return found


def _path(model: str, number: int) -> str:
    return f"{model}/{_FOLDER}/{number:08}.json"
