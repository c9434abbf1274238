"""Millions of events from Parquet into the rows of a stream view: the two phases of a backfill, in two processes.

The view is like the project's own: counts, sums and a distinct count over an hour, a day and a week, with a
transformation that marks clicks. Events are those of a week, in a file for each day, and all of them count. Keys
follow a power law; one event in a hundred has none; one in a thousand was delivered twice, a day apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis
from feast import FileSource

from actor_risk.local import Valkey
from bench.bars import Bar, Findings
from bench.timing import rounded, same_values
from bench.two_workers import TwoWorkers, Worked, writer_of
from materialize.backfill import ChunkResult, GatherResult, batch_end_of, batch_span, gather_events, write_batch_sides
from materialize.definitions import FeatureField, JoinKey, StreamView
from materialize.events import Columns
from materialize.kernel import AggregationSpec, ViewSpec, Window
from materialize.online import KeyEncoder, ReadCounts, view_reader
from tests.kernel.oracle import OracleEvent, oracle_values

DAY_MS = 86_400_000
START_MS = 1_763_596_800_000
DAYS = 7
END_MS = START_MS + DAYS * DAY_MS
ROW_GROUP = 100_000
KEYLESS_EVERY, TWICE_EVERY = 100, 1_000
EXPONENT = 0.5
CHUNK_EVENTS, SHARD_EVENTS = 500_000, 250_000
SAMPLE = 200
PROJECT = "bench"
HOUR, DAY, WEEK = 3_600_000, DAY_MS, 7 * DAY_MS
FEATURES = (
    ("click", "count", (HOUR, DAY, WEEK)),
    ("amount_usd", "sum", (HOUR, DAY, WEEK)),
    ("amount_usd", "mean", (DAY,)),
    ("amount_usd", "max", (DAY,)),
    ("amount_usd", "last", (WEEK,)),
    ("device_id", "count_distinct", (DAY,)),
)


def mark_clicks(columns: Columns) -> Columns:
    """The view's transformation."""
    return {"click": np.where(columns["event_type"] == "click", 1.0, np.nan)}


@lru_cache
def view() -> StreamView:
    """The view: ten aggregations over one key."""
    aggregations = tuple(
        AggregationSpec(f"{column}_{function}_{length // HOUR}h", column, function, Window.of(length))
        for column, function, lengths in FEATURES
        for length in lengths
    )
    spec = ViewSpec("ip_stats", aggregations, "mark_clicks")
    fields = tuple(FeatureField(a.feature, "DOUBLE") for a in aggregations)
    return StreamView(
        spec.name, (JoinKey("ip", "STRING"),), fields, spec, "ad_events", "event_time", 8 * DAY_MS, mark_clicks
    )


@dataclass(frozen=True)
class Written:
    """What a backfill of the tiles did. seconds: of both phases. peak_mib: the most memory of one worker."""

    events: int
    rows: int
    skipped: int
    seconds: float
    gather_seconds: float
    peak_mib: int
    staged_mib: int
    row_mib: int


def tile_findings(folder: Path, is_short: bool) -> Findings:
    """So many events, twice as many, and so many again, each into an empty server; counts and values checked first."""
    events, entities = (500_000, 20_000) if is_short else (10_000_000, 200_000)
    once, twice = folder / "once", folder / "twice"
    write_events(once, events, entities, seed=1)
    write_events(twice, 2 * events, entities, seed=2)
    compared, runs = 0, []
    for place, count in ((once, events), (twice, 2 * events), (once, events)):
        with Valkey(folder / f"valkey-{len(runs)}") as server, TwoWorkers(warm_up) as workers:
            runs.append(backfill(workers, place, server.url, count))
            compared += 0 if len(runs) == 3 else check(place, server.url, runs[-1])
    first, double, second = runs
    seconds = (first.seconds + second.seconds) / 2
    figures = {
        "tile_events_per_s": rounded(events / seconds),
        "tile_scaling": rounded(double.seconds / seconds),
        "tile_peak_mib": max(first.peak_mib, second.peak_mib),
        "tile_memory_growth": rounded(double.peak_mib / max(first.peak_mib, second.peak_mib)),
    }
    return Findings(
        figures,
        {"tile_seconds": [rounded(one.seconds) for one in runs]},
        {"tile_values_compared": compared, "tile_runs": [asdict(one) for one in runs]},
    )


def tile_bars(figures: Mapping[str, float]) -> list[Bar]:
    """The bars of the tiles."""
    return [
        Bar("tile_events_per_s", figures["tile_events_per_s"], 500_000),
        Bar("tile_scaling", figures["tile_scaling"], 2.2, at_most=True),
        Bar("tile_memory_growth", figures["tile_memory_growth"], 1.2, at_most=True),
    ]


def write_events(folder: Path, events: int, entities: int, seed: int) -> None:
    """The events as daily Parquet files, by time."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    each = events // DAYS
    names = pa.array([f"198.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(entities)])
    devices = pa.array([f"dev_{n:08d}" for n in range(2 * entities)])
    before: pa.Table | None = None
    for day in range(DAYS):
        count = each + (events - each * DAYS if day == DAYS - 1 else 0)
        times = START_MS + day * DAY_MS + np.sort(rng.integers(0, DAY_MS, count))
        drawn = (entities * rng.power(EXPONENT, count)).astype(np.int64)
        keyless = np.arange(count) % KEYLESS_EVERY == 7
        ids = pc.binary_join_element_wise("evt", str(day), pc.cast(pa.array(np.arange(count)), pa.string()), "_")
        table = pa.table(
            {
                "event_id": ids,
                "event_time": pa.array(times, pa.timestamp("ms", "UTC")),
                "event_type": pa.array(["impression", "click", "conversion"]).take(
                    pa.array(rng.choice(3, count, p=(0.8, 0.18, 0.02)))
                ),
                "ip": names.take(pa.array(drawn, mask=keyless)),
                "device_id": devices.take(pa.array((drawn * 2 + rng.integers(0, 3, count)) % (2 * entities))),
                "creator_id": pa.array([f"cr_{n:05d}" for n in range(5_000)]).take(
                    pa.array(rng.integers(0, 5_000, count))
                ),
                "os": pa.array(["ios", "android", "web"]).take(pa.array(rng.integers(0, 3, count))),
                "amount_usd": pa.array(np.round(rng.lognormal(0.0, 1.0, count), 4), mask=rng.random(count) < 0.05),
            }
        )
        if before is not None:  # the same events again, of the day before: in place of as many of this day
            again = before.take(pa.array(np.arange(0, min(count, before.num_rows), TWICE_EVERY)))
            table = pa.concat_tables([table.slice(again.num_rows), again]).sort_by("event_time")
        before = table
        pq.write_table(table, folder / f"{day:02d}.parquet", row_group_size=ROW_GROUP)


def backfill(workers: TwoWorkers, folder: Path, url: str, events: int) -> Written:
    """Both phases, and the counts checked against what the files hold."""
    chunks, shards = max(1, events // CHUNK_EVENTS), max(1, events // SHARD_EVENTS)
    start_ms, end_ms = batch_span(view(), END_MS)
    edges = np.linspace(START_MS, end_ms, chunks + 1).astype(np.int64).tolist()
    edges[0] = start_ms
    staging = folder.parent / f"{folder.name}-staging"
    gather = [(folder, a, b, shards, staging / f"{a}") for a, b in pairwise(edges)]
    gathered: Worked[GatherResult] = workers.work(_gather, gather)
    newest_ms = max(one.newest_ms for one in gathered.results if one.newest_ms is not None)
    batch_end_ms = batch_end_of(view(), END_MS, newest_ms)
    folders = [task[-1] for task in gather]
    sides: Worked[ChunkResult] = workers.work(_write, [(folders, shard, batch_end_ms, url) for shard in range(shards)])
    return Written(
        sum(one.events for one in gathered.results),
        sum(one.rows for one in sides.results),
        sum(one.skipped for one in gathered.results),
        gathered.seconds + sides.seconds,
        gathered.seconds,
        workers.peak_mib(),
        sum(sum(one.shard_bytes) for one in gathered.results) >> 20,
        sum(one.size_bytes for one in sides.results) >> 20,
    )


def check(folder: Path, url: str, written: Written) -> int:
    """How many values of sampled entities equal the naive oracle's. Raises for any difference, also in the counts."""
    table = pq.read_table(folder)
    keys = pc.unique(table.column("ip").drop_null())
    counts = (table.num_rows, len(keys), table.column("ip").null_count)
    if counts != (written.events, written.rows, written.skipped):
        raise AssertionError(f"events, rows, keyless: {counts} in the files, but {written} written")
    with redis.Redis.from_url(url) as client:
        if client.dbsize() != len(keys):
            raise AssertionError(f"{client.dbsize()} rows stored, {len(keys)} entities in the files")
        busiest = pc.value_counts(table.column("ip")).sort(order="descending", by="counts").field("values")[:2]
        chosen = [
            *busiest.to_pylist(),
            *keys.take(pa.array(np.linspace(0, len(keys) - 1, SAMPLE).astype(int))).to_pylist(),
        ]
        return sum(_check_entity(client, table, name) for name in dict.fromkeys(chosen) if name is not None)


def warm_up() -> None:
    """Load compiled code."""
    view()


def _gather(task: tuple[Path, int, int, int, Path]) -> GatherResult:
    folder, start_ms, end_ms, shards, into = task
    return gather_events(view(), _source(folder), None, start_ms, end_ms, shards, into)


def _write(task: tuple[list[Path], int, int, str]) -> ChunkResult:
    folders, shard, batch_end_ms, url = task
    return write_batch_sides(view(), PROJECT, folders, shard, batch_end_ms, writer_of(url), _nobody)


def _source(folder: Path) -> FileSource:
    return FileSource(name="history", path=str(folder), timestamp_field="event_time")


def _nobody(_: int, __: int) -> None:
    """Shows no progress."""


def _check_entity(client: redis.Redis, table: pa.Table, name: str) -> int:
    key = KeyEncoder(PROJECT, view().name, view().join_keys).key([name])
    read = view_reader(view(), range(len(view().fields))).read(client.get(key), END_MS - 1, ReadCounts())
    found = np.array([np.nan if value is None else value for value in read.values], dtype=np.float64)
    rows = table.filter(pc.equal(table.column("ip"), name)).to_pylist()
    events = [
        OracleEvent(
            row["event_id"],
            int(row["event_time"].timestamp() * 1000),
            {
                "click": 1.0 if row["event_type"] == "click" else None,
                "amount_usd": row["amount_usd"],
                "device_id": row["device_id"],
            },
        )
        for row in rows
    ]
    values = oracle_values(view().spec, events, END_MS - 1) or [None] * len(view().fields)
    expected = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return same_values(f"row of {name}", found, expected, rtol=1e-9)
