"""Backfill commands in a home of their own, in this process or in one that can be killed, and what they leave."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import redis
from click.testing import CliRunner, Result

from actor_risk.backfilling.command import CommandReport
from actor_risk.cli import main
from materialize.backfill import moment
from materialize.definitions import StreamView, compile_view
from materialize.online import decode_stream_row
from tests.support.children import start_child_of_tests
from tests.support.world import CUT_MS, START_MS, World

STREAM_VIEW, BATCH_VIEW = "ip_ad_stats", "ip_profile"
SPAN = ("--start", moment(START_MS), "--end", moment(CUT_MS), "--step", "6h")
VIEWS = ("--view", STREAM_VIEW, "--view", BATCH_VIEW)

_numbers = itertools.count()


@dataclass
class BackfillHome:
    """A home with an applied world, where backfill commands run."""

    directory: Path
    world: World
    client: redis.Redis

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that name this home."""
        return {
            "ACTOR_RISK_HOME": str(self.directory),
            "ACTOR_RISK_FEATURE_REPO": str(self.world.repo_path),
            "ACTOR_RISK_DATA": str(self.directory / "data"),
            "REDIS_URL": self.world.redis_url,
            "COLUMNS": "160",
        }

    @cached_property
    def _registry(self) -> bytes:
        return self.world.registry_path.read_bytes()

    def clear(self) -> None:
        """No rows, no manifest, no watermark."""
        self.forget_watermarks()
        self.forget_rows()
        shutil.rmtree(self.directory / "backfill", ignore_errors=True)

    def forget_watermarks(self) -> None:
        """The registry as it was first."""
        self.world.registry_path.write_bytes(self._registry)

    def forget_rows(self) -> None:
        """As a server that was emptied."""
        for key in self.client.scan_iter(f"{self.world.project}:*", count=5_000):
            self.client.unlink(key)

    def run(self, *arguments: str) -> Result:
        """The command, to its end, in this process."""
        return CliRunner().invoke(main, ["backfill", *arguments], env=dict(self.environment))

    def start(self, *arguments: str) -> KillableCommand:
        """The command, in a process of its own."""
        return KillableCommand(self, arguments)

    def report(self) -> CommandReport:
        """The report of the last command."""
        newest = max((self.directory / "backfill" / "reports").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return msgspec.json.decode(newest.read_bytes(), type=CommandReport)

    def view_folder(self, view: str) -> Path:
        """Where the manifests of a view are."""
        return self.directory / "backfill" / self.world.project / view

    def entries(self, view: str, kind: str) -> list[str]:
        """The names of the manifest's files of one kind."""
        return sorted(path.name for path in self.view_folder(view).glob(f"*/{kind}-*.json"))

    def watermarks(self, view: str) -> list[tuple[Any, Any]]:
        """Feast's materialization intervals of a view."""
        store = self.world.store
        store.refresh_registry()
        return list(store.registry.get_any_feature_view(view, store.project).materialization_intervals)

    def rows(self) -> dict[bytes, Any]:
        """All rows of both views, without what counts the writes of a row."""
        found: dict[bytes, Any] = {}
        for name in (STREAM_VIEW, BATCH_VIEW):
            view = compile_view(self.world.store.registry.get_any_feature_view(name, self.world.project))
            for key in self.client.scan_iter(f"{self.world.project}:{name}:*", count=5_000):
                data = self.client.get(key)
                found[key] = _content(view, data) if isinstance(view, StreamView) else data
        return found


class KillableCommand:
    """A backfill command in a process of its own, its output in a file."""

    def __init__(self, home: BackfillHome, arguments: tuple[str, ...]) -> None:
        self._log = home.directory / f"command-{next(_numbers)}.log"
        self._process = start_child_of_tests(_run, home.environment, arguments, self._log)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def wait(self, seconds: float) -> int | None:
        """Its exit code, None if it has not ended within so long."""
        self._process.join(seconds)
        return self._process.exitcode

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; return when it is dead and nobody's child."""
        self._process.kill()
        self._process.join()


def _run(environment: Mapping[str, str], arguments: tuple[str, ...], log: Path) -> None:
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    os.environ.update(environment)
    main(["backfill", *arguments])


def _content(view: StreamView, data: bytes) -> tuple[Any, ...]:
    row = decode_stream_row(view.spec, data)
    tiles = [(t.index.tolist(), t.states.tolist(), [s.hashes.tolist() for s in t.sets]) for t in row.state.tiles]
    return row.state.batch_end_ms, row.state.head.ids.tolist(), repr(tiles)
