"""The plan of a change: how long it takes, and whether what it predicts is what then happens.

One view of the project's own repository gets two more windows. The plan is made as the command makes it, over a sample
whose larger topic has 100,000 events. Then the change is applied and the view is backfilled by the command, in a
process of its own, into a real Valkey: what its rows take there, and how long its job says that it took, are held
against what was predicted. Two further views are backfilled to see more than one prediction.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import redis

from actor_risk.feast_repo import apply_repo
from actor_risk.home import Home
from actor_risk.local import Valkey
from bench.bars import Bar, Findings
from bench.report import report
from bench.timing import rounded

DAY_MS = 86_400_000
START_MS = 1_763_596_800_000
DAYS = 9
AD_EVENTS, ACCOUNT_EVENTS = 100_000, 24_000
CHANGED = "ip_ad_stats"
BEFORE = 'windowed("ip_clicks", "click", "count", "5m 1h 24h 7d", "Clicks from the IP")'
AFTER = 'windowed("ip_clicks", "click", "count", "5m 1h 6h 24h 3d 7d", "Clicks from the IP")'
MORE_VIEWS = ("advertiser_ad_stats", "device_profile")
REPO = Path(__file__).parents[1] / "feature_repo"
PLAN_SECONDS, BYTES_OFF, TIME_OFF = 20, 0.2, 0.5


@dataclass(frozen=True)
class Prediction:
    """Of one view: bytes of an actor, and seconds of a backfill."""

    bytes: float
    seconds: float


@dataclass(frozen=True)
class Real(Prediction):
    """What then happened."""

    rows: int
    events: int


def run(as_json: bool) -> None:
    """Plan, apply, backfill, and compare."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        data, old, new = folder / "data", folder / "old", folder / "new"
        end_ms = _write_data(data)
        _copy_repos(old, new)
        seconds, predicted = _plan(folder, data, old, new)
        real = _backfilled(folder, data, new, end_ms)
    bytes_off = {name: abs(predicted[name].bytes / real[name].bytes - 1) for name in real}
    time_off = {name: abs(predicted[name].seconds / real[name].seconds - 1) for name in real}
    figures = {
        "plan_s": rounded(seconds),
        "bytes_pred": rounded(predicted[CHANGED].bytes),
        "bytes_real": rounded(real[CHANGED].bytes),
        "time_pred": rounded(predicted[CHANGED].seconds),
        "time_real": rounded(real[CHANGED].seconds),
    }
    notes: dict[str, object] = {
        name: {
            "bytes_pred": rounded(predicted[name].bytes),
            "bytes_real": rounded(one.bytes),
            "time_pred": rounded(predicted[name].seconds),
            "time_real": rounded(one.seconds),
            "rows": one.rows,
            "events": one.events,
        }
        for name, one in real.items()
    }
    bars = [
        Bar("plan_s", figures["plan_s"], PLAN_SECONDS, at_most=True),
        Bar("bytes_off", rounded(bytes_off[CHANGED]), BYTES_OFF, at_most=True),
        Bar("time_off", rounded(time_off[CHANGED]), TIME_OFF, at_most=True),
    ]
    report("plan", Findings(figures, notes={"views": notes}).as_report(bars), as_json)


def _write_data(data: Path) -> int:
    """Simulated events and tables; returns when they end."""
    from actor_risk.simulate import SimulationSettings, simulate, write

    settings = SimulationSettings(
        seed=3,
        start_ms=START_MS,
        end_ms=START_MS + DAYS * DAY_MS,
        ad_events_per_day=AD_EVENTS // DAYS,
        account_events_per_day=ACCOUNT_EVENTS // DAYS,
    )
    write(simulate(settings), data)
    return settings.end_ms


def _copy_repos(old: Path, new: Path) -> None:
    for place in (old, new):
        shutil.copytree(REPO, place, ignore=shutil.ignore_patterns("__pycache__"))
    file = new / "ad_views.py"
    text = file.read_text()
    if BEFORE not in text:
        raise RuntimeError(f"{REPO / 'ad_views.py'} is not what this benchmark changes: it lacks {BEFORE}")
    file.write_text(text.replace(BEFORE, AFTER))


def _plan(folder: Path, data: Path, old: Path, new: Path) -> tuple[float, dict[str, Prediction]]:
    """How long the plan took, and what it says of the new version's views."""
    from actor_risk.changes.checkout import Against
    from actor_risk.changes.planning import PlanSettings, make_plan

    home = Home.from_environment(_environment(folder, data, new, "redis://127.0.0.1:1/0"))
    plan = make_plan(home, Against("before", old), PlanSettings(sample=data))
    if plan.costs is None or plan.costs.backfill != (f"actor-risk backfill --view {CHANGED}",):
        raise RuntimeError(f"the plan does not find what was changed: {plan.costs}; {plan.missing}; {plan.findings}")
    views = {v.view: Prediction(v.bytes_per_actor, v.backfill_seconds or 0.0) for v in plan.costs.new_views}
    return plan.seconds, views


def _environment(folder: Path, data: Path, repo: Path, redis_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "ACTOR_RISK_HOME": str(folder / "home"),
        "ACTOR_RISK_FEATURE_REPO": str(repo),
        "ACTOR_RISK_DATA": str(data),
        "REDIS_URL": redis_url,
    }


def _backfilled(folder: Path, data: Path, repo: Path, end_ms: int) -> dict[str, Real]:
    """View → what its backfill did."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    with Valkey(folder / "valkey") as server:
        environment = _environment(folder, data, repo, server.url)
        apply_repo(repo, home / "registry.db", {"ACTOR_RISK_DATA": str(data)})
        return {view: _backfill(folder, view, end_ms, environment) for view in (CHANGED, *MORE_VIEWS)}


def _backfill(folder: Path, view: str, end_ms: int, environment: dict[str, str]) -> Real:
    from actor_risk.backfilling.command import CommandReport
    from materialize.backfill import moment

    said = folder / f"{view}.json"
    command = ["backfill", "--view", view, "--end", moment(end_ms), "--workers", "1", "--report", str(said)]
    subprocess.run(
        [sys.executable, "-c", "from actor_risk.cli import main; main()", *command],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (done,) = msgspec.json.decode(said.read_bytes(), type=CommandReport).views
    with closing(redis.Redis.from_url(environment["REDIS_URL"])) as client:
        keys = list(client.scan_iter(f"*:{view}:*", count=10_000))
        sizes = [_size(client, key) for key in keys]
    return Real(sum(sizes) / len(sizes), done.seconds, len(keys), done.counts.events)


def _size(client: redis.Redis, key: bytes) -> int:
    found = client.memory_usage(key)
    if not isinstance(found, int):
        raise RuntimeError(f"{key!r} is gone")
    return found
