"""While a changed definition is deployed, workers of the old and of the new one never mix in a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from threading import Event as ThreadEvent

import pytest

from materialize.definitions import StreamView
from materialize.kernel import AggregationSpec, ViewSpec, Window, read_windows
from materialize.online import RowWriter, decode_stream_row
from materialize.stream import DefinitionsSupersededError, EventLogConsumer, RedisLogSettings
from materialize.stream.in_force import DefinitionsInForce
from materialize.stream.worker import StreamWorker
from tests.support.streaming import Bench, open_bench, run_until
from tests.support.views import NOW_MS, key, stream_view
from tests.support.world import publish

HOUR_MS = 3_600_000
GROUP = "workers"


def clicks_in(hours: int) -> StreamView:
    """A view that counts the events of an ip in so many hours."""
    aggregation = AggregationSpec("clicks", "event_id", "count", Window.of(hours * HOUR_MS))
    return stream_view(ViewSpec("traffic", (aggregation,)))


OLD, NEW = clicks_in(1), clicks_in(24)


@pytest.fixture
def bench(redis_url: str, redis_namespace: str) -> Iterator[Bench]:
    with open_bench(RedisLogSettings(url=redis_url, prefix=redis_namespace), redis_url, redis_namespace) as opened:
        opened.log.ensure_topics(["ad_events"], partitions=1)
        yield opened


def in_force(bench: Bench, view: StreamView, as_of_ms: int) -> DefinitionsInForce:
    return DefinitionsInForce(bench.client, bench.project, [view], as_of_ms)


def started(bench: Bench, view: StreamView, as_of_ms: int) -> DefinitionsInForce:
    ours = in_force(bench, view, as_of_ms)
    ours.take()
    return ours


def send(bench: Bench, numbers: Sequence[int]) -> None:
    lines = [
        json.dumps(
            {
                "event_id": f"e{number}",
                "event_time": NOW_MS - number,
                "event_type": "click",
                "advertiser_id": "a",
                "creator_id": "c",
                "device_id": "d",
                "ip": "i",
                "amount_usd": 0.0,
            }
        ).encode()
        for number in numbers
    ]
    publish(bench.log, "ad_events", lines, ["i"] * len(lines))


def worker(bench: Bench, consumer: EventLogConsumer, view: StreamView, definitions: DefinitionsInForce) -> StreamWorker:
    writer, letters = RowWriter(bench.client), bench.dead_letters
    return StreamWorker(bench.project, [view], consumer, writer, letters, lambda: NOW_MS, in_force=definitions)


def clicks(bench: Bench, view: StreamView) -> int:
    """What a read with this definition finds; a row of another one is an error."""
    row = decode_stream_row(view.spec, bench.client.get(key(bench.project, view, "i")))
    return int(read_windows(view.spec, row.state, NOW_MS).values[0])


def test_the_later_registry_wins_whichever_worker_starts_first(bench: Bench) -> None:
    old = started(bench, OLD, 1_000)
    new = started(bench, NEW, 2_000)
    new.check()
    with pytest.raises(DefinitionsSupersededError, match="--take-over"):
        old.check()
    with pytest.raises(DefinitionsSupersededError):
        old.take()
    with pytest.raises(DefinitionsSupersededError):
        in_force(bench, OLD, 2_000).take()


def test_the_same_definitions_of_another_registry_are_no_conflict(bench: Bench) -> None:
    first, second = started(bench, OLD, 1_000), started(bench, OLD, 500)
    first.check()
    second.check()
    in_force(bench, NEW, 1_001).take()
    with pytest.raises(DefinitionsSupersededError):
        second.check()


def test_a_rollback_takes_over_by_force_or_with_a_registry_that_was_applied_again(bench: Bench) -> None:
    new = started(bench, NEW, 2_000)
    old = in_force(bench, OLD, 1_000)
    old.take(by_force=True)
    old.check()
    with pytest.raises(DefinitionsSupersededError):
        new.check()
    started(bench, NEW, 3_000).check()
    started(bench, OLD, 4_000).check()


def test_a_note_that_was_lost_is_written_again_by_whoever_works(bench: Bench) -> None:
    ours = started(bench, OLD, 1_000)
    bench.client.delete(f"{bench.project}:definitions")
    ours.check()
    assert bench.client.exists(f"{bench.project}:definitions")


def test_an_old_worker_stops_without_commit_and_the_new_one_does_what_it_left(bench: Bench) -> None:
    send(bench, range(10))
    with closing(bench.log.consumer(["ad_events"], GROUP)) as consumer:
        old = worker(bench, consumer, OLD, started(bench, OLD, 1_000))
        run_until(old, lambda: old.counts.records == 10)
        send(bench, range(10, 15))
        replacement = started(bench, NEW, 2_000)
        with pytest.raises(DefinitionsSupersededError):
            run_until(old, lambda: False)
    with closing(bench.log.consumer(["ad_events"], GROUP)) as consumer:
        new = worker(bench, consumer, NEW, replacement)
        run_until(new, lambda: new.counts.records == 5)
    assert clicks(bench, NEW) == 5  # a changed view begins anew; its history is a backfill's to give


def test_an_old_worker_never_writes_over_a_row_of_the_definitions_in_force(bench: Bench) -> None:
    before = started(bench, OLD, 1_000)
    send(bench, range(10))
    with closing(bench.log.consumer(["ad_events"], GROUP)) as consumer:
        new = worker(bench, consumer, NEW, started(bench, NEW, 2_000))
        run_until(new, lambda: new.counts.records == 10)
    stored = bench.client.get(key(bench.project, NEW, "i"))
    with closing(bench.log.consumer(["ad_events"], "others")) as consumer:
        old = worker(bench, consumer, OLD, before)
        with pytest.raises(DefinitionsSupersededError):
            run_until(old, lambda: False)
    assert bench.client.get(key(bench.project, NEW, "i")) == stored


def test_a_worker_whose_definitions_are_not_in_force_ends_before_it_reads_anything(bench: Bench) -> None:
    started(bench, NEW, 2_000)
    send(bench, range(3))
    with closing(bench.log.consumer(["ad_events"], GROUP)) as consumer:
        old = worker(bench, consumer, OLD, in_force(bench, OLD, 1_000))
        with pytest.raises(DefinitionsSupersededError):
            old.run(ThreadEvent())
        assert old.counts.records == 0
    assert not bench.client.exists(key(bench.project, OLD, "i"))


def test_rows_of_an_old_definition_are_started_anew_by_the_one_in_force(bench: Bench) -> None:
    with closing(bench.log.consumer(["ad_events"], GROUP)) as consumer:
        old = worker(bench, consumer, OLD, started(bench, OLD, 1_000))
        send(bench, range(10))
        run_until(old, lambda: old.counts.records == 10)
    assert clicks(bench, OLD) == 10
    with closing(bench.log.consumer(["ad_events"], "from-the-beginning")) as consumer:
        new = worker(bench, consumer, NEW, started(bench, NEW, 2_000))
        run_until(new, lambda: new.counts.records == 10)
    assert clicks(bench, NEW) == 10
