"""The demo, step by step."""

from __future__ import annotations

import json
import shlex
import shutil
import time
import uuid
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pyarrow as pa
import redis
from feast import FeatureStore
from rich.console import Console
from rich.progress import Progress

from actor_risk.backfill_process import BackfillProcess
from actor_risk.changes.applying import Asked, first_apply
from actor_risk.cli._shared import now_ms, progress_bar
from actor_risk.client import Client, Decision
from actor_risk.demo._scenarios import Burst, Scenario, real_clicks, simulated
from actor_risk.errors import ActorRiskError
from actor_risk.home import DECISIONS, Home
from actor_risk.publishing import publish_table
from actor_risk.serving_process import ServingProcess, choose_port, write_config
from actor_risk.shown_decision import show
from actor_risk.simulate import write
from actor_risk.streaming.background import StreamProcess
from actor_risk.training import Published, build_training_set, train_and_publish
from materialize.stream import EventLog
from models import CHAMPION

CATCH_UP_TIMEOUT_S = 120.0
WAIT_FOR_MODELS_S = 600.0
KEYS_AT_ONCE = 1_000


class Question(TypedDict):
    """What the demo asks, as the body of `POST /v1/score` has it."""

    model: str
    event: dict[str, Any]


def run_demo(home: Home, events: Path | None, once: bool, port: int, shown: Console) -> None:
    """Run the demo; without `once` it stays up until it is interrupted. What it started is stopped in any case.

    Raises ActorRiskError and the packages' own errors, whose messages say what to do.
    """
    began = time.monotonic()
    home = replace(home, models=home.root / "models")  # it is emptied: never the store that the environment names
    with ExitStack() as running:
        answer, url, question = _all_steps(home, events, port, shown, running)
        shown.print(f"\n[dim]the whole demo took {time.monotonic() - began:.0f} s[/]")
        if once:
            print(json.dumps(msgspec.to_builtins(answer)))  # noqa: T201 - the last line is for a program
            return
        _stay_up(shown, url, question)


def _all_steps(
    home: Home, events: Path | None, port: int, shown: Console, running: ExitStack
) -> tuple[Decision, str, Question]:
    _redis(home, shown, running)
    scenario = _events(home, events, shown)
    store = _features(home, shown)
    # Both of these take a while on their own, so they run beside the training.
    serving = _start_serving(home, scenario, port, running)
    backfill = BackfillProcess(home, scenario.cut_ms)
    running.callback(backfill.stop)
    _models(home, store, scenario, backfill, shown)
    log = home.event_log()
    running.callback(log.close)
    worker = _worker(home, running)
    _await_serving(serving, shown)
    published = _live_events(log, scenario, worker, shown)
    answer, question = _questions(serving.url, scenario.burst, log, worker, published, shown)
    return answer, serving.url, question


def _redis(home: Home, shown: Console, running: ExitStack) -> None:
    _step(shown, 1, "Redis")
    if home.given_redis_url is None:
        server = running.enter_context(home.valkey())
        shown.print(f"  embedded Valkey at {server.url}")
    else:
        shown.print("  the one that REDIS_URL names")


def _events(home: Home, events: Path | None, shown: Console) -> Scenario:
    _step(shown, 2, "Events")
    with shown.status("  making events …"):
        scenario = simulated(now_ms()) if events is None else real_clicks(events, now_ms())
        shutil.rmtree(home.data, ignore_errors=True)
        shutil.rmtree(home.root / DECISIONS, ignore_errors=True)  # of another world; a folder elsewhere is not ours
        write(scenario.history, home.data)
    history, live = scenario.history, scenario.live
    shown.print(f"  {scenario.about}")
    shown.print(
        f"  history: {history.ad_events.num_rows:,} ad events, {history.account_events.num_rows:,} account events"
    )
    shown.print(f"  live since a full hour: {live.ad_events.num_rows + live.account_events.num_rows:,} events")
    return scenario


def _features(home: Home, shown: Console) -> FeatureStore:
    _step(shown, 3, "Features: definitions into the registry, history into Redis")
    home.registry.unlink(missing_ok=True)
    done = first_apply(home, Asked(by="actor-risk demo", at_ms=now_ms()))
    shown.print(f"  {done.views} views, feature services {' and '.join(done.services)}")
    store = home.feature_store()
    _forget_rows(home.redis_url(), store.project)
    shown.print("  the backfill, and Ray's start, run beside the training")
    return store


def _worker(home: Home, running: ExitStack) -> StreamProcess:
    """Started early, so that it is there when the live events are: a group of its own, from now on."""
    worker = StreamProcess(home, f"demo-{uuid.uuid4().hex[:12]}", "latest")
    running.callback(worker.stop)
    return worker


def _models(home: Home, store: FeatureStore, scenario: Scenario, backfill: BackfillProcess, shown: Console) -> None:
    _step(shown, 4, "Models: point-in-time features, LightGBM, ONNX")
    told = []
    with progress_bar(shown) as progress:
        for recipe in scenario.recipes:
            task = progress.add_task(f"  {recipe.model}: features", total=None)
            rows = build_training_set(store, recipe, home.data, scenario.rows_max)
            progress.update(task, description=f"  {recipe.model}: trees", total=scenario.settings.trees)
            done = train_and_publish(
                store,
                recipe,
                rows,
                home.models,
                scenario.settings,
                lambda count, total, task=task: progress.update(task, completed=count, total=total),  # type: ignore[misc]
            )
            told.append(_quality(recipe.model, done))
        _await_backfill(backfill, progress)
    shown.print("  on a later time span than they were trained on:")
    for line in told:
        shown.print(line)


def _await_backfill(backfill: BackfillProcess, progress: Progress) -> None:
    task = progress.add_task("  backfill", total=None)
    while not backfill.has_ended():
        status = backfill.status()
        progress.update(task, completed=status.done, total=status.total or None)
        time.sleep(0.1)
    status = backfill.status()
    progress.update(task, completed=status.done, total=status.total)


def _quality(name: str, done: Published) -> str:
    metrics = done.trained.metrics
    return (
        f"  {name} {done.version}: test ROC AUC [bold]{metrics.roc_auc:.3f}[/], PR AUC [bold]{metrics.pr_auc:.3f}[/] "
        f"(base rate {metrics.base_rate:.3f}); label: {done.trained.label}"
    )


def _start_serving(home: Home, scenario: Scenario, port: int, running: ExitStack) -> ServingProcess:
    """Start it before its models are there: it takes them as soon as they are."""
    port = choose_port(port)
    models = {recipe.model: CHAMPION for recipe in scenario.recipes}
    shutil.rmtree(home.root / "models", ignore_errors=True)
    config = write_config(home, Path("ray_config.yaml"), port, models, WAIT_FOR_MODELS_S)
    serving = ServingProcess(home, config, port)
    running.callback(serving.stop)
    return serving


def _await_serving(serving: ServingProcess, shown: Console) -> None:
    _step(shown, 5, "Serving: Ray Serve from ray_config.yaml")
    with shown.status("  starting …"):
        notes = serving.wait_until_ready()
    shown.print(f"  ready at {serving.url}")
    for note in notes:
        shown.print(f"  [yellow]note:[/] {note}")


def _live_events(log: EventLog, scenario: Scenario, worker: StreamProcess, shown: Console) -> int:
    _step(shown, 6, "Stream: live events through the log into Redis")
    worker.wait_until_ready()
    published = 0
    tables = {"ad_events": scenario.live.ad_events, "account_events": scenario.live.account_events}
    with progress_bar(shown) as progress:
        for topic, table in tables.items():
            task = progress.add_task(f"  {topic}", total=table.num_rows)
            published += publish_table(
                log,
                topic,
                table,
                lambda sent, task=task: progress.update(task, completed=sent),  # type: ignore[misc]
            )
    with shown.status("  the worker folds them …"):
        worker.wait_until_done(published, CATCH_UP_TIMEOUT_S)
    status = worker.status()
    shown.print(f"  {status.records:,} events folded, {status.dead_letters} dead letters")
    return published


def _questions(
    url: str, burst: Burst, log: EventLog, worker: StreamProcess, published: int, shown: Console
) -> tuple[Decision, Question]:
    _step(shown, 7, "Scores: a click of the same actors, before and after a burst of abuse")
    published += _impression(log, burst)
    worker.wait_until_done(published, CATCH_UP_TIMEOUT_S)
    before = _ask(url, _question(burst))
    show(shown, "before", before)
    table = burst.events(now_ms())
    # The click that was asked about came through the log as well: the scoring application published it.
    published += 1 + publish_table(log, "ad_events", table, _unheard)
    worker.wait_until_done(published, CATCH_UP_TIMEOUT_S)
    shown.print(f"\n  … {burst.about} …\n")
    question = _question(burst)
    after = _ask(url, question)
    show(shown, "after", after)
    change = after.score - before.score
    shown.print(f"\n  the score went from {before.score:.3f} to {after.score:.3f} ({change:+.3f}): {burst.expected}")
    _check(before)
    _check(after)
    return after, question


def _ask(url: str, question: Question) -> Decision:
    with Client(url) as client:
        return client.score(**question)


def _question(burst: Burst) -> Question:
    """What about this click, which happens now?"""
    event = {"event_id": f"demo-{uuid.uuid4().hex}", "event_time": now_ms(), "event_type": "click", **burst.click}
    return {"model": burst.model, "event": event}


def _impression(log: EventLog, burst: Burst) -> int:
    """Publish the impression that goes before the click, where the data has impressions. Returns how many events."""
    delay_ms = burst.click.get("ms_since_impression")
    if delay_ms is None:
        return 0
    keys = {name: value for name, value in burst.click.items() if name not in ("amount_usd", "ms_since_impression")}
    event = {"event_id": f"demo-{uuid.uuid4().hex}", "event_type": "impression", **keys}
    when = pa.array([now_ms() - int(delay_ms)], pa.timestamp("ms", "UTC"))
    table = pa.Table.from_pylist([event]).append_column("event_time", when)
    return publish_table(log, "ad_events", table, _unheard)


def _unheard(_: int) -> None:
    """Progress too short to show."""


def _check(answer: Decision) -> None:
    """The explanation adds up, or the demo has failed."""
    if answer.base_value is None or answer.attributions_rest is None:
        raise ActorRiskError(f"the score is not explained: {', '.join(answer.degraded)}")
    explained = answer.base_value + sum(reason.attribution for reason in answer.reasons) + answer.attributions_rest
    if abs(explained - answer.margin) > 1e-6 * max(1.0, abs(answer.margin)):
        raise ActorRiskError(f"the explanation does not add up: {explained} is not the margin {answer.margin}")


def _stay_up(shown: Console, url: str, question: Question) -> None:
    shown.rule()
    shown.print(f"[bold]{url}[/]   docs at {url}/docs, metrics at {url}/metrics")
    body = shlex.quote(json.dumps(question))
    shown.print(f"curl -s {url}/v1/score -H 'content-type: application/json' -d {body}", soft_wrap=True)
    shown.print("Ctrl-C stops everything.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        shown.print("stopping …")


def _forget_rows(redis_url: str, project: str) -> None:
    """Drop the rows of an earlier demo: its world was another one."""
    with redis.Redis.from_url(redis_url) as client:
        batch: list[bytes] = []
        for key in client.scan_iter(f"{project}:*", count=KEYS_AT_ONCE):
            batch.append(key)
            if len(batch) == KEYS_AT_ONCE:
                client.unlink(*batch)
                batch = []
        if batch:
            client.unlink(*batch)


def _step(shown: Console, number: int, title: str) -> None:
    shown.print(f"[bold]{number}/7[/] [bold cyan]{title}[/]")
