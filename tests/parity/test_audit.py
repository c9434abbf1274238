"""The whole chain: a real server's decisions, its real log, the real worker, and the audit that computes them again."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from click.testing import CliRunner, Result
from feast import FeatureStore

from actor_risk.audit import AuditReport, AuditSettings, audit
from actor_risk.audit.report import FeatureReport
from actor_risk.cli import main
from actor_risk.feast_repo import apply_repo
from materialize.definitions import open_feature_store
from materialize.events import TOPICS as SCHEMAS
from materialize.online import FeatureReader, RowWriter, open_reader
from materialize.stream import DeadLetters, RedisLogSettings, open_event_log
from materialize.stream.worker import StreamWorker
from models import ModelStore
from serving.clock import Clock
from serving.decision import Decision
from serving.decision_files import DecisionFiles, FileLimits
from serving.inputs import decode_request
from serving.policy import Policy
from serving.scoring import ScoringService
from tests.parity.test_online_equals_offline import actors_of
from tests.serving.fakes import publish_model
from tests.support.world import SETTINGS, TOPICS, World, drain, moment, publish

NOW_MS = SETTINGS.end_ms + 3 * 60_000
"""Some minutes after the newest event of the simulated history."""

MINUTE_MS = 60_000
Ask = Callable[..., Decision]


@dataclass
class Site:
    """A server over the session's rows, its decision log, and a history of its own that tests may change."""

    world: World
    root: Path
    service: ScoringService
    reader: FeatureReader
    decisions: DecisionFiles
    worker: StreamWorker
    loop: asyncio.AbstractEventLoop
    log: Any
    now_ms: list[int]
    sent: int = 0

    def ask(self, model: str, now_ms: int = NOW_MS, **body: Any) -> Decision:
        """One decision, at a time."""
        request = decode_request(msgspec.json.encode({"model": model, **body}))
        self.now_ms[0] = now_ms
        self.sent += "event" in body and body.get("publish_event", True)
        return self.loop.run_until_complete(self.service.score(request, 0))

    def log_event(self, topic: str, event: dict[str, Any]) -> None:
        """Publish one event that nobody scores."""
        publish(self.log, topic, [msgspec.json.encode(event)], ["k"])
        self.sent += 1

    def row_key(self, client: redis.Redis, view: str, word: str) -> bytes:
        """The key of the one row of a view whose entity key has this word in it."""
        (key,) = client.scan_iter(match=f"{self.world.project}:{view}:*{word}*", count=10_000)
        return bytes(key)

    def fold(self) -> None:
        """Let the worker fold what was published."""
        drain(self.worker, self.sent)

    @property
    def history(self) -> Path:
        """Where the Parquet history lies."""
        return self.root / "data"

    def add_to_history(self, topic: str, events: Sequence[dict[str, Any]], name: str = "more") -> None:
        """Append events to the history, each created when it says, or when it happened."""
        schema = pq.read_schema(self.history / topic / "part-0000.parquet")
        rows = [{"created": event["event_time"], **event} for event in events]
        table = pa.table({field: [row.get(field) for row in rows] for field in schema.names}, schema=schema)
        pq.write_table(table, self.history / topic / f"part-{name}.parquet")

    def extend_history(self) -> None:
        """Append what was published, as a nightly job would."""
        for topic, struct in SCHEMAS.items():
            records = self.log.tail(topic, 10_000)
            events = [msgspec.structs.asdict(msgspec.json.decode(one.value, type=struct)) for one in records]
            if events:
                self.add_to_history(topic, events, "published")

    def audit(self, store: FeatureStore | None = None, **changed: Any) -> AuditReport:
        """What an audit of everything so far says."""
        self.decisions.close()
        settings = AuditSettings(
            log=self.root / "decisions",
            from_ms=NOW_MS - 24 * 60 * MINUTE_MS,
            to_ms=NOW_MS + 24 * 60 * MINUTE_MS,
            history_until_ms=NOW_MS + 60 * MINUTE_MS,
        )
        return audit(store or self.store(), replace(settings, **changed), lambda *_: None)

    def store(self) -> FeatureStore:
        """The registry over this site's own history."""
        return open_feature_store(self.world.repo_path, self.root / "registry.db")


@pytest.fixture(scope="module")
def applied(served: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the history, and a registry of the same definitions over it."""
    root = tmp_path_factory.mktemp("audit")
    shutil.copytree(served.registry_path.parent / "data", root / "data")
    apply_repo(served.repo_path, root / "registry.db", {"ACTOR_RISK_DATA": str(root / "data")})
    return root


@pytest.fixture
def site(served: World, applied: Path, tmp_path: Path, redis_namespace: str) -> Iterator[Site]:
    before = {path: path.read_bytes() for path in (applied / "data").rglob("*.parquet")}
    root = applied
    shutil.rmtree(root / "decisions", ignore_errors=True)
    reader = open_reader(served.redis_url, served.repo_path, served.registry_path, timeout_s=10)
    models = ModelStore(tmp_path / "models")
    for name in ("ad_click_risk", "advertiser_risk"):
        plan = reader.plan(name)
        publish_model(models, refs=plan.features, fingerprint=plan.fingerprint, service=name)
    decisions = DecisionFiles(root / "decisions", "test", FileLimits(folder_bytes_max=1 << 30), lambda: NOW_MS)
    loop = asyncio.new_event_loop()
    with (
        closing(open_event_log(RedisLogSettings(url=served.redis_url, prefix=redis_namespace))) as log,
        redis.Redis.from_url(served.redis_url) as client,
    ):
        log.ensure_topics(TOPICS)
        publisher = log.async_publisher()
        ticks, now_ms = itertools.count(), [NOW_MS]
        clock = Clock(now_ms=lambda: now_ms[0], monotonic_ns=lambda: next(ticks))
        service = ScoringService(reader, models, publisher, clock, secrets.token_bytes, 10, decisions)
        loop.run_until_complete(service.load(dict.fromkeys(("ad_click_risk", "advertiser_risk"), "champion")))
        with closing(log.consumer(TOPICS, "workers")) as consumer:
            worker = StreamWorker(
                served.project,
                served.views(),
                consumer,
                RowWriter(client),
                DeadLetters(log),
                lambda: NOW_MS + 3_600_000,
            )
            yield Site(served, root, service, reader, decisions, worker, loop, log, now_ms)
        loop.run_until_complete(publisher.close())
        loop.run_until_complete(reader.close())
    decisions.close()
    loop.close()
    for path in (applied / "data").rglob("*.parquet"):
        if path not in before:
            path.unlink()
    for path, data in before.items():
        path.write_bytes(data)


def click(who: str, number: int, time_ms: int, **changed: Any) -> dict[str, Any]:
    """A click on entities that only `who` has."""
    event = {
        "event_id": f"{who}-{number}",
        "event_time": time_ms,
        "event_type": "click",
        "advertiser_id": f"{who}-a",
        "creator_id": f"{who}-c",
        "ip": f"{who}-i",
        "device_id": f"{who}-{number % 3}",
        "amount_usd": 0.1 * number,
        "ms_since_impression": 100 + number,
    }
    return {**event, **changed}


def payment(who: str, number: int, time_ms: int) -> dict[str, Any]:
    return {
        "event_id": f"{who}-p{number}",
        "event_time": time_ms,
        "event_type": "payment",
        "actor_type": "advertiser",
        "actor_id": f"{who}-a",
        "ip": f"{who}-i",
        "device_id": f"{who}-d",
        "country": "FR",
        "amount_usd": 20.0 / 3 * number,
    }


def differing(report: AuditReport) -> dict[str, FeatureReport]:
    return {feature.feature.partition(":")[2]: feature for feature in report.differing_features}


def ask_about_known_actors(site: Site, count: int = 25) -> int:
    """Decisions about actors of the simulated world, without an event."""
    asked = 0
    for service in ("ad_click_risk", "advertiser_risk"):
        keys = {"ad_click_risk": ("ip", "device_id", "creator_id", "advertiser_id")}.get(
            service, ("advertiser_id", "device_id", "ip")
        )
        for actor in actors_of(site.world, service, count):
            extras = {name: value for name, value in actor.items() if name not in keys and value == value}
            site.ask(service, entities={key: actor[key] for key in keys}, request=extras)
            asked += 1
    return asked


def test_what_was_served_audits_as_equal_for_every_feature_of_both_services(site: Site) -> None:
    asked = ask_about_known_actors(site)
    for number in range(40):
        at_ms = NOW_MS + number * 700
        site.ask("ad_click_risk", at_ms, event=click("audit-1", number, at_ms - 50))
        site.ask("advertiser_risk", at_ms, event=payment("audit-1", number, at_ms - 40))
        site.ask("ad_click_risk", at_ms + 5, event=click("audit-2", number, at_ms), publish_event=False)
        site.fold()
    site.extend_history()
    report = site.audit()
    assert report.verdict == "equal", differing(report)
    assert report.exit_code == 0
    assert (report.decisions, report.compared_decisions) == (asked + 120, asked + 120)
    assert report.own_events == 40
    assert not report.set_apart
    assert not report.unreadable_lines + report.cut_off_lines
    assert len(report.features) > 90
    for feature in report.features:
        assert feature.compared == feature.equal + feature.late, feature
        assert not feature.not_compared
    counted = next(feature for feature in report.features if feature.feature == "ip_ad_stats:ip_clicks_24h")
    assert max(point.online or 0 for point in counted.points) >= 40


def test_a_stale_row_is_late_while_the_event_may_be_on_its_way_and_a_mismatch_after_that(site: Site) -> None:
    site.ask("ad_click_risk", NOW_MS, event=click("lag", 0, NOW_MS))
    site.ask("ad_click_risk", NOW_MS + 1_000, event=click("lag", 1, NOW_MS + 1_000))  # does not see the first yet
    site.extend_history()
    report = site.audit(lag_ms=2_000)
    clicks = next(feature for feature in report.features if feature.feature == "ip_ad_stats:ip_clicks_5m")
    assert (clicks.equal, clicks.late, clicks.differing) == (1, 1, 0)
    assert report.verdict == "equal"
    late = differing(site.audit(lag_ms=500))["ip_clicks_5m"]
    assert (late.equal, late.late, late.mismatched) == (1, 0, 1)
    assert differing(site.audit(lag_ms=None))["ip_clicks_5m"].mismatched == 1


def test_an_event_that_the_log_took_after_the_decision_is_late_and_one_that_it_had_is_a_mismatch(site: Site) -> None:
    for who in ("late", "lost"):
        site.ask("ad_click_risk", event=click(who, 0, NOW_MS - 1_000), publish_event=False)
    missed = [
        {**click("late", 1, NOW_MS - 60_000), "created": NOW_MS + 5_000},
        {**click("lost", 1, NOW_MS - 60_000), "created": NOW_MS - 59_000},
    ]
    site.add_to_history("ad_events", missed)
    found = differing(site.audit())
    clicks = found["ip_clicks_1h"]
    assert (clicks.late, clicks.mismatched, clicks.worst) == (1, 1, 1.0)
    (example,) = clicks.examples
    assert (example.entities["ip"], example.online, example.offline) == ("lost-i", 1.0, 2.0)


def test_a_row_changed_by_hand_is_found_and_nothing_else(site: Site) -> None:
    for who in ("hand-1", "hand-2", "hand-3"):
        for number in range(6 if who == "hand-1" else 3):
            at_ms = NOW_MS - 3_600_000 + number * 1_000
            site.log_event("ad_events", click(who, number, at_ms))
    site.fold()
    with redis.Redis.from_url(site.world.redis_url) as client:
        row = client.get(site.row_key(client, "ip_ad_stats", "hand-1-i"))
        client.set(site.row_key(client, "ip_ad_stats", "hand-2-i"), row)
    for who in ("hand-1", "hand-2", "hand-3"):
        keys = {"ip": f"{who}-i", "device_id": f"{who}-0", "creator_id": f"{who}-c", "advertiser_id": f"{who}-a"}
        site.ask("ad_click_risk", entities=keys)
    site.extend_history()
    found = site.audit()
    views = {feature.feature.partition(":")[0] for feature in found.differing_features}
    assert views <= {"ip_ad_stats", "click_ratios"}
    clicks = differing(found)["ip_clicks_24h"]
    assert (clicks.compared, clicks.equal, clicks.mismatched, clicks.worst) == (3, 2, 1, 3.0)
    assert clicks.smape == pytest.approx(2 * 3 / 9 / 3)
    (example,) = clicks.examples
    assert (example.online, example.offline, example.entities["ip"]) == (6.0, 3.0, "hand-2-i")
    assert {e.entities["ip"] for feature in found.differing_features for e in feature.examples} == {"hand-2-i"}
    assert found.exit_code == 1
    assert site.audit(mismatch_rate_max=0.4).exit_code == 0


def test_an_event_that_history_lost_is_found_and_nothing_else(site: Site) -> None:
    path = site.history / "ad_events" / "part-0000.parquet"
    table = pq.read_table(path)
    newest = max(range(table.num_rows), key=lambda row: table["event_time"][row].value)
    lost = {name: table[name][newest].as_py() for name in table.column_names}
    keys = ("ip", "device_id", "creator_id", "advertiser_id")
    site.ask("ad_click_risk", entities={key: lost[key] for key in keys})
    ask_about_known_actors(site, 10)
    assert site.audit().verdict == "equal"
    pq.write_table(table.filter(pa.array(row != newest for row in range(table.num_rows))), path)
    found = site.audit()
    assert found.exit_code == 1
    assert {feature.feature.partition(":")[0] for feature in found.differing_features} <= {
        "ip_ad_stats", "device_ad_stats", "creator_ad_stats", "advertiser_ad_stats", "click_ratios",
    }  # fmt: skip
    touched = [e.entities for feature in found.differing_features for e in feature.examples]
    assert touched
    assert all(any(entities.get(key) == lost[key] for key in keys) for entities in touched)


def test_a_definition_that_reads_history_differently_is_found_in_its_features_alone(site: Site, tmp_path: Path) -> None:
    ask_about_known_actors(site, 40)
    repo = tmp_path / "repo"
    shutil.copytree(site.world.repo_path, repo, ignore=shutil.ignore_patterns("__pycache__"))
    with (repo / "sources.py").open("a") as sources:
        sources.write('\nip_profiles.field_mapping.update(is_vpn="ip_is_datacenter", is_datacenter="ip_is_vpn")\n')
    apply_repo(repo, tmp_path / "registry.db", {"ACTOR_RISK_DATA": str(site.history)})
    found = site.audit(open_feature_store(repo, tmp_path / "registry.db"))
    assert not found.set_apart
    assert set(differing(found)) == {"ip_is_vpn", "ip_is_datacenter"}


def test_decisions_of_another_definition_are_set_apart_and_an_audit_of_nothing_fails(
    site: Site, tmp_path: Path
) -> None:
    site.ask("ad_click_risk", event=click("changed", 0, NOW_MS), publish_event=False)
    repo = tmp_path / "repo"
    shutil.copytree(site.world.repo_path, repo, ignore=shutil.ignore_patterns("__pycache__"))
    views = repo / "ad_views.py"
    changed = views.read_text().replace(
        '"device_clicks", "click", "count", "5m', '"device_clicks", "click", "count", "6m'
    )
    assert changed != views.read_text()
    views.write_text(changed)
    apply_repo(repo, tmp_path / "registry.db", {"ACTOR_RISK_DATA": str(site.history)})
    report = site.audit(open_feature_store(repo, tmp_path / "registry.db"))
    assert report.set_apart == {"other_definition": 1}
    assert (report.verdict, report.exit_code) == ("nothing_compared", 2)


def test_the_command_tells_by_its_exit_code_and_writes_json_and_one_page(site: Site, tmp_path: Path) -> None:
    site.ask("ad_click_risk", event=click("cli", 0, NOW_MS - 1_000), publish_event=False)
    site.decisions.close()
    environ = {
        "ACTOR_RISK_HOME": str(site.root),
        "ACTOR_RISK_FEATURE_REPO": str(site.world.repo_path),
        "ACTOR_RISK_DECISIONS": str(site.root / "decisions"),
    }
    span = ["--from", moment(NOW_MS - MINUTE_MS).isoformat(), "--to", moment(NOW_MS + MINUTE_MS).isoformat()]

    def run(*options: str) -> Result:
        return CliRunner().invoke(main, ["audit", *span, *options], env=environ)

    until = ("--history-until", moment(NOW_MS + MINUTE_MS).isoformat())
    json_file, html_file = tmp_path / "audit.json", tmp_path / "audit.html"
    good = run(*until, "--json", str(json_file), "--html", str(html_file))
    assert good.exit_code == 0, good.output
    assert "served equals recomputed" in good.output
    written = msgspec.json.decode(json_file.read_bytes(), type=AuditReport)
    assert (written.compared_decisions, written.own_events, written.verdict) == (1, 1, "equal")
    assert "Served equals recomputed" in html_file.read_text()
    site.add_to_history("ad_events", [click("cli", 7, NOW_MS - 2 * MINUTE_MS)])
    bad = run(*until, "--html", str(html_file))
    assert bad.exit_code == 1, bad.output
    assert "ip_clicks_5m" in bad.output
    assert html_file.read_text().count("<svg") == 2 * html_file.read_text().count("<article")
    assert run(*until, "--max-mismatch-rate", "1").exit_code == 0
    nothing = run(*until, "--service", "advertiser_risk")
    assert (nothing.exit_code, "nothing was compared" in nothing.output) == (2, True)
    (site.history / "ad_events" / "part-torn.parquet").write_bytes(b"PAR1")
    broken = run(*until)
    assert broken.exit_code == 2
    assert "ad_events" in broken.output


def test_beyond_the_end_of_history_nothing_is_compared_that_rests_on_it(site: Site) -> None:
    ask_about_known_actors(site, 5)
    report = site.audit(history_until_ms=None)
    stored = {feature.feature: feature for feature in report.features}
    clicks, age = stored["ip_ad_stats:ip_clicks_24h"], stored["ip_profile:ip_first_seen_days"]
    assert (clicks.compared, clicks.not_compared) == (0, {"beyond_history": age.compared})
    assert age.compared == age.equal > 0
    newest = {end.source: end.end_ms for end in report.sources}["ad_events_history"]
    assert newest is not None
    assert newest < NOW_MS


def test_degraded_decisions_are_counted_apart(site: Site) -> None:
    site.log_event("ad_events", click("damaged", 0, NOW_MS - MINUTE_MS))
    site.fold()
    with redis.Redis.from_url(site.world.redis_url) as client:
        client.set(site.row_key(client, "creator_ad_stats", "damaged-c"), b"no row")
    keys = ("ip", "device_id", "creator_id", "advertiser_id")
    damaged = site.ask("ad_click_risk", entities={key: click("damaged", 0, 0)[key] for key in keys})
    assert damaged.degraded == ["rows_refused"]
    site.ask("ad_click_risk", NOW_MS - 20 * 3_600_000, entities=actor(site))
    site.ask("ad_click_risk", NOW_MS, entities=actor(site))
    off = Policy(champion="champion", is_on=False, fallback_score=0.5)
    site.loop.run_until_complete(site.service.load({"ad_click_risk": off}))
    site.ask("ad_click_risk", NOW_MS, entities=actor(site))
    report = site.audit()
    assert report.set_apart == {"rows_refused": 1, "windows_inexact": 1, "fallback_score": 1}
    assert (report.decisions, report.compared_decisions, report.verdict) == (4, 1, "equal")


def actor(site: Site) -> dict[str, Any]:
    """The keys of the simulated world's newest ad event."""
    newest = site.world.everything.ad_events.slice(site.world.everything.ad_events.num_rows - 1).to_pylist()[0]
    return {key: newest[key] for key in ("ip", "device_id", "creator_id", "advertiser_id")}
