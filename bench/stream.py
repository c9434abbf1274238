"""Kafka to Redis: one worker, two workers, how fresh rows are, and Quix Streams on the same events and broker.

Before anything is timed, the rows that a worker writes are compared with the naive oracle and with what Quix Streams
makes of the same events. `--short` is for tries: a part of the events and of the time.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import redis

from actor_risk.local import Kafka, Valkey, default_cache
from bench.bars import Bar, Findings
from bench.events import KEYS, MANY_KEYS, SOME_KEYS, WINDOW, Population, fold_views
from bench.fold import PROJECT
from bench.peers.quix_windows import merged, quix_windows
from bench.report import report
from bench.stream_events import (
    CYCLE_EVENTS,
    PROBES_MAX,
    Events,
    draw_events,
    preload,
    probe_key,
    record,
    sending,
)
from bench.stream_worker import DONE_TIMEOUT_S, START_TIMEOUT_S, Running, cpu_seconds, wait_for, workers
from bench.timing import WrongValuesError, rounded, same_values
from materialize.definitions import StreamView
from materialize.events import AD_EVENTS, columns_from_events, decode_event
from materialize.online import KeyEncoder, ReadCounts, view_reader
from materialize.stream import EventLog, KafkaLogSettings, UnknownTopicError, open_event_log
from tests.kernel.oracle import OracleEvent, oracle_values

QUIX_TOPIC = "quix_events"
PARTITIONS = 4
RATE, FRESH_RATE = 20_000, 5_000
TIMED_SHARE = 0.85
"""Rates are taken until so much is done: until then every worker has work, however uneven its partitions are."""

CHECKED_EVENTS = 4_000
PROBE_EVERY = 25
WARM_PROBES = 20
SETTLE_S = 60.0
"""How long events are sent before the lag is watched: in their first minute rows become longer, and so do batches."""
ENTITIES_CHECKED = 400
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Scale:
    """How much a run takes."""

    preloaded: int
    quix: int
    seconds: float


FULL = Scale(preloaded=1_200_000, quix=60_000, seconds=60.0)
SHORT = Scale(preloaded=400_000, quix=10_000, seconds=8.0)


@dataclass(frozen=True)
class Stage:
    """Where the benchmark runs. `pids`: the servers that are ours, by name."""

    servers: str
    redis_url: str
    client: redis.Redis
    log: EventLog
    pids: Mapping[str, int]
    scale: Scale


def run(as_json: bool, is_short: bool) -> None:
    """Compare the values, then time."""
    scale = SHORT if is_short else FULL
    with _stage(scale) as stage:
        found = _values(stage) | _quix(stage)
        found |= _drained(stage, "", SOME_KEYS, 1) | _drained(stage, "two_workers_", SOME_KEYS, 2)
        found |= _drained(stage, "many_keys_", MANY_KEYS, 1)
        found |= _sustained(stage) | _freshness(stage)
    figures = found.figures
    figures["quix_speedup"] = rounded(figures["events_per_s"] / figures["quix_events_per_s"])
    figures["two_workers_speedup"] = rounded(figures["two_workers_events_per_s"] / figures["events_per_s"])
    bars = [
        Bar("events_per_s", figures["events_per_s"], 20_000),
        Bar("sustained_events_per_s", figures["sustained_events_per_s"], 0.99 * RATE),
        Bar("lag_growth", figures["lag_growth"], RATE / 20, at_most=True),
        Bar("freshness_p50_ms", figures["freshness_p50_ms"], 60, at_most=True),
        Bar("freshness_p99_ms", figures["freshness_p99_ms"], 250, at_most=True),
        Bar("quix_speedup", figures["quix_speedup"], 2),
        Bar("two_workers_speedup", figures["two_workers_speedup"], 1.5),
    ]
    report("stream" if scale is FULL else "stream-short", found.as_report(bars), as_json)


def _values(stage: Stage) -> Findings:
    """What a scoring read gives after a worker has folded some events is the oracle's, and what Quix Streams' tiles
    merge to."""
    events = draw_events(SOME_KEYS, CHECKED_EVENTS, seed=1)
    now_ms = _now_ms()
    first_ms = now_ms - 90 * MINUTE_MS
    with _topics(stage):
        preload(stage.servers, [AD_EVENTS, QUIX_TOPIC], events, CHECKED_EVENTS, first_ms, now_ms)
        with workers(1, stage.servers, stage.redis_url, _group()) as [worker]:
            wait_for("the events are folded", lambda: worker.records >= CHECKED_EVENTS, START_TIMEOUT_S)
            assert worker.dead_letters.value == 0
        with quix_windows(stage.servers, QUIX_TOPIC, tiles_of=CHECKED_EVENTS) as quix:
            if not quix.tiles.poll(START_TIMEOUT_S):
                raise TimeoutError("Quix Streams did not take the events")
            tiles = _tiles(quix.tiles.recv())
    expected = _oracle_events(events, first_ms, now_ms)
    compared = {"oracle": 0, "quix": 0}
    for view in fold_views():
        name = view.join_keys[0].name
        entities = sorted(expected[name])[:: max(len(expected[name]) // ENTITIES_CHECKED, 1)]
        ours = _read(stage, view, entities, now_ms)
        wanted = [oracle_values(view.spec, expected[name][entity], now_ms) for entity in entities]
        compared["oracle"] += same_values(f"{view.name} and the oracle", ours, _numbers(view, wanted), rtol=1e-9)
        theirs = [_window(tiles[name, entity], now_ms) for entity in entities]
        known = np.array([any(value is not None for value in values) for values in wanted if values is not None])
        if len(known) == len(entities):
            compared["quix"] += same_values(
                f"{view.name} and Quix Streams", ours[known], _numbers(view, theirs)[known], rtol=1e-6
            )
    stage.client.flushall()
    return Findings({}, {}, {"values_compared": compared})


def _drained(stage: Stage, name: str, population: Population, count: int) -> Findings:
    """How fast a preloaded topic is folded, from when every worker works until TIMED_SHARE of it is done."""
    total = stage.scale.preloaded
    events = draw_events(population, min(CYCLE_EVENTS, total), seed=2)
    with _topics(stage):
        last_ms = _now_ms()
        preload(stage.servers, [AD_EVENTS], events, total, last_ms - MINUTE_MS, last_ms)
        with workers(count, stage.servers, stage.redis_url, _group()) as running:
            began = wait_for("they work", lambda: all(w.records > 0 for w in running), START_TIMEOUT_S)
            first, used = _done(running), _cpu(stage, running)
            ended = wait_for("it is done", lambda: _done(running) >= TIMED_SHARE * total, DONE_TIMEOUT_S)
            taken, spent = _done(running) - first, _cpu(stage, running)
            assert not any(worker.dead_letters.value for worker in running)
    stage.client.flushall()
    cores = {who: rounded((spent[who] - used[who]) / (ended - began)) for who in spent}
    figures = {f"{name}events_per_s": rounded(taken / (ended - began))}
    if count == 1:
        figures[f"{name}events_per_cpu_s"] = rounded(taken / (spent["worker_0"] - used["worker_0"]))
    return Findings(figures, {}, {f"{name or 'one_worker_'}cores_used": cores})


def _sustained(stage: Stage) -> Findings:
    """RATE events/s sent for a while: what is folded of it, and by how many events a line through the lag rises.

    The lag is a saw of a batch's height, so two short looks at it differ by more than it grows.
    """
    events = draw_events(SOME_KEYS, CYCLE_EVENTS, seed=3)
    seconds = stage.scale.seconds
    with _topics(stage), workers(1, stage.servers, stage.redis_url, _group()) as [worker]:
        _warm(stage, worker, events)
        warm = worker.records
        with sending(stage.servers, events, RATE, seconds + min(SETTLE_S, seconds)) as sent:
            wait_for("events are sent", lambda: sent.sent.value > 0, START_TIMEOUT_S)
            time.sleep(min(SETTLE_S, seconds))
            began, first, first_sent = time.monotonic(), worker.records, sent.sent.value
            lags = []
            while (now := time.monotonic()) < began + seconds - 0.5:
                lags.append((now - began, sent.sent.value - (worker.records - warm)))
                time.sleep(0.02)
            elapsed, taken = time.monotonic() - began, worker.records - first
            offered = (sent.sent.value - first_sent) / elapsed
        assert worker.dead_letters.value == 0
    stage.client.flushall()
    at_s, behind = np.array(lags).T
    growth = float(np.polyfit(at_s, behind, 1)[0]) * seconds
    figures = {"sustained_events_per_s": rounded(taken / elapsed), "lag_growth": float(round(growth))}
    sixths = [float(np.median(part)) for part in np.array_split(behind, 6)]
    notes: dict[str, object] = {"sustained_offered_per_s": rounded(offered), "lag_by_sixths_of_the_time": sixths}
    return Findings(figures, {}, notes)


def _freshness(stage: Stage) -> Findings:
    """At FRESH_RATE events/s: from the moment of sending until a read of the rows of all three views has the event."""
    events = draw_events(SOME_KEYS, CYCLE_EVENTS, seed=4)
    with _topics(stage), workers(1, stage.servers, stage.redis_url, _group()) as [worker]:
        _warm(stage, worker, events)
        with sending(stage.servers, events, FRESH_RATE, stage.scale.seconds, PROBE_EVERY) as sent:
            taken_ms = _watch(stage, sent.probes, stage.scale.seconds)
    stage.client.flushall()
    counted = taken_ms[WARM_PROBES:]
    p50, p90, p99 = (rounded(float(np.quantile(counted, q))) for q in (0.5, 0.9, 0.99))
    notes: dict[str, object] = {"freshness_events": len(counted)}
    return Findings({"freshness_p50_ms": p50, "freshness_p99_ms": p99}, {"freshness_ms": {"p90": p90}}, notes)


def _watch(stage: Stage, probes: Sequence[int], seconds: float) -> list[float]:
    """Milliseconds from the sending of each probe, in order, to a read that has it in every view."""
    views = [(view, KeyEncoder(PROJECT, view.name, view.join_keys)) for view in fold_views()]
    readers, counts = [view_reader(view, range(len(view.fields))) for view, _ in views], ReadCounts()
    waiting: dict[int, list[bytes]] = {}
    taken: dict[int, float] = {}
    following, deadline = 0, time.monotonic() + START_TIMEOUT_S + seconds
    while time.monotonic() < deadline:
        while following < PROBES_MAX and probes[following]:
            if not following:
                deadline = time.monotonic() + 2 * seconds
            waiting[following] = [encoder.key([probe_key(following)]) for _, encoder in views]
            following += 1
        keys = [key for probe in waiting.values() for key in probe]
        rows = stage.client.mget(keys) if keys else []
        now_ns = time.time_ns()
        for place, probe in enumerate(list(waiting)):
            stored = rows[place * len(views) : (place + 1) * len(views)]
            if None in stored:
                continue
            read = [r.read(row, now_ns // 1_000_000, counts) for r, row in zip(readers, stored, strict=True)]
            if all(values.values[0] == 1 for values in read):
                taken[probe] = (time.time_ns() - probes[probe]) / 1e6
                del waiting[probe]
        if following >= seconds * FRESH_RATE // PROBE_EVERY - 1 and not waiting:
            break
        time.sleep(0.001)
    if waiting:
        raise WrongValuesError(f"{len(waiting)} events never became readable")
    return [taken[probe] for probe in sorted(taken)]


def _quix(stage: Stage) -> Findings:
    """Quix Streams on the same events."""
    total = stage.scale.quix
    events = draw_events(SOME_KEYS, min(CYCLE_EVENTS, total), seed=2)
    with _topics(stage):
        last_ms = _now_ms()
        preload(stage.servers, [QUIX_TOPIC], events, total, last_ms - MINUTE_MS, last_ms)
        with quix_windows(stage.servers, QUIX_TOPIC) as quix:
            began = wait_for("Quix Streams works", lambda: quix.done.value > 0, START_TIMEOUT_S)
            first, used = quix.done.value, cpu_seconds(quix.pid)
            ended = wait_for("it is done", lambda: quix.done.value >= TIMED_SHARE * total, DONE_TIMEOUT_S)
            taken, spent = quix.done.value - first, cpu_seconds(quix.pid)
    versions = {name: metadata.version(name) for name in ("quixstreams", "confluent-kafka")}
    notes: dict[str, object] = {
        "quix_cores_used": rounded((spent - used) / (ended - began)),
        "quix_versions": versions,
        "quix_form": "tiles of one hop in its own state, one aggregator, no changelog, nothing written to Redis",
    }
    return Findings({"quix_events_per_s": rounded(taken / (ended - began))}, {}, notes)


def _warm(stage: Stage, worker: Running, events: Events) -> None:
    """Has the worker done with some events, so that nothing is compiled later."""
    count = 20_000
    last_ms = _now_ms()
    preload(stage.servers, [AD_EVENTS], events, count, last_ms - MINUTE_MS, last_ms)
    wait_for("the worker is warm", lambda: worker.records >= count, START_TIMEOUT_S)


def _done(running: Sequence[Running]) -> int:
    return sum(worker.records for worker in running)


def _cpu(stage: Stage, running: Sequence[Running]) -> dict[str, float]:
    pids = {**stage.pids, **{f"worker_{place}": worker.pid for place, worker in enumerate(running)}}
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def _tiles(found: Mapping[tuple[str, object, int], tuple[object, ...]]) -> dict[tuple[str, str], dict[int, tuple]]:
    """By key name and key: start of the tile → tile."""
    tiles: dict[tuple[str, str], dict[int, tuple]] = defaultdict(dict)
    for (name, key, start), tile in found.items():
        tiles[name, key.decode() if isinstance(key, bytes) else str(key)][start] = tile
    return tiles


def _window(tiles: Mapping[int, tuple], as_of_ms: int) -> list[float | None]:
    tail = (as_of_ms - WINDOW.length_ms) // WINDOW.hop_ms * WINDOW.hop_ms
    return merged([tile for start, tile in sorted(tiles.items()) if start >= tail])


def _oracle_events(events: Events, first_ms: int, last_ms: int) -> dict[str, dict[str, list[OracleEvent]]]:
    """By key name and key: the events that `preload` made."""
    step_ms = (last_ms - first_ms) / CHECKED_EVENTS
    lines = [record(tail, n, first_ms + int(n * step_ms)) for n, tail in enumerate(events.tails)]
    decoded = [decode_event(AD_EVENTS, line, last_ms) for line in lines]
    columns = columns_from_events(decoded)
    found: dict[str, dict[str, list[OracleEvent]]] = {name: defaultdict(list) for name in KEYS}
    for place in range(len(decoded)):
        values = {n: _or_none(columns[n][place]) for n in ("amount_usd", "ms_since_impression")}
        event = OracleEvent(columns["event_id"][place], int(columns["event_time"][place]), values)
        for name in KEYS:
            found[name][columns[name][place]].append(event)
    return found


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _read(stage: Stage, view: StreamView, entities: Sequence[str], as_of_ms: int) -> np.ndarray:
    encoder, reader, counts = KeyEncoder(PROJECT, view.name, view.join_keys), view_reader(view, range(8)), ReadCounts()
    rows = stage.client.mget([encoder.key([entity]) for entity in entities])
    return _numbers(view, [values.values for values in reader.read_many(rows, as_of_ms, counts)])


def _numbers(view: StreamView, rows: Sequence[Sequence[object] | None]) -> np.ndarray:
    """float64[rows, features], NaN for none."""
    nothing = [None] * len(view.fields)
    return np.array([[np.nan if value is None else value for value in row or nothing] for row in rows], np.float64)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _group() -> str:
    return f"bench-{time.time_ns()}"


@contextmanager
def _topics(stage: Stage) -> Iterator[None]:
    """The topics, new and empty; deleted at the end."""
    stage.log.ensure_topics([AD_EVENTS], PARTITIONS)
    stage.log.ensure_topics([QUIX_TOPIC], 1)
    try:
        yield
    finally:
        stage.log.delete_topics([AD_EVENTS, QUIX_TOPIC])


@contextmanager
def _stage(scale: Scale) -> Iterator[Stage]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Valkey(Path(folder) / "valkey") as valkey,
        _broker(Path(folder) / "kafka") as (servers, pids),
        closing(open_event_log(KafkaLogSettings(bootstrap_servers=servers))) as log,
        redis.Redis.from_url(valkey.url) as client,
    ):
        for topic in (AD_EVENTS, QUIX_TOPIC):
            with suppress(UnknownTopicError):
                log.size(topic)
                raise SystemExit(f"the topic {topic!r} exists on this broker: give one without, or none")
        yield Stage(servers, valkey.url, client, log, {"valkey": valkey.record.pid, **pids}, scale)


@contextmanager
def _broker(directory: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """The broker that KAFKA_BOOTSTRAP_SERVERS names, or one of our own; its process id if it is ours."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given, {}
        return
    with Kafka(directory, default_cache(Path.cwd(), os.environ)) as broker:
        yield broker.bootstrap_servers, {"kafka": broker.record.pid}
