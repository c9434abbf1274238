"""What a background process says of itself, in a file: readers see all of one statement, or all of the one before."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

Status = TypeVar("Status", bound=msgspec.Struct)


def replace_status(path: Path | None, status: msgspec.Struct) -> None:
    """Put the statement into the file, if one is named."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode(status))
    draft.replace(path)


def read_status(path: Path, kind: type[Status]) -> Status:
    """The last statement, or the kind's defaults when there is none yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return kind()
