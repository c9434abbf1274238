"""What a job has to do: pure, from the files' footers, the manifest and the mark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from materialize.backfill._errors import SpanError
from materialize.backfill._files import Inventory
from materialize.backfill._manifest import JobEntry, LookedEntry, Manifest, Mark, RowsEntry, SideEntry
from materialize.backfill._sides import batch_end_of, batch_span
from materialize.backfill._spans import Span, cut, gaps, holes, moment, union
from materialize.definitions import StreamView, View

CHUNKS_MAX = 50_000
EVENTS_IN_SHARD = 100_000
SHARDS_MAX = 512


@dataclass(frozen=True)
class Chunk:
    """A span that is read at a time. rows: about. inputs: digest of the files read. is_empty: no file has any row."""

    span: Span
    rows: int
    inputs: str
    is_empty: bool
    is_whole: bool


@dataclass(frozen=True)
class Known:
    """What can be believed of the manifest: nothing that Redis has lost, or whose files have changed."""

    looked: dict[Span, LookedEntry]
    rows: tuple[RowsEntry, ...]
    sides: tuple[SideEntry, ...]
    jobs: tuple[JobEntry, ...]
    disbelieved: int
    """Entries that speak of rows that Redis has no more, or of files that changed."""


@dataclass(frozen=True)
class Plan:
    """What a job of one view does.

    asked: the span of the command. read: what is read of history; of a stream view, all that its windows reach back.
    before: the step before `read`, looked at for the drift of the first chunk. to_look, to_write: the chunks of which
    that is missing. sides: the shards of a stream view to write, None if only gathering tells; so batch_end_ms.
    """

    view: str
    is_stream: bool
    meaning: str
    asked: Span
    read: Span
    before: Chunk | None
    chunks: tuple[Chunk, ...]
    to_look: tuple[Chunk, ...]
    to_write: tuple[Chunk, ...]
    shards: int
    sides: tuple[int, ...] | None
    batch_end_ms: int | None
    inputs: str
    known: Known

    @property
    def rows(self) -> int:
        """About how many rows of history there are in all chunks."""
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def rows_to_do(self) -> int:
        """About how many rows of history are still to be read and written."""
        if not self.is_stream:
            return sum(chunk.rows for chunk in self.to_write)
        gathering = sum(chunk.rows for chunk in self.to_look)
        missing = self.shards if self.sides is None else len(self.sides)
        return max(gathering, self.rows * missing // max(self.shards, 1))

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do but to advance the watermark, and to enter the job before."""
        return not self.sides and self.sides is not None if self.is_stream else not self.to_write

    @property
    def is_entered(self) -> bool:
        """Whether the manifest says that the job is done; it may have been killed just before that."""
        return any(job.span == self.asked and job.inputs == self.inputs for job in self.known.jobs)

    @property
    def done_before(self) -> list[Span]:
        """What earlier jobs have written of a batch view, wherever it is."""
        return union(entry.span for entry in self.known.rows)

    @property
    def holes(self) -> list[Span]:
        """What lies between spans that earlier jobs have written, and was not."""
        return gaps(self.done_before)

    @property
    def seconds_estimate(self) -> float | None:
        """How long it takes if it goes as fast as the last time; None if there was none."""
        worked = [job for job in self.known.jobs if job.counts.events]
        if not worked:
            return None
        last = max(worked, key=lambda job: job.mark.number)
        return self.rows_to_do * last.seconds / last.counts.events


def make_plan(
    view: View, asked: Span, step_ms: int, inventory: Inventory, manifest: Manifest, mark: Mark, *, is_resumed: bool
) -> Plan:
    """The plan for one view. Unless resumed, everything is done again, whatever the manifest has.

    Raises SpanError for a span or a step that no job can have.
    """
    _check(asked, step_ms)
    is_stream = isinstance(view, StreamView)
    read = Span(*batch_span(view, asked.end_ms)) if isinstance(view, StreamView) else asked
    chunks = _chunks(read, step_ms, inventory)
    rows = sum(chunk.rows for chunk in chunks)
    shards = min(SHARDS_MAX, max(1, -(-rows // EVENTS_IN_SHARD))) if is_stream else 0
    known = believed(inventory, manifest, mark, read, shards)
    usable = known.looked if is_resumed else {}
    if isinstance(view, StreamView):
        batch_end_ms, sides = _sides(view, asked, chunks, usable, known, shards)
        staged = {span for span, entry in usable.items() if manifest.has_staged(entry)}
        to_look = [] if sides == () else [c for c in chunks if not c.is_empty and c.span not in staged]
        to_write: list[Chunk] = []
        before = None
    else:
        batch_end_ms, sides = None, None
        written = [entry.span for entry in known.rows] if is_resumed else []
        to_write = [chunk for chunk in chunks if holes(chunk.span, written)]
        before = _before(read, step_ms, inventory) if to_write and to_write[0] == chunks[0] else None
        to_look = [c for c in (*([before] if before else ()), *to_write) if not c.is_empty and c.span not in usable]
    return Plan(
        view.name,
        is_stream,
        manifest.folder.name,
        asked,
        read,
        before,
        tuple(chunks),
        tuple(to_look),
        tuple(to_write),
        shards,
        sides,
        batch_end_ms,
        inventory.digest(read),
        known,
    )


def believed(inventory: Inventory, manifest: Manifest, mark: Mark, read: Span, shards: int) -> Known:
    """The entries of the manifest that Redis' mark and the files still bear out."""
    looked = {e.span: e for e in manifest.entries(LookedEntry) if e.inputs == inventory.digest(e.span)}
    if shards:
        looked = {s: e for s, e in looked.items() if e.staged is not None and e.staged.shards == shards}
    rows, sides, jobs = manifest.entries(RowsEntry), manifest.entries(SideEntry), manifest.entries(JobEntry)
    kept_rows = [e for e in rows if _is_there(e.mark, mark) and e.inputs == inventory.digest(e.span)]
    inputs = inventory.digest(read)
    kept_sides = [e for e in sides if _is_there(e.mark, mark) and e.inputs == inputs and e.shards == shards]
    return Known(
        looked,
        tuple(kept_rows),
        tuple(kept_sides),
        tuple(jobs),
        len(rows) + len(sides) - len(kept_rows) - len(kept_sides),
    )


def _is_there(written: Mark, mark: Mark) -> bool:
    return written.incarnation == mark.incarnation and written.number <= mark.number


def _check(asked: Span, step_ms: int) -> None:
    if asked.length_ms <= 0:
        raise SpanError(f"nothing lies between {moment(asked.start_ms)} and {moment(asked.end_ms)}: --start is earlier")
    if step_ms <= 0:
        raise SpanError("a step is longer than nothing: write it as 6h, 1d or 7d")
    if asked.length_ms // step_ms > CHUNKS_MAX:
        raise SpanError(f"{asked.length_ms // step_ms} steps are more than {CHUNKS_MAX}: choose a longer --step")


def _chunks(read: Span, step_ms: int, inventory: Inventory) -> list[Chunk]:
    """The steps of the span; those that no file has rows in are one, where they follow each other."""
    chunks: list[Chunk] = []
    for span in cut(read, step_ms):
        is_empty = not inventory.has(span)
        if is_empty and chunks and chunks[-1].is_empty:
            span = Span(chunks.pop().span.start_ms, span.end_ms)
        chunks.append(_chunk(span, step_ms, inventory, is_empty=is_empty))
    return chunks


def _chunk(span: Span, step_ms: int, inventory: Inventory, *, is_empty: bool) -> Chunk:
    rows = 0 if is_empty else inventory.rows_in(span)
    return Chunk(span, rows, inventory.digest(span), is_empty, span.length_ms >= step_ms)


def _before(read: Span, step_ms: int, inventory: Inventory) -> Chunk | None:
    """The step before the first one, if history has it."""
    edge_ms = (read.start_ms - 1) // step_ms * step_ms
    span = Span(edge_ms, read.start_ms)
    return _chunk(span, step_ms, inventory, is_empty=False) if inventory.has(span) else None


def _sides(
    view: StreamView,
    asked: Span,
    chunks: Sequence[Chunk],
    usable: dict[Span, LookedEntry],
    known: Known,
    shards: int,
) -> tuple[int | None, tuple[int, ...] | None]:
    """Where the batch side ends, and the shards to write, if all chunks have been read before."""
    if any(chunk.span not in usable for chunk in chunks if not chunk.is_empty):
        return None, None
    batch_end_ms = end_of(view, asked, [usable[chunk.span] for chunk in chunks if not chunk.is_empty])
    if all(chunk.is_empty for chunk in chunks):
        return batch_end_ms, ()
    done = {entry.shard for entry in known.sides if entry.batch_end_ms == batch_end_ms}
    return batch_end_ms, tuple(shard for shard in range(shards) if shard not in done)


def end_of(view: StreamView, asked: Span, looked: Iterable[LookedEntry]) -> int:
    """Where the batch side ends, when all chunks have been read."""
    newest = [e.staged.newest_ms for e in looked if e.staged is not None and e.staged.newest_ms is not None]
    return batch_end_of(view, asked.end_ms, max(newest, default=None))
