"""The stream form: what serving does. Events are folded into rows as a worker folds them, backfills replace their side,
and features are assembled from the rows' bytes as an answer's are.

Everything is run but the two ends: no log carries the events, and a dictionary stands for Redis, so neither the scripts
that compare and set nor the connection are run. What arrives is tried in many ways that must all come to the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actor_risk.feature_tests.batch_form import FormValues
from actor_risk.feature_tests.binding import BoundCase, BoundMoment
from actor_risk.feature_tests.moments import moment as told
from actor_risk.feature_tests.repo import RepoUnderTest
from materialize.backfill import batch_end_of, gather_events, write_batch_sides, write_newest_rows
from materialize.definitions import BatchView, StreamView, identities_of
from materialize.events import Event, columns_from_events, event_time_ms
from materialize.kernel import HEAD_MAX, KEEP_SLACK_MS
from materialize.online import (
    FeatureStatus,
    KeyEncoder,
    RowFolder,
    RowWriter,
    WriteCounts,
    assemble,
    decode_batch_row,
    events_by_row,
    lookup,
)

FIRST_WAY = "one by one"
SHUFFLES = 3
INEXACT = "read further into the past than rows can answer exactly"
SENT_MAX = 3
"""So many of the newest events are each sent with the request."""

SPLITS_MAX = 12
"""So many ends of a backfill are tried; of more, evenly chosen ones."""

Rows = dict[bytes, bytes]


@dataclass(frozen=True)
class StreamValues:
    """What one way of arriving gives. way: as a person would call it. statuses: feature → why there is no value."""

    way: str
    form: FormValues
    statuses: Mapping[str, str]


@dataclass(frozen=True)
class Arrival:
    """An event of a topic at its place in the log."""

    topic: str
    event: Event
    offset: int


class RowsInMemory(RowWriter):
    """Writes rows into a dictionary: what a server's scripts do, for one writer."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.counts = WriteCounts()

    def write_sealed_rows(self, view: BatchView, keys: Sequence[bytes], rows: Sequence[bytes]) -> int:
        """Newer event time wins, ties by created time."""
        written = 0
        for key, data in zip(keys, rows, strict=True):
            old, new = self.rows.get(key), decode_batch_row(view, data)
            before = None if old is None else decode_batch_row(view, old)
            if before is None or (before.event_time_ms, before.created_ms) <= (new.event_time_ms, new.created_ms):
                self.rows[key] = data
                written += 1
        return written

    def _stored(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def _compare_and_set(
        self,
        keys: Sequence[bytes],
        versions: Sequence[bytes],  # noqa: ARG002 - there is one writer
        rows: Sequence[bytes],
        life_ms: int,  # noqa: ARG002
    ) -> list[bool]:
        self.rows.update(zip(keys, rows, strict=True))
        return [True] * len(keys)


class Folders:
    """The compiled folders of stream views, each made once in a run."""

    def __init__(self) -> None:
        self._of: dict[str, RowFolder] = {}

    def of(self, view: StreamView) -> RowFolder:
        """The view's folder."""
        if view.name not in self._of:
            self._of[view.name] = RowFolder(view)
        return self._of[view.name]


class StreamForm:
    """Serves one case, whose history is written; staged parts of backfills go into `folder`."""

    def __init__(self, repo: RepoUnderTest, bound: BoundCase, folders: Folders, folder: Path) -> None:
        self._repo, self._bound, self._folders, self._folder = repo, bound, folders, folder
        self._views = [row.view for row in bound.plan.rows if isinstance(row.view, StreamView)]
        self._arrivals = [
            Arrival(topic, event, offset)
            for topic, events in bound.events.items()
            for offset, event in enumerate(events)
        ]
        self._gathered: dict[tuple[str, int], tuple[Path, int]] = {}

    def values(self, moment: BoundMoment) -> Iterator[StreamValues]:
        """The features as of the moment, once for each way in which the events may have arrived. The first is one by
        one, as the test has them. A failure is told in place of values."""
        try:
            for way, rows, sent in self._ways(moment.as_of_ms):
                yield self._read(way, rows, moment, sent)
        except Exception as error:  # the author's code runs in it
            yield StreamValues(FIRST_WAY, FormValues({}, str(error) or repr(error)), {})

    def _ways(self, as_of_ms: int) -> Iterator[tuple[str, Rows, Event | None]]:
        """Each way: what it is called, the rows that it leads to, and the event that comes with the request."""
        profiles = self._profiles(as_of_ms)
        known = [one for one in self._arrivals if event_time_ms(one.event) <= as_of_ms]
        yield FIRST_WAY, self._streamed(profiles, [[one] for one in known]), None
        yield "all at once", self._streamed(profiles, [known]), None
        if len(known) > 1:
            yield from self._shuffled(profiles, known)
        if len(known) < len(self._arrivals):
            yield "together with later events", self._streamed(profiles, [self._arrivals]), None
        yield from self._sent(profiles, known)
        yield from self._split(profiles, known, as_of_ms)

    def _profiles(self, as_of_ms: int) -> Rows:
        """The rows of batch views as a backfill up to the moment leaves them."""
        writer = RowsInMemory({})
        for row in self._bound.plan.rows:
            if isinstance(row.view, BatchView):
                source = self._repo.source(row.view.name)
                start_ms = as_of_ms - row.view.ttl_ms if row.view.ttl_ms else 0
                repo_path, project = self._repo.repo_path, self._repo.store.project
                write_newest_rows(row.view, source, repo_path, project, writer, start_ms, as_of_ms + 1, _silent)
        return writer.rows

    def _streamed(self, before: Rows, batches: Sequence[Sequence[Arrival]]) -> Rows:
        """The rows with micro-batches folded into them, one after the other."""
        writer = RowsInMemory(dict(before))
        for batch in batches:
            for topic in dict.fromkeys(one.topic for one in batch):
                self._fold(writer, topic, [one for one in batch if one.topic == topic])
        return writer.rows

    def _fold(self, writer: RowsInMemory, topic: str, arrivals: Sequence[Arrival]) -> None:
        columns = columns_from_events([one.event for one in arrivals])
        identities, offsets = identities_of(columns), np.array([one.offset for one in arrivals], np.int64)
        for view in self._views:
            if view.topic != topic:
                continue
            seen = view.events(columns, identities)
            if len(seen.block):
                encoder = KeyEncoder(self._repo.store.project, view.name, view.join_keys)
                by_row = events_by_row(encoder, seen, np.zeros(len(seen.rows), np.int64), offsets[seen.rows])
                writer.fold_events(view, self._folders.of(view), by_row)

    def _shuffled(self, profiles: Rows, known: Sequence[Arrival]) -> Iterator[tuple[str, Rows, Event | None]]:
        """In another order, in two batches that are both delivered again, as after a crash; and sent anew besides."""
        for seed in range(SHUFFLES):
            mixed = random.Random(seed).sample(known, len(known))
            placed = [Arrival(one.topic, one.event, offset) for offset, one in enumerate(mixed)]
            middle = len(placed) // 2
            batches = [placed[:middle], placed, placed[middle:]]
            if len(placed) <= HEAD_MAX:  # beyond its newest events a row knows no event again
                batches.append([Arrival(one.topic, one.event, len(placed) + one.offset) for one in placed])
            yield "in another order, and twice", self._streamed(profiles, batches), None

    def _sent(self, profiles: Rows, known: Sequence[Arrival]) -> Iterator[tuple[str, Rows, Event | None]]:
        newest = sorted(known, key=lambda one: event_time_ms(one.event))[-SENT_MAX:]
        for sent in newest:
            others = [one for one in known if one is not sent]
            rows = self._streamed(profiles, [others])
            yield f"with {sent.event.event_id} sent with the request", rows, sent.event
        if newest:
            rows = self._streamed(profiles, [known])
            yield f"with {newest[-1].event.event_id} sent with the request and streamed", rows, newest[-1].event

    def _split(
        self, profiles: Rows, known: Sequence[Arrival], as_of_ms: int
    ) -> Iterator[tuple[str, Rows, Event | None]]:
        """Backfills up to each end that tells the events apart: before the stream, and into what it has written."""
        for end_ms in self._ends(known, as_of_ms):
            backfilled = self._backfilled(profiles, end_ms)
            way = f"backfilled up to {told(end_ms)}"
            yield f"{way}, then streamed", self._streamed(backfilled, [known]), None
            yield f"streamed, then {way}", self._backfilled(self._streamed(profiles, [known]), end_ms), None

    def _ends(self, known: Sequence[Arrival], as_of_ms: int) -> list[int]:
        ends = set()
        for view in self._views:
            step_ms = view.spec.batch_step_ms
            for one in known:
                tile_ms = event_time_ms(one.event) // step_ms * step_ms
                ends |= {tile_ms, tile_ms + step_ms}
        fitting = sorted(end_ms for end_ms in ends if end_ms <= as_of_ms)
        chosen = np.linspace(0, len(fitting) - 1, min(len(fitting), SPLITS_MAX)).round().astype(int)
        return [fitting[place] for place in dict.fromkeys(chosen.tolist())]

    def _backfilled(self, before: Rows, end_ms: int) -> Rows:
        writer = RowsInMemory(dict(before))
        for view in self._views:
            folder, batch_end_ms = self._gather(view, end_ms)
            write_batch_sides(view, self._repo.store.project, [folder], 0, batch_end_ms, writer, _silent)
        return writer.rows

    def _gather(self, view: StreamView, end_ms: int) -> tuple[Path, int]:
        """The staged events of a backfill up to `end_ms`, and where its batch side ends."""
        step_ms = view.spec.batch_step_ms
        until_ms = end_ms // step_ms * step_ms
        if (view.name, until_ms) not in self._gathered:
            folder = self._folder / f"{len(self._gathered)}"
            start_ms = until_ms - view.spec.reach_ms - KEEP_SLACK_MS
            source, repo_path = self._repo.source(view.name), self._repo.repo_path
            done = gather_events(view, source, repo_path, start_ms, until_ms, 1, folder)
            self._gathered[view.name, until_ms] = folder, batch_end_of(view, end_ms, done.newest_ms)
        return self._gathered[view.name, until_ms]

    def _read(self, way: str, rows: Rows, moment: BoundMoment, sent: Event | None) -> StreamValues:
        plan, entities = self._bound.plan, [moment.entity]
        wanted = lookup(plan, entities)
        found = [rows.get(key) for key in wanted.keys]
        events = {} if sent is None else {0: sent}
        matrix = assemble(plan, wanted, found, entities, [moment.as_of_ms], [moment.request], events)
        names = [ref.partition(":")[2] for ref in plan.features]
        met = matrix.met.of(0)
        failure = None
        if met.on_demand_failed:
            failure = "an on-demand function failed: its features are served as null"
        elif met.rows_refused:
            failure = f"a row was refused: {met.rows_refused}"
        elif met.event_failed:
            failure = "a view's transformation failed for the event that came with the request"
        elif met.inexact:
            failure = INEXACT
        statuses = {name: FeatureStatus(s).name for name, s in zip(names, matrix.statuses[0].tolist(), strict=True)}
        return StreamValues(way, FormValues(dict(zip(names, matrix.row(0), strict=True)), failure), statuses)


def _silent(_done: int, _total: int) -> None:
    pass
