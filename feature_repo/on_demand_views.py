"""Ratios, and features of the request itself: computed at the read from what other views stored.

An on-demand view in Python mode gets a dict of lists and gives a dict of lists, with None for null. Feast stores it as
code in the registry, so it brings its helpers along.
"""

from account_views import advertiser_account_stats, device_account_stats
from ad_views import advertiser_ad_stats, creator_ad_stats, ip_ad_stats
from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from profile_views import advertiser_profile, creator_profile, ip_profile
from sources import click

CLICK_RATIOS = {
    "ip_clicks_per_device_1h": "Clicks per device on the IP, last 1h",
    "ip_clicks_per_impression_24h": "Click rate of the IP, last 24h",
    "ip_conversions_per_click_24h": "Conversion rate of the IP, last 24h",
    "creator_clicks_per_ip_1h": "Clicks per IP on the creator, last 1h",
    "creator_clicks_per_impression_24h": "Click rate of the creator, 24h",
    "creator_conversions_per_click_24h": "Conversion rate of the creator",
    "creator_fast_click_share_1h": "Share of fast clicks on the creator, 1h",
    "creator_clicks_1h_over_day": "Creator's last hour over its usual hour",
    "same_country": "1 where the IP and the creator share a country",
    "click_seconds_since_impression": "Seconds from impression to this click",
    "click_usd_over_creator_mean": "Price of this click over the usual one",
}

ADVERTISER_RATIOS = {
    "payment_failure_rate_1h": "Failed share of payment attempts, last 1h",
    "payment_failure_rate_24h": "Failed share of payment attempts, last 24h",
    "rejection_rate_7d": "Ads rejected last 7d over ads submitted last 24h",
    "paid_24h_over_lifetime": "Paid in 24h over all spent before",
    "spent_24h_over_paid_7d": "Spent in 24h over paid in 7d",
    "payments_per_ip_24h": "Payments per IP, last 24h",
    "accounts_per_signup_7d": "Accounts per sign-up on the device, last 7d",
}


def described(features: dict[str, str]) -> dict[str, str]:
    """Descriptions as tags of the view: Feast refuses an on-demand field that carries its own."""
    return {f"describe:{name}": text for name, text in features.items()}


@on_demand_feature_view(
    sources=[ip_ad_stats, creator_ad_stats, creator_profile, ip_profile, click],
    mode="python",
    owner="ads-risk",
    description="How a click compares with what its IP and its creator usually do.",
    schema=[Field(name=name, dtype=Float64) for name in CLICK_RATIOS],
    tags={"tier": "1", **described(CLICK_RATIOS)},
)
def click_ratios(inputs):
    """Divides, and passes on what the request brings."""

    def ratio(above, below):
        return [None if a is None or not b else a / b for a, b in zip(above, below, strict=True)]

    def same(left, right):
        return [None if a is None or b is None else float(a == b) for a, b in zip(left, right, strict=True)]

    usual_hour = [None if n is None else max(n, 1) / 24 for n in inputs["creator_clicks_24h"]]
    mean_usd = ratio(inputs["creator_earned_usd_24h"], inputs["creator_clicks_24h"])
    return {
        "ip_clicks_per_device_1h": ratio(inputs["ip_clicks_1h"], inputs["ip_devices_1h"]),
        "ip_clicks_per_impression_24h": ratio(inputs["ip_clicks_24h"], inputs["ip_impressions_24h"]),
        "ip_conversions_per_click_24h": ratio(inputs["ip_conversions_24h"], inputs["ip_clicks_24h"]),
        "creator_clicks_per_ip_1h": ratio(inputs["creator_clicks_1h"], inputs["creator_ips_1h"]),
        "creator_clicks_per_impression_24h": ratio(inputs["creator_clicks_24h"], inputs["creator_impressions_24h"]),
        "creator_conversions_per_click_24h": ratio(inputs["creator_conversions_24h"], inputs["creator_clicks_24h"]),
        "creator_fast_click_share_1h": ratio(inputs["creator_fast_clicks_1h"], inputs["creator_clicks_1h"]),
        "creator_clicks_1h_over_day": ratio(inputs["creator_clicks_1h"], usual_hour),
        "same_country": same(inputs["ip_country"], inputs["creator_country"]),
        "click_seconds_since_impression": [None if v is None else v / 1000 for v in inputs["ms_since_impression"]],
        "click_usd_over_creator_mean": ratio(inputs["amount_usd"], mean_usd),
    }


@on_demand_feature_view(
    sources=[advertiser_account_stats, advertiser_ad_stats, advertiser_profile, device_account_stats],
    mode="python",
    owner="account-risk",
    description="How an advertiser's account compares with its own past.",
    schema=[Field(name=name, dtype=Float64) for name in ADVERTISER_RATIOS],
    tags={"tier": "1", **described(ADVERTISER_RATIOS)},
)
def advertiser_ratios(inputs):
    """Divides."""

    def ratio(above, below):
        return [None if a is None or not b else a / b for a, b in zip(above, below, strict=True)]

    def add(left, right):
        return [None if a is None or b is None else a + b for a, b in zip(left, right, strict=True)]

    failed_1h = inputs["advertiser_payments_failed_1h"]
    failed_24h = inputs["advertiser_payments_failed_24h"]
    return {
        "payment_failure_rate_1h": ratio(failed_1h, add(failed_1h, inputs["advertiser_payments_1h"])),
        "payment_failure_rate_24h": ratio(failed_24h, add(failed_24h, inputs["advertiser_payments_24h"])),
        "rejection_rate_7d": ratio(inputs["advertiser_ads_rejected_7d"], inputs["advertiser_ads_submitted_24h"]),
        "paid_24h_over_lifetime": ratio(inputs["advertiser_paid_usd_24h"], inputs["advertiser_lifetime_spend_usd"]),
        "spent_24h_over_paid_7d": ratio(inputs["advertiser_spent_usd_24h"], inputs["advertiser_paid_usd_7d"]),
        "payments_per_ip_24h": ratio(inputs["advertiser_payments_24h"], inputs["advertiser_ips_24h"]),
        "accounts_per_signup_7d": ratio(inputs["device_accounts_7d"], inputs["device_signups_7d"]),
    }
