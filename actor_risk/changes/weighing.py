"""What the views of one version cost, found by doing a part of their backfill: in the version's own process.

The sample's history goes the way that it goes in a backfill, from files to the bytes of rows, and stops short of Redis:
the same functions read, transform, group, fold and encode. Of the rows, those of some actors are made. How long each
step takes is measured on the way.
"""

from __future__ import annotations

import itertools
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from feast import FeatureStore, FileSource

from actor_risk.changes.redis_memory import entry_bytes, table_bytes
from actor_risk.changes.sampling import in_sample, newest_since
from actor_risk.changes.weighed import COSTS_FILE, Weighed, WeighedService, WeighedView
from materialize.backfill import batch_end_of, batch_span, gather_events, write_batch_sides, write_newest_rows
from materialize.definitions import BatchView, DefinitionError, StreamView, compile_view
from materialize.offline import history_end_ms, open_history
from materialize.online import (
    HistoryByRow,
    Progress,
    ReadPlan,
    RowFolder,
    RowWriter,
    WriteCounts,
    assemble,
    decode_stream_row,
    lookup,
    read_plan,
)

ACTORS_MAX = 500
"""Rows that are made of each view: spread evenly over its actors by how many events they have."""
EVENTS_MAX = 400_000
"""Events of each topic that are read here: a row is as large as its windows reach back, so this looks back further than
values do. With more events the sizes are those of the newest so many."""
TABLE_ROWS_MAX = 30_000
"""Rows of each table that are encoded here: the newest days, until there are so many."""
KEPT_OF_CALL = 50
"""Rows of each write to a table's view whose sizes are kept."""
DECODED_MAX = 100
"""Rows of each stream view whose tiles are counted."""
BACKFILL_DAYS = 30
"""As `actor-risk backfill` has it, unless told otherwise."""
DAY_MS = 86_400_000
REQUESTS, REPEATS = 20, 5
"""Requests of each service that are timed, and how often each: what disturbs one time disturbs it not every time."""


def weigh(store: FeatureStore, sample: Path, folder: Path) -> None:
    """Write what every view and service costs on the sample to `folder`: see `weighed`."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=_made(folder)) as staging:
        warnings.simplefilter("ignore")  # what transformations divide by is not this command's to tell
        scales = _Scales(store, sample, Path(staging))
        views, untold = scales.views()
        services = scales.services()
    told = Weighed(views=tuple(views), services=tuple(services), untold=untold)
    (folder / COSTS_FILE).write_bytes(msgspec.json.encode(told))


@dataclass
class _Scales:
    """Weighs one version. rows: view → some rows' bytes. end_ms: the newest event of all topics."""

    store: FeatureStore
    sample: Path
    staging: Path
    rows: dict[str, list[bytes]] = field(default_factory=dict)
    end_ms: int = 0

    def views(self) -> tuple[list[WeighedView], dict[str, str]]:
        """Every view that can be weighed, and why the others cannot."""
        found, untold = [], {}
        for feast_view in [*self.store.list_stream_feature_views(), *self.store.list_batch_feature_views()]:
            source = in_sample(feast_view, self.sample)
            if source is None:
                untold[feast_view.name] = "the sample has no data of its source"
                continue
            try:
                view = compile_view(feast_view)
                found.append(self._stream(view, source) if isinstance(view, StreamView) else self._table(view, source))
            except DefinitionError as error:
                untold[feast_view.name] = f"it cannot be computed ({type(error).__name__})"
            except Exception as error:  # transformations are anybody's code; what fails is told with the values
                traceback.print_exc()  # into the log of this process
                untold[feast_view.name] = f"it fails on the sample ({type(error).__name__})"
        return found, untold

    def services(self) -> list[WeighedService]:
        """Every service that can be read."""
        found = []
        for service in self.store.list_feature_services():
            try:
                plan = read_plan(self.store, service.name)
                found.append(WeighedService(service=service.name, merge_us=self._merge_us(plan)))
            except Exception:  # on-demand functions are anybody's code, and their failures are told with the values
                found.append(WeighedService(service=service.name))
        return found

    def _stream(self, view: StreamView, source: FileSource) -> WeighedView:
        newest_ms = history_end_ms(source, None)
        if newest_ms is None:
            return WeighedView(view=view.name)
        step_ms = view.spec.batch_step_ms
        begin_ms, end_ms = batch_span(view, (newest_ms // step_ms + 1) * step_ms)
        events = open_history(source, None, begin_ms, end_ms).count()
        since_ms = newest_since(source, EVENTS_MAX) if events > EVENTS_MAX else None
        first_ms = begin_ms if since_ms is None else max(begin_ms, since_ms)
        writer = _Weigher(view)
        if not self.rows:
            _warm_up(view, source, newest_ms, self.staging / "warm")
        began = time.perf_counter()
        gathered = gather_events(view, source, None, first_ms, end_ms, 1, self.staging / view.name)
        read_s = time.perf_counter() - began
        batch_end_ms = batch_end_of(view, end_ms, gathered.newest_ms)
        began = time.perf_counter()
        done = write_batch_sides(view, self.store.project, [self.staging / view.name], 0, batch_end_ms, writer, _nobody)
        grouping_s = time.perf_counter() - began - writer.seconds
        share = events / max(gathered.events, 1)
        self.rows[view.name] = writer.rows
        self.end_ms = max(self.end_ms, newest_ms)
        return WeighedView(
            view=view.name,
            actors=done.verified,
            events=events,
            rows=done.verified,
            bytes_per_actor=writer.entry_bytes,
            value_bytes=writer.value_bytes,
            tiles_per_row=_tiles(view, writer.rows),
            read_seconds=(read_s + max(grouping_s, 0.0)) * share,
            fold_seconds=writer.seconds * done.verified / max(len(writer.rows), 1),
        )

    def _table(self, view: BatchView | StreamView, source: FileSource) -> WeighedView:
        assert isinstance(view, BatchView)
        newest_ms = history_end_ms(source, None)
        if newest_ms is None:
            return WeighedView(view=view.name)
        begin_ms = newest_ms + 1 - BACKFILL_DAYS * DAY_MS
        events = open_history(source, None, begin_ms, newest_ms + 1).count()
        writer = _Weigher(view)
        read = rows = actors = 0
        began = time.perf_counter()
        for start_ms, end_ms in _days_back(begin_ms, newest_ms + 1):
            if read >= min(events, TABLE_ROWS_MAX):
                break
            done = write_newest_rows(view, source, None, self.store.project, writer, start_ms, end_ms, _nobody)
            read, rows, actors = read + done.events, rows + done.verified, max(actors, done.verified)
        seconds = time.perf_counter() - began
        share = events / max(read, 1)
        self.rows[view.name] = writer.rows
        return WeighedView(
            view=view.name,
            actors=actors,
            events=events,
            rows=round(rows * share),
            bytes_per_actor=writer.entry_bytes,
            value_bytes=writer.value_bytes,
            read_seconds=seconds * share,
        )

    def _merge_us(self, plan: ReadPlan) -> float:
        """From rows' bytes to the features of one request, undisturbed: the median of requests of other rows each."""
        rows = [self.rows.get(row.view.name, []) for row in plan.rows]
        if not all(rows):
            return 0.0
        entity = {key.name: _key_of(key.kind) for key in plan.join_keys}
        wanted = lookup(plan, [entity])
        request = {one.name: 1.0 for one in plan.request_fields}
        taken = []
        for n in range(REQUESTS):
            own = [some[n % len(some)] for some in rows]
            times = []
            for _ in range(REPEATS):
                began = time.perf_counter_ns()
                assemble(plan, wanted, own, [entity], [self.end_ms], [request])
                times.append(time.perf_counter_ns() - began)
            taken.append(min(times))
        return median(taken) / 1e3


class _Weigher(RowWriter):
    """Takes rows as a writer does, and keeps sizes instead of sending anything. seconds: spent folding."""

    def __init__(self, view: StreamView | BatchView) -> None:
        self.counts = WriteCounts()
        self.rows: list[bytes] = []
        self.seconds = 0.0
        self._expires = isinstance(view, StreamView) or view.ttl_ms > 0
        self._entries: list[int] = []
        self._values: list[int] = []

    @property
    def entry_bytes(self) -> float:
        """Mean bytes of a row in Redis."""
        return float(np.mean(self._entries)) + table_bytes(expires=self._expires) if self._entries else 0.0

    @property
    def value_bytes(self) -> float:
        """Mean bytes of a row."""
        return float(np.mean(self._values)) if self._values else 0.0

    def replace_batch_sides(
        self, view: StreamView, folder: RowFolder, history: HistoryByRow, batch_end_ms: int, progress: Progress
    ) -> None:
        """Fold the rows of some actors."""
        del view, progress
        chosen = history.rows(_evenly(np.diff(history.begins)))
        began = time.perf_counter()
        rows = folder.replace([None] * len(chosen.keys), chosen, batch_end_ms, {})
        self.seconds += time.perf_counter() - began
        self._keep(chosen.keys, [row for row in rows if row is not None])

    def write_sealed_rows(self, view: BatchView, keys: Sequence[bytes], rows: Sequence[bytes]) -> int:
        """Keep the sizes of some of the rows."""
        del view
        step = max(1, len(rows) // KEPT_OF_CALL)
        self._keep(keys[::step], rows[::step])
        return len(rows)

    def _keep(self, keys: Sequence[bytes], rows: Sequence[bytes]) -> None:
        for key, row in zip(keys, rows, strict=False):
            self._entries.append(entry_bytes(len(key), len(row), expires=self._expires))
            self._values.append(len(row))
        self.rows = [*self.rows, *rows][:ACTORS_MAX]


def _evenly(counts: np.ndarray[Any, Any]) -> list[int]:
    """Rows spread over all by how many events they have: the largest are there as often as they are among all."""
    order = np.argsort(counts, kind="stable")
    places = (np.arange(min(ACTORS_MAX, len(order))) + 0.5) * len(order) / max(1, min(ACTORS_MAX, len(order)))
    return sorted(order[places.astype(np.int64)].tolist())


def _tiles(view: StreamView, rows: Sequence[bytes]) -> float:
    some = rows[:: max(1, len(rows) // DECODED_MAX)]
    counts = [sum(map(len, decode_stream_row(view.spec, row).state.tiles)) for row in some]
    return float(np.mean(counts)) if counts else 0.0


def _days_back(begin_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """The days of a span as a backfill cuts it, the newest first."""
    edges = [begin_ms, *range((begin_ms // DAY_MS + 1) * DAY_MS, end_ms, DAY_MS), end_ms]
    return list(itertools.pairwise(edges))[::-1]


def _warm_up(view: StreamView, source: FileSource, newest_ms: int, folder: Path) -> None:
    """Load compiled code, which a backfill does once and not for every event."""
    gather_events(view, source, None, newest_ms, newest_ms + 1, 1, folder)
    end_ms = (newest_ms // view.spec.batch_step_ms + 1) * view.spec.batch_step_ms
    write_batch_sides(view, "", [folder], 0, end_ms, _Weigher(view), _nobody)


def _key_of(kind: str) -> object:
    return "x" if kind == "STRING" else b"x" if kind == "BYTES" else 1


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _nobody(_: int, __: int) -> None:
    """Shows no progress."""
