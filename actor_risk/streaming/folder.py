"""What a stream command and its workers say, in `<home>/stream/<pid>/`, until another command finds that it is over.

status.json      `StreamStatus`, replaced as a whole
worker-0.json    what each worker process last said of itself
worker-0.log     and what it printed
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from actor_risk.local.processes import is_alive

STATUS = "status.json"


def make_folder(root: Path, pid: int) -> Path:
    """A new folder for the command that runs as process `pid`, those of commands that are over removed."""
    for folder in _folders(root):
        if not is_alive(int(folder.name)) or int(folder.name) == pid:
            shutil.rmtree(folder, ignore_errors=True)
    own = root / str(pid)
    own.mkdir(parents=True, exist_ok=True)
    return own


def running_commands(root: Path) -> list[Path]:
    """The status files of the commands that run now, the newest last."""
    alive = [folder / STATUS for folder in _folders(root) if is_alive(int(folder.name))]
    return sorted((path for path in alive if path.exists()), key=lambda path: path.parent.stat().st_mtime)


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from (entry for entry in root.iterdir() if entry.is_dir() and entry.name.isdigit())
