"""Training sets, tiles and batch rows from Parquet.

Training sets: point-in-time windows through Feast's own call, beside DuckDB and a loop in pandas. Each contender runs
in a process of its own, in turn, on the same Parquet files; reading them counts, starting Python does not. Before
anything is reported, the values of all three are compared. Tiles and rows are in `tile_rows` and `batch_rows`.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from bench.bars import Bar, Findings
from bench.batch_rows import batch_bars, batch_findings
from bench.report import report
from bench.tile_rows import tile_bars, tile_findings
from bench.timing import rounded, same_values
from bench.training import is_known, our_values, pandas_values, write_world

ROUNDS = 3
PANDAS_ROWS = 400
_spawning = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Run:
    """One run of one contender: seconds, seconds of CPU on all cores, and GiB of memory at the most, Python and all
    libraries included."""

    seconds: float
    cpu_s: float
    peak_gib: float
    values: np.ndarray


def run(as_json: bool, is_short: bool) -> None:
    """Compare and time the training set, then twice the events; then the backfill of tiles and of batch rows."""
    events, rows = (200_000, 20_000) if is_short else (2_000_000, 200_000)
    with tempfile.TemporaryDirectory() as folder:
        found = _training_set(Path(folder), events, rows)
        found |= tile_findings(Path(folder) / "tiles", is_short) | batch_findings(Path(folder) / "rows", is_short)
    figures = found.figures
    bars = [
        Bar("duckdb_speedup", rounded(figures["duckdb_s"] / figures["pit_s"]), 3),
        Bar("pandas_speedup", rounded(figures["pandas_s"] / figures["pit_s"]), 100),
        Bar("peak_gib", figures["peak_gib"], 4, at_most=True),
        Bar("scaling", figures["scaling"], 2.2, at_most=True),
        *tile_bars(figures),
        *batch_bars(figures),
    ]
    report("backfill-short" if is_short else "backfill", found.as_report(bars), as_json)


def _training_set(folder: Path, events: int, rows: int) -> Findings:
    once, twice = folder / "once", folder / "twice"
    for place, count in ((once, events), (twice, 2 * events)):
        place.mkdir()
        write_world(place, count, rows, seed=1)
    loop = _in_a_process("pandas", once)
    took: dict[str, list[Run]] = {"ours": [], "duckdb": [], "ours_twice": []}
    for _ in range(ROUNDS):
        took["ours"].append(_in_a_process("ours", once))
        took["duckdb"].append(_in_a_process("duckdb", once))
        took["ours_twice"].append(_in_a_process("ours", twice))
    compared = _compared(took["ours"][0].values, took["duckdb"][0].values, loop.values)
    seconds = {name: statistics.median(one.seconds for one in runs) for name, runs in took.items()}
    peaks = {name: rounded(max(one.peak_gib for one in runs)) for name, runs in took.items()}
    share = rows / len(loop.values)
    figures = {
        "pit_s": rounded(seconds["ours"]),
        "duckdb_s": rounded(seconds["duckdb"]),
        "pandas_s": rounded(loop.seconds * share),
        "peak_gib": peaks["ours"],
        "scaling": rounded(seconds["ours_twice"] / seconds["ours"]),
    }
    notes: dict[str, object] = {
        "values_compared": compared,
        "peaks_gib": peaks,
        "duckdb": metadata.version("duckdb"),
        "pandas_rows": len(loop.values),
    }
    spread = {name: [rounded(one.seconds) for one in runs] for name, runs in took.items()}
    cpu = {name: [rounded(one.cpu_s) for one in runs] for name, runs in took.items()}
    return Findings(figures, {"seconds": spread, "cpu_s": cpu}, notes)


def _compared(ours: np.ndarray, duckdb: np.ndarray, loop: np.ndarray) -> Mapping[str, int]:
    """Where an entity is unknown in its longest window, ours says null and SQL says count 0."""
    known = is_known(ours)
    theirs = np.where(known, duckdb, np.nan)
    few = np.where(known[: len(loop)], loop, np.nan)
    return {
        "duckdb": same_values("ours and DuckDB", ours, theirs, rtol=1e-9),
        "pandas": same_values("ours and pandas", ours[: len(loop)], few, rtol=1e-9),
    }


def _in_a_process(name: str, folder: Path) -> Run:
    here, there = _spawning.Pipe()
    process = _spawning.Process(target=_contend, args=(name, folder, there), daemon=True)
    process.start()
    there.close()
    try:
        found: Run = here.recv()
    except EOFError:
        raise RuntimeError(f"{name} ended without values: see above") from None
    process.join()
    return found


def _contend(name: str, folder: Path, told: Connection) -> None:
    from bench.peers.duckdb_windows import duckdb_values

    prepare = {"ours": our_values, "duckdb": duckdb_values, "pandas": lambda f: pandas_values(f, PANDAS_ROWS)}[name]
    work = prepare(folder)
    began, cpu_began = time.perf_counter(), time.process_time()
    values = work()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told.send(Run(seconds, cpu_s, peak, values))
