"""What `POST /v1/score` answers."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.events import AD_EVENTS, decode_event
from materialize.online import FeatureStatus, ReadCounts
from models import ReasonText
from serving.decision import Decision, Thresholds
from serving.inputs import carried_values, read_event
from serving.record import verdict
from tests.serving.fakes import CHAMPION, FEATURES, IP_FEATURES, KEYS, NOW_MS, SERVICE, World, click, publish_model


def score(world: World, body: Any, headers: dict[str, str] | None = None) -> Decision:
    return asyncio.run(world.score(body, headers)).decision()


def listed(decision: Decision) -> float:
    assert decision.base_value is not None
    assert decision.attributions_rest is not None
    return decision.base_value + sum(r.attribution for r in decision.reasons) + decision.attributions_rest


def test_base_value_and_attributions_add_up_to_the_margin(world: World) -> None:
    top = score(world, {"model": SERVICE, "entities": KEYS})
    full = score(world, {"model": SERVICE, "entities": KEYS, "explain": "full"})
    assert listed(top) == pytest.approx(top.margin, rel=1e-6, abs=1e-9)
    assert full.features is not None
    assert full.base_value is not None
    assert full.base_value + sum(f.attribution for f in full.features) == pytest.approx(full.margin, rel=1e-6, abs=1e-9)
    assert top.score == pytest.approx(1 / (1 + np.exp(-top.margin)))


@given(st.lists(st.none() | st.floats(0, 50), min_size=len(FEATURES), max_size=len(FEATURES)))
@settings(max_examples=40, deadline=None)
def test_the_sum_holds_for_any_features(shared_world: World, values: list[float | None]) -> None:
    present, null = FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE
    shared_world.features.values["any"] = [np.nan if v is None else v for v in values]
    shared_world.features.statuses["any"] = [null if v is None else present for v in values]
    decision = score(shared_world, {"model": SERVICE, "entities": {**KEYS, "ip": "any"}})
    assert listed(decision) == pytest.approx(decision.margin, rel=1e-6, abs=1e-9)
    assert decision.feature_statuses.null_value == values.count(None)


def test_the_top_five_reasons_come_strongest_first_and_say_what_was_read(world: World) -> None:
    decision = score(world, {"model": SERVICE, "entities": KEYS})
    sizes = [abs(reason.attribution) for reason in decision.reasons]
    assert len(sizes) == 5
    assert sizes == sorted(sizes, reverse=True)
    place = FEATURES.index(decision.reasons[0].feature)
    assert decision.reasons[0].code == FEATURES[place].upper().replace(":", "_")
    assert decision.reasons[0].description == f"About {FEATURES[place]}"
    assert decision.reasons[0].value == world.features.values["203.0.113.9"][place]
    assert decision.reasons[0].age_ms == place * 1000


def test_features_of_one_family_are_one_reason_with_its_own_texts(empty_world: World) -> None:
    families = ["ip_velocity" if ref.startswith("ip_clicks") else "" for ref in FEATURES]
    text = ReasonText(family="ip_velocity", code="IP_VELOCITY", analyst="How much the IP clicks", actor="Your traffic")
    publish_model(empty_world.store, families=families, reasons=[text])
    empty_world.features.values[KEYS["ip"]] = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]
    asyncio.run(empty_world.service.load(CHAMPION))
    decision = score(empty_world, {"model": SERVICE, "entities": KEYS, "explain": "full"})
    assert decision.features is not None
    assert len(decision.reasons) == 5
    assert listed(decision) == pytest.approx(decision.margin, rel=1e-6, abs=1e-9)
    (reason,) = [reason for reason in decision.reasons if reason.code == "IP_VELOCITY"]
    family = [feature for feature in decision.features if feature.family == "ip_velocity"]
    assert [feature.feature for feature in family] == list(IP_FEATURES)
    assert reason.attribution == pytest.approx(sum(feature.attribution for feature in family))
    shown = sum(feature.attribution for feature in reason.features)
    assert shown + reason.features_rest == pytest.approx(reason.attribution)
    assert (reason.family, reason.description, reason.actor_text) == ("ip_velocity", text.analyst, text.actor)
    first = reason.features[0]
    assert (reason.feature, reason.value, reason.status) == (first.feature, first.value, first.status)
    assert {other.family for other in decision.reasons} - {"ip_velocity"} <= set(FEATURES) - set(IP_FEATURES)


def test_without_explanation_there_is_only_the_score(world: World) -> None:
    decision = score(world, {"model": SERVICE, "entities": KEYS, "explain": "none"})
    explained = score(world, {"model": SERVICE, "entities": KEYS})
    assert decision.score == explained.score
    assert (decision.reasons, decision.base_value, decision.attributions_rest) == ([], None, None)
    assert (decision.output_space, decision.reference, decision.features) == (None, None, None)


def test_an_explanation_says_its_reference_and_output_space(world: World) -> None:
    decision = score(world, {"model": SERVICE, "entities": KEYS})
    assert (decision.output_space, decision.reference) == ("log_odds", "eight rows")


def test_an_unknown_actor_is_scored_and_said_to_be_unknown(world: World) -> None:
    decision = score(world, {"model": SERVICE, "entities": {**KEYS, "ip": "198.51.100.1"}})
    assert not decision.actor_known
    assert decision.feature_statuses.not_found == len(FEATURES) - 1
    assert [absent.feature for absent in decision.features_absent] == list(FEATURES)
    assert listed(decision) == pytest.approx(decision.margin, rel=1e-6, abs=1e-9)


def test_every_status_is_counted_and_every_absent_feature_named(world: World) -> None:
    world.features.statuses["203.0.113.9"] = [1, 2, 3, 4, 1, 1, 1, 1]
    decision = score(world, {"model": SERVICE, "entities": KEYS, "explain": "full"})
    assert msgspec.structs.astuple(decision.feature_statuses) == (5, 1, 1, 1)
    assert [(absent.feature, absent.status) for absent in decision.features_absent] == [
        (FEATURES[1], "NULL_VALUE"),
        (FEATURES[2], "NOT_FOUND"),
        (FEATURES[3], "OUTSIDE_MAX_AGE"),
    ]
    assert decision.actor_known
    assert decision.features is not None
    assert [reading.value is None for reading in decision.features] == [False, True, True, True, *[False] * 4]


def test_entities_come_from_the_event_when_they_are_not_given(world: World) -> None:
    decision = score(world, {"model": SERVICE, "event": click()})
    assert decision.actor == {"ip": "203.0.113.9", "device_id": "dev-1"}
    assert world.features.reads[0].entities == decision.actor


def test_an_account_events_actor_is_the_entity_of_its_type() -> None:
    event = {
        "event_id": "e",
        "event_time": NOW_MS,
        "event_type": "login",
        "actor_type": "creator",
        "actor_id": "cre-9",
        "ip": "203.0.113.9",
        "device_id": "dev-1",
    }
    scored = read_event(msgspec.Raw(msgspec.json.encode(event)), None, NOW_MS)
    assert scored is not None
    assert scored.topic == "account_events"
    assert carried_values(scored.event)["creator_id"] == "cre-9"
    assert "advertiser_id" not in carried_values(scored.event)


def test_request_time_values_come_from_the_request_then_the_event_then_are_null(world: World) -> None:
    score(world, {"model": SERVICE, "event": click(), "request": {"country": "FR"}})
    score(world, {"model": SERVICE, "entities": KEYS})
    assert [read.request for read in world.features.reads] == [
        {"ms_since_impression": 180.0, "attempts": None, "country": "FR"},
        {"ms_since_impression": None, "attempts": None, "country": None},
    ]


def test_features_are_read_as_of_now_or_as_of_a_later_event(world: World) -> None:
    now = score(world, {"model": SERVICE, "event": click()})
    later = score(world, {"model": SERVICE, "event": click(event_time=NOW_MS + 60_000)})
    assert (now.as_of_ms, now.as_of) == (NOW_MS, "2026-11-18T11:06:40.000Z")
    assert (later.as_of_ms, later.as_of) == (NOW_MS + 60_000, "2026-11-18T11:07:40.000Z")
    assert [read.as_of_ms for read in world.features.reads] == [NOW_MS, NOW_MS + 60_000]


def test_the_scored_event_is_merged_and_published_as_one_that_the_stream_accepts(world: World) -> None:
    decision = score(world, {"model": SERVICE, "event": click(event_time="2026-11-18T11:06:39Z")})
    [(topic, key, value)] = world.publisher.published
    assert (topic, key) == (AD_EVENTS, b"203.0.113.9")
    assert decode_event(topic, value, NOW_MS) == world.features.reads[0].event
    assert decision.degraded == []


def test_an_event_that_the_caller_publishes_is_merged_only(world: World) -> None:
    score(world, {"model": SERVICE, "event": click(), "publish_event": False})
    assert world.publisher.published == []
    assert world.features.reads[0].event is not None


def test_a_stream_that_fails_degrades_the_answer_and_is_counted(world: World) -> None:
    async def broken() -> None:
        raise OSError("no route to the broker")

    world.publisher.fail = broken
    decision = score(world, {"model": SERVICE, "event": click()})
    page = asyncio.run(world.call("GET", "/metrics")).body.decode()
    notes = asyncio.run(world.call("GET", "/readyz")).json()["notes"]
    assert decision.degraded == ["event_not_published"]
    assert "actor_risk_event_publish_failures_total 1.0" in page
    assert "the last event could not be published to the stream" in notes


def test_a_stream_that_hangs_does_not_hang_the_answer(world: World) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    world.publisher.fail = hang
    assert score(world, {"model": SERVICE, "event": click()}).degraded == ["event_publish_unconfirmed"]


def test_what_went_wrong_while_reading_is_in_the_answer(world: World) -> None:
    world.features.counts = ReadCounts(rows_refused={"fingerprint": 1}, on_demand_failed=1, event_failed=1, inexact=1)
    decision = score(world, {"model": SERVICE, "entities": KEYS})
    assert decision.degraded == ["rows_refused", "on_demand_failed", "event_not_merged", "windows_inexact"]


@pytest.mark.parametrize(
    ("body_trace", "traceparent", "expected"),
    [
        ("mine-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "mine-1"),
        (None, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736"),
        (None, "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", "4bf92f3577b34da6a3ce929d0e0e4736"),
        (None, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None),
        (None, "00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
        (None, "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
        (None, "\xff\x00 nonsense", None),
        (None, None, None),
    ],
)
def test_the_trace_id_is_the_callers_or_traceparents_or_new(
    world: World, body_trace: str | None, traceparent: str | None, expected: str | None
) -> None:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    decision = score(world, {"model": SERVICE, "entities": KEYS, "trace_id": body_trace}, headers)
    assert len(decision.trace_id) == 32 or decision.trace_id == expected
    assert expected is None or decision.trace_id == expected


def test_decision_ids_are_uuids_of_version_7_that_carry_the_time(world: World) -> None:
    first, second = (score(world, {"model": SERVICE, "entities": KEYS}).decision_id for _ in range(2))
    parsed = uuid.UUID(first)
    assert (parsed.version, parsed.variant, parsed.int >> 80) == (7, uuid.RFC_4122, NOW_MS)
    assert first != second


def test_the_stages_take_the_whole_time(world: World) -> None:
    latency = score(world, {"model": SERVICE, "event": click()}).latency_ms
    *stages, total = msgspec.structs.astuple(latency)
    assert total == pytest.approx(sum(stages))
    assert total == pytest.approx(8 * 0.25)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "allow"), (0.39, "allow"), (0.4, "review"), (0.79, "review"), (0.8, "block"), (1, "block")],
)
def test_a_threshold_belongs_to_the_harsher_verdict(value: float, expected: str) -> None:
    assert verdict(value, Thresholds(review=0.4, block=0.8)) == expected
