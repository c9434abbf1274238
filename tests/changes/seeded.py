"""Mistakes seeded into the demo's feature repository, and edits that are none: each as replacements of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.changes.repos import edit

ADDED = "added_views.py"

VIEW = '''"""A view more."""

from datetime import timedelta

from entities import device
from feast.aggregation import Aggregation
from feast.field import Field
from feast.stream_feature_view import stream_feature_view
from feast.types import Float64, Int64
from sources import ad_events
from windowed import stream_features, windowed


@stream_feature_view(
    entities=[device],
    source=ad_events,
    mode="python",
    timestamp_field="event_time",
    ttl=timedelta(days=8),
    owner="ads-risk",
    description="What more a device does with ads.",
    tags={"tier": "2", "pii": "device_id"},
    **stream_features("device_id", FEATURES),
)
def device_more(events):
    """Marks clicks."""
    import numpy as np

    click = events["event_type"] == "click"
    return {"click": np.where(click, 1.0, np.nan), COLUMNS}
'''

ON_DEMAND = '''"""What is known of a click by itself."""

from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

seen = RequestSource(
    name="seen",
    description="What the page saw of the click.",
    schema=[Field(name="quality", dtype=Float64, description="Of the click")],
)


@on_demand_feature_view(
    sources=[seen],
    mode="python",
    owner="ads-risk",
    description="What is known of a click by itself.",
    schema=[Field(name="click_quality", dtype=Float64)],
    tags={"tier": "2", "describe:click_quality": "Quality of the click"},
)
def click_itself(inputs):
    """Passes it on."""
    return {"click_quality": inputs["quality"]}
'''


IP = """ip = Entity(
    name="ip",
    join_keys=["ip"],
    value_type=ValueType.STRING,
    description="An IP address: links the actors that use it.",
)
"""
DEVICE = """device = Entity(
    name="device",
    join_keys=["device_id"],
    value_type=ValueType.STRING,
    description="A device fingerprint: links the actors that use it.",
)
"""
"""Two definitions that stand one after the other."""


def added_view(features: str, columns: str = "") -> dict[str, str]:
    """A file with a view of its own, of these features and further columns."""
    return {ADDED: VIEW.replace("FEATURES", features).replace(", COLUMNS", f", {columns}" if columns else "")}


@dataclass(frozen=True)
class Edit:
    """A version of the repository. edits: (file, old text, new text), any number of places; files: those it adds.

    codes: all that must be found; none for a harmless one.
    """

    name: str
    codes: frozenset[str]
    edits: tuple[tuple[str, str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    def make(self, repo: Path) -> None:
        """Edits the copy of the repository."""
        for file, old, new in self.edits:
            edit(repo, file, old, new, times=None)
        for file, text in self.files:
            (repo / file).write_text(text)


def mistake(name: str, codes: str, *edits: tuple[str, str, str], files: dict[str, str] | None = None) -> Edit:
    return Edit(name, frozenset(codes.split()), edits, tuple((files or {}).items()))


def _explicit(aggregation: str) -> tuple[tuple[str, str, str], ...]:
    """`device_ips_24h` written out with an aggregation of its own."""
    line = 'windowed("device_ips", "ip", "count_distinct", "24h", "Distinct IPs of the device")'
    field = 'Field(name="device_ips_24h", dtype=Int64, description="Distinct IPs of the device, last 24h")'
    named = f'Aggregation(column="ip", function="count_distinct", name="device_ips_24h", {aggregation})'
    imports = (
        "from feast.aggregation import Aggregation\nfrom feast.field import Field\nfrom feast.types import Int64\n"
    )
    return (
        ("ad_views.py", line, f"[({named}, {field})]"),
        ("ad_views.py", "from sources import", f"{imports}from sources import"),
    )


MISTAKES = (
    mistake(
        "a served feature is removed",
        "AR101",
        (
            "ad_views.py",
            '"count_distinct", "1h 24h", "Distinct devices on the IP"',
            '"count_distinct", "1h", "Devices"',
        ),
    ),
    mistake("a window is cut in half", "AR102", *_explicit("time_window=timedelta(hours=12)")),
    mistake(
        "a unit is changed from usd to cents",
        "AR102 AR305",
        (
            "ad_views.py",
            '        "click_device": np.where(click, events["device_id"], None),\n'
            '        "click_usd": np.where(click, events["amount_usd"], np.nan),',
            '        "click_device": np.where(click, events["device_id"], None),\n'
            '        "click_usd": np.where(click, events["amount_usd"] * 100, np.nan),',
        ),
    ),
    mistake(
        "nearly all values become null",
        "AR102 AR301",
        ("ad_views.py", '"click_delay_ms": np.where(click,', '"click_delay_ms": np.where(kind == "clicks",'),
    ),
    mistake(
        "a feature leaks by one millisecond",
        "AR201",
        files=added_view(
            'windowed("device_clicks_early", "click", "count", "1h", "Clicks from the device")',
            '"event_time": events["event_time"] - 1',
        ),
    ),
    mistake(
        "a label is in a source",
        "AR202",
        ("sources.py", "ms_since_impression long", "ms_since_impression long, label long"),
    ),
    mistake("an entity is renamed", "AR103", ("entities.py", 'name="device"', 'name="device_fingerprint"')),
    mistake(
        "a pii field is untagged",
        "AR404",
        ("ad_views.py", 'tags={"tier": "1", "pii": "device_id"}', 'tags={"tier": "1"}'),
    ),
    mistake(
        "a hop does not divide its window",
        "AR407",
        *_explicit("time_window=timedelta(hours=24), slide_interval=timedelta(minutes=7)"),
    ),
    mistake(
        "nobody owns a view",
        "AR401",
        ("profile_views.py", 'owner="ads-risk",\n    description="A creator', 'description="A creator'),
    ),
    mistake(
        "a view has no TTL",
        "AR405",
        ("profile_views.py", "ttl=KEPT,\n    source=creator_profiles", "source=creator_profiles"),
    ),
    mistake(
        "a distinct count is unbounded",
        "AR408",
        files=added_view('windowed("device_ips", "ip", "count_distinct", "7d", "Distinct IPs of the device")'),
    ),
    mistake(
        "a type is changed",
        "AR102",
        ("profile_views.py", 'name="creator_followers", dtype=Int64', 'name="creator_followers", dtype=Float64'),
    ),
    mistake(
        "the code of an on-demand view is changed", "AR102", ("on_demand_views.py", "max(n, 1) / 24", "max(n, 1) / 10")
    ),
    mistake(
        "a service is reordered",
        "AR105",
        (
            "services.py",
            "        device_ad_stats,\n        creator_ad_stats,",
            "        creator_ad_stats,\n        device_ad_stats,",
        ),
    ),
    mistake(
        "a view is renamed",
        "AR106",
        ("ad_views.py", "device_ad_stats", "device_click_stats"),
        ("services.py", "device_ad_stats", "device_click_stats"),
    ),
    mistake("a topic is changed", "AR104", ("sources.py", "topic=name", 'topic=f"{name}_v2"')),
    mistake(
        "attributed_time is used",
        "AR203",
        ("sources.py", "ms_since_impression long", "ms_since_impression long, attributed_time double"),
        files=added_view(
            'windowed("device_attributed", "attributed", "count", "24h", "Attributed clicks from the device")',
            '"attributed": np.where(events["attributed_time"] > 0, 1.0, np.nan)',
        ),
    ),
    mistake(
        "one feature alone is too good",
        "AR204",
        ("sources.py", "ms_since_impression long", "ms_since_impression long, quality double"),
        files={ADDED: ON_DEMAND},
    ),
    mistake(
        "a name contradicts its window",
        "AR409",
        files=added_view(
            "[(Aggregation(column='click', function='count', time_window=timedelta(hours=12), name='device_taps_24h'), "
            "Field(name='device_taps_24h', dtype=Int64, description='Taps'))]"
        ),
    ),
)
"""Twenty, and what must be found of each: these codes and no other."""

HARMLESS = (
    mistake(
        "comment",
        "",
        (
            "ad_views.py",
            '    kind = events["event_type"]\n',
            '    # what it is\n    kind = events["event_type"]  # a word\n',
        ),
        ("on_demand_views.py", '    """Divides."""', '    """Divides, and nothing else."""\n    # None stays None'),
    ),
    mistake(
        "reorder",
        "",
        ("ad_views.py", '{"tier": "1", "pii": "ip"}', '{"pii": "ip", "tier": "1"}'),
        ("entities.py", f"{IP}{DEVICE}", f"{DEVICE}{IP}"),
        ("sources.py", "event_id string, event_time timestamp, ", "event_time timestamp, event_id string, "),
    ),
    mistake(
        "reformat",
        "",
        (
            "ad_views.py",
            '        "click_ip": np.where(click, events["ip"], None),\n',
            '        "click_ip": (\n            np.where(\n                click,\n'
            '                events["ip"],\n                None,\n            )\n        ),\n',
        ),
        ("on_demand_views.py", "max(n, 1) / 24 for n in", "(max(n, 1)) / 24\n        for n in"),
    ),
    mistake(
        "local names",
        "",
        ("ad_views.py", 'kind = events["event_type"]', 'what = events["event_type"]'),
        ("ad_views.py", "kind ==", "what =="),
        ("on_demand_views.py", "usual_hour", "mean_hour"),
        ("on_demand_views.py", "max(n, 1) / 24 for n in", "max(count, 1) / 24 for count in"),
        ("on_demand_views.py", "None if n is None else", "None if count is None else"),
    ),
    mistake(
        "description",
        "",
        ("ad_views.py", "What an IP address does with ads.", "What an IP address does with advertisements."),
        ("ad_views.py", '"Clicks from the IP"', '"Clicks that came from the IP"'),
        ("services.py", "Is this click invalid traffic?", "Is this click invalid?"),
    ),
    mistake(
        "new unused feature",
        "",
        files=added_view('windowed("device_clicks", "click", "count", "6h", "Clicks from the device")'),
    ),
)
"""Six. The new feature is in a view of its own: in a served one, rows would have to be filled again, which is no harm
done, but no trifle either: NOT_HARMLESS."""

NOT_HARMLESS = (
    mistake(
        "new unused feature in a view that a model reads whole",
        "AR105 AR108",
        (
            "ad_views.py",
            '"count", "5m 1h 24h 7d", "Clicks from the device"',
            '"count", "5m 1h 6h 24h 7d", "Clicks from the device"',
        ),
    ),
    mistake(
        "aggregations reordered in a view that a model reads whole",
        "AR105 AR108",
        (
            "ad_views.py",
            '"count", "5m 1h 24h 7d", "Clicks from the device"',
            '"count", "7d 24h 1h 5m", "Clicks from the device"',
        ),
    ),
)
"""Edits that look harmless, and are not."""
