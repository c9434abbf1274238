"""Quix Streams with the aggregations of the fold views, as tiles of one hop in its own state, in a process of its own.

In what makes it fastest, each beyond what our side does without: one topic of one partition, so that `group_by` renames
the key and needs no repartition topic; no changelog topics (what it has is lost with its disk); at-least-once; results
stay in its RocksDB and are not written to Redis; tiles as long as our hop, which a reader would have to merge, instead
of hopping windows, which put each event into twelve; and one aggregator of our own that computes all eight functions in
one pass over a list, instead of eight of its own.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from bench.events import KEYS, WINDOW

Tile = tuple[Any, ...]
"""Of `amount_usd`: count, sum, min, max, mean, sum of squared distances; of `ms_since_impression`: count, sum, max."""

EMPTY: Tile = (0, 0.0, None, None, 0.0, 0.0, 0, 0.0, None)
_spawning = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class QuixRun:
    """`done`: messages processed so far, by all three branches. `tiles`: where the last ones come from."""

    pid: int
    done: Any
    tiles: Connection


@contextmanager
def quix_windows(servers: str, topic: str, tiles_of: int = 0) -> Iterator[QuixRun]:
    """The application on all messages of the topic, killed at the end.

    After `tiles_of` messages it sends {(key name, key, start of the tile in ms): tile} through `tiles`; keeping them
    takes time, so it is for comparing values only.
    """
    done = _spawning.RawValue(ctypes.c_int64)
    here, there = _spawning.Pipe()
    process = _spawning.Process(target=_run, args=(servers, topic, tiles_of, done, there), daemon=True)
    process.start()
    try:
        yield QuixRun(process.pid or 0, done, here)
    finally:
        process.kill()
        process.join()


def merged(tiles: list[Tile]) -> list[float | None]:
    """The eight values of a window from its tiles, in the order of the views."""
    total: Tile = EMPTY
    for tile in tiles:
        total = _merge(total, tile)
    count, amount, least, most, _, squares, delays, delay, longest = total
    return [
        count,
        amount,
        amount / count if count else None,
        least,
        most,
        squares / (count - 1) if count > 1 else None,
        delay / delays if delays else None,
        longest,
    ]


def _merge(a: Tile, b: Tile) -> Tile:
    count = a[0] + b[0]
    apart = b[4] - a[4]
    mean = a[4] + apart * b[0] / count if count else 0.0
    squares = a[5] + b[5] + (apart * apart * a[0] * b[0] / count if count else 0.0)
    return (
        count,
        a[1] + b[1],
        _of(min, a[2], b[2]),
        _of(max, a[3], b[3]),
        mean,
        squares,
        a[6] + b[6],
        a[7] + b[7],
        _of(max, a[8], b[8]),
    )


def _of(choose: Any, a: float | None, b: float | None) -> float | None:
    return choose(v for v in (a, b) if v is not None) if (a is not None or b is not None) else None


def _run(servers: str, topic: str, tiles_of: int, done: Any, tiles: Connection) -> None:
    from quixstreams import Application
    from quixstreams.dataframe.windows.aggregations import BaseAggregator

    class Eight(BaseAggregator):  # type: ignore[misc, type-arg]
        """All eight functions, by Welford's recurrence where a variance is needed."""

        state_suffix = "eight"

        def initialize(self) -> Tile:
            return EMPTY

        def agg(self, old: Tile, new: Any, _timestamp: int) -> Tile:
            count, total, least, most, mean, squares, delays, delay, longest = old
            amount, since = new["amount_usd"], new["ms_since_impression"]
            if amount is not None:
                count += 1
                total += amount
                least = amount if least is None or amount < least else least
                most = amount if most is None or amount > most else most
                apart = amount - mean
                mean += apart / count
                squares += apart * (amount - mean)
            if since is not None:
                delays += 1
                delay += since
                longest = since if longest is None or since > longest else longest
            return (count, total, least, most, mean, squares, delays, delay, longest)

        def result(self, value: Tile) -> Tile:
            return value

    logging.getLogger("quixstreams").setLevel(logging.WARNING)
    kept: dict[tuple[str, str, int], Tile] = {}

    def note(_topic: str, _partition: int, _offset: int) -> None:
        done.value += 1
        if done.value == tiles_of:
            tiles.send(kept)

    with tempfile.TemporaryDirectory() as state:
        app = Application(
            broker_address=servers,
            consumer_group=f"quix-{time.time_ns()}",
            auto_offset_reset="earliest",
            state_dir=state,
            use_changelog_topics=False,
            processing_guarantee="at-least-once",
            on_message_processed=note,
            loglevel="WARNING",
        )
        events = app.dataframe(app.topic(topic, value_deserializer="json", key_deserializer="bytes"))
        for name in KEYS:
            windows = events.group_by(name).tumbling_window(WINDOW.hop_ms, name=name).agg(tile=Eight()).current()
            if tiles_of:
                windows.update(_keeper(kept, name), metadata=True)
        app.run()


def _keeper(kept: dict[tuple[str, str, int], Tile], name: str) -> Any:
    def keep(window: dict[str, Any], key: Any, _timestamp: int, _headers: Any) -> None:
        kept[name, key, window["start"]] = window["tile"]

    return keep
