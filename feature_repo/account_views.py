"""Windowed features over account events: of the advertiser, and of the IPs and devices that link accounts."""

from datetime import timedelta

from entities import advertiser, device, ip
from feast.stream_feature_view import stream_feature_view
from sources import account_events
from windowed import stream_features, windowed

COMMON = {
    "source": account_events,
    "mode": "python",
    "timestamp_field": "event_time",
    "ttl": timedelta(days=8),
    "owner": "account-risk",
}


@stream_feature_view(
    entities=[advertiser],
    description="What an advertiser's account does.",
    tags={"tier": "1"},
    **stream_features(
        "advertiser_id",
        windowed("advertiser_payments", "payment", "count", "5m 1h 24h 7d", "Payments"),
        windowed("advertiser_payments_failed", "payment_failed", "count", "5m 1h 24h 7d", "Failed payments"),
        windowed("advertiser_chargebacks", "chargeback", "count", "24h 7d", "Chargebacks"),
        windowed("advertiser_paid_usd", "paid_usd", "sum", "1h 24h 7d", "US dollars paid"),
        windowed("advertiser_payment_usd_max", "paid_usd", "max", "24h", "Largest payment, US dollars"),
        windowed("advertiser_payment_usd_mean", "paid_usd", "mean", "7d", "Mean payment, US dollars"),
        windowed("advertiser_ads_submitted", "ad_submitted", "count", "1h 24h", "Ads submitted"),
        windowed("advertiser_ads_rejected", "ad_rejected", "count", "24h 7d", "Ads rejected"),
        windowed("advertiser_appeals", "appeal", "count", "7d", "Appeals"),
        windowed("advertiser_logins_failed", "login_failed", "count", "24h", "Failed logins"),
        windowed("advertiser_ips", "ip", "count_distinct", "1h 24h 7d", "Distinct IPs of the account"),
        windowed("advertiser_devices", "device_id", "count_distinct", "24h 7d", "Distinct devices of the account"),
        windowed("advertiser_countries", "country", "count_distinct", "24h 7d", "Distinct countries of the account"),
    ),
    **COMMON,
)
def advertiser_account_stats(events):
    """Only advertisers' events have a key here; marks what an event is."""
    import numpy as np

    kind = events["event_type"]
    marks = ("payment", "payment_failed", "chargeback", "ad_submitted", "ad_rejected", "appeal", "login_failed")
    return {
        "advertiser_id": np.where(events["actor_type"] == "advertiser", events["actor_id"], None),
        "paid_usd": np.where(kind == "payment", events["amount_usd"], np.nan),
        **{mark: np.where(kind == mark, 1.0, np.nan) for mark in marks},
    }


@stream_feature_view(
    entities=[device],
    description="What accounts do from one device.",
    tags={"tier": "1", "pii": "device_id"},
    **stream_features(
        "device_id",
        windowed("device_signups", "signup", "count", "24h 7d", "Sign-ups from the device"),
        windowed("device_accounts", "actor_id", "count_distinct", "24h 7d", "Distinct accounts on the device"),
        windowed("device_payments_failed", "payment_failed", "count", "24h", "Failed payments from the device"),
        windowed("device_ads_rejected", "ad_rejected", "count", "7d", "Rejected ads of accounts on the device"),
    ),
    **COMMON,
)
def device_account_stats(events):
    """Marks what an event is, for counting."""
    import numpy as np

    kind = events["event_type"]
    return {mark: np.where(kind == mark, 1.0, np.nan) for mark in ("signup", "payment_failed", "ad_rejected")}


@stream_feature_view(
    entities=[ip],
    description="What accounts do from one IP address.",
    tags={"tier": "1", "pii": "ip"},
    **stream_features(
        "ip",
        windowed("ip_signups", "signup", "count", "24h 7d", "Sign-ups from the IP"),
        windowed("ip_accounts", "actor_id", "count_distinct", "24h 7d", "Distinct accounts on the IP"),
        windowed("ip_payments_failed", "payment_failed", "count", "24h", "Failed payments from the IP"),
    ),
    **COMMON,
)
def ip_account_stats(events):
    """Marks what an event is, for counting."""
    import numpy as np

    kind = events["event_type"]
    return {mark: np.where(kind == mark, 1.0, np.nan) for mark in ("signup", "payment_failed")}
