"""Clicks replayed through Kafka, late and out of order, give the rows that a backfill of their file gives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from actor_risk.simulate import load_clicks
from materialize.online import ReadCounts, connect, view_reader
from tests.support.faults import assert_rows_exact, kill_a_worker, with_faults
from tests.support.histories import backfill_all, write_histories
from tests.support.oracle_rows import stored_rows
from tests.support.workers import LARGER, Work, finish
from tests.support.world import HOUR_MS, World

pytestmark = pytest.mark.kafka

LATENESS_MS = 10 * 60_000
CLICKS = os.environ.get("ACTOR_RISK_CLICKS")
BESIDE = Path(__file__).parents[2] / ".." / "shared" / "data" / "ad_clicks.parquet"


def real_clicks() -> Path:
    """The file that ACTOR_RISK_CLICKS names, or the one beside the repository; the test skips without either."""
    path = Path(CLICKS) if CLICKS else BESIDE
    if not path.is_file():
        pytest.skip(f"no file of real ad clicks: set ACTOR_RISK_CLICKS to one, or put it at {BESIDE.name} beside us")
    return path


def times_of(table: pa.Table) -> np.ndarray:
    return table.column("event_time").cast(pa.int64()).to_numpy()


def delayed(table: pa.Table, seed: int) -> pa.Table:
    """In the order in which they arrive: each up to LATENESS_MS after it happened."""
    arrivals = times_of(table) + np.random.default_rng(seed).integers(0, LATENESS_MS, table.num_rows)
    return table.take(np.argsort(arrivals, kind="stable"))


def assert_stream_equals_backfill(work: Work, clicks: pa.Table, directory: Path, kills: int) -> int:
    """Streams and backfills the clicks, each into rows of its own. Returns how many rows were compared."""
    tables = {"ad_events": clicks}
    last_ms = int(times_of(clicks).max())
    views = [view for view in work.views if view.topic == "ad_events"]
    streamed = replace(work, views=views, now_ms=last_ms)
    backfilled = replace(streamed, project=f"{work.project}_backfilled")
    with_faults(streamed, {"ad_events": delayed(clicks, seed=1)}, kills, seed=14, fault=kill_a_worker)
    assert finish(streamed).too_late == 0
    backfill_all(backfilled, write_histories(directory, tables), last_ms + 24 * HOUR_MS)
    assert_rows_exact(streamed, tables)
    return sum(assert_same_values(streamed, backfilled, as_of_ms) for as_of_ms in (last_ms, last_ms + 7 * HOUR_MS))


def assert_same_values(ours: Work, theirs: Work, as_of_ms: int) -> int:
    """Every value that a scoring read gives. Returns how many rows were compared."""
    compared = 0
    with closing(connect(ours.redis)) as client:
        for view in ours.views:
            left, right = (by_entity(stored_rows(client, work.project, view), work.project) for work in (ours, theirs))
            assert left.keys() == right.keys()
            reader, counts = view_reader(view, range(len(view.fields))), ReadCounts()
            for entity in left:
                pair = [reader.read(rows[entity], as_of_ms, counts).values for rows in (left, right)]
                got, wanted = (np.array([np.nan if v is None else v for v in values], float) for values in pair)
                np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{view.name} {entity!r}")
            assert not counts.rows_refused
            compared += len(left)
    return compared


def by_entity(rows: Mapping[bytes, bytes], project: str) -> dict[bytes, bytes]:
    return {key.removeprefix(project.encode()): row for key, row in rows.items()}


def test_simulated_clicks_that_come_late_give_the_rows_of_a_backfill(work: Work, world: World, tmp_path: Path) -> None:
    events = world.live.ad_events
    clicks = events.filter(pc.equal(events.column("event_type"), "click")).slice(0, 800)
    assert assert_stream_equals_backfill(work, clicks, tmp_path, kills=1) > 500


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_real_clicks_that_come_late_give_the_rows_of_a_backfill(work: Work, tmp_path: Path) -> None:
    clicks = load_clicks(real_clicks()).ad_events
    busy = replace(work, settings=LARGER)
    assert assert_stream_equals_backfill(busy, clicks, tmp_path, kills=5) > 50_000
