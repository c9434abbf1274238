"""Plans built as data, for tests of what is said of them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from actor_risk.changes.described import Problem, RepoDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.plan import Change, Plan
from actor_risk.changes.values import QUANTILES, Costs, FeatureValues, Profile, SampleValues, ServiceCost, ViewCost

HOSTILE = (
    "a|b`c<script>alert(1)</script> @team #12 **x** </details>\n# head\r\x1b[31mred\u202e https://x.test www.x.test"
)
"""What a name, a description or a reason might hold."""
SECRET = 192_168_001_077.0
"""A value that stands for one actor's."""


def plan(**given: Any) -> Plan:
    """A plan in which nothing changes, but for what is given."""
    return replace(Plan(against="main", old=RepoDefinition(), new=RepoDefinition(), seconds=9.04), **given)


def profile(low: float = 0.0, high: float = 10.0, **given: Any) -> Profile:
    """Values that lie evenly between two."""
    told = Profile(
        rows=100,
        nulls=5,
        distinct=40,
        low=low,
        high=high,
        mean=(low + high) / 2,
        quantiles=tuple(low + (high - low) * part for part in QUANTILES),
        edges=(0.0, 5.0, 10.0, 20.0),
        histogram=(40, 30, 25),
        label_correlation=0.25,
        label_auc=0.75,
    )
    return replace(told, **given)


def full_plan() -> Plan:
    """A plan with something to tell in every part: a window was cut in half."""
    return plan(
        changes=(
            Change(
                what="changed",
                kind="feature",
                name="ip_ad_stats:ip_clicks_24h",
                details=("window: 24h → 12h",),
                served_by=("ad_click_risk", "ad_click_risk@ae39865a02b97013"),
                place="ad_views.py:31",
            ),
            Change(what="added", kind="feature", name="ip_ad_stats:ip_clicks_12h", place="ad_views.py:31"),
            Change(what="renamed", kind="entity", name="address", was="ip"),
            Change(
                what="changed", kind="view", name="ip_profile", details=("description: other words",), meaning=False
            ),
        ),
        findings=(
            Finding(code="AR402", subject="ip_ad_stats:ip_clicks_12h", message="`ip_clicks_12h` has no description."),
            Finding(
                code="AR102",
                subject="ip_ad_stats:ip_clicks_24h",
                message="`ip_clicks_24h` is changed in place: window 24h → 12h. ad_click_risk reads it.",
                instead='Leave it, and write beside it:\nwindowed("ip_clicks", "click", "count", "12h", "Clicks")',
                place="ad_views.py:31",
            ),
            Finding(
                code="AR501", subject="ip_ad_stats", message="Rows grow.", waived="agreed with the platform's owners"
            ),
        ),
        values=SampleValues(
            sample="data",
            events=100_000,
            queries=100,
            features=(
                FeatureValues(
                    feature="ip_ad_stats:ip_clicks_24h", old=profile(), new=profile(high=5.0), drift=0.41, changed=60
                ),
                FeatureValues(feature="ip_ad_stats:ip_clicks_12h", old=None, new=profile()),
                FeatureValues(feature="ip_ad_stats:ip_clicks_5m", old=profile(), new=profile(), drift=0.0),
            ),
        ),
        costs=Costs(
            old_views=(ViewCost(view="ip_ad_stats", bytes_max=9_000, bytes_per_actor=1_000.0, tiles_per_row=40.25),),
            new_views=(
                ViewCost(
                    view="ip_ad_stats",
                    bytes_max=9_900,
                    bytes_per_actor=1_200.0,
                    tiles_per_row=50.0,
                    backfill_events=1_234_567,
                    backfill_rows=9_876,
                    backfill_seconds=75.0,
                ),
            ),
            old_services=(ServiceCost(service="ad_click_risk", reads=8, features=60, latency_us=400.0),),
            new_services=(ServiceCost(service="ad_click_risk", reads=9, features=61, latency_us=420.0),),
            backfill=("actor-risk backfill --view ip_ad_stats",),
        ),
    )


def masked_plan(side: str) -> Plan:
    """A plan whose feature only one version tags `pii`, with values that must not be seen in either."""
    held = profile(low=SECRET, high=SECRET + 2, edges=(SECRET, SECRET + 1, SECRET + 2, SECRET + 3))
    told = {name: replace(held, masked=name == side) for name in ("old", "new")}
    values = FeatureValues(feature="v:address", drift=0.2, changed=17, **told)
    return plan(
        changes=(Change(what="changed", kind="feature", name="v:address"),),
        values=SampleValues(sample="data", events=10, queries=100, features=(values,)),
    )


def hostile_plan() -> Plan:
    """Every text that may come from a repository is hostile."""
    told = full_plan()
    finding = Finding(code="AR102", subject=HOSTILE, message=HOSTILE, instead=HOSTILE, place=HOSTILE)
    values = FeatureValues(feature=HOSTILE, old=profile(), new=profile(), drift=0.5, changed=3)
    view, service = (
        ViewCost(view=HOSTILE, bytes_max=3, backfill_events=1),
        ServiceCost(service=HOSTILE, reads=1, features=1),
    )
    return replace(
        told,
        against=HOSTILE,
        changes=(
            Change(
                what="renamed",
                kind="view",
                name=HOSTILE,
                was=HOSTILE,
                details=(HOSTILE,),
                served_by=(HOSTILE,),
                place=HOSTILE,
            ),
        ),
        findings=(
            finding,
            replace(finding, instead="one line " + HOSTILE.replace("\n", " ")),
            replace(finding, waived=HOSTILE),
        ),
        values=SampleValues(sample=HOSTILE, events=1, queries=1, features=(values,), leaks={HOSTILE: 1}),
        costs=Costs(new_views=(view,), new_services=(service,), backfill=(HOSTILE,)),
        missing=(HOSTILE,),
    )


def broken_plan() -> Plan:
    """The new version does not import: nothing is known but the problem."""
    message = "ad_views.py, line 3: SyntaxError: '(' was never closed"
    return plan(new=RepoDefinition(problems=(Problem(code="AR001", message=message, place="ad_views.py:3"),)))


def large_plan(count: int = 5_000) -> Plan:
    """So many of everything."""
    told = full_plan()
    change, finding = told.changes[0], told.findings[0]
    assert told.values is not None
    values = told.values.features[0]
    names = [f"view_{number}:{'long_' * 20}feature_{number}" for number in range(count)]
    return replace(
        told,
        changes=tuple(replace(change, name=name) for name in names),
        findings=tuple(replace(finding, subject=name) for name in names),
        values=replace(told.values, features=tuple(replace(values, feature=name) for name in names)),
    )
