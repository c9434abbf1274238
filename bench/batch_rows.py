"""A million actors of 60 features from Parquet into Redis, by the chunks of a backfill; and Feast's own `materialize`.

History is one folder of Parquet by time, of one day. An actor in twenty has an older row as well. Feast, with its stock
local engine and its stock Redis store, materializes the first of the same rows: it takes about as long for each.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from feast import FileSource

from actor_risk.local import Valkey
from bench.actors import FEATURES, actor, batch_objects, feature_name, is_integer
from bench.bars import Bar, Findings
from bench.peers.feast_redis import FeastRedis
from bench.timing import rounded, same_values
from bench.two_workers import TwoWorkers, writer_of
from materialize.backfill import ChunkResult, write_newest_rows
from materialize.definitions import BatchView, JoinKey, compile_view
from materialize.online import KeyEncoder, decode_batch_row, encode_batch_columns

DAY_MS = 86_400_000
START_MS = 1_763_596_800_000
ROW_GROUP = 50_000
OLDER_EVERY = 20
NULL_SHARE = 0.02
CHUNK_ROWS = 100_000
SAMPLE = 2_000
PROJECT = "bench"
ROUNDS = 3
NAMES = tuple(feature_name(i) for i in range(FEATURES))


@dataclass(frozen=True)
class Written:
    """What a backfill of the rows did. rows: the server's own count. peak_mib: the most memory of one worker."""

    events: int
    rows: int
    seconds: float
    peak_mib: int


def batch_findings(folder: Path, is_short: bool) -> Findings:
    """All actors in chunks by two workers, and Feast's materialize of fewer, each into an empty server."""
    actors, few = (100_000, 3_000) if is_short else (1_000_000, 20_000)
    write_profiles(folder, actors, seed=1)
    runs, compared = [], 0
    for _ in range(ROUNDS):
        with Valkey(folder / f"valkey-{len(runs)}") as server, TwoWorkers(warm_up) as workers:
            runs.append(backfill(workers, folder, server.url))
            compared = compared or check(folder, server.url, runs[0])
    with Valkey(folder / "valkey-feast") as server, asyncio.Runner() as runner:
        peer = feast_seconds(folder, few, server.address, runner)
    seconds = statistics.median(one.seconds for one in runs)
    figures = {
        "rows_per_s": rounded(actors / seconds),
        "feast_rows_per_s": rounded(few / min(peer.values())),
        "batch_peak_mib": max(one.peak_mib for one in runs),
    }
    return Findings(
        figures,
        {"batch_seconds": [rounded(one.seconds) for one in runs]},
        {"batch_values_compared": compared, "feast_actors": few, "feast_seconds": peer},
    )


def batch_bars(figures: Mapping[str, float]) -> list[Bar]:
    """The bars of the rows."""
    return [
        Bar("rows_per_s", figures["rows_per_s"], 100_000),
        Bar("rows_over_feast", rounded(figures["rows_per_s"] / figures["feast_rows_per_s"]), 8),
    ]


def write_profiles(folder: Path, actors: int, seed: int) -> None:
    """The rows, by time: parts of a Parquet dataset, as `profile_0.parquet` in the folder."""
    rng = np.random.default_rng(seed)
    dataset = folder / "profile_0.parquet"
    dataset.mkdir(parents=True)
    again = np.arange(0, actors, OLDER_EVERY)
    rows = np.concatenate([rng.permutation(actors), again])
    times = START_MS + np.sort(rng.integers(0, DAY_MS, len(rows)))
    ids = np.array([f"act_{i:08d}" for i in range(actors)], dtype=object)
    for part, begin in enumerate(range(0, len(rows), ROW_GROUP)):
        chosen = rows[begin : begin + ROW_GROUP]
        columns = {"actor": pa.array(ids[chosen]), "event_time": _times(times[begin : begin + ROW_GROUP])}
        columns |= {name: _feature(rng, i, len(chosen)) for i, name in enumerate(NAMES)}
        pq.write_table(pa.table(columns), dataset / f"{part:04d}.parquet")


def backfill(workers: TwoWorkers, folder: Path, url: str) -> Written:
    """All chunks of the day."""
    stored = pq.ParquetDataset(folder / "profile_0.parquet")
    rows = sum(fragment.count_rows() for fragment in stored.fragments)
    edges = np.linspace(START_MS, START_MS + DAY_MS, max(1, rows // CHUNK_ROWS) + 1).astype(np.int64).tolist()
    done = workers.work(_write, [(folder, url, a, b) for a, b in pairwise(edges)])
    with redis.Redis.from_url(url) as client:
        stored_rows = client.dbsize()
    return Written(sum(one.events for one in done.results), stored_rows, done.seconds, workers.peak_mib())


def check(folder: Path, url: str, written: Written) -> int:
    """How many values of sampled actors are those of their newest row. Raises for any difference, in counts as well."""
    table = pq.read_table(folder / "profile_0.parquet", columns=["actor"])
    newest = {name: place for place, name in enumerate(table.column("actor").to_pylist())}
    if (written.events, written.rows) != (table.num_rows, len(newest)):
        raise AssertionError(f"{table.num_rows} rows of {len(newest)} actors in the files, but {written} written")
    places = np.sort(list(newest.values()))[:: max(1, len(newest) // SAMPLE)]
    expected = pq.read_table(folder / "profile_0.parquet").take(pa.array(places))
    found = _stored_values(url, expected.column("actor").to_pylist())
    return same_values("rows of the backfill", found, _matrix(expected))


def feast_seconds(folder: Path, actors: int, server: str, runner: asyncio.Runner) -> dict[str, float]:
    """How long Feast takes for the first `actors` rows, by form: as it comes, and blind, where an older row wins.

    Before, its values are compared with those of the files.
    """
    table = pq.read_table(folder / "profile_0.parquet").slice(0, actors)
    seconds = {}
    for form, skip_dedup in (("default", False), ("blind", True)):
        place = folder / f"feast-{form}"
        place.mkdir()
        pq.write_table(table, place / "profile_0.parquet")
        peer = FeastRedis(place, server, 1, runner, skip_dedup=skip_dedup)
        began = time.perf_counter()
        peer.store.materialize(_at(START_MS), _at(START_MS + DAY_MS), ["profile_0"])
        seconds[form] = time.perf_counter() - began
        sample = table.slice(table.num_rows - SAMPLE // 10)
        same_values("Feast's rows", peer.matrix(sample.column("actor").to_pylist(), NAMES), _matrix(sample))
    return seconds


def warm_up() -> None:
    """Load compiled code."""
    columns = [pa.array([1], pa.int64() if is_integer(i) else pa.float64()) for i in range(FEATURES)]
    encode_batch_columns(view(), columns, np.ones(1, np.int64), np.zeros(1, np.int64))


@lru_cache
def view() -> BatchView:
    """The view of all 60 features."""
    _, table, _ = batch_objects(Path(), 1)
    compiled = compile_view(table, (JoinKey(actor.name, "STRING"),))
    assert isinstance(compiled, BatchView)
    return compiled


def _write(task: tuple[Path, str, int, int]) -> ChunkResult:
    folder, url, start_ms, end_ms = task
    source = FileSource(name="rows", path=str(folder / "profile_0.parquet"), timestamp_field="event_time")
    return write_newest_rows(view(), source, None, PROJECT, writer_of(url), start_ms, end_ms, _nobody)


def _nobody(_: int, __: int) -> None:
    """Shows no progress."""


def _stored_values(url: str, names: list[str]) -> np.ndarray:
    encoder = KeyEncoder(PROJECT, view().name, view().join_keys)
    with redis.Redis.from_url(url) as client:
        rows = [decode_batch_row(view(), data) for data in client.mget(encoder.keys([(name,) for name in names]))]
    return np.array([[np.nan if value is None else value for value in row.values] for row in rows], dtype=np.float64)


def _matrix(table: pa.Table) -> np.ndarray:
    return np.column_stack([table.column(name).cast(pa.float64()).to_numpy() for name in NAMES])


def _feature(rng: np.random.Generator, place: int, count: int) -> pa.Array:
    values = rng.lognormal(2.0, 2.0, count)
    missing = rng.random(count) < NULL_SHARE
    return pa.array(np.floor(values).astype(np.int64) if is_integer(place) else values, mask=missing)


def _times(times: np.ndarray) -> pa.Array:
    return pa.array(times, pa.timestamp("ms", "UTC"))


def _at(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)
