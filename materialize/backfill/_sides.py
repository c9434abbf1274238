"""The batch side of a stream view's rows, in two phases, so that memory is bounded whatever the history.

    history ──► gather_events, a task for each chunk of time ──► folder/<chunk>/<shard>.arrow
                                                                           │
    rows    ◄── write_batch_sides, a task for each shard of the entities ◄─┘

Between the two, `batch_end_of` says where the batch side ends: only when all chunks are gathered is it known up to when
history has events.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from feast.data_source import DataSource

from materialize.backfill._entities import group_entities
from materialize.backfill._results import ChunkResult, GatherResult
from materialize.backfill._staging import StagedEvents, stage, unstage
from materialize.definitions import EVENT_ID, StreamView, ViewEvents
from materialize.events import hashes_from_table, places_of_words
from materialize.kernel import KEEP_SLACK_MS
from materialize.offline import ColumnNotReadError, EventColumns, History, columns_to_read, open_history
from materialize.online import KeyEncoder, Progress, RowFolder, RowWriter, history_by_row

Ints = np.ndarray[Any, np.dtype[np.int64]]


def batch_span(view: StreamView, end_ms: int) -> tuple[int, int]:
    """From when and until when history is gathered for a backfill up to `end_ms`: all that the windows reach back from
    the latest possible batch end, which is `end_ms` rounded down to a tile of every hop."""
    until_ms = end_ms // view.spec.batch_step_ms * view.spec.batch_step_ms
    return until_ms - view.spec.reach_ms - KEEP_SLACK_MS, until_ms


def batch_end_of(view: StreamView, end_ms: int, newest_ms: int | None) -> int:
    """Where the batch side ends: where `batch_span` does, or at the end of the last tile of every hop that history has
    an event in, if that is earlier. What history does not have yet stays the stream's.

    newest_ms: the latest event time of all gathered chunks, None for no event.
    """
    step_ms, (_, until_ms) = view.spec.batch_step_ms, batch_span(view, end_ms)
    return until_ms if newest_ms is None else min(until_ms, (newest_ms // step_ms + 1) * step_ms)


def gather_events(
    view: StreamView,
    source: DataSource,
    repo_path: Path | None,
    start_ms: int,
    end_ms: int,
    shards: int,
    folder: Path,
) -> GatherResult:
    """Stage the view's events with start_ms ≤ event time < end_ms in `folder`, one file for each of `shards`.

    The folder is this chunk's own; it appears whole or not at all, in place of what it had. Doing it again gives the
    same. Raises HistoryError for history that cannot be read, DefinitionError and KernelError for events that the view
    cannot be computed of.
    """
    history = open_history(source, repo_path, start_ms, end_ms)
    try:
        found = _found(view, history, columns_to_read(history, [view]))
    except ColumnNotReadError:  # its code names the column in a way that nobody sees before it runs
        found = _found(view, history, history.names)
    encoder = KeyEncoder("", view.name, view.join_keys)
    codes, first = group_entities(found.events.keys)
    entities = encoder.entities_of_columns([found.values(place, first) for place in range(len(view.join_keys))])
    sizes = stage(StagedEvents(entities, codes, found.events.block), view.fingerprint, shards, folder)
    return GatherResult(found.rows, found.events.skipped, found.newest_ms, sizes)


@dataclass(frozen=True)
class _Found:
    """How many rows history has, the latest time of one, and what a view sees in them. words: for each of its join keys
    the words that the keys of `events` are the places of, float64, or None if they are the values themselves."""

    rows: int
    newest_ms: int | None
    events: ViewEvents
    words: list[pa.Array | None]

    def values(self, place: int, rows: Ints) -> np.ndarray[Any, Any]:
        """The values of a join key for some of the events."""
        keys, words = self.events.keys[place][rows], self.words[place]
        if words is None:
            return keys
        return np.asarray(words.take(pa.array(keys.astype(np.int64))).to_numpy(zero_copy_only=False))


def _found(view: StreamView, history: History, columns: Sequence[str]) -> _Found:
    table = history.table(columns)
    given = EventColumns(table, frozenset(history.names))
    derived = view.derived(given, table.num_rows)
    own = {*derived, *view.spec.value_columns}
    coded = {key.name: _coded(table, key.name) for key in view.join_keys if key.name not in own}
    places = {name: found[0] for name, found in coded.items() if found is not None}
    hashed = hashes_from_table(table, (EVENT_ID, *view.spec.distinct_columns))
    events = view.seen(ChainMap(places, given), derived, hashed.get(EVENT_ID), hashed)
    words = [found[1] if (found := coded.get(key.name)) else None for key in view.join_keys]
    times = given[history.source.timestamp_field]
    return _Found(table.num_rows, int(times.max()) if table.num_rows else None, events, words)


def _coded(table: pa.Table, name: str) -> tuple[np.ndarray[Any, Any], pa.Array] | None:
    """A column of text as the place of each word among all words, float64[n] with NaN for null: an object for each
    value costs more than all else that is done with it. None for another column."""
    kind = table.schema.field(name).type if name in table.column_names else pa.null()
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    places, words = places_of_words(table.column(name))
    return np.where(places < 0, np.nan, places), words


def write_batch_sides(
    view: StreamView,
    project: str,
    folders: Sequence[Path],
    shard: int,
    batch_end_ms: int,
    writer: RowWriter,
    progress: Progress,
) -> ChunkResult:
    """Replace the batch side of the rows of one shard by what is staged of it in all chunks' folders.

    An event counts once in a row, however many chunks have its identity. A row that has a later batch end already is
    left as it is. Doing it again changes nothing. Raises StagingError, and what the writer raises.
    """
    staged = unstage(folders, view.fingerprint, shard)
    prefix = KeyEncoder(project, view.name, view.join_keys).prefix
    keys = [prefix + entity for entity in staged.entities.to_pylist()]
    history = history_by_row(keys, staged.codes, staged.block)
    before = replace(writer.counts)
    writer.replace_batch_sides(view, RowFolder(view), history, batch_end_ms, progress)
    written, sent = writer.counts.written - before.written, writer.counts.sent_bytes - before.sent_bytes
    return ChunkResult(len(staged.codes), written, 0, len(keys), sent)
