"""One value, three ways to it: our reader, Feast's online call, and point-in-time history at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from materialize.online import FeatureStatus, FeatureVector, ReadPlan, open_reader
from tests.support.world import DAY_MS, HOUR_MS, SETTINGS, World

SERVICES = ("ad_click_risk", "advertiser_risk")
END_MS = SETTINGS.end_ms
MOMENTS = (
    END_MS,
    END_MS + 4 * 60_000 + 1,
    END_MS + 59 * 60_000,
    END_MS + 25 * HOUR_MS,
    END_MS + 7 * DAY_MS + 30 * 60_000,
    END_MS + 9 * DAY_MS,
)
Actor = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Values float64[actors, features] with NaN for none, and which of them there are."""

    names: list[str]
    values: np.ndarray[Any, np.dtype[np.float64]]
    statuses: np.ndarray[Any, np.dtype[np.int64]]


@pytest.fixture
def clock(served: World) -> Iterator[Callable[[int], None]]:
    """Sets the clock of Feast's online store."""
    store = served.store._get_provider().online_store
    real = store.now_ms

    def set_ms(now_ms: int) -> None:
        store.now_ms = lambda: now_ms

    yield set_ms
    store.now_ms = real


def actors_of(world: World, service: str, count: int) -> list[Actor]:
    """Actors as events of the last days bring them together, some of them unknown in one key or in all."""
    rng = np.random.default_rng(5)
    if service == "ad_click_risk":
        keys = ["ip", "device_id", "creator_id", "advertiser_id"]
        frame = world.everything.ad_events.select([*keys, "amount_usd", "ms_since_impression"]).to_pandas()
    else:
        keys = ["advertiser_id", "device_id", "ip"]
        events = world.everything.account_events.to_pandas()
        frame = events[events.actor_type == "advertiser"].rename(columns={"actor_id": "advertiser_id"})[keys]
    known = frame.iloc[np.unique(rng.integers(0, len(frame), count))]
    actors = known.astype(object).where(known.notna(), None).to_dict("records")
    for position, key in enumerate([*keys, "all"]):
        unknown = dict(actors[position])
        unknown.update({name: f"nobody-{position}" for name in keys if key in (name, "all")})
        actors.append(unknown)
    return actors


def read_all(
    world: World, service: str, actors: Sequence[Actor], as_of_ms: int
) -> tuple[ReadPlan, list[FeatureVector]]:
    async def read() -> tuple[ReadPlan, list[FeatureVector]]:
        reader = open_reader(world.redis_url, world.repo_path, world.registry_path, timeout_s=10)
        plan = reader.plan(service)
        vectors = [await reader.read(plan, actor, as_of_ms, request=actor) for actor in actors]
        await reader.close()
        return plan, vectors

    return asyncio.run(read())


def through_our_reader(world: World, service: str, actors: Sequence[Actor], as_of_ms: int) -> Answer:
    plan, vectors = read_all(world, service, actors, as_of_ms)
    assert not any(vector.counts.on_demand_failed or vector.counts.rows_refused for vector in vectors)
    return Answer(
        [name.partition(":")[2] for name in plan.features],
        np.array([vector.values for vector in vectors]),
        np.array([vector.statuses for vector in vectors], dtype=np.int64),
    )


def through_feast(world: World, service: str, actors: Sequence[Actor]) -> Answer:
    store = world.store
    proto = store.get_online_features(store.get_feature_service(service), list(actors)).proto
    results = dict(zip(proto.metadata.feature_names.val, proto.results, strict=True))
    names = list(kinds_of(world, service))
    return Answer(
        names,
        np.array([[number(value) for value in results[name].values] for name in names]).T,
        np.array([list(results[name].statuses) for name in names]).T,
    )


def number(proto: Any) -> float:
    which = proto.WhichOneof("val")
    return float("nan") if which in (None, "null_val") else float(getattr(proto, which))


def through_history(world: World, service: str, actors: Sequence[Actor], as_of_ms: int) -> Answer:
    frame = pd.DataFrame(actors)
    frame["event_timestamp"] = pd.to_datetime(as_of_ms, unit="ms", utc=True)
    found = world.store.get_historical_features(frame, world.store.get_feature_service(service)).to_df()
    names = list(kinds_of(world, service))
    values = found[names].to_numpy(dtype=np.float64)
    return Answer(names, values, np.where(np.isnan(values), 0, int(FeatureStatus.PRESENT)))


def kinds_of(world: World, service: str) -> dict[str, str]:
    projections = world.store.get_feature_service(service).feature_view_projections
    return {field.name: str(field.dtype) for projection in projections for field in projection.features}


def assert_same(left: Answer, right: Answer, integers: Sequence[str]) -> None:
    assert sorted(left.names) == sorted(right.names)
    for name in left.names:
        ours = left.values[:, left.names.index(name)]
        theirs = right.values[:, right.names.index(name)]
        if name in integers:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("as_of_ms", MOMENTS)
def test_online_values_equal_history_at_the_same_moment(
    served: World, clock: Callable[[int], None], service: str, as_of_ms: int
) -> None:
    clock(as_of_ms)
    actors = actors_of(served, service, 220 if as_of_ms == END_MS else 30)
    integers = [name for name, kind in kinds_of(served, service).items() if kind == "Int64"]
    ours = through_our_reader(served, service, actors, as_of_ms)
    feast = through_feast(served, service, actors)
    history = through_history(served, service, actors, as_of_ms)
    assert len(ours.names) >= 40
    assert_same(ours, feast, integers)
    assert_same(ours, history, integers)
    present, on_demand = int(FeatureStatus.PRESENT), on_demand_fields(served)
    for position, name in enumerate(ours.names):
        is_there = ours.statuses[:, position] == present
        np.testing.assert_array_equal(is_there, ~np.isnan(ours.values[:, position]), err_msg=name)
        if name not in on_demand:
            theirs = feast.statuses[:, feast.names.index(name)]
            np.testing.assert_array_equal(ours.statuses[:, position], theirs, err_msg=name)


def on_demand_fields(world: World) -> set[str]:
    """Feast calls every on-demand value PRESENT; ours are NULL where there is none."""
    return {field.name for view in world.store.list_on_demand_feature_views() for field in view.features}


@pytest.mark.parametrize("service", SERVICES)
def test_an_unknown_actor_is_not_found_and_never_zero(served: World, service: str) -> None:
    *_, nobody = actors_of(served, service, 10)
    answer = through_our_reader(served, service, [nobody], END_MS)
    request_only = {"click_seconds_since_impression"}
    on_demand = on_demand_fields(served)
    stored = [name not in on_demand for name in answer.names]
    assert set(answer.statuses[0][stored]) == {int(FeatureStatus.NOT_FOUND)}
    there = [name for name, value in zip(answer.names, answer.values[0], strict=True) if not np.isnan(value)]
    assert set(there) <= request_only


@pytest.mark.parametrize("service", SERVICES)
def test_counts_fall_as_time_passes_without_events_until_every_window_is_empty(served: World, service: str) -> None:
    actors = actors_of(served, service, 24)
    on_demand = on_demand_fields(served)
    integers = {name for name, kind in kinds_of(served, service).items() if kind == "Int64"}
    counted = {name for name in integers - on_demand if name.endswith(("_5m", "_1h", "_24h", "_7d"))}
    last: np.ndarray[Any, Any] | None = None
    totals = []
    for as_of_ms in MOMENTS:
        answer = through_our_reader(served, service, actors, as_of_ms)
        values = np.nan_to_num(answer.values[:, [name in counted for name in answer.names]])
        assert last is None or (values <= last).all()
        last = values
        totals.append(values.sum())
    assert totals[0] >= totals[1] > totals[3] > totals[-1] == 0


def test_feasts_answer_carries_the_time_of_the_newest_event_included(
    served: World, clock: Callable[[int], None]
) -> None:
    clock(END_MS + HOUR_MS)
    events = served.everything.ad_events.to_pandas()
    ip = events.ip.iloc[-1]
    newest_ms = int(events[events.ip == ip].event_time.max().timestamp() * 1000)
    proto = served.store.get_online_features(["ip_ad_stats:ip_clicks_7d"], [{"ip": ip}]).proto
    result = dict(zip(proto.metadata.feature_names.val, proto.results, strict=True))["ip_clicks_7d"]
    assert result.event_timestamps[0].ToMilliseconds() == newest_ms


def test_one_feast_call_may_ask_for_an_actor_twice_and_for_actors_in_any_order(
    served: World, clock: Callable[[int], None]
) -> None:
    clock(END_MS)
    actors = actors_of(served, "ad_click_risk", 12)
    mixed = [actors[3], actors[0], actors[3], actors[-1], actors[1], actors[0]]
    together = through_feast(served, "ad_click_risk", mixed)
    for position, actor in enumerate(mixed):
        alone = through_feast(served, "ad_click_risk", [actor])
        np.testing.assert_array_equal(together.values[position], alone.values[0])
