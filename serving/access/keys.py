"""API keys: 256 random bits each, of which a file keeps the SHA-256 (decision 0017)."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from serving.access.buckets import Limit
from serving.access.client import Client, Known
from serving.access.files import AccessFileError, read
from serving.access.routes import ScopeName

KEY_PREFIX = "ark_"
"""So that scanners for leaked secrets find a key by `ark_[A-Za-z0-9_-]{43}`."""
KEY_BYTES = 32
ID_LENGTH = 8
_MS_PER_S = 1000

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Scopes = Annotated[tuple[ScopeName, ...], Meta(min_length=1)]
Expires = Annotated[datetime, Meta(tz=True)]
Rate = Annotated[float, Meta(gt=0, le=1e6)]
Burst = Annotated[int, Meta(ge=1, le=1_000_000)]


class KeyEntry(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key. Entries with the same name are keys of the same client, which shares one token bucket.

    expires: RFC 3339. rate (requests a second), burst (at once): instead of the server's own for a client.
    """

    name: Name
    sha256: Digest
    scopes: Scopes
    expires: Expires | None = None
    rate: Rate | None = None
    burst: Burst | None = None

    @property
    def id(self) -> str:
        """Tells keys of one name apart, and tells nothing of the key."""
        return self.sha256[:ID_LENGTH]


class KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of keys says."""

    keys: tuple[KeyEntry, ...] = ()


def new_key() -> str:
    """A new key, to be shown once."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(credential: bytes) -> bytes:
    """What is kept of a key, and what a key or token is looked up by."""
    return sha256(credential).digest()


def parse_keys(data: bytes) -> KeyFile:
    """The keys in a file. Raises AccessFileError."""
    try:
        return msgspec.json.decode(data, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AccessFileError(f"it is not a file of keys: {error}") from error


def known_keys(data: bytes, default: Limit) -> Mapping[bytes, Known]:
    """Digest → whom it stands for. Raises AccessFileError."""
    entries = parse_keys(data).keys
    known = {bytes.fromhex(entry.sha256): _known(entry, default) for entry in entries}
    if len(known) < len(entries):
        raise AccessFileError("it has the same key twice")
    return known


def read_keys(path: Path) -> KeyFile:
    """The keys in the file at `path`, none when there is no file. Raises AccessFileError."""
    return parse_keys(read(path)) if path.exists() else KeyFile()


def change_keys(path: Path, change: Callable[[KeyFile], KeyFile]) -> None:
    """Put what `change` makes of a file in its place: at once, for its owner only, one change after another.

    Raises AccessFileError, and then nothing has changed.
    """
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(path.parent):
            data = msgspec.json.format(msgspec.json.encode(change(read_keys(path)))) + b"\n"
            parse_keys(data)  # what is written can be read
            _replace(path, data)
    except OSError as error:
        raise AccessFileError(f"it cannot be written: {error.strerror}") from error


def _known(entry: KeyEntry, default: Limit) -> Known:
    limit = (
        default
        if entry.rate is None and entry.burst is None
        else Limit(entry.rate or default.rate, entry.burst or default.burst)
    )
    expires_ms = inf if entry.expires is None else entry.expires.timestamp() * _MS_PER_S
    return Known(Client(entry.name, frozenset(entry.scopes), limit), expires_ms)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other process changes keys in this folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
