"""The parts that a job's work is done in, each safe to do again, in the job's process or in a worker of Ray."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow.compute as pc
import redis
from feast import FeatureView
from feast.data_source import DataSource
from feast.protos.feast.core.FeatureView_pb2 import FeatureView as FeatureViewProto
from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureView as StreamFeatureViewProto
from feast.stream_feature_view import StreamFeatureView

from materialize.backfill._lease import Fence
from materialize.backfill._manifest import Counts, Staged
from materialize.backfill._newest import write_newest_rows
from materialize.backfill._profile import ColumnProfile, merged, profile_events, profile_table
from materialize.backfill._results import ChunkResult
from materialize.backfill._sides import gather_events, write_batch_sides
from materialize.backfill._spans import Span
from materialize.backfill._staging import unstage
from materialize.definitions import BatchView, StreamView, View, compile_view
from materialize.offline import read_history, values_as_declared
from materialize.online import OnlineStoreUnavailableError, RedisSettings, RowWriter, connect

WAITS_S = (0.5, 2.0, 8.0)
"""How long a part waits before it is done again, when Redis did not answer."""

Heard = Callable[[int, int], None]
"""Told (rows written so far, rows in all) of the running part. May raise to end it."""


@dataclass(frozen=True)
class Work:
    """What all parts of one view's job share. `view`: Feast's own message, which any process can compile."""

    view: bytes
    is_stream: bool
    project: str
    repo_path: Path | None
    redis: RedisSettings
    fence: Fence

    @staticmethod
    def of(
        feature_view: FeatureView, project: str, repo_path: Path | None, settings: RedisSettings, fence: Fence
    ) -> Work:
        """Of a view as Feast has it."""
        is_stream = isinstance(feature_view, StreamFeatureView)
        return Work(feature_view.to_proto().SerializeToString(), is_stream, project, repo_path, settings, fence)


@dataclass(frozen=True)
class Look:
    """Read and profile a span of a batch view."""

    span: Span


@dataclass(frozen=True)
class Gather:
    """Read, transform and stage a span of a stream view, in a new folder within this one, and profile it."""

    span: Span
    shards: int
    folder: Path


@dataclass(frozen=True)
class WriteRows:
    """Write the newest rows of a span of a batch view."""

    span: Span


@dataclass(frozen=True)
class WriteSide:
    """Write the batch side of the rows of one shard of a stream view."""

    shard: int
    folders: tuple[Path, ...]
    batch_end_ms: int


Step = Look | Gather | WriteRows | WriteSide


@dataclass(frozen=True)
class Part:
    """One thing to do. `rows` of history in it, about: its weight."""

    name: str
    rows: int
    step: Step


@dataclass(frozen=True)
class Seen:
    """What reading a span gave."""

    events: int
    skipped: int
    columns: dict[str, ColumnProfile]
    staged: Staged | None


Outcome = Seen | Counts


def run_part(work: Work, part: Part, client: redis.Redis, heard: Heard) -> Outcome:
    """Do the part, and again if Redis does not answer. The fence is passed before each batch of rows.

    Raises LeaseLostError, HistoryError, DefinitionError, KernelError, StagingError and OnlineStoreError.
    """

    def passed(done: int, total: int) -> None:
        work.fence.pass_or_raise(client, part.name, done, total)
        heard(done, total)

    for wait_s in WAITS_S:
        try:
            return _run(work, part.step, client, passed)
        except OnlineStoreUnavailableError:
            time.sleep(wait_s)
    return _run(work, part.step, client, passed)


def run_remote(work: Work, part: Part) -> Outcome:
    """Do the part in a worker process, with a connection of the process' own."""
    return run_part(work, part, _client(work.redis), lambda *_: None)


def _run(work: Work, step: Step, client: redis.Redis, passed: Heard) -> Outcome:
    passed(0, 0)
    view, source = _compiled(work.view, work.is_stream)
    if isinstance(view, StreamView):
        if isinstance(step, Gather):
            return _gather(view, source, work, step)
        assert isinstance(step, WriteSide)
        writer = RowWriter(client)
        return _counts(
            write_batch_sides(view, work.project, step.folders, step.shard, step.batch_end_ms, writer, passed)
        )
    if isinstance(step, Look):
        return _look(view, source, work.repo_path, step.span)
    assert isinstance(step, WriteRows)
    begin, end = step.span.start_ms, step.span.end_ms
    return _counts(write_newest_rows(view, source, work.repo_path, work.project, RowWriter(client), begin, end, passed))


def _look(view: BatchView, source: DataSource, repo_path: Path | None, span: Span) -> Seen:
    """As writing reads it, so that what cannot be written is found before anything is."""
    names = [field.name for field in view.fields]
    keys = [key.name for key in view.join_keys]
    created = [source.created_timestamp_column] if source.created_timestamp_column else []
    used = list(dict.fromkeys([*keys, *names, *created]))
    table = read_history(source, repo_path, span.start_ms, span.end_ms, used)
    with_key = table
    for key in keys:
        with_key = with_key.filter(pc.is_valid(with_key.column(key)))
    for field in view.fields:
        values_as_declared(field, with_key.column(field.name))
    return Seen(table.num_rows, table.num_rows - with_key.num_rows, profile_table(with_key.select(names)), None)


def _gather(view: StreamView, source: DataSource, work: Work, step: Gather) -> Seen:
    span, attempt = step.span, uuid.uuid4().hex
    folder = step.folder / attempt
    found = gather_events(view, source, work.repo_path, span.start_ms, span.end_ms, step.shards, folder)
    profiles = [
        profile_events(view.spec, unstage([folder], view.fingerprint, shard).block) for shard in range(step.shards)
    ]
    staged = Staged(attempt, step.shards, found.newest_ms, found.shard_bytes)
    return Seen(found.events, found.skipped, merged(profiles), staged)


def _counts(result: ChunkResult) -> Counts:
    return Counts(**asdict(result))


@lru_cache(maxsize=16)
def _compiled(view: bytes, is_stream: bool) -> tuple[View, DataSource]:
    """The view, compiled once in each process."""
    if is_stream:
        stream_view = StreamFeatureView.from_proto(StreamFeatureViewProto.FromString(view))
        return compile_view(stream_view), stream_view.batch_source
    feature_view = FeatureView.from_proto(FeatureViewProto.FromString(view))
    return compile_view(feature_view), feature_view.batch_source


@lru_cache(maxsize=4)
def _client(settings: RedisSettings) -> redis.Redis:
    """The connection of a worker process, which serves many parts."""
    return connect(settings)
