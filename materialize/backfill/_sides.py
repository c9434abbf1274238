"""The batch side of a stream view's rows, in two phases, so that memory is bounded whatever the history.

    history ──► gather_events, a task for each chunk of time ──► folder/<chunk>/<shard>.arrow
                                                                           │
    rows    ◄── write_batch_sides, a task for each shard of the entities ◄─┘

Between the two, `batch_end_of` says where the batch side ends: only when all chunks are gathered is it known up to when
history has events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from feast.data_source import DataSource

from materialize.backfill._entities import group_entities
from materialize.backfill._results import ChunkResult, GatherResult
from materialize.backfill._staging import StagedEvents, stage, unstage
from materialize.definitions import EVENT_ID, StreamView
from materialize.events import columns_from_table, hashes_from_table
from materialize.kernel import KEEP_SLACK_MS
from materialize.offline import read_history
from materialize.online import KeyEncoder, Progress, RowFolder, RowWriter, history_by_row


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
    table = read_history(source, repo_path, start_ms, end_ms)
    columns = columns_from_table(table)
    newest_ms = int(columns[source.timestamp_field].max()) if table.num_rows else None
    hashed = hashes_from_table(table, (EVENT_ID, *view.spec.distinct_columns))
    events = view.events(columns, hashed.get(EVENT_ID), hashed)
    encoder = KeyEncoder("", view.name, view.join_keys)
    codes, first = group_entities(events.keys)
    entities = encoder.entities_of_columns([column[first] for column in events.keys])
    sizes = stage(StagedEvents(entities, codes, events.block), view.fingerprint, shards, folder)
    return GatherResult(table.num_rows, events.skipped, newest_ms, sizes)


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
