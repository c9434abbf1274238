"""Sudden abuse by chosen actors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from actor_risk.simulate import (
    InvalidSettingsError,
    Simulation,
    SimulationSettings,
    click_farm_burst,
    json_lines,
    quiet_honest_actors,
    split,
    stolen_card_burst,
)
from materialize.events import decode_event

START_MS = 1_763_596_800_000
TEN_MINUTES_MS = 600_000


def farm(seed: int = 3) -> pa.Table:
    return click_farm_burst(
        seed, START_MS, TEN_MINUTES_MS, 200, "advertiser-1", "creator-2", ["ip-1", "ip-2"], ["device-5", "device-6"]
    )


def cards(seed: int = 3) -> pa.Table:
    ips = [f"ip-{n}" for n in range(12)]
    return stolen_card_burst(seed, START_MS, 4 * TEN_MINUTES_MS, 40, "advertiser-1", ips, ["device-9"])


@pytest.mark.parametrize(("burst", "topic"), [(farm, "ad_events"), (cards, "account_events")])
def test_a_burst_is_repeatable_sorted_inside_its_time_and_valid(
    burst: Callable[..., pa.Table], topic: str, small: Simulation
) -> None:
    table = burst()
    assert table.equals(burst())
    assert not table.equals(burst(seed=4))
    assert table.schema.equals(getattr(small, topic).schema)
    time_ms = table["event_time"].cast(pa.int64()).to_numpy()
    assert (np.diff(time_ms) >= 0).all()
    assert START_MS <= time_ms[0] <= time_ms[-1] < START_MS + 4 * TEN_MINUTES_MS
    ids = [decode_event(topic, line, now_ms=START_MS + 10**8).event_id for line in json_lines(table, topic)]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & set(getattr(small, topic)["event_id"].to_pylist())


def test_a_click_farm_burst_is_many_clicks_from_few_places_on_one_creator() -> None:
    table = farm()
    assert table["event_type"].to_pylist().count("click") > 180
    assert set(table["creator_id"].to_pylist()) == {"creator-2"}
    assert set(table["advertiser_id"].to_pylist()) == {"advertiser-1"}
    assert set(table["ip"].to_pylist()) == {"ip-1", "ip-2"}
    assert set(table["device_id"].to_pylist()) == {"device-5", "device-6"}


def test_a_stolen_card_burst_is_payments_and_failures_from_many_countries() -> None:
    table = cards()
    kinds = table["event_type"].to_pylist()
    assert kinds.count("payment") + kinds.count("payment_failed") == 40
    assert min(kinds.count("payment"), kinds.count("payment_failed")) > 3
    assert len(set(table["country"].to_pylist())) > 3
    assert set(table["actor_type"].to_pylist()) == {"advertiser"}


def test_a_place_has_the_country_and_os_in_a_burst_that_it_has_in_history(small: Simulation) -> None:
    row = small.ad_events.slice(100, 1).to_pylist()[0]
    burst = click_farm_burst(1, START_MS, 1_000, 5, "advertiser-1", "creator-1", [row["ip"]], [row["device_id"]])
    assert set(burst["country"].to_pylist()) == {row["country"]}
    assert set(burst["os"].to_pylist()) == {row["os"]}


def test_a_burst_from_nowhere_or_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="at least one ip"):
        click_farm_burst(1, START_MS, 1_000, 5, "advertiser-1", "creator-1", [], ["device-1"])
    with pytest.raises(InvalidSettingsError, match="1 or more"):
        stolen_card_burst(1, START_MS, 1_000, 0, "advertiser-1", ["ip-1"], ["device-1"])


def test_quiet_honest_actors_have_a_past_no_bad_label_and_little_present(
    small: Simulation, small_settings: SimulationSettings
) -> None:
    history, _ = split(small, small_settings.end_ms - 43_200_000)
    quiet = quiet_honest_actors(history, 5)
    assert quiet == quiet_honest_actors(history, 5)
    chosen = {
        "creator_id": quiet.creator_ids,
        "ip": quiet.ips,
        "device_id": quiet.device_ids,
    }
    last_day = history.ad_events["event_time"][-1].as_py().timestamp() * 1000 - 86_400_000
    time_ms = history.ad_events["event_time"].cast(pa.int64())
    recent = history.ad_events.filter(pa.compute.greater(time_ms, int(last_day)))
    accused = history.ad_click_labels.filter(pa.compute.equal(history.ad_click_labels["label"], 1))
    abusive = history.advertiser_labels.filter(pa.compute.equal(history.advertiser_labels["label"], 1))
    assert not set(quiet.advertiser_ids) & set(abusive["advertiser_id"].to_pylist())
    assert set(quiet.advertiser_ids) <= set(history.account_events["actor_id"].to_pylist())
    assert len(set(quiet.advertiser_ids)) == 5
    for key, names in chosen.items():
        assert len(set(names)) == 5
        assert not set(names) & set(accused[key].to_pylist())
        past = history.ad_events[key].to_pylist() + history.account_events.to_pydict().get(key, [])
        assert set(names) <= set(past)
        counts = [recent[key].to_pylist().count(name) for name in names]
        assert max(counts) <= np.median([entry["counts"] for entry in recent[key].value_counts().to_pylist()])


def test_there_are_no_quiet_actors_without_events(small: Simulation) -> None:
    empty, _ = split(small, 0)
    assert quiet_honest_actors(empty, 3).advertiser_ids == ()
