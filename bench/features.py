"""The online store beside Feast's stock Redis store: reads, writes, memory; on one Valkey, in turn.

Before anything is timed, every value that our reader gives is compared with what the stock store gives for the same
rows, and windowed values with the plain kernel's.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import redis
import redis.utils

from actor_risk.local import Valkey
from bench.actors import FEATURES, Actors, FeastRow, batch_objects, draw_actors, feature_name, windowed_objects
from bench.bars import Bar, Findings
from bench.packed import Matrix, Packed, as_columns, as_rows
from bench.peers.feast_redis import TRIALS, FeastRedis, bare_mget, bare_redis
from bench.report import report
from bench.tiles import full_row
from bench.timing import Timed, Timing, alternate, each, rounded, same_values
from materialize.definitions import StreamView
from materialize.kernel import Row, read_windows

VIEWS = 4
ACTORS = 4_000
WINDOWED_ACTORS = 400
READ1_ROUNDS, READ1_CALLS = 7, 300
READ100_ROUNDS, READ100_CALLS = 5, 10
WRITE_ROUNDS, WRITE_BATCHES, WRITE_ROWS = 5, 3, 1_000

Rows = TypeVar("Rows")


@dataclass(frozen=True)
class Stage:
    """Where a benchmark runs: a directory of its own, a server of its own, one event loop for all."""

    directory: Path
    url: str
    address: str
    runner: asyncio.Runner
    client: redis.Redis
    now_ms: int


def run(as_json: bool) -> None:
    """Compare the values, then time reads and writes and weigh the rows."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Valkey(Path(folder) / "valkey") as server,
        redis.Redis.from_url(server.url) as client,
        asyncio.Runner() as runner,
    ):
        stage = Stage(Path(folder), server.url, server.address, runner, client, time.time_ns() // 1_000_000)
        found = _reads_and_memory(stage) | _windowed_reads(stage) | _writes(stage)
    figures = found.figures
    bars = [
        Bar("read1_speedup", figures["read1_speedup"], 5),
        Bar("read1_over_redis", rounded(figures["read1_us"] / figures["redis_us"]), 3, at_most=True),
        Bar("read100_speedup", figures["read100_speedup"], 20),
        Bar("write_rows_per_s", figures["write_rows_per_s"], 100_000),
        Bar("write_speedup", rounded(figures["write_rows_per_s"] / figures["feast_write_rows_per_s"]), 4),
        Bar("bytes_share", rounded(figures["bytes_per_actor"] / figures["feast_bytes_per_actor"]), 0.5, at_most=True),
    ]
    report("features", found.as_report(bars), as_json)


def _reads_and_memory(stage: Stage) -> Findings:
    """One actor and a hundred, 60 stored features over four rows each; and what the rows weigh."""
    actors = draw_actors(ACTORS, seed=1)
    packed = Packed(stage.directory, "packed", stage.url, batch_objects(stage.directory, VIEWS), stage.runner)
    feast = FeastRedis(stage.directory, stage.address, VIEWS, stage.runner)
    weights = _bytes_per_actor(stage, actors, packed, feast)
    compared = _check_reads(actors.ids, packed, feast, stage.now_ms)
    ones = [[name] for name in actors.ids[:TRIALS]]
    hundreds = [actors.ids[i : i + 100] for i in range(0, 1_000, 100)]
    form1, feast1 = feast.fastest_read(ones)
    form100, feast100 = feast.fastest_read(hundreds)
    ours1, read1 = packed.fastest_read(ones, stage.now_ms)
    ours100, read100 = packed.fastest_read(hundreds, stage.now_ms)
    bare, mget = bare_redis(stage.client, packed.keys), bare_mget(stage.client, packed.keys)
    one = alternate(
        {"read1": read1, "feast1": feast1, "redis": bare, "redis_mget": mget},
        _drawn(actors.ids, 1, READ1_CALLS),
        READ1_ROUNDS,
    )
    many = alternate(
        {"read100": read100, "feast100": feast100, "redis100": bare, "redis100_mget": mget},
        _drawn(actors.ids, 100, READ100_CALLS),
        READ100_ROUNDS,
    )
    packed.close()
    found = _timings(one | many)
    found.figures["read1_speedup"] = rounded(one["feast1"].p50_us / one["read1"].p50_us)
    found.figures["read100_speedup"] = rounded(many["feast100"].p50_us / many["read100"].p50_us)
    notes: dict[str, object] = {
        "values_compared": compared,
        "forms_of_reading": {"read1": ours1, "feast1": form1, "read100": ours100, "feast100": form100},
        "hiredis": redis.utils.HIREDIS_AVAILABLE,
    }
    return found | weights | Findings({}, {}, notes)


def _windowed_reads(stage: Stage) -> Findings:
    """Ours alone: 24 of the 60 features are windows over full tiles; Feast has no such thing to compare with."""
    stage.client.flushall()
    actors = draw_actors(WINDOWED_ACTORS, seed=2)
    objects = windowed_objects(stage.directory)
    packed = Packed(stage.directory, "windowed", stage.url, objects, stage.runner)
    for view in range(3):
        packed.write(view, actors.feast_rows(view * 12, 12, stage.now_ms))
    traffic = packed.view("traffic")
    assert isinstance(traffic, StreamView)
    rng = np.random.default_rng(3)
    rows = {name: full_row(traffic.spec, stage.now_ms, rng) for name in actors.ids}
    packed.write_windows("traffic", rows)
    compared = _check_windows(actors, rows, traffic, packed, stage.now_ms)
    form1, read1 = packed.fastest_read([[name] for name in actors.ids[:TRIALS]], stage.now_ms)
    form100, read100 = packed.fastest_read([actors.ids[:100], actors.ids[100:200]], stage.now_ms)
    bare = bare_redis(stage.client, packed.keys)
    one = alternate({"windowed_read1": read1, "windowed_redis": bare}, _drawn(actors.ids, 1, READ1_CALLS), READ1_ROUNDS)
    many = alternate({"windowed_read100": read100}, _drawn(actors.ids, 100, READ100_CALLS), READ100_ROUNDS)
    packed.close()
    row_bytes = int(stage.client.strlen(packed.keys(actors.ids[0])[-1]))
    notes: dict[str, object] = {
        "windowed_values_compared": compared,
        "windowed_row_bytes": row_bytes,
        "windowed_forms_of_reading": {"read1": form1, "read100": form100},
    }
    return _timings(one | many) | Findings({}, {}, notes)


def _writes(stage: Stage) -> Findings:
    """Rows of 60 features in one view, newer than those stored, in batches of WRITE_ROWS; what was written is read."""
    stage.client.flushall()
    packed = Packed(stage.directory, "wide", stage.url, batch_objects(stage.directory, 1), stage.runner)
    feast = FeastRedis(stage.directory, stage.address, 1, stage.runner)
    blind = FeastRedis(stage.directory, stage.address, 1, stage.runner, skip_dedup=True)
    batches = [draw_actors(WRITE_ROWS, seed=10 + i) for i in range(WRITE_BATCHES)]

    def batches_of(turn: int) -> Sequence[tuple[Actors, int]]:
        return [(batch, stage.now_ms - 1_000 + turn) for batch in batches]

    weights = _check_writes(stage, batches, packed, feast)
    times = alternate(
        {
            "write": _timed_writes(lambda a, t: as_columns(a, range(FEATURES), t), packed.write_columns),
            "row_write": _timed_writes(lambda a, t: as_rows(a, range(FEATURES), t), packed.write_rows),
            "plugin_write": _timed_writes(lambda a, t: a.feast_rows(0, FEATURES, t), packed.write),
            "feast_write": _timed_writes(lambda a, t: a.feast_rows(0, FEATURES, t), feast.write),
            "feast_blind_write": _timed_writes(lambda a, t: a.feast_rows(0, FEATURES, t), blind.write),
        },
        batches_of,
        WRITE_ROUNDS,
    )
    _check_reads(batches[0].ids, packed, feast, stage.now_ms)
    packed.close()
    figures = {f"{name}_rows_per_s": float(timing.per_second(WRITE_ROWS)) for name, timing in times.items()}
    spread: dict[str, object] = {f"{name}_us_per_row": t.spread(WRITE_ROWS) for name, t in times.items()}
    return weights | Findings(figures, spread)


def _timed_writes(
    prepared: Callable[[Actors, int], Rows], write: Callable[[int, Rows], None]
) -> Timed[tuple[Actors, int]]:
    """Times the write alone; making the rows in the form that the store takes is not in it."""

    def timed(items: Sequence[tuple[Actors, int]]) -> list[int]:
        def call(rows: Rows) -> None:
            write(0, rows)

        return each(call)([prepared(batch, time_ms) for batch, time_ms in items])

    return timed


def _bytes_per_actor(stage: Stage, actors: Actors, packed: Packed, feast: FeastRedis) -> Findings:
    """What the server's memory grows by for each actor, its tables included; both stores are filled at the end."""
    count = FEATURES // VIEWS

    def fill(write: Callable[[int, list[FeastRow]], None]) -> None:
        for view in range(VIEWS):
            write(view, actors.feast_rows(view * count, count, stage.now_ms - 60_000))

    theirs = _growth(stage.client, lambda: fill(feast.write)) / len(actors.ids)
    ours = _growth(stage.client, lambda: fill(packed.write)) / len(actors.ids)
    keys = packed.keys(actors.ids[0])
    notes: dict[str, object] = {
        "bytes_per_actor_in_keys": sum(len(key) for key in keys),
        "bytes_per_actor_in_rows": sum(int(stage.client.strlen(key)) for key in keys),
    }
    return Findings({"bytes_per_actor": rounded(ours), "feast_bytes_per_actor": rounded(theirs)}, {}, notes)


def _growth(client: redis.Redis, fill: Callable[[], object]) -> int:
    before = int(client.info("memory")["used_memory"])
    fill()
    return int(client.info("memory")["used_memory"]) - before


def _check_reads(ids: Sequence[str], packed: Packed, feast: FeastRedis, as_of_ms: int) -> int:
    """In every form of reading, every value of every actor and of an unknown one is what the stock store has."""
    asked = [*ids, "nobody"]
    expected = feast.matrix(asked, packed.features)
    return _same_in_every_form("read", packed, asked, as_of_ms, expected, rtol=0.0)


def _check_windows(actors: Actors, rows: dict[str, Row], view: StreamView, packed: Packed, as_of_ms: int) -> int:
    """Windows are the plain kernel's, the other features what was written."""
    plain = [read_windows(view.spec, rows[name], as_of_ms).values for name in actors.ids]
    expected = np.hstack([actors.values[:, :36], np.stack(plain)])
    names = [feature_name(i) for i in range(36)] + [spec.feature for spec in view.spec.aggregations]
    order = [names.index(feature) for feature in packed.features]
    return _same_in_every_form("windowed read", packed, actors.ids, as_of_ms, expected[:, order], rtol=1e-9)


def _same_in_every_form(
    what: str, packed: Packed, asked: Sequence[str], as_of_ms: int, expected: Matrix, rtol: float
) -> int:
    compared = 0
    for form in packed.forms(asked):
        compared += same_values(f"{what} ({form})", packed.matrix(form, asked, as_of_ms), expected, rtol)
    some = [[name] for name in (*asked[:TRIALS], asked[-1])]
    vectors = [packed.matrix("vector", names, as_of_ms)[0] for names in some]
    chosen = [*range(min(TRIALS, len(asked))), len(asked) - 1]
    return compared + same_values(f"{what} (vector)", np.stack(vectors), expected[chosen], rtol)


def _check_writes(stage: Stage, batches: Sequence[Actors], packed: Packed, feast: FeastRedis) -> Findings:
    """Rows written by each of our ways read the same as those that Feast wrote into its own store; and what they weigh.

    A row that is older than the stored one changes nothing.
    """
    rows = sum(len(batch.ids) for batch in batches)
    first_ms = stage.now_ms - 10_000

    def fill_feast() -> None:
        for batch in batches:
            feast.write(0, batch.feast_rows(0, FEATURES, first_ms))

    def fill_ours() -> None:
        for batch in batches:
            packed.write_columns(0, as_columns(batch, range(FEATURES), first_ms))

    theirs, ours = _growth(stage.client, fill_feast), _growth(stage.client, fill_ours)
    for batch in batches:
        _check_reads(batch.ids, packed, feast, first_ms)
        packed.write_rows(0, as_rows(batch, range(FEATURES), first_ms + 1))
        _check_reads(batch.ids, packed, feast, first_ms + 1)
    stale = Actors(batches[0].ids, batches[1].values)
    packed.write_columns(0, as_columns(stale, range(FEATURES), first_ms - 1))
    _check_reads(stale.ids, packed, feast, first_ms + 1)
    figures = {"one_row_bytes_per_actor": ours / rows, "feast_one_row_bytes_per_actor": theirs / rows}
    return Findings({name: rounded(value) for name, value in figures.items()})


def _drawn(ids: Sequence[str], size: int, calls: int) -> Callable[[int], list[list[str]]]:
    """For each round so many groups of different actors, in another order each time."""

    def draw(turn: int) -> list[list[str]]:
        rng = random.Random(turn)
        flat = rng.sample(ids, size * calls) if size * calls <= len(ids) else rng.choices(ids, k=size * calls)
        return [flat[i : i + size] for i in range(0, len(flat), size)]

    return draw


def _timings(times: dict[str, Timing]) -> Findings:
    figures = {f"{name}_us": rounded(timing.p50_us) for name, timing in times.items()}
    return Findings(figures, {f"{name}_us": timing.spread() for name, timing in times.items()})
