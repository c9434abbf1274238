"""Feature services: what one model reads, in the order in which it reads it."""

from account_views import advertiser_account_stats, device_account_stats, ip_account_stats
from ad_views import advertiser_ad_stats, creator_ad_stats, device_ad_stats, ip_ad_stats
from feast import FeatureService
from on_demand_views import advertiser_ratios, click_ratios
from profile_views import advertiser_profile, creator_profile, device_profile, ip_profile
from reasons import AD_CLICK_RISK, ADVERTISER_RISK, reason_tags

ad_click_risk = FeatureService(
    name="ad_click_risk",
    description="Is this click invalid traffic? Of the click's IP, device, creator and advertiser.",
    owner="ads-risk",
    tags=reason_tags(AD_CLICK_RISK),
    features=[
        ip_ad_stats,
        device_ad_stats,
        creator_ad_stats,
        advertiser_ad_stats,
        ip_profile[["ip_is_datacenter", "ip_is_vpn", "ip_first_seen_days"]],
        device_profile[["device_is_emulator", "device_is_rooted", "device_first_seen_days"]],
        creator_profile[
            ["creator_account_age_days", "creator_verified", "creator_followers", "creator_lifetime_payout_usd"]
        ],
        click_ratios,
    ],
)

advertiser_risk = FeatureService(
    name="advertiser_risk",
    description="Is this advertiser's account abusive? Of the account, and the device and IP it was last used from.",
    owner="account-risk",
    tags=reason_tags(ADVERTISER_RISK),
    features=[
        advertiser_account_stats,
        advertiser_ad_stats[
            [
                "advertiser_clicks_24h",
                "advertiser_spent_usd_24h",
                "advertiser_spent_usd_7d",
                "advertiser_conversions_7d",
            ]
        ],
        device_account_stats,
        ip_account_stats,
        advertiser_profile[
            [
                "advertiser_account_age_days",
                "advertiser_verified",
                "advertiser_payment_methods",
                "advertiser_lifetime_spend_usd",
                "advertiser_prior_rejections",
            ]
        ],
        advertiser_ratios,
    ],
)
