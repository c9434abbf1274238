"""What a simulated world holds, seen from outside."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actor_risk.simulate import InvalidSettingsError, Simulation, SimulationSettings, moved, simulate, split

EVENT_TABLES = ("ad_events", "account_events")
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


def tables(simulation: Simulation) -> dict[str, pa.Table]:
    return {field.name: getattr(simulation, field.name) for field in fields(simulation)}


def milliseconds(table: pa.Table, column: str = "event_time") -> np.ndarray[Any, Any]:
    return np.asarray(table.column(column).cast(pa.int64()).to_numpy())


def values(table: pa.Table, column: str) -> np.ndarray[Any, Any]:
    return np.asarray(table.column(column).to_numpy())


def test_equal_settings_give_equal_tables(small: Simulation, small_settings: SimulationSettings) -> None:
    assert tables(simulate(small_settings)) == tables(small)


def test_another_seed_gives_another_world(small: Simulation, small_settings: SimulationSettings) -> None:
    other = simulate(replace(small_settings, seed=8))
    assert not other.ad_events.equals(small.ad_events)
    assert not set(other.ad_events["event_id"].to_pylist()) & set(small.ad_events["event_id"].to_pylist())


def test_a_moved_world_is_the_same_world_at_another_time(small: Simulation) -> None:
    later = moved(small, DAY_MS + 1)
    for name, table in tables(small).items():
        for column in table.schema:
            before, after = table.column(column.name), getattr(later, name).column(column.name)
            if pa.types.is_timestamp(column.type):
                assert (after.cast(pa.int64()).to_numpy() - before.cast(pa.int64()).to_numpy() == DAY_MS + 1).all()
            else:
                assert after.equals(before)
    assert tables(moved(later, -DAY_MS - 1)) == tables(small)


def test_every_table_is_sorted_by_event_time(small: Simulation) -> None:
    for table in tables(small).values():
        assert (np.diff(milliseconds(table)) >= 0).all()


def test_events_lie_in_the_span_and_reach_the_log_after_they_happen(
    small: Simulation, small_settings: SimulationSettings
) -> None:
    for name in EVENT_TABLES:
        table = getattr(small, name)
        time_ms = milliseconds(table)
        assert time_ms.min() >= small_settings.start_ms
        assert time_ms.max() < small_settings.end_ms
        delay_ms = milliseconds(table, "created") - time_ms
        assert delay_ms.min() > 0
        assert 200 < np.median(delay_ms) < 1_000
        assert delay_ms.max() <= 20_000


def test_event_ids_are_unique_over_both_streams(small: Simulation) -> None:
    ids = small.ad_events["event_id"].to_pylist() + small.account_events["event_id"].to_pylist()
    assert len(set(ids)) == len(ids)


def test_the_streams_have_about_the_size_asked_for(small: Simulation) -> None:
    assert small.ad_events.num_rows == pytest.approx(40_000, rel=0.1)
    assert small.account_events.num_rows == pytest.approx(15_000, rel=0.1)


def test_labels_stand_in_tables_of_their_own(small: Simulation) -> None:
    for name in EVENT_TABLES:
        assert "label" not in getattr(small, name).column_names
    assert set(values(small.ad_click_labels, "label")) == {0, 1}
    assert set(values(small.advertiser_labels, "label")) == {0, 1}


def test_every_click_and_nothing_else_has_a_click_label(small: Simulation) -> None:
    clicks = small.ad_events.filter(pa.compute.equal(small.ad_events["event_type"], "click"))
    context = small.ad_click_labels.drop_columns(["label"])
    assert context.equals(clicks.select(context.column_names))


def test_an_advertiser_is_judged_at_one_of_its_own_events(small: Simulation) -> None:
    columns = ["event_time", "actor_id", "ip", "device_id"]
    events = set(zip(*(small.account_events[name].to_pylist() for name in columns), strict=True))
    judged = [small.advertiser_labels[name].to_pylist() for name in ("event_time", "advertiser_id", "ip", "device_id")]
    assert set(zip(*judged, strict=True)) <= events


def test_abuse_has_the_share_asked_for(small: Simulation) -> None:
    assert 0.07 < values(small.ad_click_labels, "label").mean() < 0.2
    assert 0.07 < values(small.advertiser_labels, "label").mean() < 0.3


def test_without_abuse_only_the_label_noise_is_left(small_settings: SimulationSettings) -> None:
    calm = simulate(replace(small_settings, invalid_click_share=0.0, abusive_advertiser_share=0.0))
    assert values(calm.ad_click_labels, "label").mean() == pytest.approx(0.01, abs=0.005)
    assert values(calm.advertiser_labels, "label").mean() == pytest.approx(0.01, abs=0.006)
    exact = simulate(replace(small_settings, abusive_advertiser_share=0.0, label_noise=0.0))
    assert values(exact.advertiser_labels, "label").sum() == 0


def test_injected_clicks_follow_their_impression_at_once_and_often_convert(small: Simulation) -> None:
    labels = small.ad_click_labels
    invalid = values(labels, "label") == 1
    at_once = values(labels, "ms_since_impression") < 200
    assert 0.1 < at_once[invalid].mean() < 0.4
    assert 0.005 < at_once[~invalid].mean() < 0.1  # accidents


def test_farms_click_again_and_again_with_one_device_on_one_creator(small: Simulation) -> None:
    labels = small.ad_click_labels
    invalid = values(labels, "label") == 1
    farmed = values(labels, "ms_since_impression") > 1_000  # injected clicks come sooner

    def clicks_per_pair(rows: np.ndarray[Any, Any]) -> float:
        pairs = zip(values(labels, "creator_id")[rows], values(labels, "device_id")[rows], strict=True)
        return float(rows.sum() / len(set(pairs)))

    assert clicks_per_pair(invalid & farmed) > 1.5 * clicks_per_pair(~invalid & farmed)


def test_chargebacks_and_shared_signups_gather_at_abusive_advertisers(small: Simulation) -> None:
    flagged = small.advertiser_labels.filter(pa.compute.equal(small.advertiser_labels["label"], 1))
    often = pa.compute.value_counts(flagged["advertiser_id"]).to_pylist()
    abusive = {count["values"] for count in often if count["counts"] > 2}
    events = small.account_events.filter(pa.compute.equal(small.account_events["actor_type"], "advertiser"))
    charged = events.filter(pa.compute.equal(events["event_type"], "chargeback"))["actor_id"].to_pylist()
    assert sum(actor in abusive for actor in charged) > len(charged) / 3
    assert any(actor not in abusive for actor in charged)
    signups = events.filter(pa.compute.equal(events["event_type"], "signup"))["device_id"].to_pylist()
    assert max(signups.count(device) for device in signups) >= 3


def test_an_honest_advertiser_may_have_many_failed_payments(small: Simulation) -> None:
    flagged = small.advertiser_labels.filter(pa.compute.equal(small.advertiser_labels["label"], 1))
    honest_failures = small.account_events.filter(
        pa.compute.and_(
            pa.compute.equal(small.account_events["event_type"], "payment_failed"),
            pa.compute.invert(pa.compute.is_in(small.account_events["actor_id"], flagged["advertiser_id"].unique())),
        )
    )
    counts = pa.compute.value_counts(honest_failures["actor_id"]).field("counts")
    assert pa.compute.max(counts).as_py() >= 6


def test_day_has_more_traffic_than_night(small: Simulation) -> None:
    hour = milliseconds(small.ad_events) % DAY_MS // HOUR_MS
    assert (np.isin(hour, (17, 18, 19, 20))).sum() > 2 * (np.isin(hour, (5, 6, 7, 8))).sum()


def test_nobody_acts_before_signing_up(small: Simulation) -> None:
    events = small.account_events
    time_ms, actors, kinds = milliseconds(events), values(events, "actor_id"), values(events, "event_type")
    joined = dict(zip(actors[kinds == "signup"], time_ms[kinds == "signup"], strict=True))
    first: dict[str, int] = {}
    for actor, at_ms in zip(actors, time_ms, strict=True):
        first.setdefault(actor, at_ms)
    assert all(first[actor] >= at_ms for actor, at_ms in joined.items())
    clicked: dict[str, int] = {}
    for advertiser, at_ms in zip(values(small.ad_events, "advertiser_id"), milliseconds(small.ad_events), strict=True):
        clicked.setdefault(advertiser, at_ms)
    assert all(clicked[actor] >= joined[actor] for actor in clicked.keys() & joined.keys())


PROFILES = {
    "advertiser_profiles": "advertiser_id",
    "creator_profiles": "creator_id",
    "ip_profiles": "ip",
    "device_profiles": "device_id",
}


@pytest.mark.parametrize(("name", "key"), PROFILES.items())
def test_profiles_are_one_row_per_actor_and_midnight_written_soon_after(
    small: Simulation, small_settings: SimulationSettings, name: str, key: str
) -> None:
    table = getattr(small, name)
    time_ms = milliseconds(table)
    assert (time_ms % DAY_MS == 0).all()
    assert time_ms.min() <= small_settings.start_ms
    assert (milliseconds(table, "created") > time_ms).all()
    rows = list(zip(time_ms, values(table, key), strict=True))
    assert len(set(rows)) == len(rows)
    assert all(column.null_count == 0 for column in table.columns)


@pytest.mark.parametrize(("name", "key"), PROFILES.items())
def test_some_actors_of_the_stream_have_no_profile(small: Simulation, name: str, key: str) -> None:
    seen = set(small.ad_events[key].to_pylist())
    known = set(getattr(small, name)[key].to_pylist())
    assert 0 < len(seen - known) < 0.3 * len(seen)


def test_lifetime_spend_counts_only_what_was_paid_before_the_midnight(small: Simulation) -> None:
    paid = small.account_events.filter(pa.compute.equal(small.account_events["event_type"], "payment"))
    profiles = small.advertiser_profiles
    advertiser = values(paid, "actor_id")[0]
    mine = profiles.filter(pa.compute.equal(profiles["advertiser_id"], advertiser))
    spend, midnight = values(mine, "lifetime_spend_usd"), milliseconds(mine)
    own = values(paid, "actor_id") == advertiser
    for day in range(1, len(spend)):
        within = own & (milliseconds(paid) >= midnight[day - 1]) & (milliseconds(paid) < midnight[day])
        assert spend[day] - spend[day - 1] == pytest.approx(values(paid, "amount_usd")[within].sum(), abs=0.011)


@given(share=st.floats(-0.1, 1.1))
@settings(max_examples=20, deadline=None)
def test_a_split_is_a_partition_by_time(small: Simulation, small_settings: SimulationSettings, share: float) -> None:
    at_ms = int(small_settings.start_ms + share * (small_settings.end_ms - small_settings.start_ms))
    history, live = split(small, at_ms)
    for name, whole in tables(small).items():
        before, after = getattr(history, name), getattr(live, name)
        assert pa.concat_tables([before, after]).equals(whole)
        assert (milliseconds(before) < at_ms).all()
        assert (milliseconds(after) >= at_ms).all()


def test_a_world_of_one_hour_can_be_simulated(small_settings: SimulationSettings) -> None:
    hour = simulate(replace(small_settings, end_ms=small_settings.start_ms + HOUR_MS))
    assert hour.ad_events.num_rows > 100
    assert hour.advertiser_labels.num_rows > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", -1), ("end_ms", 0), ("advertisers", 1), ("ips", 10), ("invalid_click_share", 0.9), ("label_noise", -0.1)],
)
def test_settings_that_make_no_world_are_refused_by_name(
    small_settings: SimulationSettings, name: str, value: float
) -> None:
    with pytest.raises(InvalidSettingsError, match=name):
        replace(small_settings, **{name: value})
