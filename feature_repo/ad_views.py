"""Windowed features over ad events, of each of the four entities that an ad event touches.

The transformation of a stream view gets columns (numpy arrays, one value per event) and gives further columns. It runs
alike on history, on the stream and on the event that comes with a request. Feast stores it as code in the registry, so
it imports what it needs itself.
"""

from datetime import timedelta

from entities import advertiser, creator, device, ip
from feast.stream_feature_view import stream_feature_view
from sources import ad_events
from windowed import stream_features, windowed

COMMON = {
    "source": ad_events,
    "mode": "python",
    "timestamp_field": "event_time",
    "ttl": timedelta(days=8),
    "owner": "ads-risk",
}


@stream_feature_view(
    entities=[ip],
    description="What an IP address does with ads.",
    tags={"tier": "1", "pii": "ip"},
    **stream_features(
        "ip",
        windowed("ip_clicks", "click", "count", "5m 1h 24h 7d", "Clicks from the IP"),
        windowed("ip_impressions", "impression", "count", "1h 24h", "Impressions on the IP"),
        windowed("ip_conversions", "conversion", "count", "24h", "Conversions from the IP"),
        windowed(
            "ip_fast_clicks", "fast_click", "count", "1h 24h", "Clicks within 300 ms of the impression from the IP"
        ),
        windowed("ip_devices", "device_id", "count_distinct", "1h 24h", "Distinct devices on the IP"),
        windowed("ip_creators", "creator_id", "count_distinct", "1h", "Distinct creators clicked on from the IP"),
        windowed(
            "ip_advertisers", "advertiser_id", "count_distinct", "1h", "Distinct advertisers clicked on from the IP"
        ),
    ),
    **COMMON,
)
def ip_ad_stats(events):
    """Marks what an event is, for counting."""
    import numpy as np

    kind = events["event_type"]
    return {
        "click": np.where(kind == "click", 1.0, np.nan),
        "impression": np.where(kind == "impression", 1.0, np.nan),
        "conversion": np.where(kind == "conversion", 1.0, np.nan),
        "fast_click": np.where((kind == "click") & (events["ms_since_impression"] < 300), 1.0, np.nan),
    }


@stream_feature_view(
    entities=[device],
    description="What a device does with ads.",
    tags={"tier": "1", "pii": "device_id"},
    **stream_features(
        "device_id",
        windowed("device_clicks", "click", "count", "5m 1h 24h 7d", "Clicks from the device"),
        windowed("device_impressions", "impression", "count", "24h", "Impressions on the device"),
        windowed("device_conversions", "conversion", "count", "24h", "Conversions from the device"),
        windowed("device_fast_clicks", "fast_click", "count", "24h", "Clicks within 300 ms of the impression"),
        windowed("device_ips", "ip", "count_distinct", "24h", "Distinct IPs of the device"),
        windowed(
            "device_creators", "creator_id", "count_distinct", "24h", "Distinct creators clicked on from the device"
        ),
    ),
    **COMMON,
)
def device_ad_stats(events):
    """Marks what an event is, for counting."""
    import numpy as np

    kind = events["event_type"]
    return {
        "click": np.where(kind == "click", 1.0, np.nan),
        "impression": np.where(kind == "impression", 1.0, np.nan),
        "conversion": np.where(kind == "conversion", 1.0, np.nan),
        "fast_click": np.where((kind == "click") & (events["ms_since_impression"] < 300), 1.0, np.nan),
    }


@stream_feature_view(
    entities=[creator],
    description="What happens on a creator's placements.",
    tags={"tier": "1"},
    **stream_features(
        "creator_id",
        windowed("creator_clicks", "click", "count", "5m 1h 24h 7d", "Clicks on the creator's placements"),
        windowed("creator_impressions", "impression", "count", "1h 24h", "Impressions on the creator's placements"),
        windowed("creator_conversions", "conversion", "count", "24h 7d", "Conversions from the creator's placements"),
        windowed("creator_fast_clicks", "fast_click", "count", "1h 24h", "Clicks within 300 ms of the impression"),
        windowed("creator_ips", "click_ip", "count_distinct", "1h 24h", "Distinct IPs that clicked"),
        windowed("creator_devices", "click_device", "count_distinct", "1h 24h", "Distinct devices that clicked"),
        windowed("creator_earned_usd", "click_usd", "sum", "1h 24h", "US dollars earned by clicks"),
        windowed("creator_click_delay_ms", "click_delay_ms", "mean", "1h 24h", "Mean time from impression to click"),
    ),
    **COMMON,
)
def creator_ad_stats(events):
    """Marks what an event is, and keeps who clicked, for how much and how fast."""
    import numpy as np

    kind = events["event_type"]
    click = kind == "click"
    return {
        "click": np.where(click, 1.0, np.nan),
        "impression": np.where(kind == "impression", 1.0, np.nan),
        "conversion": np.where(kind == "conversion", 1.0, np.nan),
        "fast_click": np.where(click & (events["ms_since_impression"] < 300), 1.0, np.nan),
        "click_ip": np.where(click, events["ip"], None),
        "click_device": np.where(click, events["device_id"], None),
        "click_usd": np.where(click, events["amount_usd"], np.nan),
        "click_delay_ms": np.where(click, events["ms_since_impression"], np.nan),
    }


@stream_feature_view(
    entities=[advertiser],
    description="What happens to an advertiser's ads.",
    tags={"tier": "1"},
    **stream_features(
        "advertiser_id",
        windowed("advertiser_clicks", "click", "count", "5m 1h 24h 7d", "Clicks on the advertiser's ads"),
        windowed("advertiser_conversions", "conversion", "count", "24h 7d", "Conversions of the advertiser's ads"),
        windowed("advertiser_spent_usd", "click_usd", "sum", "1h 24h 7d", "US dollars spent on clicks"),
        windowed("advertiser_click_usd_max", "click_usd", "max", "24h", "Most expensive click, US dollars"),
        windowed(
            "advertiser_click_creators",
            "click_creator",
            "count_distinct",
            "24h",
            "Distinct creators whose placements were clicked",
        ),
        windowed("advertiser_click_ips", "click_ip", "count_distinct", "1h", "Distinct IPs that clicked"),
    ),
    **COMMON,
)
def advertiser_ad_stats(events):
    """Marks what an event is, and keeps who clicked and for how much."""
    import numpy as np

    click = events["event_type"] == "click"
    return {
        "click": np.where(click, 1.0, np.nan),
        "conversion": np.where(events["event_type"] == "conversion", 1.0, np.nan),
        "click_usd": np.where(click, events["amount_usd"], np.nan),
        "click_creator": np.where(click, events["creator_id"], None),
        "click_ip": np.where(click, events["ip"], None),
    }
