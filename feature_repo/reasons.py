"""The catalogue of reasons: which features are one reason together, its code, and what it says to whom.

`analyst` is for the people who review decisions. `actor` may be shown to the actor: it says what was looked at, never
how much is too much, and of nobody else. Wording can change at any time (the next model that is trained carries it),
a code never changes its meaning.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One reason. `features`: names of features separated by spaces, `*` for any signs, `[0-9]` for a digit."""

    name: str
    analyst: str
    actor: str
    features: str


IP = (
    Family(
        "ip_velocity",
        "How much this IP clicks, and how many of its impressions it clicks on",
        "Activity from your internet connection",
        "ip_clicks_[0-9]* ip_impressions_* ip_clicks_per_impression_24h",
    ),
    Family(
        "ip_fast_clicks",
        "Clicks from this IP come sooner after the impression than people can click",
        "Timing of clicks from your internet connection",
        "ip_fast_clicks_*",
    ),
    Family(
        "ip_conversions",
        "How often clicks from this IP lead to a conversion",
        "What follows after clicks from your internet connection",
        "ip_conversions_*",
    ),
    Family(
        "ip_sharing",
        "How many devices share this IP",
        "Use of your internet connection",
        "ip_devices_* ip_clicks_per_device_1h",
    ),
    Family(
        "ip_spread",
        "How many creators and advertisers this IP clicks on",
        "Range of ads used from your internet connection",
        "ip_creators_* ip_advertisers_*",
    ),
    Family(
        "ip_kind",
        "What kind of IP this is: data centre, VPN, newly seen",
        "Kind of internet connection",
        "ip_is_datacenter ip_is_vpn ip_first_seen_days",
    ),
)
DEVICE = (
    Family(
        "device_velocity",
        "How much this device clicks, sees and converts",
        "Activity from your device",
        "device_clicks_* device_impressions_* device_conversions_*",
    ),
    Family(
        "device_fast_clicks",
        "Clicks from this device come sooner after the impression than people can click",
        "Timing of clicks from your device",
        "device_fast_clicks_*",
    ),
    Family(
        "device_spread",
        "How many IPs this device uses, and how many creators it clicks on",
        "Connections and places that your device is used from",
        "device_ips_* device_creators_*",
    ),
    Family(
        "device_kind",
        "What kind of device this is: emulator, rooted, newly seen",
        "Kind of device",
        "device_is_emulator device_is_rooted device_first_seen_days",
    ),
)
CREATOR = (
    Family(
        "creator_velocity",
        "How much the creator's placements are clicked, against their impressions and their usual hour",
        "Activity on your placements",
        "creator_clicks_[0-9]* creator_impressions_* creator_clicks_per_impression_24h",
    ),
    Family(
        "creator_click_timing",
        "How soon after the impression the creator's placements are clicked",
        "Timing of clicks on your placements",
        "creator_fast_clicks_* creator_fast_click_share_1h creator_click_delay_ms_*",
    ),
    Family(
        "creator_conversions",
        "How often clicks on the creator's placements lead to a conversion",
        "What follows after clicks on your placements",
        "creator_conversions_*",
    ),
    Family(
        "creator_audience",
        "How many IPs and devices the creator's clicks come from",
        "Variety of the audience that clicks on your placements",
        "creator_ips_* creator_devices_* creator_clicks_per_ip_1h",
    ),
    Family(
        "creator_earnings",
        "What the creator earns by clicks, now and so far",
        "Earnings from your placements",
        "creator_earned_usd_* creator_lifetime_payout_usd",
    ),
    Family(
        "creator_account",
        "The creator's account: age, verification, followers",
        "Your account's history and verification",
        "creator_account_age_days creator_verified creator_followers",
    ),
)
CLICK = (
    Family(
        "click_itself",
        "This click: its price, its delay, and whether IP and creator share a country",
        "Properties of this click",
        "same_country click_seconds_since_impression click_usd_over_creator_mean",
    ),
)
ADVERTISER_ADS = Family(
    "advertiser_traffic",
    "Clicks and conversions of the advertiser's ads, and what they cost",
    "Traffic on your ads",
    "advertiser_clicks_* advertiser_conversions_* advertiser_spent_usd_*",
)
ADVERTISER_CLICKS = Family(
    "advertiser_click_sources",
    "Where clicks on the advertiser's ads come from, and the most expensive one",
    "Sources of clicks on your ads",
    "advertiser_click_usd_max_* advertiser_click_creators_* advertiser_click_ips_*",
)
ACCOUNT = (
    Family(
        "payments",
        "How often and how much the account pays",
        "Payments of your account",
        "advertiser_payments_[0-9]* advertiser_paid_usd_* advertiser_payment_usd_* payments_per_ip_24h "
        "advertiser_payment_methods",
    ),
    Family(
        "failed_payments",
        "Payments of the account that failed, and their share",
        "Payments that did not go through",
        "advertiser_payments_failed_* payment_failure_rate_*",
    ),
    Family(
        "chargebacks",
        "Payments of the account that were charged back",
        "Payments that were returned",
        "advertiser_chargebacks_*",
    ),
    Family(
        "spending",
        "What the account spends and pays, against what it did before",
        "Changes in your spending",
        "paid_24h_over_lifetime spent_24h_over_paid_7d advertiser_lifetime_spend_usd",
    ),
    Family(
        "ad_reviews",
        "Ads of the account: submitted, rejected, appealed",
        "Results of reviews of your ads",
        "advertiser_ads_* advertiser_appeals_* rejection_rate_7d advertiser_prior_rejections",
    ),
    Family(
        "account_access",
        "How many IPs, devices and countries the account is used from, and failed logins",
        "Places and devices that your account is used from",
        "advertiser_ips_* advertiser_devices_* advertiser_countries_* advertiser_logins_failed_*",
    ),
    Family(
        "account_history",
        "The account: its age and verification",
        "Your account's history and verification",
        "advertiser_account_age_days advertiser_verified",
    ),
    Family(
        "device_accounts",
        "Accounts on the same device: sign-ups, failed payments, rejected ads",
        "Activity from your device",
        "device_signups_* device_accounts_* device_payments_failed_* device_ads_rejected_* accounts_per_signup_7d",
    ),
    Family(
        "ip_accounts",
        "Accounts on the same IP: sign-ups, failed payments",
        "Activity from your internet connection",
        "ip_signups_* ip_accounts_* ip_payments_failed_*",
    ),
)

AD_CLICK_RISK = (*IP, *DEVICE, *CREATOR, *CLICK, ADVERTISER_ADS, ADVERTISER_CLICKS)
ADVERTISER_RISK = (*ACCOUNT, ADVERTISER_ADS)


def reason_tags(families: tuple[Family, ...]) -> dict[str, str]:
    """The tags of a feature service that reads these features. A code is the family's name in upper case."""
    return {
        f"reason:{family.name}:{part}": text
        for family in families
        for part, text in (
            ("code", family.name.upper()),
            ("analyst", family.analyst),
            ("actor", family.actor),
            ("features", family.features),
        )
    }
