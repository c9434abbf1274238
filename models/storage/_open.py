"""From a path or an address to its storage."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fsspec.core import url_to_fs

from models.errors import UnsupportedStoreError
from models.storage._directory import DirectoryStorage
from models.storage._protocol import Storage
from models.storage._remote import RemoteStorage

_CONDITIONAL = {
    "s3": ("s3fs", (2025, 7)),  # before, small files were written whether or not they were there
    "s3a": ("s3fs", (2025, 7)),
    "gs": ("gcsfs", (2024, 12)),
    "gcs": ("gcsfs", (2024, 12)),
}
"""Whose `pipe_file(mode="create")` is a conditional write, from which release on."""


def storage_of(place: Path | str, cache: Path | None = None) -> Storage:
    """The storage at a path, or at an address such as s3://bucket/models. `cache`: see `RemoteStorage`.

    Raises UnsupportedStoreError for an address that nothing here can open.
    """
    protocol, found, _ = str(place).partition("://")
    if isinstance(place, Path) or not found:
        return DirectoryStorage(Path(place))
    if protocol in ("file", "local"):
        return DirectoryStorage(Path(unquote(urlsplit(place).path)))
    if "::" in place:
        raise UnsupportedStoreError(f"{place}: chained addresses are not opened; the store keeps copies by itself")
    try:
        files, root = url_to_fs(place, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UnsupportedStoreError(f"{place}: {error}: install what opens such addresses (s3fs, gcsfs, …)") from error
    return RemoteStorage(files, root, cache=cache, creates_exclusively=_creates_exclusively(protocol))


def _creates_exclusively(protocol: str) -> bool:
    if protocol == "memory":
        return True
    if protocol not in _CONDITIONAL:
        return False
    package, since = _CONDITIONAL[protocol]
    try:
        year, month = (int(part) for part in version(package).split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return False
    return (year, month) >= since
