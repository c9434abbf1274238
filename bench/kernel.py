"""The kernel: windows merged on stored bytes, and events folded into tiles beside Feast's own tiling.

Before anything is timed, merged values are compared with the plain kernel's, and folded ones with what Feast makes of
the same events and with the tests' naive oracle.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.bars import Bar, Findings
from bench.events import BATCH_EVENTS, MANY_KEYS, SOME_KEYS, WINDOW, as_frame, draw_batches, fold_views
from bench.fold import Folder
from bench.peers.feast_tiling import FeastTiling
from bench.report import report
from bench.tiles import full_row
from bench.timing import Item, Timed, WrongValuesError, alternate, each, rounded, same_values
from materialize.definitions import FeatureField, JoinKey, StreamView
from materialize.events import Columns
from materialize.kernel import (
    AggregationSpec,
    ViewSpec,
    Window,
    compile_program,
    merge_rows,
    read_windows,
)
from materialize.online import ReadCounts, StreamRow, decode_stream_row, encode_stream_row, view_reader
from materialize.online._stream_rows import HEADER_SIZE
from tests.kernel.oracle import OracleEvent, oracle_values

Floats = np.ndarray[Any, np.dtype[np.float64]]

AS_OF_MS = 1_763_640_123_456
LENGTHS_MS = (300_000, 3_600_000, 7 * 86_400_000)
EIGHT = ("count", "sum", "mean", "min", "max", "var", "last", "first")
SEVEN_AND_DISTINCT = (*EIGHT[:-1], "count_distinct")
MERGE_ROWS, MERGE_ROUNDS, PLAIN_ROWS = 200, 9, 40

WARM_BATCHES, FOLD_ROUNDS, FOLD_BATCHES = 8, 3, 4
ORACLE_ENTITIES = 25


def run(as_json: bool) -> None:
    """Compare the values, then time merging and folding."""
    found = _merging("merge", EIGHT) | _merging("merge_distinct", SEVEN_AND_DISTINCT) | _folding() | _many_keys()
    figures = found.figures
    speedup = rounded(figures["fold_events_per_s"] / figures["feast_tiling_events_per_s"])
    bars = [
        Bar("merge_us", figures["merge_us"], 10, at_most=True),
        Bar("fold_events_per_s", figures["fold_events_per_s"], 300_000),
        Bar("fold_speedup", speedup, 200),
    ]
    report("kernel", found.as_report(bars), as_json)


@dataclass(frozen=True)
class _StoredRow:
    """The bytes of a row, with what its header says."""

    data: bytes
    head: int
    tiles_newest_ms: int


def _merging(name: str, functions: Sequence[str]) -> Findings:
    """24 features, three windows of eight functions, from rows that have every tile of every hop."""
    view = _windows(functions)
    rows = _full_rows(view.spec)
    compared = _check_merge(view, rows)
    turn = np.random.default_rng(5)

    def shuffled(_: int) -> list[_StoredRow]:
        return [rows[i] for i in turn.permutation(len(rows))]

    reader, counts = view_reader(view, range(len(view.fields))), ReadCounts()
    times = alternate(
        {
            name: each(_merge_of(view.spec)),
            f"{name}_read": each(lambda row: reader.read(row.data, AS_OF_MS, counts)),
            f"{name}_plain": _of_some(each(lambda row: _plainly(view.spec, row)), PLAIN_ROWS),
        },
        shuffled,
        MERGE_ROUNDS,
    )
    notes: dict[str, object] = {f"{name}_values_compared": compared, f"{name}_row_bytes": len(rows[0].data)}
    return Findings(
        {f"{key}_us": rounded(timing.p50_us) for key, timing in times.items()},
        {f"{key}_us": timing.spread() for key, timing in times.items()},
        notes,
    )


def _folding() -> Findings:
    """Micro-batches of events over three views of eight aggregations; one core, on from rows that are there already."""
    views = fold_views()
    tilings = {view: FeastTiling.of(view.spec, view.join_keys[0].name) for view in views}
    batches = draw_batches(SOME_KEYS, WARM_BATCHES + FOLD_ROUNDS * FOLD_BATCHES, seed=7)
    compared = _check_against_feast(views, tilings, batches[0])
    folder = Folder(views)
    for batch in batches[:WARM_BATCHES]:
        folder.fold(batch)

    def of_round(turn: int) -> list[Columns]:
        begin = WARM_BATCHES + turn * FOLD_BATCHES
        return batches[begin : begin + FOLD_BATCHES]

    tiles_ns, newest_ns = [], []

    def feast(columns: Columns) -> None:
        events = as_frame(columns)
        for tiling in tilings.values():
            began = time.perf_counter_ns()
            tiles = tiling.tiles(events)
            tiled = time.perf_counter_ns()
            tiling.newest(tiles)
            tiles_ns.append(tiled - began)
            newest_ns.append(time.perf_counter_ns() - tiled)

    times = alternate(
        {
            "fold": each(folder.fold),
            "feast_tiling": _of_some(each(feast), 1),
        },
        of_round,
        FOLD_ROUNDS,
        warm_ups=0,
    )
    compared += _check_against_oracle(views, folder, batches)
    rows = {view.name: len(set(batches[-1][view.join_keys[0].name])) for view in views}
    return Findings(
        {f"{name}_events_per_s": float(timing.per_second(BATCH_EVENTS)) for name, timing in times.items()},
        {f"{name}_us_per_event": timing.spread(BATCH_EVENTS) for name, timing in times.items()},
        {
            "fold_values_compared": compared,
            "fold_time_shares": folder.stages.shares(),
            "fold_rows_per_batch": rows,
            "feast_tiling_tiles_share": round(sum(tiles_ns) / (sum(tiles_ns) + sum(newest_ns)), 3),
        },
    )


def _many_keys() -> Findings:
    """The same events spread over many more rows; ours alone, since Feast would take a minute for each batch."""
    batches = draw_batches(MANY_KEYS, WARM_BATCHES + FOLD_BATCHES, seed=8)
    folder = Folder(fold_views())
    for batch in batches[:WARM_BATCHES]:
        folder.fold(batch)
    timing = alternate({"fold": each(folder.fold)}, lambda _: batches[WARM_BATCHES:], 1, warm_ups=0)["fold"]
    name = "fold_many_keys"
    return Findings(
        {f"{name}_events_per_s": float(timing.per_second(BATCH_EVENTS))},
        {f"{name}_us_per_event": timing.spread(BATCH_EVENTS)},
        {f"{name}_time_shares": folder.stages.shares()},
    )


def _windows(functions: Sequence[str]) -> StreamView:
    spec = ViewSpec(
        "windows",
        tuple(
            AggregationSpec(
                f"{function}_{length}",
                "device" if function == "count_distinct" else "amount",
                function,
                Window.of(length),
            )
            for length in LENGTHS_MS
            for function in functions
        ),
    )
    fields = tuple(FeatureField(a.feature, "DOUBLE") for a in spec.aggregations)
    return StreamView(spec.name, (JoinKey("ip", "STRING"),), fields, spec, "ad_events", "event_time", 0, None)


def _full_rows(spec: ViewSpec) -> list[_StoredRow]:
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(MERGE_ROWS):
        row = full_row(spec, AS_OF_MS, rng)
        rows.append(_StoredRow(encode_stream_row(spec, StreamRow(row, 1, {})), len(row.head), row.tiles_newest_ms))
    return rows


def _merge_of(spec: ViewSpec):  # type: ignore[no-untyped-def]
    """The compiled merge of a stored row, to float64[features]."""
    program = compile_program(spec)
    no_events, no_begins, as_of = np.empty(0, np.int64), np.zeros(2, np.int64), np.full(1, AS_OF_MS)
    first = np.zeros(1, np.int64)

    def merge(row: _StoredRow) -> Floats:
        words = np.frombuffer(row.data, np.int64)
        metas = np.array([[HEADER_SIZE // 8, len(words), row.head, row.tiles_newest_ms, 0]])
        out: Floats = np.empty((1, len(spec.aggregations)))
        outcomes, newest = np.empty(1, np.uint8), np.empty(1, np.int64)
        merge_rows(words, metas, first, program, first, as_of, no_events, no_begins, out, outcomes, newest)
        return np.asarray(out[0])

    return merge


def _plainly(spec: ViewSpec, row: _StoredRow) -> Floats:
    return read_windows(spec, decode_stream_row(spec, row.data).state, AS_OF_MS).values


def _check_merge(view: StreamView, rows: Sequence[_StoredRow]) -> int:
    merge = _merge_of(view.spec)
    merged = np.stack([merge(row) for row in rows])
    plain = np.stack([_plainly(view.spec, row) for row in rows])
    return same_values("merge", merged, plain, rtol=1e-9)


def _check_against_feast(views: Sequence[StreamView], tilings: dict[StreamView, FeastTiling], batch: Columns) -> int:
    """One micro-batch into no rows: every value of every row is Feast's, at the end of the batch's last hop."""
    folder = Folder(views)
    folder.fold(batch)
    as_of_ms = int(batch["event_time"].max()) // WINDOW.hop_ms * WINDOW.hop_ms + WINDOW.hop_ms - 1
    compared = 0
    for view in views:
        expected = tilings[view].newest(tilings[view].tiles(as_frame(batch)))
        names = [a.feature for a in view.spec.aggregations]
        ours = np.stack([read_windows(view.spec, folder.row(view, e).state, as_of_ms).values for e in expected.index])
        theirs = expected[names].to_numpy(dtype=np.float64)
        # Feast gives 0 for the mean of no value, where we give null.
        means = [i for i, a in enumerate(view.spec.aggregations) if a.function == "mean"]
        ours[:, means] = np.nan_to_num(ours[:, means])
        compared += same_values(f"{view.name} beside Feast", ours, theirs, rtol=1e-9)
    return compared


def _check_against_oracle(views: Sequence[StreamView], folder: Folder, batches: Sequence[Columns]) -> int:
    """After all micro-batches, the values of the busiest and of some other entities are the oracle's."""
    if folder.refused:
        raise WrongValuesError(f"rows of our own were refused: {folder.refused}")
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    as_of_ms = int(columns["event_time"].max())
    compared = 0
    for view in views:
        entities, counts = np.unique(columns[view.join_keys[0].name].astype(str), return_counts=True)
        for entity in entities[np.argsort(-counts)][:: max(len(entities) // ORACLE_ENTITIES, 1)].tolist():
            expected = oracle_values(view.spec, _oracle_events(view, entity, columns), as_of_ms)
            assert expected is not None
            ours = read_windows(view.spec, folder.row(view, entity).state, as_of_ms).values
            wanted = np.array([np.nan if value is None else value for value in expected])
            compared += same_values(f"{view.name} of {entity}", ours, wanted, rtol=1e-9)
    return compared


def _oracle_events(view: StreamView, entity: str, columns: Columns) -> list[OracleEvent]:
    chosen = np.flatnonzero(columns[view.join_keys[0].name] == entity).tolist()
    names = view.spec.value_columns
    return [
        OracleEvent(
            columns["event_id"][i],
            int(columns["event_time"][i]),
            {name: None if np.isnan(columns[name][i]) else float(columns[name][i]) for name in names},
        )
        for i in chosen
    ]


def _of_some(timed: Timed[Item], count: int) -> Timed[Item]:
    """A slow contender takes only the first few of a round's items."""
    return lambda items: timed(items[:count])
