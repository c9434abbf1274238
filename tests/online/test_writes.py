"""Writes are atomic on the server: the newer batch row wins, and no update of a stream row is lost."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from actor_risk.local import Valkey
from materialize.kernel import fold_events, read_windows
from materialize.online import (
    BatchRow,
    OnlineStoreUnavailableError,
    RowWriter,
    StreamRow,
    WriteConflictError,
    decode_batch_row,
    decode_stream_row,
)
from tests.support.views import NOW_MS, SPEC, batch_view, block, key, stream_view

COUNT_7D = [spec.feature for spec in SPEC.aggregations].index("count_604800000")
VIEW = stream_view()


def adding(*ids: str, time_ms: int = NOW_MS) -> Callable[[StreamRow], StreamRow]:
    """A change that folds events of these identities into the row."""
    events = block([(event_id, time_ms, 1.0, "a") for event_id in ids])

    def change(stored: StreamRow) -> StreamRow:
        return StreamRow(fold_events(SPEC, stored.state, events)[0], stored.version, stored.applied)

    return change


def stored_row(client: redis.Redis, row_key: bytes) -> StreamRow:
    return decode_stream_row(SPEC, client.get(row_key))


def count(row: StreamRow) -> float:
    return float(read_windows(SPEC, row.state, NOW_MS).values[COUNT_7D])


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_newest_batch_row_wins_in_any_order_of_writes(
    redis_url: str, redis_namespace: str, order: Sequence[int]
) -> None:
    view = batch_view(["DOUBLE"])
    versions = [BatchRow(*at, (float(i),)) for i, at in enumerate([(10, 50), (20, 10), (20, 30), (5, 99)])]
    row_key = key(redis_namespace, view, "10.0.0.1")
    with redis.Redis.from_url(redis_url) as client:
        for position in order:
            RowWriter(client).write_batch_rows(view, [(row_key, versions[position])])
        assert decode_batch_row(view, client.get(row_key)) == versions[2]


def test_threads_that_write_one_batch_row_leave_the_newest(redis_url: str, redis_namespace: str) -> None:
    view = batch_view(["INT64"])
    row_key = key(redis_namespace, view, "10.0.0.1")

    def write(first: int) -> None:
        with redis.Redis.from_url(redis_url) as client:
            for version in range(first, 400, 4):
                RowWriter(client).write_batch_rows(view, [(row_key, BatchRow(version, 0, (version,)))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with redis.Redis.from_url(redis_url) as client:
        assert decode_batch_row(view, client.get(row_key)).values == (399,)


def test_a_batch_row_of_another_definition_gives_way_to_an_older_event(redis_url: str, redis_namespace: str) -> None:
    before, after = batch_view(["DOUBLE"], fingerprint=1), batch_view(["DOUBLE"], fingerprint=2)
    row_key = key(redis_namespace, before, "e")
    with redis.Redis.from_url(redis_url) as client:
        writer = RowWriter(client)
        writer.write_batch_rows(before, [(row_key, BatchRow(100, 0, (1.0,)))])
        assert writer.write_batch_rows(after, [(row_key, BatchRow(50, 0, (2.0,)))]) == 1
        assert decode_batch_row(after, client.get(row_key)).values == (2.0,)


def test_a_writer_says_how_many_rows_it_wrote_and_how_many_were_older(redis_url: str, redis_namespace: str) -> None:
    view = batch_view(["DOUBLE"])
    with redis.Redis.from_url(redis_url) as client:
        writer = RowWriter(client)
        rows = [(key(redis_namespace, view, f"e{i}"), BatchRow(100, 0, (1.0,))) for i in range(1_200)]
        assert writer.write_batch_rows(view, rows) == 1_200
        older = [(row_key, BatchRow(99, 0, (2.0,))) for row_key, _ in rows]
        assert writer.write_batch_rows(view, older) == 0
        assert (writer.counts.written, writer.counts.unchanged) == (1_200, 1_200)


@pytest.fixture(scope="module")
def server_without_msetex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As a Redis before 8.4 and a Valkey before 9.1."""
    with Valkey(tmp_path_factory.mktemp("older"), config=['rename-command MSETEX ""']) as server:
        yield server.url


@pytest.fixture(params=["with MSETEX", "without it"])
def any_server(request: pytest.FixtureRequest) -> str:
    name = "redis_url" if request.param == "with MSETEX" else "server_without_msetex"
    return str(request.getfixturevalue(name))


@pytest.mark.parametrize("stored_share", [0, 5, 60, 95])
def test_among_rows_that_are_new_the_newest_of_each_stays(
    any_server: str, redis_namespace: str, stored_share: int
) -> None:
    view = batch_view(["INT64"], ttl_ms=3_600_000)
    keys = [key(redis_namespace, view, f"e{i}") for i in range(1_500)]
    known = {i: 50 if i % 2 else 150 for i in range(len(keys)) if i % 100 < stored_share}
    with redis.Redis.from_url(any_server) as client:
        writer = RowWriter(client)
        writer.write_batch_rows(view, [(keys[i], BatchRow(at, 0, (at,))) for i, at in known.items()])
        for _ in range(2):
            written = writer.write_batch_rows(view, [(row_key, BatchRow(100, 0, (100,))) for row_key in keys])
            assert written == sum(known.get(i, 0) < 100 for i in range(len(keys)))
        newest = [decode_batch_row(view, row).values[0] for row in client.mget(keys)]
        assert newest == [max(known.get(i, 0), 100) for i in range(len(keys))]
        assert min(client.pttl(row_key) for row_key in keys[::100]) > 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_of_several_rows_of_one_key_in_one_write_the_newest_stays(
    any_server: str, redis_namespace: str, order: Sequence[int]
) -> None:
    view = batch_view(["INT64"])
    row_key, other = key(redis_namespace, view, "e"), key(redis_namespace, view, "f")
    rows = [(row_key, BatchRow(at, 0, (at,))) for at in order]
    with redis.Redis.from_url(any_server) as client:
        RowWriter(client).write_batch_rows(view, [(other, BatchRow(1, 0, (1,))), *rows])
        assert decode_batch_row(view, client.get(row_key)).values == (2,)


def test_threads_that_write_the_same_new_rows_leave_the_newest_of_each(any_server: str, redis_namespace: str) -> None:
    view = batch_view(["INT64"])
    keys = [key(redis_namespace, view, f"e{i}") for i in range(1_000)]

    def write(thread: int) -> None:
        with redis.Redis.from_url(any_server) as client:
            rows = [(row_key, BatchRow((i + thread) % 4, 0, ((i + thread) % 4,))) for i, row_key in enumerate(keys)]
            RowWriter(client).write_batch_rows(view, rows)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with redis.Redis.from_url(any_server) as client:
        assert {decode_batch_row(view, row).values for row in client.mget(keys)} == {(3,)}


def test_rows_live_as_long_as_their_views_say(redis_url: str, redis_namespace: str) -> None:
    for_ever, for_an_hour = batch_view(["DOUBLE"]), batch_view(["DOUBLE"], "brief", ttl_ms=3_600_000)
    with redis.Redis.from_url(redis_url) as client:
        writer = RowWriter(client)
        for view in (for_ever, for_an_hour):
            writer.write_batch_rows(view, [(key(redis_namespace, view, "e"), BatchRow(1, 0, (1.0,)))])
        writer.update_stream_rows(VIEW, {key(redis_namespace, VIEW, "e"): adding("1")})
        assert client.pttl(key(redis_namespace, for_ever, "e")) == -1
        assert 0 < client.pttl(key(redis_namespace, for_an_hour, "e")) <= 3_600_000
        assert client.pttl(key(redis_namespace, VIEW, "e")) > SPEC.reach_ms


def test_threads_that_fold_into_one_row_lose_nothing(redis_url: str, redis_namespace: str) -> None:
    row_key = key(redis_namespace, VIEW, "10.0.0.1")

    def fold(thread: int) -> int:
        with redis.Redis.from_url(redis_url) as client:
            writer = RowWriter(client)
            for event in range(40):
                repeat_on_conflict(writer, {row_key: adding(f"{thread}-{event}", time_ms=NOW_MS - event * 60_000)})
            return writer.counts.conflicts

    with ThreadPoolExecutor(5) as pool:
        conflicts = sum(pool.map(fold, range(5)))
    with redis.Redis.from_url(redis_url) as client:
        assert count(stored_row(client, row_key)) == 200
    assert conflicts > 0


def repeat_on_conflict(writer: RowWriter, changes: dict[bytes, Callable[[StreamRow], StreamRow]]) -> None:
    for _ in range(100):
        try:
            return writer.update_stream_rows(VIEW, changes)
        except WriteConflictError:
            continue
    raise AssertionError("the row never stood still")


def test_a_row_that_never_stands_still_is_given_up_with_an_error_that_says_so(
    redis_url: str, redis_namespace: str
) -> None:
    row_key = key(redis_namespace, VIEW, "e")
    with redis.Redis.from_url(redis_url) as client:
        other = RowWriter(client)
        numbers = itertools.count()

        def overtaken(stored: StreamRow) -> StreamRow:
            other.update_stream_rows(VIEW, {row_key: adding(f"other-{next(numbers)}")})
            return adding("mine")(stored)

        with pytest.raises(WriteConflictError, match="kept changing"):
            RowWriter(client).update_stream_rows(VIEW, {row_key: overtaken})


def test_a_row_that_is_gone_and_there_again_is_not_taken_for_the_one_that_was_read(
    redis_url: str, redis_namespace: str
) -> None:
    row_key = key(redis_namespace, VIEW, "e")
    with redis.Redis.from_url(redis_url) as client:
        writer = RowWriter(client)
        writer.update_stream_rows(VIEW, {row_key: adding("first")})
        has_happened = False

        def change(stored: StreamRow) -> StreamRow:
            nonlocal has_happened
            if not has_happened:
                has_happened = True
                client.delete(row_key)
                RowWriter(client).update_stream_rows(VIEW, {row_key: adding("second")})
            return adding("third")(stored)

        writer.update_stream_rows(VIEW, {row_key: change})
        assert count(stored_row(client, row_key)) == 2
        assert writer.counts.conflicts == 1


@pytest.mark.parametrize("garbage", [b"", b"x", b"AR\x01\x02 too short", b"x" * 500])
def test_what_is_no_row_is_replaced_and_counted(redis_url: str, redis_namespace: str, garbage: bytes) -> None:
    row_key = key(redis_namespace, VIEW, "e")
    with redis.Redis.from_url(redis_url) as client:
        client.set(row_key, garbage)
        writer = RowWriter(client)
        writer.update_stream_rows(VIEW, {row_key: adding("1")})
        assert count(stored_row(client, row_key)) == 1
        assert sum(writer.counts.refused.values()) == 1


def test_a_change_that_wants_nothing_writes_nothing(redis_url: str, redis_namespace: str) -> None:
    row_key = key(redis_namespace, VIEW, "e")
    with redis.Redis.from_url(redis_url) as client:
        writer = RowWriter(client)
        writer.update_stream_rows(VIEW, {row_key: lambda _: None})
        assert client.get(row_key) is None
        assert writer.counts.unchanged == 1


def test_without_redis_a_write_fails_and_says_so() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
        with redis.Redis.from_url(url, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            with pytest.raises(OnlineStoreUnavailableError, match="Redis"):
                RowWriter(client).write_batch_rows(batch_view([]), [(b"k", BatchRow(0, 0, ()))])
            with pytest.raises(OnlineStoreUnavailableError, match="Redis"):
                RowWriter(client).update_stream_rows(VIEW, {b"k": adding("1")})


def test_a_server_that_forgot_the_scripts_is_told_them_again(redis_url: str, redis_namespace: str) -> None:
    view = batch_view(["INT64"])
    with redis.Redis.from_url(redis_url) as client:
        writer = RowWriter(client)
        for value in (1, 2):
            client.script_flush()
            row = BatchRow(NOW_MS + value, 0, (value,))
            assert writer.write_batch_rows(view, [(key(redis_namespace, view, "a"), row)]) == 1
            writer.update_stream_rows(VIEW, {key(redis_namespace, VIEW, "a"): adding(f"e{value}")})
        assert decode_batch_row(view, client.get(key(redis_namespace, view, "a"))).values == (2,)
        assert count(stored_row(client, key(redis_namespace, VIEW, "a"))) == 2


def test_each_of_many_rows_in_one_call_is_compared_with_its_own(redis_url: str, redis_namespace: str) -> None:
    view = batch_view(["INT64", "STRING"])
    keys = [key(redis_namespace, view, f"10.0.0.{i}") for i in range(1_000)]

    def rows(time_ms: int, value: int, of: range) -> list[tuple[bytes, BatchRow]]:
        return [(keys[i], BatchRow(time_ms, 0, (value, "x" * (i % 700)))) for i in of]

    with redis.Redis.from_url(redis_url) as client:
        writer = RowWriter(client)
        assert writer.write_batch_rows(view, rows(NOW_MS, 1, range(0, 1_000, 3))) == 334
        assert writer.write_batch_rows(view, rows(NOW_MS - 1, 2, range(1_000))) == 666
        stored = [decode_batch_row(view, data).values[0] for data in client.mget(keys)]
    assert stored == [1 if i % 3 == 0 else 2 for i in range(1_000)]
