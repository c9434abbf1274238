"""Writing rows: compare-and-set for stream rows, newer-wins for batch rows, both pipelined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import redis

from materialize.definitions import BatchView, StreamView
from materialize.kernel import KEEP_SLACK_MS, FoldCounts, empty_row
from materialize.online._batch_rows import BatchRow, encode_batch_row
from materialize.online._connect import unavailable_if_redis_fails
from materialize.online._errors import RowRefusedError, WriteConflictError
from materialize.online._fetch import fetch
from materialize.online._folding import EventsByRow, FoldedRows, HistoryByRow, RowFolder, next_versions
from materialize.online._header import VERSION_SLICE
from materialize.online._scripts import RowCalls
from materialize.online._stream_rows import StreamRow, decode_stream_row, encode_stream_row

PIPELINE_MAX = 512
"""Rows that are read, changed and written at a time: bounds what is held in memory on both sides."""

LARGE_ROW_BYTES = 256 << 10
"""A row beyond this is counted: reading it takes longer than everything else in a request. None exceeds ROW_BYTES_MAX,
but for the offsets of its partitions."""

TRIES_MAX = 20
"""How often a row is read and folded again when other writers are faster."""


@dataclass
class WriteCounts:
    """What the writes did, added up over a writer's life. sent_bytes: of the rows that the server was asked to write.
    large: rows written that took more than LARGE_ROW_BYTES."""

    written: int = 0
    sent_bytes: int = 0
    large: int = 0
    conflicts: int = 0
    unchanged: int = 0
    refused: dict[str, int] = field(default_factory=dict)


NOTHING = FoldCounts()


@dataclass(frozen=True)
class FoldOutcome:
    """What became of folded events, over all rows; `replayed`: their rows had them already."""

    counts: FoldCounts = NOTHING
    replayed: int = 0

    def plus(self, rows: FoldedRows, done: Sequence[int]) -> FoldOutcome:
        """With those of the rows that are done added."""
        folded, duplicates, owned_by_batch, too_late, replayed = rows.counts[list(done)].sum(axis=0).tolist()
        counts = self.counts
        return FoldOutcome(
            FoldCounts(
                counts.folded + folded,
                counts.duplicates + duplicates,
                counts.owned_by_batch + owned_by_batch,
                counts.too_late + too_late,
            ),
            self.replayed + replayed,
        )


Change = Callable[[StreamRow], StreamRow | None]
"""From the stored row to the row to write, or None when there is nothing to write. May be called several times."""


Progress = Callable[[int, int], None]
"""Told (rows done so far, rows in all)."""


class RowWriter:
    """Writes the rows of any view through one Redis client."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._calls = RowCalls(client)
        self.counts = WriteCounts()

    def update_stream_rows(self, view: StreamView, changes: Mapping[bytes, Change]) -> None:
        """Apply each change to the row at its key by compare-and-set; a conflict reads and changes that row again.

        Raises WriteConflictError when a row still conflicts after TRIES_MAX tries, OnlineStoreUnavailableError when
        Redis is away. Rows written before stay written: a change must be safe to repeat.
        """
        keys = list(changes)
        for begin in range(0, len(keys), PIPELINE_MAX):
            waiting = keys[begin : begin + PIPELINE_MAX]
            for _ in range(TRIES_MAX):
                waiting = self._try_stream_rows(view, waiting, changes)
                if not waiting:
                    break
            else:
                raise _conflict(view, len(waiting))

    def fold_events(self, view: StreamView, folder: RowFolder, events: EventsByRow) -> FoldOutcome:
        """Fold the events into their rows by compare-and-set; a conflict reads and folds that row again.

        Raises as `update_stream_rows` does; rows written before stay written, and know which events they have.
        """
        outcome = FoldOutcome()
        for begin in range(0, len(events.keys), PIPELINE_MAX):
            waiting = list(range(begin, min(begin + PIPELINE_MAX, len(events.keys))))
            for _ in range(TRIES_MAX):
                lost, folded = self._try_folds(view, folder, events.rows(waiting))
                gone = set(lost)
                outcome = outcome.plus(folded, [place for place in range(len(waiting)) if place not in gone])
                waiting = [waiting[place] for place in lost]
                if not waiting:
                    break
            else:
                raise _conflict(view, len(waiting))
        return outcome

    def replace_batch_sides(
        self, view: StreamView, folder: RowFolder, history: HistoryByRow, batch_end_ms: int, progress: Progress
    ) -> None:
        """Replace everything before the batch end in the rows of the history, by compare-and-set; a conflict reads and
        replaces that row again. A row that has a later batch end stays as it is. Doing it again changes no value.

        Raises as `update_stream_rows` does; rows written before stay written.
        """
        for begin in range(0, len(history.keys), PIPELINE_MAX):
            end = min(begin + PIPELINE_MAX, len(history.keys))
            waiting = list(range(begin, end))
            for _ in range(TRIES_MAX):
                lost = self._try_replacing(view, folder, history.rows(waiting), batch_end_ms)
                waiting = [waiting[place] for place in lost]
                if not waiting:
                    break
            else:
                raise _conflict(view, len(waiting))
            progress(end, len(history.keys))

    def write_batch_rows(self, view: BatchView, rows: Sequence[tuple[bytes, BatchRow]]) -> int:
        """Write each row unless a newer one is stored. Returns how many were written; the rest were older.

        Raises OnlineStoreUnavailableError when Redis is away.
        """
        return self.write_sealed_rows(view, [key for key, _ in rows], [encode_batch_row(view, row) for _, row in rows])

    def write_sealed_rows(self, view: BatchView, keys: Sequence[bytes], rows: Sequence[bytes]) -> int:
        """As `write_batch_rows`, of rows that are bytes already, such as those of `encode_batch_columns`."""
        with unavailable_if_redis_fails():
            written = self._calls.newer_wins(keys, rows, view.ttl_ms)
        self.counts.written += written
        self.counts.sent_bytes += sum(map(len, rows))
        self.counts.unchanged += len(rows) - written
        return written

    def _try_stream_rows(self, view: StreamView, keys: Sequence[bytes], changes: Mapping[bytes, Change]) -> list[bytes]:
        """One read and one write of the rows; returns the keys whose rows changed in between."""
        chosen, versions, rows = [], [], []
        for key, data in zip(keys, self._stored(keys), strict=True):
            stored = self._decode(view, data)
            changed = changes[key](stored)
            if changed is None:
                self.counts.unchanged += 1
                continue
            (version,) = next_versions([data]).tolist()
            fresh = StreamRow(changed.state, version, changed.applied)
            chosen.append(key)
            versions.append((data or b"")[VERSION_SLICE])
            rows.append(encode_stream_row(view.spec, fresh))
        done = self._compare_and_set(chosen, versions, rows, _life_ms(view))
        return [key for key, written in zip(chosen, done, strict=True) if not written]

    def _try_folds(self, view: StreamView, folder: RowFolder, events: EventsByRow) -> tuple[list[int], FoldedRows]:
        """One read, fold and write. Returns the places of the rows that changed in between, and what became of all."""
        stored = self._stored(events.keys)
        folded = folder.fold(stored, events, self.counts.refused)
        return self._write_changed(events.keys, stored, folded.data, _life_ms(view)), folded

    def _try_replacing(
        self, view: StreamView, folder: RowFolder, history: HistoryByRow, batch_end_ms: int
    ) -> list[int]:
        """One read and write of the rows. Returns the places of those that changed in between."""
        stored = self._stored(history.keys)
        rows = folder.replace(stored, history, batch_end_ms, self.counts.refused)
        return self._write_changed(history.keys, stored, rows, _life_ms(view))

    def _write_changed(
        self, keys: Sequence[bytes], stored: Sequence[bytes | None], rows: Sequence[bytes | None], life_ms: int
    ) -> list[int]:
        """Write what is not None over what was read. Returns the places of the rows that changed in between."""
        new = [(place, data) for place, data in enumerate(rows) if data is not None]
        versions = [(stored[place] or b"")[VERSION_SLICE] for place, _ in new]
        done = self._compare_and_set([keys[place] for place, _ in new], versions, [data for _, data in new], life_ms)
        self.counts.unchanged += len(rows) - len(new)
        return [place for (place, _), written in zip(new, done, strict=True) if not written]

    def _stored(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with unavailable_if_redis_fails():
            return fetch(self._client, keys)

    def _compare_and_set(
        self, keys: Sequence[bytes], versions: Sequence[bytes], rows: Sequence[bytes], life_ms: int
    ) -> list[bool]:
        """Which of the rows were written, and counted so; another writer was faster at the others."""
        with unavailable_if_redis_fails():
            done = self._calls.compare_and_set(keys, versions, rows, life_ms)
        self.counts.written += sum(done)
        self.counts.sent_bytes += sum(map(len, rows))
        self.counts.large += sum(len(row) > LARGE_ROW_BYTES for row, written in zip(rows, done, strict=True) if written)
        self.counts.conflicts += len(done) - sum(done)
        return done

    def _decode(self, view: StreamView, data: bytes | None) -> StreamRow:
        if data is not None:
            try:
                return decode_stream_row(view.spec, data)
            except RowRefusedError as error:
                self.counts.refused[error.reason] = self.counts.refused.get(error.reason, 0) + 1
        return StreamRow(empty_row(view.spec), 0, {})


def _life_ms(view: StreamView) -> int:
    """How long the server keeps a row after its last write."""
    return max(view.spec.reach_ms, view.ttl_ms) + KEEP_SLACK_MS


def _conflict(view: StreamView, rows: int) -> WriteConflictError:
    return WriteConflictError(
        f"view {view.name!r}: {rows} rows kept changing for {TRIES_MAX} tries; are two backfills of the view running?"
    )
