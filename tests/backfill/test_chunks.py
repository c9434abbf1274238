"""The work of one chunk: staged events are whole or refused, and rows are those of all events, each counted once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import FileSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from materialize.backfill import (
    ChunkResult,
    StagingError,
    batch_end_of,
    batch_span,
    gather_events,
    write_batch_sides,
    write_newest_rows,
)
from materialize.backfill._staging import shards_of
from materialize.definitions import BatchView, DefinitionError, FeatureField, JoinKey, StreamView
from materialize.events import Columns, columns_from_table
from materialize.kernel import read_windows
from materialize.online import (
    KeyEncoder,
    RowFolder,
    RowWriter,
    decode_batch_row,
    decode_stream_row,
    events_by_row,
)
from tests.kernel.oracle import OracleEvent, oracle_values
from tests.kernel.test_kernel_against_oracle import HOUR_MS, SPEC, START_MS, assert_equal, histories

STEP_MS = SPEC.batch_step_ms
END_MS = START_MS // STEP_MS * STEP_MS
SHARDS = 3
FIELDS = tuple(FeatureField(s.feature, "DOUBLE") for s in SPEC.aggregations)
ENTITIES = pa.array([b"a", b"b", b"", b"a long key of more than sixteen bytes", b"\xff\x00"])

SHARDS_OF_ENTITIES = [719, 615, 138, 712, 319]


def view_by(*keys: JoinKey, transform: Callable[[Columns], Columns] | None = None) -> StreamView:
    return StreamView(SPEC.name, keys, FIELDS, SPEC, "events", "event_time", 0, transform)


VIEW = view_by(JoinKey("who", "STRING"))
FOLDER = RowFolder(VIEW)

Event = tuple[Any, OracleEvent]
"""An entity, or None, and what it did."""


@pytest.fixture
def writer(redis_url: str) -> Iterator[RowWriter]:
    with redis.Redis.from_url(redis_url) as client:
        yield RowWriter(client)


def event(name: str, time_ms: int, amount: float | None = 1.0, ip: str | None = "x") -> OracleEvent:
    return OracleEvent(name, time_ms, {"amount": amount, "ip": ip})


def table_of(events: Sequence[Event], who: pa.DataType | None = None) -> pa.Table:
    entities = [entity for entity, _ in events]
    return pa.table(
        {
            "event_id": pa.array([one.event_id for _, one in events], pa.string()),
            "event_time": pa.array([one.time_ms for _, one in events], pa.timestamp("ms", "UTC")),
            "who": pa.array(entities, who or pa.string()),
            "amount": pa.array([one.columns["amount"] for _, one in events], pa.float64()),
            "ip": pa.array([one.columns["ip"] for _, one in events], pa.string()),
        }
    )


def source_of(directory: Path, table: pa.Table) -> FileSource:
    path = directory / "events.parquet"
    pq.write_table(table, path)
    return FileSource(name="events", path=str(path), timestamp_field="event_time")


def backfill(
    writer: RowWriter,
    source: FileSource,
    project: str,
    directory: Path,
    cuts: Sequence[int] = (),
    view: StreamView = VIEW,
    end_ms: int = END_MS,
) -> tuple[int, list[ChunkResult]]:
    """All chunks, cut at these times, and all shards; the batch end and what became of each shard."""
    start_ms, until_ms = batch_span(view, end_ms)
    edges = sorted({start_ms, until_ms, *(cut for cut in cuts if start_ms < cut < until_ms)})
    folders = [directory / "staged" / str(a) for a, _ in pairwise(edges)]
    gathered = [
        gather_events(view, source, None, a, b, SHARDS, folder)
        for (a, b), folder in zip(pairwise(edges), folders, strict=True)
    ]
    newest_ms = max((one.newest_ms for one in gathered if one.newest_ms is not None), default=None)
    batch_end_ms = batch_end_of(view, end_ms, newest_ms)
    return batch_end_ms, [
        write_batch_sides(view, project, folders, shard, batch_end_ms, writer, lambda *_: None)
        for shard in range(SHARDS)
    ]


def stored_rows(writer: RowWriter, project: str) -> dict[bytes, bytes]:
    client = writer._client
    keys = list(client.scan_iter(f"{project}:{SPEC.name}:*", count=1_000))
    return dict(zip(keys, client.mget(keys), strict=True)) if keys else {}


def key_of(project: str, *entity: object, view: StreamView = VIEW) -> bytes:
    return KeyEncoder(project, view.name, view.join_keys).key(entity)


def assert_holds(data: bytes, events: Sequence[OracleEvent], as_of_ms: int) -> None:
    read = read_windows(SPEC, decode_stream_row(SPEC, data).state, as_of_ms)
    assert_equal(read.values, read.found, oracle_values(SPEC, events, as_of_ms))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    histories(),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 8 * 24 * HOUR_MS), max_size=4),
    st.integers(0, 30 * HOUR_MS),
)
def test_however_history_is_cut_the_rows_are_the_oracles(
    tmp_path: Path,
    writer: RowWriter,
    redis_namespace: str,
    events: list[OracleEvent],
    chance: random.Random,
    cuts: list[int],
    ago_ms: int,
) -> None:
    project = f"{redis_namespace}_{uuid.uuid4().hex}"
    placed: list[Event] = [(chance.choice(["a", "b", "ü", None]), one) for one in events]
    delivered = placed + chance.sample(placed, len(placed) // 4)  # some twice, at the same or another time
    moved = [(who, replace(one, time_ms=one.time_ms - chance.choice([0, HOUR_MS]))) for who, one in delivered]
    chance.shuffle(moved)
    source = source_of(tmp_path, table_of(moved))
    end_ms = END_MS - ago_ms
    batch_end_ms, shards = backfill(writer, source, project, tmp_path, [START_MS - cut for cut in cuts], end_ms=end_ms)
    start_ms, _ = batch_span(VIEW, end_ms)
    read = [(who, one) for who, one in moved if start_ms <= one.time_ms < batch_end_ms]
    of = {who: [one for name, one in read if name == who] for who in {who for who, _ in read} - {None}}
    rows = stored_rows(writer, project)
    assert set(rows) == {key_of(project, who) for who in of}
    assert sum(one.rows for one in shards) == sum(one.verified for one in shards) == len(of)
    assert sum(one.size_bytes for one in shards) == sum(map(len, rows.values()))
    for who, its in of.items():
        assert_holds(rows[key_of(project, who)], its, batch_end_ms - 1)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories(), st.randoms(use_true_random=False), st.integers(0, 40))
def test_rows_are_what_the_stream_would_have_written_and_keep_what_it_wrote(
    tmp_path: Path,
    writer: RowWriter,
    redis_namespace: str,
    events: list[OracleEvent],
    chance: random.Random,
    hours: int,
) -> None:
    streamed, both = (f"{redis_namespace}_{uuid.uuid4().hex}" for _ in range(2))
    placed: list[Event] = [(chance.choice("ab"), one) for one in events]
    since_ms = min(START_MS - hours * HOUR_MS, END_MS)  # a stream that began later would leave a gap after the history
    live = [(who, one) for who, one in placed if one.time_ms >= since_ms]
    stream(writer, streamed, placed)
    stream(writer, both, live)
    history = [(who, one) for who, one in placed if one.time_ms < END_MS - hours * HOUR_MS + 2 * HOUR_MS]
    backfill(writer, source_of(tmp_path, table_of(history)), both, tmp_path)
    all_rows, rows = stored_rows(writer, streamed), stored_rows(writer, both)
    for who in "ab":
        of_stream, of_both = (
            project_rows.get(key_of(project, who)) for project, project_rows in ((streamed, all_rows), (both, rows))
        )
        assert (of_stream is None) <= (of_both is None)
        if of_both is not None:
            assert_holds(of_both, [one for name, one in placed if name == who], START_MS)


def stream(writer: RowWriter, project: str, events: Sequence[Event]) -> None:
    if events:
        seen = VIEW.events(columns_from_table(table_of(events)))
        count = len(seen.rows)
        by_row = events_by_row(
            KeyEncoder(project, VIEW.name, VIEW.join_keys), seen, np.zeros(count, np.int64), np.arange(count)
        )
        writer.fold_events(VIEW, FOLDER, by_row)


def test_an_event_in_two_chunks_counts_once_at_its_earliest_time(
    tmp_path: Path, writer: RowWriter, redis_namespace: str
) -> None:
    first, again = event("e", END_MS - 5 * HOUR_MS, 1.0), event("e", END_MS - HOUR_MS - 1, 10.0)
    source = source_of(tmp_path, table_of([("a", again), ("a", first)]))
    backfill(writer, source, redis_namespace, tmp_path, [END_MS - 3 * HOUR_MS])
    assert_holds(stored_rows(writer, redis_namespace)[key_of(redis_namespace, "a")], [first], END_MS - 1)


def test_rows_without_a_key_are_counted_and_what_no_window_reaches_is_not_read(tmp_path: Path) -> None:
    start_ms, until_ms = batch_span(VIEW, END_MS)
    source = source_of(
        tmp_path,
        table_of([(None, event("n", END_MS - 1)), ("a", event("late", start_ms)), ("a", event("old", start_ms - 1))]),
    )
    gathered = gather_events(VIEW, source, None, start_ms, until_ms, SHARDS, tmp_path / "staged")
    assert (gathered.events, gathered.skipped, gathered.newest_ms) == (2, 1, END_MS - 1)
    assert len(gathered.shard_bytes) == SHARDS


def test_a_span_without_events_leaves_the_rows_alone_and_the_batch_end_where_it_was_asked_for(
    tmp_path: Path, writer: RowWriter, redis_namespace: str
) -> None:
    source = source_of(tmp_path, table_of([("a", event("e", END_MS + 1))]))
    batch_end_ms, shards = backfill(writer, source, redis_namespace, tmp_path)
    assert batch_end_ms == END_MS
    assert all((one.rows, one.verified, one.events) == (0, 0, 0) for one in shards)
    assert stored_rows(writer, redis_namespace) == {}


def test_done_again_nothing_changes_and_a_later_batch_end_stays(
    tmp_path: Path, writer: RowWriter, redis_namespace: str
) -> None:
    events = [("ab"[i % 2], event(f"e{i}", END_MS - 1 - i * HOUR_MS)) for i in range(80)]
    source = source_of(tmp_path, table_of(events))

    def held() -> dict[bytes, bytes]:
        return {key: data[24:] for key, data in stored_rows(writer, redis_namespace).items()}

    backfill(writer, source, redis_namespace, tmp_path)
    once = held()
    backfill(writer, source, redis_namespace, tmp_path, [END_MS - 20 * HOUR_MS])
    assert held() == once
    _, shards = backfill(writer, source, redis_namespace, tmp_path, end_ms=END_MS - 5 * STEP_MS)
    assert held() == once
    assert [sum(one.rows for one in shards), sum(one.verified for one in shards)] == [0, 2]


class Meddled(redis.Redis):
    """A client between whose read and write somebody else is faster, once."""

    meddle: Callable[[], None] | None = None

    def mget(self, *args: Any, **kwargs: Any) -> Any:
        found = super().mget(*args, **kwargs)
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle()
        return found


def test_a_row_that_the_stream_changes_in_between_is_read_again(
    tmp_path: Path, writer: RowWriter, redis_url: str, redis_namespace: str
) -> None:
    past, live = event("past", END_MS - HOUR_MS), event("live", END_MS + 1)
    source = source_of(tmp_path, table_of([("a", past), ("b", past)]))
    with Meddled.from_url(redis_url) as client:
        client.meddle = lambda: stream(writer, redis_namespace, [("a", live), ("b", live)])
        slow = RowWriter(client)
        _, shards = backfill(slow, source, redis_namespace, tmp_path)
    assert slow.counts.conflicts >= 1
    assert sum(one.rows for one in shards) == 2
    for who in "ab":
        data = stored_rows(writer, redis_namespace)[key_of(redis_namespace, who)]
        assert decode_stream_row(SPEC, data).applied == {0: "ab".index(who)}
        assert_holds(data, [past, live], END_MS + 1)


@pytest.mark.parametrize(
    ("keys", "kind", "entities", "as_keys"),
    [
        ((JoinKey("who", "INT64"),), pa.int64(), [2**60, 2**60 + 1, -7], [(2**60,), (2**60 + 1,), (-7,)]),
        ((JoinKey("who", "INT64"),), pa.int64(), [7, None, 8], [(7,), (8,)]),
        ((JoinKey("who", "BYTES"),), pa.binary(), [b"\x00\xff", b""], [(b"\x00\xff",), (b"",)]),
        (
            (JoinKey("ip", "STRING"), JoinKey("who", "INT64")),
            pa.int64(),
            [7, 7, 8],
            [("x", 7), ("y", 7), ("x", 8)],
        ),
        (
            (JoinKey("ip", "STRING"), JoinKey("who", "STRING")),
            pa.string(),
            ["a", "a", "xa"],
            [("x", "a"), ("y", "a"), ("x", "xa")],
        ),
    ],
)
def test_keys_of_every_kind_and_of_several_parts(
    tmp_path: Path,
    writer: RowWriter,
    redis_namespace: str,
    keys: tuple[JoinKey, ...],
    kind: pa.DataType,
    entities: list[Any],
    as_keys: list[tuple[object, ...]],
) -> None:
    view = view_by(*keys)
    ips = ["x", "y", "x"]
    events = [(who, event(f"e{i}", END_MS - 1 - i, ip=ips[i])) for i, who in enumerate(entities)]
    source = source_of(tmp_path, table_of(events, kind))
    backfill(writer, source, redis_namespace, tmp_path, [END_MS - 2], view)
    assert set(stored_rows(writer, redis_namespace)) == {key_of(redis_namespace, *key, view=view) for key in as_keys}


def test_shards_are_the_same_in_every_process() -> None:
    program = (
        "import json, pyarrow as pa; from materialize.backfill._staging import shards_of; "
        f"print(json.dumps(shards_of(pa.array({ENTITIES.to_pylist()!r}, pa.binary()), 1000).tolist()))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    told = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True).stdout
    elsewhere = json.loads(told)
    assert shards_of(ENTITIES, 1000).tolist() == elsewhere == SHARDS_OF_ENTITIES


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def zeroed(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    at = whole.index(np.int64(END_MS - 1).tobytes())
    whole[at : at + 8] = bytes(8)
    path.write_bytes(whole)


def of_another_shard(path: Path) -> None:
    other = next(one for one in sorted(path.parent.iterdir()) if one != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("spoil", [cut_off, zeroed, of_another_shard, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_staged_file_that_is_not_what_was_staged_is_refused(
    tmp_path: Path, writer: RowWriter, redis_namespace: str, spoil: Callable[[Path], None]
) -> None:
    source = source_of(tmp_path, table_of([("a", event("e", END_MS - 1))]))
    folder = tmp_path / "staged"
    gather_events(VIEW, source, None, *batch_span(VIEW, END_MS), SHARDS, folder)
    [shard] = shards_of(pa.array([KeyEncoder("", SPEC.name, VIEW.join_keys).entity(["a"])]), SHARDS).tolist()
    spoil(folder / f"{shard:05d}.arrow")
    with pytest.raises(StagingError, match="gather"):
        write_batch_sides(VIEW, redis_namespace, [folder], shard, END_MS, writer, lambda *_: None)
    assert stored_rows(writer, redis_namespace) == {}


def test_chunks_of_another_view_or_of_another_number_of_shards_are_refused(
    tmp_path: Path, writer: RowWriter, redis_namespace: str
) -> None:
    source = source_of(tmp_path, table_of([("a", event("e", END_MS - 1))]))
    folders = [tmp_path / "three", tmp_path / "four", tmp_path / "other"]
    other = replace(VIEW, spec=replace(SPEC, meaning="another"))
    for folder, view, shards in zip(folders, (VIEW, VIEW, other), (3, 4, 3), strict=True):
        gather_events(view, source, None, *batch_span(VIEW, END_MS), shards, folder)
    for mixed in (folders[:2], folders[2:]):
        with pytest.raises(StagingError, match="gather"):
            write_batch_sides(VIEW, redis_namespace, mixed, 0, END_MS, writer, lambda *_: None)


def test_a_gather_that_fails_leaves_nothing_and_one_that_is_repeated_replaces(tmp_path: Path) -> None:
    def fail(_: Columns) -> Columns:
        raise ZeroDivisionError

    source = source_of(tmp_path, table_of([("a", event("e", END_MS - 1))]))
    place = tmp_path / "staging" / "chunk"
    with pytest.raises(DefinitionError):
        gather_events(replace(VIEW, transform=fail), source, None, *batch_span(VIEW, END_MS), SHARDS, place)
    assert not place.exists()
    once = gather_events(VIEW, source, None, *batch_span(VIEW, END_MS), SHARDS, place)
    held = {path.name: path.read_bytes() for path in place.iterdir()}
    assert gather_events(VIEW, source, None, *batch_span(VIEW, END_MS), SHARDS, place) == once
    assert {path.name: path.read_bytes() for path in place.iterdir()} == held
    assert list(place.parent.iterdir()) == [place]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 9), st.none() | st.floats(-9, 9)), max_size=25
    ),
    st.lists(st.integers(1, 9), max_size=3),
    st.randoms(use_true_random=False),
)
def test_chunks_of_a_batch_view_in_any_order_leave_the_newest_rows(
    tmp_path: Path,
    writer: RowWriter,
    redis_namespace: str,
    rows: list[tuple[str | None, int, float | None]],
    cuts: list[int],
    chance: random.Random,
) -> None:
    project = f"{redis_namespace}_{uuid.uuid4().hex}"
    view = BatchView("profile", (JoinKey("who", "STRING"),), (FeatureField("score", "DOUBLE"),), 5, 0)
    table = pa.table(
        {
            "who": pa.array([who for who, *_ in rows], pa.string()),
            "event_time": pa.array([START_MS + time for _, time, _ in rows], pa.timestamp("ms", "UTC")),
            "created": pa.array([START_MS + i for i in range(len(rows))], pa.timestamp("ms", "UTC")),
            "score": pa.array([score for *_, score in rows], pa.float64()),
        }
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    source = FileSource(name="rows", path=str(path), timestamp_field="event_time", created_timestamp_column="created")
    chunks = list(pairwise(sorted({0, 10, *cuts})))
    chance.shuffle(chunks)
    done = [
        write_newest_rows(view, source, None, project, writer, START_MS + a, START_MS + b, lambda *_: None)
        for a, b in [*chunks, *chunks[:1]]
    ]
    newest = {who: (time, i, score) for i, (who, time, score) in sorted(enumerate(rows), key=lambda r: (r[1][1], r[0]))}
    newest.pop(None, None)
    assert sum(one.events for one in done[:-1]) == len(rows)
    assert sum(one.skipped for one in done[:-1]) == sum(who is None for who, *_ in rows)
    for who, (time, i, score) in newest.items():
        data = writer._client.get(KeyEncoder(project, view.name, view.join_keys).key([who]))
        row = decode_batch_row(view, data)
        assert (row.event_time_ms, row.created_ms, row.values) == (START_MS + time, START_MS + i, (score,))
