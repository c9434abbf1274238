"""The checks on plain data: each code by an example, one root cause by one finding, and what is told to do instead."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actor_risk.changes.checks import find
from actor_risk.changes.described import (
    EntityDefinition,
    FeatureDefinition,
    Problem,
    RepoDefinition,
    ServedModel,
    ServiceDefinition,
    SourceDefinition,
    ViewDefinition,
    WindowDefinition,
)
from actor_risk.changes.findings import CODES, Finding, page
from actor_risk.changes.functions import changed_outputs
from actor_risk.changes.plan import Change
from actor_risk.changes.reads import columns_read
from actor_risk.changes.values import Costs, FeatureValues, Profile, SampleValues, ServiceCost, ViewCost
from actor_risk.changes.wording import beside, length, next_version, window_in

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

FUNCTION = """
def ip_stats(events):
    import numpy as np

    kind = events["event_type"]
    return {
        "click": np.where(kind == "click", 1.0, np.nan),
        "click_usd": np.where(kind == "click", events["amount_usd"], np.nan),
    }
"""
RATIOS = """
def ratios(inputs):
    def ratio(above, below):
        return [a / b for a, b in zip(above, below)]

    return {
        "usd_per_click": ratio(inputs["ip_usd_24h"], inputs["ip_clicks_24h"]),
        "same": ratio(inputs["ip_usd_24h"], inputs["ip_usd_24h"]),
    }
"""


def code_of(text: str) -> str:
    """As the compile gives it: what layout and comments do not change."""
    return ast.dump(ast.parse(text))


def windowed(name: str, column: str, function: str, hours: float, **more: Any) -> FeatureDefinition:
    window = WindowDefinition(column=column, function=function, length_ms=int(hours * HOUR_MS), hop_ms=HOUR_MS, **more)
    return FeatureDefinition(name=name, kind="DOUBLE", description="What it counts", window=window)


def view(name: str, **more: Any) -> ViewDefinition:
    """A view as it should be; a function is given by its text alone."""
    given: dict[str, Any] = {
        "kind": "stream",
        "description": "What an IP does",
        "owner": "ads-risk",
        "tags": {"tier": "1", "pii": "ip"},
        "place": "ad_views.py:10",
        "entities": ("ip",),
        "keys": {"ip": "STRING"},
        "source": "ad_events",
        "timestamp_field": "event_time",
        "ttl_ms": 8 * DAY_MS,
        **more,
    }
    given["code"] = code_of(given.get("code_text", ""))
    made = ViewDefinition(name=name, **given)
    return msgspec.structs.replace(made, fingerprint=made.fingerprint or _fingerprint(made))


def _fingerprint(made: ViewDefinition) -> str:
    """Of its rows; an on-demand view has none."""
    if made.kind == "on_demand":
        return ""
    return str(hash((made.code, tuple((one.name, one.kind, _layout(one)) for one in made.features))))


def _layout(one: FeatureDefinition) -> tuple[Any, ...]:
    """What of a window rows depend on: a hop that is declared and not in force is not among it."""
    found = one.window
    return () if found is None else (found.column, found.function, found.length_ms, found.hop_ms)


STATS = view(
    "ip_stats",
    code_text=FUNCTION,
    columns=("click", "click_usd", "device_id"),
    features=(
        windowed("ip_clicks_1h", "click", "count", 1),
        windowed("ip_clicks_24h", "click", "count", 24),
        windowed("ip_usd_24h", "click_usd", "sum", 24),
        windowed("ip_devices_24h", "device_id", "count_distinct", 24),
    ),
)
PROFILE = view(
    "ip_profile",
    kind="batch",
    source="ip_profiles",
    features=(FeatureDefinition(name="ip_country", kind="STRING", description="Country of the IP"),),
)
ON_DEMAND = view(
    "ratios",
    kind="on_demand",
    entities=(),
    keys={},
    source="",
    ttl_ms=0,
    code_text=RATIOS,
    inputs=("ip_stats:ip_clicks_1h", "ip_stats:ip_clicks_24h", "ip_stats:ip_usd_24h"),
    features=(
        FeatureDefinition(name="usd_per_click", kind="DOUBLE", description="Price of a click"),
        FeatureDefinition(name="same", kind="DOUBLE", description="One"),
    ),
)
SERVICE = ServiceDefinition(
    name="click_risk",
    description="Is this click invalid?",
    owner="ads-risk",
    features=("ip_stats:ip_clicks_24h", "ip_profile:ip_country", "ratios:usd_per_click"),
    fingerprint="old",
    reads=("ip_stats", "ip_profile"),
)
EVENTS = SourceDefinition(
    name="ad_events",
    kind="stream",
    description="Clicks",
    columns={"event_id": "string", "event_time": "timestamp", "ip": "string", "amount_usd": "double"},
    topic="ad_events",
    path="/data/ad_events",
    timestamp_field="event_time",
)
PROFILES = SourceDefinition(
    name="ip_profiles",
    kind="table",
    description="IPs by day",
    mapped={"country": "ip_country"},
    timestamp_field="event_time",
)
IP = EntityDefinition(name="ip", key="ip", key_kind="STRING", description="An IP address")
MODEL = ServedModel(
    model="click_risk",
    version="v3",
    aliases=("champion",),
    service="click_risk",
    service_fingerprint="old",
    features=SERVICE.features,
)
OLD = RepoDefinition(
    project="demo",
    entities=(IP,),
    sources=(EVENTS, PROFILES),
    views=(STATS, PROFILE, ON_DEMAND),
    services=(SERVICE,),
)


def put(repo: RepoDefinition, **parts: Any) -> RepoDefinition:
    return msgspec.structs.replace(repo, **parts)


def edited(one: Any, **parts: Any) -> Any:
    """The definition with other parts, and the fingerprint and code that follow."""
    made = msgspec.structs.replace(one, **parts)
    if isinstance(made, ViewDefinition):
        made = msgspec.structs.replace(made, code=code_of(made.code_text))
        made = msgspec.structs.replace(made, fingerprint=_fingerprint(made))
    return made


def with_view(changed: ViewDefinition, repo: RepoDefinition = OLD) -> RepoDefinition:
    """The repository with that view, instead of the one of its name; the service's fingerprint follows."""
    others = tuple(changed if one.name == changed.name else one for one in repo.views)
    views = others if changed in others else (*others, changed)
    return with_fingerprint(put(repo, views=views))


def with_fingerprint(repo: RepoDefinition) -> RepoDefinition:
    """Services whose views or features differ from those of OLD have another fingerprint."""
    names = {ref.partition(":")[0] for ref in SERVICE.features}

    def parts(of: RepoDefinition) -> list[tuple[str, str, str]]:
        return [(one.name, one.fingerprint, one.code) for one in of.views if one.name in names]

    same = parts(repo) == parts(OLD)
    services = tuple(
        msgspec.structs.replace(one, fingerprint="old" if same and one.features == SERVICE.features else "new")
        for one in repo.services
    )
    return put(repo, services=services)


def feature(name: str, **parts: Any) -> ViewDefinition:
    """STATS with one feature changed."""
    features = tuple(edited(one, **parts) if one.name == name else one for one in STATS.features)
    return edited(STATS, features=features)


def window(name: str, **parts: Any) -> ViewDefinition:
    """STATS with the window of one feature changed."""
    found = STATS.feature(name)
    assert found is not None
    return feature(name, window=msgspec.structs.replace(found.window, **parts))


def more(*features: FeatureDefinition) -> ViewDefinition:
    """A view of its own, that nobody reads, with these features."""
    return view("ip_more", code_text=FUNCTION, features=features)


def service(**parts: Any) -> RepoDefinition:
    return with_fingerprint(put(OLD, services=(edited(SERVICE, **parts),)))


def source(changed: SourceDefinition) -> RepoDefinition:
    return put(OLD, sources=tuple(changed if one.name == changed.name else one for one in OLD.sources))


def renamed(kind: Any, was: str, name: str) -> tuple[Change, ...]:
    return (Change(what="renamed", kind=kind, name=name, was=was),)


def profile(**parts: Any) -> Profile:
    given: dict[str, Any] = {
        "rows": 1_000,
        "nulls": 0,
        "distinct": 300,
        "quantiles": (1.0, 2.0, 5.0, 9.0, 20.0, 60.0, 100.0),
        **parts,
    }
    return Profile(**given)


def values(name: str, old: Profile | None, new: Profile | None, **parts: Any) -> SampleValues:
    one = FeatureValues(feature=name, old=old, new=new, **parts)
    return SampleValues(sample="sample", events=1_000, queries=1_000, label="label", features=(one,))


USD = "ip_stats:ip_usd_24h"


@dataclass(frozen=True)
class Case:
    """A change, and the findings that it must give: exactly these codes."""

    codes: tuple[str, ...]
    new: RepoDefinition = OLD
    changes: tuple[Change, ...] = ()
    models: tuple[ServedModel, ...] = (MODEL,)
    values: SampleValues | None = None
    costs: Costs | None = None
    old: RepoDefinition = field(default=OLD)

    def found(self) -> tuple[Finding, ...]:
        return find(self.old, self.new, self.changes, self.models, self.values, self.costs)


def problem(code: str) -> Case:
    return Case(
        (code,), put(OLD, problems=(Problem(code=code, message="so", place="ad_views.py:3", subject="ip_stats"),))
    )


REKEYED = put(
    OLD,
    entities=(edited(IP, key="ip_address"),),
    views=(edited(STATS, keys={"ip_address": "STRING"}, tags={"tier": "1", "pii": "ip_address"}), PROFILE, ON_DEMAND),
)
RENAMED_ENTITY = put(
    OLD,
    entities=(edited(IP, name="address"),),
    views=tuple(edited(one, entities=("address",)) if one.entities else one for one in OLD.views),
)
RENAMED_VIEW = put(
    OLD,
    views=(edited(STATS, name="ip_ad_stats"), PROFILE, ON_DEMAND),
    services=(edited(SERVICE, features=("ip_ad_stats:ip_clicks_24h", *SERVICE.features[1:]), fingerprint="new"),),
)
REMOVED_VIEW = put(
    OLD,
    views=(PROFILE,),
    services=(edited(SERVICE, features=("ip_profile:ip_country",), fingerprint="new"),),
)

CASES = {
    "a file with a syntax error": problem("AR001"),
    "a module that does not import": problem("AR002"),
    "an import that hangs": problem("AR003"),
    "an import that calls the network": problem("AR004"),
    "an import that prints": problem("AR005"),
    "a function that does not exist": problem("AR006"),
    "nothing at all": Case(()),
    # breaks
    "a served feature removed": Case(
        ("AR101",), with_view(edited(STATS, features=tuple(f for f in STATS.features if f.name != "ip_clicks_24h")))
    ),
    "a feature removed that only a served function reads": Case(
        ("AR101",), with_view(edited(STATS, features=tuple(f for f in STATS.features if f.name != "ip_usd_24h")))
    ),
    "a served view removed, with all that reads it": Case(("AR101", "AR101"), REMOVED_VIEW),
    "a service without a model removed": Case(("AR101",), put(OLD, services=()), models=()),
    "a service without a model gives less": Case(("AR101",), service(features=SERVICE.features[:2]), models=()),
    "a feature removed that nobody reads": Case(
        ("AR105", "AR108"),
        with_view(edited(STATS, features=tuple(f for f in STATS.features if f.name != "ip_devices_24h"))),
    ),
    "a served window cut in half": Case(("AR102",), with_view(window("ip_clicks_24h", length_ms=12 * HOUR_MS))),
    "a served column changed": Case(("AR102",), with_view(window("ip_usd_24h", column="amount_usd"))),
    "a served type changed": Case(("AR102",), with_view(feature("ip_clicks_24h", kind="INT64"))),
    "the function of served features edited": Case(
        ("AR102",), with_view(edited(STATS, code_text=FUNCTION.replace('== "click", 1.0', '== "tap", 1.0')))
    ),
    "a helper of a served function edited": Case(
        ("AR102",), with_view(edited(ON_DEMAND, code_text=RATIOS.replace("a / b", "b / a")))
    ),
    "a function edited where nobody reads it": Case(
        ("AR105",),
        with_view(
            edited(ON_DEMAND, code_text=RATIOS.replace('inputs["ip_usd_24h"], inputs["ip_usd', '[1], inputs["ip_usd'))
        ),
    ),
    "an entity keyed otherwise": Case(("AR103",), with_fingerprint(REKEYED)),
    "an entity renamed": Case(("AR103",), RENAMED_ENTITY, renamed("entity", "ip", "address")),
    "a view on another key": Case(
        ("AR103",), with_view(edited(STATS, keys={"device_id": "STRING"}, tags={"tier": "1", "pii": "device_id"}))
    ),
    "another topic": Case(("AR104",), source(edited(EVENTS, topic="ad_events_v2"))),
    "another mapping": Case(("AR104",), source(edited(PROFILES, mapped={"country_code": "ip_country"}))),
    "another timestamp": Case(("AR104",), source(edited(PROFILES, timestamp_field="loaded_at"))),
    "a column of another type": Case(
        ("AR104",), source(edited(EVENTS, columns={**EVENTS.columns, "amount_usd": "long"}))
    ),
    "a feature added to a service that a model reads": Case(
        ("AR105",), service(features=(*SERVICE.features, "ip_stats:ip_clicks_1h"))
    ),
    "the features of a model in another order": Case(("AR105",), service(features=SERVICE.features[::-1])),
    "the features of a service without a model in another order": Case(
        (), service(features=SERVICE.features[::-1]), models=()
    ),
    "a service that a model reads removed": Case(("AR105",), put(OLD, services=())),
    "a view renamed": Case(("AR106",), RENAMED_VIEW, renamed("view", "ip_stats", "ip_ad_stats")),
    "a shorter TTL": Case(("AR107",), with_view(edited(STATS, ttl_ms=2 * DAY_MS))),
    "a TTL shorter than its windows": Case(("AR107",), with_view(edited(STATS, ttl_ms=HOUR_MS))),
    "a feature added to a served view": Case(
        ("AR108",),
        with_view(edited(STATS, features=(*STATS.features, windowed("ip_clicks_6h", "click", "count", 6)))),
        models=(),
    ),
    "a feature added to a view that a model reads": Case(
        ("AR105", "AR108"),
        with_view(edited(STATS, features=(*STATS.features, windowed("ip_clicks_6h", "click", "count", 6)))),
    ),
    # leakage
    "a feature that sees ahead": Case(
        ("AR201",), values=SampleValues(sample="s", events=9, queries=9, leaks={USD: 3, "ip_stats:ip_clicks_1h": 0})
    ),
    "a label among the columns of a topic": Case(
        ("AR202",), source(edited(EVENTS, columns={**EVENTS.columns, "label": "long"}))
    ),
    "a label mapped into a profile": Case(
        ("AR202",), source(edited(PROFILES, mapped={**PROFILES.mapped, "is_fraud": "ip_bad"}))
    ),
    "a label read by a function": Case(
        ("AR202",),
        with_view(
            view("ip_more", code_text='def f(events):\n    return {"click": events["is_attributed"]}', features=())
        ),
    ),
    "a column known only later": Case(
        ("AR203",),
        with_view(view("ip_more", code_text='def f(events):\n    return {"click": events.get("attributed_time")}')),
    ),
    "a new feature that is too good": Case(
        ("AR204",),
        with_view(more(windowed("ip_clicks_6h", "click", "count", 6))),
        values=values("ip_more:ip_clicks_6h", None, profile(label_auc=0.99)),
    ),
    "an old feature that is too good": Case((), values=values(USD, profile(label_auc=0.99), profile(label_auc=0.99))),
    # values
    "values that are gone": Case(("AR301",), values=values(USD, profile(nulls=10), profile(nulls=990), drift=3.0)),
    "values that were never there": Case((), values=values(USD, profile(nulls=990), profile(nulls=995))),
    "one value only": Case(
        ("AR302",), values=values(USD, profile(), profile(distinct=1, quantiles=(0.0,) * 7), drift=1.0)
    ),
    "infinite values": Case(("AR306",), values=values(USD, profile(), profile(infinite=3), drift=0.0)),
    "infinite values before and after": Case(
        (), values=values(USD, profile(infinite=3), profile(infinite=9), drift=0.0)
    ),
    "values that moved": Case(("AR303",), values=values(USD, profile(), profile(), drift=0.4)),
    "values that moved a little": Case((), values=values(USD, profile(), profile(), drift=0.1)),
    "values that moved by intent": Case(
        ("AR102",),
        with_view(window("ip_usd_24h", length_ms=12 * HOUR_MS)),
        values=values(USD, profile(), profile(), drift=0.4),
    ),
    "a function that fails": problem("AR304"),
    "cents": Case(
        ("AR305",),
        values=values(USD, profile(), profile(quantiles=tuple(100 * q for q in profile().quantiles)), drift=5.0),
    ),
    "hours for minutes": Case(
        ("AR305",), values=values(USD, profile(), profile(quantiles=tuple(q / 60 for q in profile().quantiles)))
    ),
    # conventions
    "no owner": Case(("AR401",), with_view(view("ip_more", code_text=FUNCTION, owner=""))),
    "no description of a service": Case(("AR402",), service(description="")),
    "no description of a feature": Case(("AR402",), with_view(feature("ip_clicks_1h", description=""))),
    "no tier": Case(("AR403",), with_view(edited(STATS, tags={"pii": "ip"}))),
    "no pii tag on a key": Case(("AR404",), with_view(edited(STATS, tags={"tier": "1"}))),
    "no pii tag on a field": Case(
        ("AR404",), with_view(more(FeatureDefinition(name="ip_owner_email", kind="STRING", description="Whose IP")))
    ),
    "a tagged field": Case(
        (), with_view(more(FeatureDefinition(name="ip_email", kind="STRING", description="x", tags={"pii": "true"})))
    ),
    "no TTL": Case(("AR405",), with_view(edited(STATS, ttl_ms=0))),
    "a name in capitals": Case(("AR406",), with_view(more(windowed("ip_Clicks_6h", "click", "count", 6)))),
    "a name without its window": Case(("AR406",), with_view(more(windowed("ip_clicks", "click", "count", 6)))),
    "a name without its entity": Case(("AR406",), with_view(more(windowed("clicks_6h", "click", "count", 6)))),
    "a hop that does not divide": Case(("AR407",), with_view(window("ip_clicks_24h", declared_hop_ms=7 * HOUR_MS))),
    "distinct devices over a week": Case(
        ("AR408",), with_view(more(windowed("ip_devices_3d", "device_id", "count_distinct", 72)))
    ),
    "distinct events": Case(("AR408",), with_view(more(windowed("ip_events_1h", "event_id", "count_distinct", 1)))),
    "distinct countries over a week": Case(
        (), with_view(more(windowed("ip_countries_7d", "country", "count_distinct", 168)))
    ),
    "a name of another window": Case(("AR409",), with_view(more(windowed("ip_clicks_24h", "click", "count", 12)))),
    "a name of the same window in another unit": Case(
        (), with_view(more(windowed("ip_clicks_1d", "click", "count", 24)))
    ),
    # costs
    "rows that grow": Case(
        ("AR501",),
        costs=Costs(
            old_views=(ViewCost(view="ip_stats", bytes_max=9_000, bytes_per_actor=2_000.0),),
            new_views=(ViewCost(view="ip_stats", bytes_max=9_000, bytes_per_actor=4_000.0, actors=10),),
        ),
    ),
    "rows that grow by little": Case(
        (),
        costs=Costs(
            old_views=(ViewCost(view="ip_stats", bytes_max=500),), new_views=(ViewCost(view="ip_stats", bytes_max=900),)
        ),
    ),
    "more reads": Case(
        ("AR502",),
        costs=Costs(
            old_services=(ServiceCost(service="click_risk", reads=2, features=3),),
            new_services=(ServiceCost(service="click_risk", reads=3, features=3),),
        ),
    ),
    # waivers
    "a waiver without a reason": Case(
        ("AR401", "AR601"),
        with_view(view("ip_more", owner="", code_text=FUNCTION, tags={"tier": "1", "pii": "ip", "waive:AR401": " "})),
    ),
    "a waiver of no code": Case(("AR601",), with_view(edited(STATS, tags={**STATS.tags, "waive:AR999": "because"}))),
    "a waiver of what cannot be": Case(
        ("AR601",), with_view(edited(STATS, tags={**STATS.tags, "waive:AR002": "because"}))
    ),
    "a waiver of nothing": Case(("AR602",), with_view(edited(STATS, tags={**STATS.tags, "waive:AR405": "because"}))),
    # harmless
    "other words": Case((), with_view(edited(STATS, description="Otherwise", place="ad_views.py:90"))),
    "another layout of a function": Case(
        (), with_view(edited(STATS, code_text=FUNCTION.replace("    kind", "\n    kind")))
    ),
    "definitions in another order": Case((), put(OLD, views=OLD.views[::-1], sources=OLD.sources[::-1])),
    "a view more": Case((), with_view(more(windowed("ip_clicks_6h", "click", "count", 6)))),
    "a topic with a column more": Case((), source(edited(EVENTS, columns={"os": "string", **EVENTS.columns}))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_gives_these_findings_and_no_others(name: str) -> None:
    case = CASES[name]
    assert sorted(finding.code for finding in case.found()) == sorted(case.codes)


def test_every_code_has_a_case() -> None:
    assert {code for case in CASES.values() for code in case.codes} == set(CODES)


@pytest.mark.parametrize("name", CASES)
def test_every_finding_says_to_what_and_what_to_write_instead(name: str) -> None:
    for finding in CASES[name].found():
        assert finding.subject
        assert finding.message
        assert finding.instead


def test_every_code_has_its_section(project_root: Path) -> None:
    text = (project_root / "docs/findings.md").read_text()
    assert re.findall(r"^### (AR\d+)$", text, re.MULTILINE) == list(CODES)
    for code, section in re.findall(r"^### (AR\d+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL):
        assert all(f"*{part}:*" in section.replace("\n", " ") for part in ("Why", "Mend", "Waive")), code
    assert page("AR102") == "docs/findings.md#ar102"


def test_a_changed_window_is_written_anew_under_its_own_name_in_a_view_of_its_own() -> None:
    (finding,) = CASES["a served window cut in half"].found()
    assert finding.subject == "ip_stats:ip_clicks_24h"
    assert "window: 24h → 12h" in finding.message
    assert "service click_risk, model click_risk@v3 (champion)" in finding.message
    assert "`ip_stats_v2`" in finding.instead
    assert 'function="count", time_window=timedelta(hours=12), name="ip_clicks_12h")' in finding.instead


def test_an_edit_of_one_column_is_about_the_features_of_that_column() -> None:
    (finding,) = CASES["the function of served features edited"].found()
    assert finding.subject == "ip_stats:ip_clicks_24h"
    assert "ip_usd_24h" not in finding.message


def test_an_edit_that_cannot_be_read_off_is_about_all_features() -> None:
    branching = FUNCTION.replace("    return {", "    if len(kind):\n        kind = kind\n    return {")
    (finding,) = find(OLD, with_view(edited(STATS, code_text=branching)), (), (MODEL,), None, None)
    assert finding.code == "AR102"
    assert all(f"`{one}`" in finding.message for one in ("ip_clicks_24h", "ip_usd_24h"))


def test_a_feature_behind_a_function_is_read_by_the_service_of_the_function() -> None:
    (finding,) = CASES["a feature removed that only a served function reads"].found()
    assert finding.subject == "ip_stats:ip_usd_24h"
    assert "service click_risk" in finding.message


def test_rows_to_fill_come_with_the_command_that_the_costs_know() -> None:
    case = CASES["a feature added to a served view"]
    (plain,) = case.found()
    (known,) = replace(case, costs=Costs(backfill=("actor-risk backfill --view ip_stats --workers 2",))).found()
    assert "actor-risk backfill --view ip_stats\n" in plain.instead
    assert "--view ip_stats --workers 2\n" in known.instead


def test_a_model_that_did_not_fit_before_is_not_the_fault_of_the_change() -> None:
    stale = msgspec.structs.replace(MODEL, service_fingerprint="older")
    case = CASES["a feature added to a service that a model reads"]
    assert replace(case, models=(stale,)).found() == ()


def test_what_the_old_version_did_already_is_not_told_again() -> None:
    for name in ("no owner", "no tier", "no pii tag on a key", "no TTL", "a name in capitals", "distinct events"):
        case = CASES[name]
        assert replace(case, old=case.new).found() == ()


def test_a_leak_is_told_although_the_definition_is_as_it_was() -> None:
    assert [finding.code for finding in CASES["a feature that sees ahead"].found()] == ["AR201"]


@pytest.mark.parametrize("on", ["view", "feature", "source", "service"])
def test_a_waiver_counts_on_what_the_finding_is_about_and_around_it(on: str) -> None:
    tag = {"waive:AR102": "asked both teams"}
    new = CASES["a served window cut in half"].new
    stats = new.view("ip_stats")
    assert stats is not None
    if on == "view":
        new = put(new, views=(edited(stats, tags={**stats.tags, **tag}), *new.views[1:]))
    if on == "feature":
        features = tuple(edited(one, tags=tag) if one.name == "ip_clicks_24h" else one for one in stats.features)
        new = put(new, views=(edited(stats, features=features), *new.views[1:]))
    if on == "source":
        new = put(new, sources=(edited(EVENTS, tags=tag), PROFILES))
    if on == "service":
        new = put(new, services=(edited(new.services[0], tags=tag),))
    (finding,) = find(OLD, new, (), (MODEL,), None, None)
    assert (finding.code, finding.waived, finding.severity) == ("AR102", "asked both teams", "note")


def test_a_waiver_that_was_merged_is_not_told_again() -> None:
    new = CASES["a waiver of nothing"].new
    assert find(new, new, (), (), None, None) == ()


def test_errors_come_first_and_a_repository_that_cannot_be_read_is_compared_with_nothing() -> None:
    empty = RepoDefinition(problems=(Problem(code="AR002", message="no module named x"),))
    assert [finding.code for finding in find(OLD, empty, (), (MODEL,), None, None)] == ["AR002"]
    case = CASES["a waiver without a reason"]
    assert [finding.severity for finding in case.found()] == sorted(finding.severity for finding in case.found())


def test_functions_are_read_by_their_columns() -> None:
    old = 'def f(e):\n    m = ("a", "b")\n    return {"x": e["p"] * 2, **{k: e["kind"] == k for k in m}}'
    assert columns_read(old) == {"p", "kind"}
    assert changed_outputs(old, old.replace('"b")', '"b", "c")  # more')) == {"c"}
    assert changed_outputs(old, old.replace("* 2", "* 3")) == {"x"}
    assert changed_outputs(old, old.replace("== k", "!= k")) == {"a", "b"}
    assert changed_outputs(old, "lambda e: e") is None
    assert changed_outputs("", old) == {"x", "a", "b"}
    assert changed_outputs(old, old.replace("    return", "    for m in m:\n        pass\n    return")) is None


def test_names_are_made_as_people_write_them() -> None:
    assert [length(ms) for ms in (500, 10_000, 300_000, DAY_MS, 7 * DAY_MS)] == ["500ms", "10s", "5m", "24h", "7d"]
    assert [window_in(name) for name in ("ip_clicks_24h", "ip_clicks_1d", "ip_clicks")] == [DAY_MS, DAY_MS, None]
    assert [next_version(name) for name in ("ip_stats", "ip_stats_v2", "ip_clicks_24h")] == [
        "ip_stats_v2",
        "ip_stats_v3",
        "ip_clicks_v2_24h",
    ]
    old = WindowDefinition(column="click", function="count", length_ms=DAY_MS, hop_ms=HOUR_MS)
    assert beside("ip_clicks_24h", old, msgspec.structs.replace(old, length_ms=HOUR_MS)) == "ip_clicks_1h"
    assert beside("ip_clicks_24h", old, msgspec.structs.replace(old, function="sum")) == "ip_clicks_v2_24h"
