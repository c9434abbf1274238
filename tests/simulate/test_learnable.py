"""The truth can be learnt from windowed counts, but not read off."""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from actor_risk.simulate import (
    Simulation,
    SimulationSettings,
    click_farm_burst,
    quiet_honest_actors,
    stolen_card_burst,
)

HOUR_MS = 3_600_000
WINDOWS_MS = (HOUR_MS // 12, HOUR_MS, 24 * HOUR_MS, 168 * HOUR_MS)
Floats = npt.NDArray[np.float64]


def milliseconds(table: pa.Table) -> np.ndarray[Any, Any]:
    return np.asarray(table["event_time"].cast(pa.int64()).to_numpy())


def trailing_counts(events: pa.Table, event_key: str, labels: pa.Table, label_key: str) -> list[Floats]:
    """For each label, how many events of the same key lie in each window up to its instant."""
    both = pa.chunked_array([*events[event_key].chunks, *labels[label_key].chunks]).combine_chunks()
    codes = both.dictionary_encode().indices.to_numpy().astype(np.int64)
    start_ms = min(milliseconds(events)[0], milliseconds(labels)[0])
    place = codes << 40
    history = np.sort(place[: len(events)] + milliseconds(events) - start_ms)
    head = place[len(events) :] + milliseconds(labels) - start_ms
    tails = [np.maximum(head - window, place[len(events) :]) for window in WINDOWS_MS]
    upto = np.searchsorted(history, head, side="right")
    return [(upto - np.searchsorted(history, tail)).astype(np.float64) for tail in tails]


def first_meetings(events: pa.Table, key: str, other: str) -> pa.Table:
    """The first event of each pair: their trailing count is how many new ones of `other` the key has met."""
    pairs = pa.compute.binary_join_element_wise(events[key], events[other], "|").combine_chunks()
    codes = pairs.dictionary_encode().indices.to_numpy()
    return events.take(pa.array(np.sort(np.unique(codes, return_index=True)[1])))


def features(events: pa.Table, keys: dict[str, str], labels: pa.Table) -> Floats:
    columns: list[Floats] = []
    for kind in events["event_type"].unique().to_pylist():
        of_kind = events.filter(pa.compute.equal(events["event_type"], kind))
        for event_key, label_key in keys.items():
            columns += trailing_counts(of_kind, event_key, labels, label_key)
    for event_key, label_key in keys.items():
        for other in sorted(keys.keys() - {event_key}):
            columns += trailing_counts(first_meetings(events, event_key, other), event_key, labels, label_key)
    return np.stack(columns, axis=1)


def fit(x: Floats, y: np.ndarray[Any, Any]) -> lgb.Booster:
    parameters = {"objective": "binary", "learning_rate": 0.08, "num_leaves": 15, "num_threads": 1, "seed": 1}
    return lgb.train({**parameters, "verbose": -1}, lgb.Dataset(x, y), num_boost_round=80)


def held_out_auc(x: Floats, labels: pa.Table) -> float:
    """ROC AUC on the last 30 % of the labels' time, of a model of the first 70 %."""
    y = labels["label"].to_numpy()
    train = milliseconds(labels) < np.quantile(milliseconds(labels), 0.7)
    return float(roc_auc_score(y[~train], fit(x[train], y[train]).predict(x[~train])))


AD_KEYS = {key: key for key in ("ip", "device_id", "creator_id", "advertiser_id")}
ACCOUNT_KEYS = {"actor_id": "advertiser_id", "ip": "ip", "device_id": "device_id"}


def click_features(events: pa.Table, clicks: pa.Table) -> Floats:
    raw = [clicks["ms_since_impression"].to_numpy(), clicks["amount_usd"].to_numpy()]
    return np.column_stack([features(events, AD_KEYS, clicks), *raw])


def test_invalid_clicks_are_learnt_well_but_not_perfectly(small: Simulation) -> None:
    labels = small.ad_click_labels
    assert 0.85 <= held_out_auc(click_features(small.ad_events, labels), labels) <= 0.99


def test_abusive_advertisers_are_learnt_well_but_not_perfectly(small: Simulation) -> None:
    labels = small.advertiser_labels
    assert 0.85 <= held_out_auc(features(small.account_events, ACCOUNT_KEYS, labels), labels) <= 0.99


def test_a_model_of_the_history_sees_a_click_farm_burst_of_quiet_actors_rise(
    small: Simulation, small_settings: SimulationSettings
) -> None:
    quiet = quiet_honest_actors(small, 8)
    where = (quiet.advertiser_ids[0], quiet.creator_ids[0], quiet.ips[:2], quiet.device_ids)
    burst = click_farm_burst(5, small_settings.end_ms, HOUR_MS // 4, 150, *where)
    clicks = burst.filter(pa.compute.equal(burst["event_type"], "click"))
    model = fit(click_features(small.ad_events, small.ad_click_labels), small.ad_click_labels["label"].to_numpy())
    scores = model.predict(click_features(pa.concat_tables([small.ad_events, burst]), clicks))
    assert scores[0] < 0.5
    assert np.median(scores[-50:]) > 0.8


def test_a_model_of_the_history_sees_a_stolen_card_burst_of_a_quiet_advertiser_rise(
    small: Simulation, small_settings: SimulationSettings
) -> None:
    quiet = quiet_honest_actors(small, 10)
    advertiser = quiet.advertiser_ids[0]
    labels = small.advertiser_labels
    model = fit(features(small.account_events, ACCOUNT_KEYS, labels), labels["label"].to_numpy())
    own = small.account_events.filter(pa.compute.equal(small.account_events["actor_id"], advertiser))
    burst = stolen_card_burst(5, small_settings.end_ms, HOUR_MS, 40, advertiser, quiet.ips, quiet.device_ids[:2])
    moments = pa.concat_tables([own, burst])
    events = pa.concat_tables([small.account_events, burst])
    scores = model.predict(features(events, {"actor_id": "actor_id", "ip": "ip", "device_id": "device_id"}, moments))
    assert scores[len(own) - 1] < 0.5
    assert np.median(scores[-10:]) > 0.7


@pytest.mark.parametrize("name", ["ad_click_labels", "advertiser_labels"])
def test_no_single_column_gives_the_label_away(small: Simulation, name: str) -> None:
    labels = getattr(small, name)
    y = labels["label"].to_numpy()
    for column in set(labels.column_names) - {"label", "event_id"}:
        values = labels[column].to_numpy()
        # Names have no order: the number in them is one, and would show ids given out by kind.
        if values.dtype == object:
            values = np.array([int("".join(filter(str.isdigit, value)) or 0) for value in values])
        auc = roc_auc_score(y, values.astype(np.float64))
        assert max(auc, 1 - auc) < 0.8, column


@pytest.mark.parametrize(("name", "key"), [("ip_profiles", "ip"), ("device_profiles", "device_id")])
def test_profiles_say_a_little_about_abuse_at_most(small: Simulation, name: str, key: str) -> None:
    labels = small.ad_click_labels
    profiles = getattr(small, name)
    flag = "is_datacenter" if key == "ip" else "is_emulator"
    flags = dict(zip(profiles[key].to_pylist(), profiles[flag].to_pylist(), strict=True))
    auc = roc_auc_score(labels["label"].to_numpy(), [flags.get(each, 0) for each in labels[key].to_pylist()])
    assert 0.45 < auc < 0.75
