"""Ad events as JSON records for the stream benchmark, and the process that sends them to Kafka at a rate."""

from __future__ import annotations

import ctypes
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Producer

from bench.events import BATCH_EVENTS, KEYS, Population, draw_batches
from materialize.events import AD_EVENTS, Columns

TICK_S = 0.005
FLUSH_TIMEOUT_S = 60.0
CYCLE_EVENTS = 100_000
PROBES_MAX = 5_000
_spawning = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Events:
    """Records without identity and time: `keys` for the log, `tails` the rest of each JSON object."""

    keys: list[bytes]
    tails: list[bytes]


def draw_events(population: Population, count: int, seed: int) -> Events:
    """Clicks whose keys and values are those of the fold benchmark."""
    batches = draw_batches(population, -(-count // BATCH_EVENTS), seed)
    columns = {name: np.concatenate([batch[name] for batch in batches])[:count] for name in batches[0]}
    return Events([ip.encode() for ip in columns["ip"].tolist()], _tails(columns))


def record(tail: bytes, number: int, time_ms: int) -> bytes:
    """One event: `number` is its identity."""
    return b'{"event_id":"e%d","event_time":%d,%b' % (number, time_ms, tail)


def preload(servers: str, topics: Sequence[str], events: Events, count: int, first_ms: int, last_ms: int) -> None:
    """Append `count` events, spread evenly over event time and in its order, to each topic."""
    producer = _producer(servers)
    step_ms = (last_ms - first_ms) / count
    for number in range(count):
        place, time_ms = number % len(events.keys), first_ms + int(number * step_ms)
        value = record(events.tails[place], number, time_ms)
        for topic in topics:
            _send(producer, topic, events.keys[place], value, time_ms)
    _finish(producer)


@dataclass(frozen=True)
class Sending:
    """What the sending process says of itself: how many it has sent, and when each probe was, in ns since 1970."""

    sent: Any
    probes: Any


@contextmanager
def sending(servers: str, events: Events, rate: int, seconds: float, probe_every: int = 0) -> Iterator[Sending]:
    """A process that sends `rate` events/s to AD_EVENTS, each with the time of its sending as its event time.

    Every `probe_every`-th event is a probe: it has keys of its own, `probe-<n>`, in all views.
    """
    sent, probes = _spawning.RawValue(ctypes.c_int64), _spawning.RawArray(ctypes.c_int64, PROBES_MAX)
    arguments = (servers, events, rate, seconds, probe_every, sent, probes)
    process = _spawning.Process(target=_send_at_rate, args=arguments, daemon=True)
    process.start()
    try:
        yield Sending(sent, probes)
        process.join(FLUSH_TIMEOUT_S)
    finally:
        process.kill()
        process.join()


def probe_key(number: int) -> str:
    """The key of a probe in every view."""
    return f"probe-{number}"


def _send_at_rate(
    servers: str, events: Events, rate: int, seconds: float, probe_every: int, sent: Any, probes: Any
) -> None:
    producer = _producer(servers)
    began, number, probe = time.monotonic(), 0, 0
    while (elapsed := time.monotonic() - began) < seconds:
        due = int(elapsed * rate)
        while number < due:
            place, now_ns = number % len(events.keys), time.time_ns()
            if probe_every and number % probe_every == 0 and probe < PROBES_MAX:
                key = probe_key(probe).encode()
                value = record(_probe_tail(key), number, now_ns // 1_000_000)
                _send(producer, AD_EVENTS, key, value, now_ns // 1_000_000)
                probes[probe] = now_ns
                probe += 1
            else:
                value = record(events.tails[place], number, now_ns // 1_000_000)
                _send(producer, AD_EVENTS, events.keys[place], value, now_ns // 1_000_000)
            number += 1
        sent.value = number
        producer.poll(0)
        time.sleep(TICK_S)
    _finish(producer)


def _producer(servers: str) -> Producer:
    """librdkafka's: it takes a small part of a core, which our own Python client would not."""
    return Producer(
        {
            "bootstrap.servers": servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 200_000,
        }
    )


def _send(producer: Producer, topic: str, key: bytes, value: bytes, time_ms: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key, timestamp=time_ms)
            return
        except BufferError:  # the queue is full
            producer.poll(0.01)


def _finish(producer: Producer) -> None:
    left = producer.flush(FLUSH_TIMEOUT_S)
    if left:
        raise RuntimeError(f"Kafka did not acknowledge {left} events: is the broker up?")


def _tails(columns: Columns) -> list[bytes]:
    names = (*KEYS, "amount_usd", "ms_since_impression")
    return [_tail(*values) for values in zip(*(columns[name].tolist() for name in names), strict=True)]


def _tail(ip: str, device: str, advertiser: str, amount: float, delay: float) -> bytes:
    paid = b"null" if amount != amount else b"%.4f" % amount
    since = b"null" if delay != delay else b"%d" % (delay * 1_000)
    return (
        b'"event_type":"click","ip":"%b","device_id":"%b","advertiser_id":"%b","creator_id":"c","os":"android",'
        b'"country":"DE","amount_usd":%b,"ms_since_impression":%b}'
        % (ip.encode(), device.encode(), advertiser.encode(), paid, since)
    )


def _probe_tail(key: bytes) -> bytes:
    name = key.decode()
    return _tail(name, name, name, 1.0, 1.0)
