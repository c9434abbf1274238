"""The event that comes with a request counts once, whether the worker has folded it already or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import numpy as np
import pytest
import redis
import redis.asyncio

from materialize.definitions import compile_service
from materialize.events import AccountEvent, AdEvent, Event
from materialize.kernel import HEAD_MAX
from materialize.online import (
    FeatureMatrix,
    FeatureReader,
    FeatureStatus,
    FeatureVector,
    ReadPlan,
    RowWriter,
    compile_plan,
    topic_of,
)
from materialize.stream import DeadLetters, RedisLogSettings, open_event_log
from materialize.stream.worker import StreamWorker
from tests.support.world import SETTINGS, TOPICS, World, drain, publish

NOW_MS = SETTINGS.end_ms
Fold = Callable[[list[Event]], None]


def click(event_id: str, time_ms: int = NOW_MS - 1_000, **changed: object) -> AdEvent:
    fields: dict[str, object] = {
        "event_id": event_id,
        "event_time": time_ms,
        "event_type": "click",
        "advertiser_id": "a",
        "creator_id": "c",
        "ip": "i",
        "device_id": "d",
        "amount_usd": 0.5,
        "ms_since_impression": 200,
    }
    return AdEvent(**{**fields, **changed})  # type: ignore[arg-type]


def payment(event_id: str, time_ms: int = NOW_MS - 1_000) -> AccountEvent:
    return AccountEvent(
        event_id=event_id,
        event_time=time_ms,
        event_type="payment",
        actor_type="advertiser",
        actor_id="a",
        ip="i",
        device_id="d",
        country="FR",
        amount_usd=20.0,
    )


@pytest.fixture
def fold(world: World, redis_url: str, redis_namespace: str) -> Iterator[Fold]:
    """Publishes events and runs the worker over them, into rows of this test alone."""
    with (
        closing(open_event_log(RedisLogSettings(url=redis_url, prefix=redis_namespace))) as log,
        redis.Redis.from_url(redis_url) as client,
    ):
        log.ensure_topics(TOPICS)
        with closing(log.consumer(TOPICS, "workers")) as consumer:
            worker = StreamWorker(
                redis_namespace, world.views(), consumer, RowWriter(client), DeadLetters(log), lambda: NOW_MS
            )

            def run(events: list[Event]) -> None:
                wanted = worker.counts.records + len(events)
                for event in events:
                    publish(log, topic_of(event), [msgspec.json.encode(event)], ["k"])
                drain(worker, wanted)

            yield run


def read(
    world: World, project: str, service: str, event: Event | None, as_of_ms: int = NOW_MS
) -> tuple[ReadPlan, FeatureVector]:
    """The vector of the actor in all of this module's events, from the rows of `project`."""

    async def once() -> tuple[ReadPlan, FeatureVector]:
        client = redis.asyncio.Redis.from_url(world.redis_url)
        reader = FeatureReader(client, world.store)
        definition = compile_service(world.store.get_feature_service(service), world.store.registry, world.project)
        plan = compile_plan(project, definition)
        entities = {"advertiser_id": "a", "creator_id": "c", "ip": "i", "device_id": "d"}
        request = {"amount_usd": 0.5, "ms_since_impression": 200}
        vector = await reader.read(plan, entities, as_of_ms, event=event, request=request)
        await reader.close()
        return plan, vector

    return asyncio.run(once())


def test_without_the_store_features_are_those_of_an_actor_of_whom_nothing_is_stored(
    world: World, redis_namespace: str
) -> None:
    event = click("first")
    plan, read_vector = read(world, redis_namespace, "ad_click_risk", event)
    reader = FeatureReader(redis.asyncio.Redis.from_url("redis://127.0.0.1:1"), world.store)
    request = {"amount_usd": 0.5, "ms_since_impression": 200}
    unread = reader.unread(
        plan,
        {"advertiser_id": "a", "creator_id": "c", "ip": "i", "device_id": "d"},
        NOW_MS,
        event=event,
        request=request,
    ).vector(0)
    np.testing.assert_array_equal(unread.values, read_vector.values)
    np.testing.assert_array_equal(unread.statuses, read_vector.statuses)
    np.testing.assert_array_equal(unread.ages_ms, read_vector.ages_ms)
    assert unread.counts == read_vector.counts


def feature(plan: ReadPlan, vector: FeatureVector, name: str) -> float:
    return float(vector.values[[ref.partition(":")[2] for ref in plan.features].index(name)])


@pytest.mark.parametrize(
    ("service", "earlier", "scored"),
    [
        ("ad_click_risk", [click(f"before-{i}", NOW_MS - 60_000 * i) for i in range(1, 45)], click("scored")),
        ("advertiser_risk", [payment(f"before-{i}", NOW_MS - 60_000 * i) for i in range(1, 45)], payment("scored")),
        ("ad_click_risk", [], click("scored")),
    ],
)
def test_the_scored_event_counts_once_before_and_after_the_worker_has_it(
    world: World, redis_namespace: str, fold: Fold, service: str, earlier: list[Event], scored: Event
) -> None:
    fold(earlier)
    _, before = read(world, redis_namespace, service, scored)
    fold([scored])
    _, with_event = read(world, redis_namespace, service, scored)
    plan, without_event = read(world, redis_namespace, service, None)
    np.testing.assert_allclose(before.values, without_event.values, rtol=1e-9)
    np.testing.assert_allclose(with_event.values, without_event.values, rtol=1e-9)
    np.testing.assert_array_equal(before.statuses, without_event.statuses)
    if service == "ad_click_risk":
        assert feature(plan, before, "ip_clicks_24h") == len(earlier) + 1
        assert feature(plan, before, "ip_clicks_5m") == sum(e.event_time >= NOW_MS - 300_000 for e in earlier) + 1


def test_the_first_event_of_an_unknown_actor_is_in_its_own_score(world: World, redis_namespace: str) -> None:
    plan, vector = read(world, redis_namespace, "ad_click_risk", click("first"))
    assert feature(plan, vector, "ip_clicks_5m") == 1
    assert feature(plan, vector, "creator_earned_usd_1h") == 0.5
    places = [i for i, ref in enumerate(plan.features) if ref.startswith("ip_profile:")]
    assert set(vector.statuses[places]) == {FeatureStatus.NOT_FOUND}


def test_an_event_of_other_actors_changes_only_the_rows_that_it_is_about(world: World, redis_namespace: str) -> None:
    plan, vector = read(world, redis_namespace, "ad_click_risk", click("e", ip="another", device_id="another"))
    assert np.isnan(feature(plan, vector, "ip_clicks_5m"))
    assert np.isnan(feature(plan, vector, "device_clicks_5m"))
    assert feature(plan, vector, "creator_clicks_5m") == 1


def test_requests_that_are_read_together_are_those_read_alone(world: World, redis_namespace: str, fold: Fold) -> None:
    """Some share actors, some ask as of another time, some bring an event, one of another topic."""
    fold([click(f"before-{i}", NOW_MS - 60_000 * i, ip="i" if i % 3 else "j") for i in range(1, 30)])
    names = [("i", "d"), ("j", "d"), ("i", "d"), ("i", "x"), ("j", "d"), ("i", "d")]
    entities = [{"advertiser_id": "a", "creator_id": "c", "ip": ip, "device_id": device} for ip, device in names]
    requests = [{"amount_usd": 0.5 * n, "ms_since_impression": 200} for n in range(len(names))]
    times = [NOW_MS, NOW_MS, NOW_MS - 600_000, NOW_MS, NOW_MS - 600_000, NOW_MS]
    events: dict[int, Event] = {0: click("mine"), 1: click("other", ip="j"), 2: click("late"), 5: payment("paid")}

    async def both() -> tuple[FeatureMatrix, list[FeatureVector]]:
        reader = FeatureReader(redis.asyncio.Redis.from_url(world.redis_url), world.store)
        service = world.store.get_feature_service("ad_click_risk")
        plan = compile_plan(redis_namespace, compile_service(service, world.store.registry, world.project))
        together = await reader.read_many(plan, entities, times, requests, events)
        alone = [
            await reader.read(plan, entities[n], times[n], event=events.get(n), request=requests[n])
            for n in range(len(names))
        ]
        await reader.close()
        return together, alone

    together, alone = asyncio.run(both())
    assert len({vector.values.tobytes() for vector in alone}) == len(names)
    for n, vector in enumerate(alone):
        found = together.vector(n)
        np.testing.assert_array_equal(found.values, vector.values)
        np.testing.assert_array_equal(found.statuses, vector.statuses)
        np.testing.assert_array_equal(found.ages_ms, vector.ages_ms)
        assert found.counts == vector.counts


def test_an_event_after_the_as_of_time_is_not_counted(world: World, redis_namespace: str) -> None:
    plan, vector = read(world, redis_namespace, "ad_click_risk", click("e", NOW_MS + 1))
    assert np.isnan(feature(plan, vector, "ip_clicks_5m"))


def test_a_scored_event_is_known_again_among_the_rows_newest_events(
    world: World, redis_namespace: str, fold: Fold
) -> None:
    scored = click("scored", NOW_MS - 30_000)
    fold([scored, *(click(f"after-{i}", NOW_MS - 20_000 + i) for i in range(HEAD_MAX - 1))])
    plan, vector = read(world, redis_namespace, "ad_click_risk", scored)
    assert feature(plan, vector, "ip_clicks_5m") == HEAD_MAX
