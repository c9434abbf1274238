"""The stream worker on real Kafka and Valkey: how many events a second it folds into rows, and how soon they count.

One worker, three views of 8 aggregations each. Before anything is told, the rows that were made are compared with the
point-in-time values of all events. There is no peer here yet.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import redis

from actor_risk.local import Kafka, Valkey, default_cache
from bench.bars import Bar, Findings
from bench.events import BATCH_EVENTS, KEYS, SOME_KEYS, draw_batches, fold_views
from bench.report import report
from bench.timing import WrongValuesError, rounded
from materialize.events import AD_EVENTS, Columns
from materialize.kernel import read_windows, values_as_of
from materialize.online import KeyEncoder, RedisSettings, RowWriter, connect, decode_stream_row
from materialize.stream import DeadLetters, log_settings, open_event_log
from materialize.stream.worker import StreamWorker, WorkerSettings

PROJECT, GROUP = "bench", "bench"
PARTITIONS = 4
WARM_BATCHES, DRAINED_BATCHES = 4, 40
FRESH_EVENTS_PER_S, FRESH_S, PROBE_EVERY = 5_000, 20, 50
COMPARED_ENTITIES = 50
READY_S = 60.0


@dataclass(frozen=True)
class Stage:
    """Where a benchmark runs."""

    redis_url: str
    kafka_servers: str


def run(as_json: bool) -> None:
    """Drain a full topic, compare the rows, then measure how soon an event is in its row at a steady rate."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ar-")))
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if not servers:
            servers = stack.enter_context(
                Kafka(folder / "kafka", default_cache(Path.cwd(), os.environ))
            ).bootstrap_servers
        stage = Stage(valkey.url, servers)
        found = _drained(stage) | _fresh(stage)
    bars = [
        Bar("events_per_s", found.figures["events_per_s"], 20_000),
        Bar("freshness_p50_ms", found.figures["freshness_p50_ms"], 60, at_most=True),
        Bar("freshness_p99_ms", found.figures["freshness_p99_ms"], 250, at_most=True),
    ]
    report("stream", found.as_report(bars), as_json)


def _drained(stage: Stage) -> Findings:
    """A topic that is full already: what one worker takes when it never waits for an event."""
    batches = _drawn(WARM_BATCHES + DRAINED_BATCHES, seed=21)
    log = open_event_log(log_settings(stage.redis_url, stage.kafka_servers))
    with closing(log):
        log.delete_topics([AD_EVENTS])
        log.ensure_topics([AD_EVENTS], partitions=PARTITIONS)
        _produce(log, batches)
        worker, client = _worker(stage, log)
        with closing(client):
            _take(worker, WARM_BATCHES * BATCH_EVENTS)
            already, began, cpu = worker.counts.records, time.perf_counter(), time.process_time()
            _take(worker, len(batches) * BATCH_EVENTS)
            seconds, taken = time.perf_counter() - began, worker.counts.records - already
            cpu_s = time.process_time() - cpu
            compared = _check(client, batches)
    if worker.counts.dead_letters or worker.counts.duplicates:
        raise WrongValuesError(f"the worker did not take every event: {worker.counts}")
    notes: dict[str, object] = {"values_compared": compared, "drained_events": taken, "worker_cpu_s": round(cpu_s, 2)}
    return Findings({"events_per_s": rounded(taken / seconds)}, {}, notes)


def _fresh(stage: Stage) -> Findings:
    """At a steady rate: from handing an event to the producer to reading a row that has it."""
    log = open_event_log(log_settings(stage.redis_url, stage.kafka_servers))
    ready, stop = multiprocessing.get_context("spawn").Event(), multiprocessing.get_context("spawn").Event()
    child = multiprocessing.get_context("spawn").Process(target=_work, args=(stage, ready, stop), daemon=True)
    with closing(log), closing(connect(RedisSettings(stage.redis_url))) as client:
        child.start()
        try:
            if not ready.wait(READY_S):
                raise WrongValuesError("the worker was not ready in time")
            sent: dict[bytes, int] = {}
            producing = threading.Thread(target=_produce_steadily, args=(log, sent))
            producing.start()
            waits_ms = _watch(client, sent, producing)
            producing.join()
        finally:
            stop.set()
            child.join(30)
    waits_ms = waits_ms[len(waits_ms) // 10 :]  # the first tenth warms up
    cuts = statistics.quantiles(waits_ms, n=100)
    figures = {"freshness_p50_ms": rounded(cuts[49]), "freshness_p99_ms": rounded(cuts[98])}
    return Findings(figures, {}, {"freshness_probes": len(waits_ms), "freshness_max_ms": rounded(max(waits_ms))})


def _work(stage: Stage, ready: Any, stop: Any) -> None:
    """The worker's process."""
    log = open_event_log(log_settings(stage.redis_url, stage.kafka_servers))
    worker, _ = _worker(stage, log, start="latest", group="fresh")
    worker.run(stop, on_ready=lambda _: ready.set())


def _worker(stage: Stage, log: Any, start: Any = "earliest", group: str = GROUP) -> tuple[StreamWorker, redis.Redis]:
    client = connect(RedisSettings(stage.redis_url))
    consumer = log.consumer([AD_EVENTS], group, start)
    far_ms = 10 * 365 * 86_400_000  # the drawn events have times of their own
    settings = WorkerSettings(skew_ms=far_ms)
    worker = StreamWorker(PROJECT, fold_views(), consumer, RowWriter(client), DeadLetters(log), _now_ms, settings)
    return worker, client


def _take(worker: StreamWorker, records: int) -> None:
    while worker.counts.records < records:
        worker.run_once()


def _produce(log: Any, batches: Sequence[Columns]) -> None:
    with closing(log.producer()) as producer:
        for batch in batches:
            for event in _events(batch):
                producer.send(AD_EVENTS, event["ip"].encode(), msgspec.json.encode(event))
            producer.flush(60_000)


def _drawn(count: int, seed: int) -> list[Columns]:
    """Micro-batches that fit the topic's schema, in which milliseconds are whole."""
    drawn = draw_batches(SOME_KEYS, count, seed)
    return [{**batch, "ms_since_impression": np.floor(batch["ms_since_impression"])} for batch in drawn]


def _events(batch: Columns) -> list[dict[str, Any]]:
    """The batch as events of the topic's schema."""
    names = ["event_id", "event_time", *KEYS, "amount_usd", "ms_since_impression"]
    columns = [batch[name].tolist() for name in names]
    events = [{n: v for n, v in zip(names, row, strict=True) if v == v} for row in zip(*columns, strict=True)]
    for event in events:
        event |= {"event_type": "click", "creator_id": "creator"}
        if "ms_since_impression" in event:
            event["ms_since_impression"] = int(event["ms_since_impression"])
    return events


def _produce_steadily(log: Any, sent: dict[bytes, int]) -> None:
    """FRESH_EVENTS_PER_S for FRESH_S; of every PROBE_EVERY-th event, which has an IP of its own, when it was sent."""
    template = _events(_drawn(1, seed=22)[0])
    began = time.perf_counter()
    with closing(log.producer()) as producer:
        for i in range(FRESH_EVENTS_PER_S * FRESH_S):
            event = {**template[i % len(template)], "event_id": f"fresh_{i}", "event_time": _now_ms()}
            if i % PROBE_EVERY == 0:
                event["ip"] = f"probe_{i}"
            value = msgspec.json.encode(event)
            if i % PROBE_EVERY == 0:
                sent[event["ip"].encode()] = time.perf_counter_ns()
            producer.send(AD_EVENTS, event["ip"].encode(), value)
            ahead_s = began + i / FRESH_EVENTS_PER_S - time.perf_counter()
            if ahead_s > 0:
                time.sleep(ahead_s)
        producer.flush(60_000)


def _watch(client: redis.Redis, sent: dict[bytes, int], producing: threading.Thread) -> list[float]:
    """Milliseconds from sending each probe to reading its row."""
    view = fold_views()[0]
    encoder = KeyEncoder(PROJECT, view.name, view.join_keys)
    waits_ms: list[float] = []
    seen: set[bytes] = set()
    deadline = time.monotonic() + FRESH_S + READY_S
    while time.monotonic() < deadline:
        waiting = [ip for ip in list(sent) if ip not in seen]
        if not waiting and not producing.is_alive():
            return waits_ms
        rows = client.mget(encoder.keys([(ip.decode(),) for ip in waiting])) if waiting else []
        now_ns = time.perf_counter_ns()
        for ip, row in zip(waiting, rows, strict=True):
            if row is not None:
                seen.add(ip)
                waits_ms.append((now_ns - sent[ip]) / 1e6)
        time.sleep(0.002)
    raise WrongValuesError(f"{len(sent) - len(seen)} probes never came into their rows")


def _check(client: redis.Redis, batches: Sequence[Columns]) -> int:
    """Rows of some entities of each view are what all events give, as of the newest."""
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    as_of_ms = int(columns["event_time"].max())
    compared = 0
    for view in fold_views():
        seen = view.events(columns)
        entities, codes = np.unique(seen.keys[0].astype(str), return_inverse=True)
        asked = np.arange(0, len(entities), max(len(entities) // COMPARED_ENTITIES, 1))
        times = np.full(len(asked), as_of_ms)
        expected, _, _ = values_as_of(view.spec, codes.astype(np.int64), seen.block, asked, times)
        encoder = KeyEncoder(PROJECT, view.name, view.join_keys)
        rows = client.mget(encoder.keys([(entities[i],) for i in asked]))
        for wanted, row in zip(expected, rows, strict=True):
            found = read_windows(view.spec, decode_stream_row(view.spec, row).state, as_of_ms).values
            if not np.allclose(found, wanted, rtol=1e-9, atol=1e-9, equal_nan=True):
                raise WrongValuesError(f"{view.name}: {found} for {wanted}")
            compared += len(found)
    return compared


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
