"""Real values of the contract's types: what the OpenAPI document shows, and the tests decode."""

from __future__ import annotations

from typing import Any

from serving.decision import (
    AbsentFeature,
    Decision,
    Health,
    Latency,
    ModelCard,
    ModelList,
    ModelVersion,
    Readiness,
    Reason,
    ReasonFeature,
    ServiceVersion,
    StatusCounts,
    StoredFeature,
    StoredFeatures,
    Thresholds,
)
from serving.event_results import EventResult, EventsAnswer

_CLICK = {
    "event_id": "click-000017",
    "event_time": 1_795_000_000_000,
    "event_type": "click",
    "advertiser_id": "adv-42",
    "creator_id": "cre-7",
    "ip": "203.0.113.9",
    "device_id": "dev-1009",
    "os": "android",
    "ms_since_impression": 180,
}
_LOGIN = {
    "event_id": "login-000003",
    "event_time": "2026-11-18T11:06:39.820Z",
    "event_type": "login",
    "actor_type": "creator",
    "actor_id": "cre-7",
    "ip": "203.0.113.9",
    "device_id": "dev-1009",
}
_SERVICE = ServiceVersion("ad_click_risk", "5d1f0c2ab94e7733")
_THRESHOLDS = Thresholds(review=0.41, block=0.87)


def example_requests() -> dict[str, dict[str, Any]]:
    """Bodies of `POST /v1/score`, by what they show."""
    keys = {name: _CLICK[name] for name in ("advertiser_id", "creator_id", "ip", "device_id")}
    return {
        "A click, counted and scored": {"model": "ad_click_risk", "event": _CLICK},
        "An actor as it stands, every feature": {"model": "ad_click_risk", "entities": keys, "explain": "full"},
        "A score without explanation": {"model": "ad_click_risk", "entities": keys, "explain": "none"},
    }


def example_event_requests() -> dict[str, Any]:
    """Bodies of `POST /v1/events`, by what they show."""
    return {
        "One event": {"event": _CLICK},
        "Several, one of them from the future": [
            {"event": _CLICK, "event_topic": "ad_events"},
            {"event": _LOGIN},
            {"event": {**_LOGIN, "event_id": "login-000004", "event_time": "2126-11-18T11:06:40Z"}},
        ],
    }


def example_events_answer() -> EventsAnswer:
    """The answer to the second of them."""
    return EventsAnswer(
        accepted=2,
        duplicate=0,
        rejected=1,
        results=[
            EventResult(status="accepted", topic="ad_events", event_id="click-000017"),
            EventResult(status="accepted", topic="account_events", event_id="login-000003"),
            EventResult(
                status="rejected",
                reason="from_the_future",
                detail="event_time is 3155673600000 ms ahead of the clock; at most 60000 ms are allowed",
                field="event.event_time",
            ),
        ],
    )


def example_unconfirmed() -> list[EventResult]:
    """Two events, of which the log has acknowledged one."""
    return [
        EventResult(status="accepted", topic="ad_events", event_id="click-000017"),
        EventResult(status="unconfirmed", topic="account_events", event_id="login-000003"),
    ]


def example_batch() -> dict[str, Any]:
    """A body of `POST /v1/score:batch`."""
    keys = {name: _CLICK[name] for name in ("advertiser_id", "creator_id", "device_id")}
    asked = [{"entities": {**keys, "ip": ip}} for ip in ("203.0.113.9", "203.0.113.10")]
    return {"model": "ad_click_risk", "explain": "none", "requests": [*asked, {"event": _CLICK}]}


def example_decision() -> Decision:
    """An answer to the first of the requests."""
    return Decision(
        decision_id="019a1f3e-5e00-7c3b-9d52-0c8f4e6a1b27",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        mode="live",
        model=ModelVersion("ad_click_risk", "9c1e5b7a20d34f68"),
        service=_SERVICE,
        actor={"advertiser_id": "adv-42", "creator_id": "cre-7", "ip": "203.0.113.9", "device_id": "dev-1009"},
        actor_known=True,
        as_of="2026-11-18T11:06:40.000Z",
        as_of_ms=1_795_000_000_000,
        score=0.9168273,
        margin=2.4,
        verdict="block",
        thresholds=_THRESHOLDS,
        reasons=[
            _reason(
                "ip_velocity",
                "How much this IP clicks, and how many of its impressions it clicks on",
                "Activity from your internet connection",
                ReasonFeature(
                    feature="ip_ad_stats:ip_clicks_5m",
                    description="Clicks from the IP, last 5m",
                    value=212.0,
                    age_ms=0,
                    status="PRESENT",
                    attribution=2.6,
                ),
                features_rest=0.5,
            ),
            _reason(
                "device_kind",
                "What kind of device this is: emulator, rooted, newly seen",
                "Kind of device",
                ReasonFeature(
                    feature="device_profile:device_first_seen_days",
                    description="Days since the device was first seen",
                    value=None,
                    age_ms=None,
                    status="NOT_FOUND",
                    attribution=0.9,
                ),
                features_rest=0.0,
            ),
        ],
        base_value=-2.1,
        attributions_rest=0.5,
        output_space="log_odds",
        reference="100 typical rows of the training data",
        feature_statuses=StatusCounts(present=61, not_found=1),
        features_absent=[AbsentFeature("device_profile:device_first_seen_days", "NOT_FOUND")],
        features=None,
        degraded=[],
        latency_ms=Latency(parse=0.03, wait=0.02, features=0.31, score=0.05, explain=0.42, publish=0.11, total=0.94),
    )


def _reason(family: str, analyst: str, actor: str, strongest: ReasonFeature, *, features_rest: float) -> Reason:
    return Reason(
        code=family.upper(),
        family=family,
        description=analyst,
        actor_text=actor,
        attribution=strongest.attribution + features_rest,
        feature=strongest.feature,
        value=strongest.value,
        age_ms=strongest.age_ms,
        status=strongest.status,
        features=[strongest],
        features_rest=features_rest,
    )


def example_models() -> ModelList:
    """What `/v1/models` lists."""
    card = ModelCard(
        name="ad_click_risk",
        alias="champion",
        version="9c1e5b7a20d34f68",
        service=_SERVICE,
        entities=["advertiser_id", "creator_id", "device_id", "ip"],
        request_fields=["ms_since_impression"],
        feature_count=62,
        thresholds=_THRESHOLDS,
        metrics={"roc_auc": 0.94, "pr_auc": 0.71, "base_rate": 0.06},
    )
    return ModelList([card])


def example_health() -> Health:
    """A living process."""
    return Health("ok")


def example_features() -> StoredFeatures:
    """What is stored of an IP."""
    return StoredFeatures(
        entity="ip",
        join_key="ip",
        key="203.0.113.9",
        is_known=True,
        as_of="2026-11-18T11:06:40.000Z",
        as_of_ms=1_795_000_000_000,
        features=[
            StoredFeature(
                feature="ip_ad_stats:ip_clicks_5m",
                description="Clicks from the IP, last 5m",
                type="INT64",
                value=211,
                status="PRESENT",
                age_ms=180,
            ),
            StoredFeature(
                feature="ip_profile:ip_country",
                description="Where the IP is",
                type="STRING",
                value=None,
                status="NOT_FOUND",
                age_ms=None,
            ),
        ],
    )


def example_ready() -> Readiness:
    """A server that answers."""
    return Readiness(ready=True, reasons=[], notes=[])


def example_not_ready() -> Readiness:
    """A server that cannot answer yet."""
    return Readiness(ready=False, reasons=["no model is loaded"], notes=[])
