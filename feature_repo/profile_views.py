"""What is known of an entity from daily tables."""

from datetime import timedelta

from entities import advertiser, creator, device, ip
from feast import FeatureView, Field
from feast.types import Float64, Int64, String
from sources import advertiser_profiles, creator_profiles, device_profiles, ip_profiles

KEPT = timedelta(days=30)

advertiser_profile = FeatureView(
    name="advertiser_profile",
    entities=[advertiser],
    ttl=KEPT,
    source=advertiser_profiles,
    owner="account-risk",
    description="An advertiser's account, from the daily table.",
    tags={"tier": "2"},
    schema=[
        Field(name="advertiser_id", dtype=String),
        Field(name="advertiser_account_age_days", dtype=Float64, description="Days since the advertiser signed up"),
        Field(name="advertiser_verified", dtype=Int64, description="1 where the advertiser's identity is verified"),
        Field(name="advertiser_country", dtype=String, description="Country of the advertiser's account"),
        Field(name="advertiser_payment_methods", dtype=Int64, description="Payment methods on file"),
        Field(name="advertiser_lifetime_spend_usd", dtype=Float64, description="US dollars spent since sign-up"),
        Field(name="advertiser_prior_rejections", dtype=Int64, description="Ads rejected before this week"),
    ],
)

creator_profile = FeatureView(
    name="creator_profile",
    entities=[creator],
    ttl=KEPT,
    source=creator_profiles,
    owner="ads-risk",
    description="A creator's account, from the daily table.",
    tags={"tier": "2"},
    schema=[
        Field(name="creator_id", dtype=String),
        Field(name="creator_account_age_days", dtype=Float64, description="Days since the creator signed up"),
        Field(name="creator_verified", dtype=Int64, description="1 where the creator's identity is verified"),
        Field(name="creator_followers", dtype=Int64, description="Followers of the creator"),
        Field(name="creator_country", dtype=String, description="Country of the creator's account"),
        Field(name="creator_lifetime_payout_usd", dtype=Float64, description="US dollars paid out since sign-up"),
    ],
)

ip_profile = FeatureView(
    name="ip_profile",
    entities=[ip],
    ttl=KEPT,
    source=ip_profiles,
    owner="ads-risk",
    description="An IP address, from the daily table.",
    tags={"tier": "2", "pii": "ip"},
    schema=[
        Field(name="ip", dtype=String),
        Field(name="ip_is_datacenter", dtype=Int64, description="1 where the IP belongs to a data centre"),
        Field(name="ip_is_vpn", dtype=Int64, description="1 where the IP is a known VPN exit"),
        Field(name="ip_country", dtype=String, description="Country of the IP"),
        Field(name="ip_first_seen_days", dtype=Float64, description="Days since the IP was first seen"),
    ],
)

device_profile = FeatureView(
    name="device_profile",
    entities=[device],
    ttl=KEPT,
    source=device_profiles,
    owner="ads-risk",
    description="A device, from the daily table.",
    tags={"tier": "2", "pii": "device_id"},
    schema=[
        Field(name="device_id", dtype=String),
        Field(name="device_is_emulator", dtype=Int64, description="1 where the device looks like an emulator"),
        Field(name="device_is_rooted", dtype=Int64, description="1 where the device is rooted"),
        Field(name="device_os_version", dtype=String, description="Version of the device's operating system"),
        Field(name="device_first_seen_days", dtype=Float64, description="Days since the device was first seen"),
    ],
)
