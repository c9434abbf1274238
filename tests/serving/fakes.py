"""In-memory stand-ins at serving's ports, a real model in a real store, and an HTTP client without a network."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from materialize.definitions import JoinKey, RequestField
from materialize.events import Event
from materialize.online import (
    EntityFeatures,
    FeatureMatrix,
    FeatureStatus,
    Met,
    OnlineStoreUnavailableError,
    ReadCounts,
    ReadPlan,
    UnknownServiceError,
)
from materialize.online._row_reader import RowReader
from models import BundleDraft, Feature, ModelCard, ModelStore, ReasonText, Service, Thresholds
from models.export import export_trees
from models.rollouts import Rollouts
from models.trees import Ensemble, Tree, TreeBuilder
from serving.asgi import ScoringApp
from serving.clock import Clock
from serving.decision import Decision, Mode
from serving.entity_features import EntityFeaturesApi
from serving.events import EventIntake
from serving.first_answers import FirstAnswers
from serving.logged import FeatureLayout, LoggedDecision
from serving.ports import AnswerStore, DecisionFinder, DecisionLog, LogCounts
from serving.rollouts import RolloutFollower
from serving.scoring import ScoringService
from serving.trace_context import Tracing

NOW_MS = 1_795_000_000_000
SERVICE, FINGERPRINT = "ad_click_risk", "f1"
IP_FEATURES = tuple(f"ip_clicks:count_{window}" for window in ("5m", "1h", "24h", "7d"))
DEVICE_FEATURES = tuple(f"device:{name}" for name in ("age_days", "clicks_1h", "ips_24h"))
ON_DEMAND = "click_ratios:speed"
NO_EVENTS: Mapping[int, Event] = {}
FEATURES = (*IP_FEATURES, *DEVICE_FEATURES, ON_DEMAND)
REQUEST_FIELDS = (
    RequestField("ms_since_impression", "DOUBLE"),
    RequestField("attempts", "INT64"),
    RequestField("country", "STRING"),
)
CHAMPION = {SERVICE: "champion"}
BODY_BYTES_MAX = 1 << 20
EVENTS_MAX = 200
REMEMBERED_MAX = 150


def plan(
    fingerprint: str = FINGERPRINT,
    features: Sequence[str] = FEATURES,
    join_keys: Sequence[JoinKey] = (JoinKey("ip", "STRING"), JoinKey("device_id", "STRING")),
    service: str = SERVICE,
    request_fields: Sequence[RequestField] = REQUEST_FIELDS,
) -> ReadPlan:
    """A plan whose last feature is computed on demand."""
    return ReadPlan(
        service=service,
        fingerprint=fingerprint,
        features=tuple(features),
        descriptions=tuple(f"About {ref}" for ref in features),
        kinds=("DOUBLE",) * len(features),
        join_keys=tuple(join_keys),
        request_fields=tuple(request_fields),
        rows=(),
        copies=tuple((i, i) for i in range(len(features) - 1)),
        on_demand=(),
        reader=RowReader([]),
        input_kinds=("DOUBLE",) * (len(features) - 1),
    )


@dataclass(frozen=True)
class Read:
    """What was read of one set of entities."""

    entities: dict[str, Any]
    as_of_ms: int
    event: Event | None
    request: dict[str, Any]


@dataclass
class MemoryFeatures:
    """Features kept in a dict: ip → the values of the IP's and the device's features; the rest is not found."""

    plan_now: ReadPlan = field(default_factory=plan)
    others: dict[str, ReadPlan] = field(default_factory=dict)
    """Of other services."""
    values: dict[str, Sequence[float]] = field(default_factory=dict)
    statuses: dict[str, Sequence[int]] = field(default_factory=dict)
    counts: ReadCounts = field(default_factory=ReadCounts)
    failure: OnlineStoreUnavailableError | None = None
    unread_rows: dict[str, int] = field(default_factory=dict)
    """IP → how many of its rows a shard does not give."""
    away: list[str] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    unreads: list[Read] = field(default_factory=list)
    """What was answered without the store."""
    rounds: int = 0
    entities_now: dict[str, EntityFeatures] = field(
        default_factory=lambda: {"ip": EntityFeatures(JoinKey("ip", "STRING"), IP_FEATURES)}
    )
    answering: Callable[[], Awaitable[None]] | None = None
    """May wait before a read is answered."""
    unreading: Callable[[ReadPlan], None] | None = None
    """Is told of each answer without the store."""

    def refresh(self) -> bool:
        """The plan is whatever `plan_now` is, which may be another at any time."""
        return True

    def plan(self, service: str) -> ReadPlan:
        if service == self.plan_now.service:
            return self.plan_now
        if service not in self.others:
            raise UnknownServiceError(f"no feature service {service!r}")
        return self.others[service]

    def plan_for(self, features: Sequence[str]) -> ReadPlan:
        return plan(features=features)

    def entities(self) -> Mapping[str, EntityFeatures]:
        return self.entities_now

    async def read_many(
        self,
        plan: ReadPlan,
        entities: Sequence[Mapping[str, Any]],
        as_of_ms: Sequence[int],
        requests: Sequence[Mapping[str, Any]] | None = None,
        events: Mapping[int, Event] = NO_EVENTS,
        *,
        in_part: bool = False,
    ) -> FeatureMatrix:
        self.rounds += 1
        self.reads += [
            Read(dict(entity), as_of_ms[n], events.get(n), dict(requests[n] if requests else {}))
            for n, entity in enumerate(entities)
        ]
        if self.answering is not None:
            await self.answering()
        if self.failure is not None:
            raise self.failure
        length = len(plan.features)
        rows = [
            self._row(entity.get("ip", ""), length)
            if entity.get("ip", "") in self.values
            else _unknown(length, request)
            for entity, request in zip(entities, requests or [{}] * len(entities), strict=True)
        ]
        met = Met(
            np.array([2 if entity.get("ip", "") in self.values else self.counts.rows_found for entity in entities])
        )
        for n in range(len(entities)):
            met.refused[n] = Counter(self.counts.rows_refused)
            met.on_demand_failed[n] = self.counts.on_demand_failed
            met.event_failed[n] = self.counts.event_failed
            met.inexact[n] = self.counts.inexact
        if in_part:
            unread = [self.unread_rows.get(entity.get("ip", ""), 0) for entity in entities]
            met.unread = {n: count for n, count in enumerate(unread) if count}
        return FeatureMatrix(plan, *(np.stack(column) for column in zip(*rows, strict=True)), {}, met)

    def _row(self, ip: str, length: int) -> tuple[Any, Any, Any]:
        values = np.array(self.values[ip], np.float64)[:length]
        statuses = np.array(self.statuses.get(ip, [FeatureStatus.PRESENT] * length), np.uint8)[:length]
        values[statuses != FeatureStatus.PRESENT] = np.nan
        return values, statuses, np.arange(length, dtype=np.int64) * 1000

    def unread(
        self,
        plan: ReadPlan,
        entities: Mapping[str, Any],
        as_of_ms: int,
        *,
        event: Event | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> FeatureMatrix:
        if self.unreading is not None:
            self.unreading(plan)
        self.unreads.append(Read(dict(entities), as_of_ms, event, dict(request or {})))
        row = _unknown(len(plan.features), request or {})
        return FeatureMatrix(plan, *(column[np.newaxis] for column in row), {}, Met(np.zeros(1, np.int64)))

    def shards_away(self) -> Sequence[str]:
        return self.away

    async def ping(self) -> None:
        if self.failure is not None:
            raise self.failure


def _unknown(length: int, request: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Nothing is stored; the feature on demand, which is the last one, is the request's `ms_since_impression`."""
    values, statuses = np.full(length, np.nan), np.full(length, FeatureStatus.NOT_FOUND, np.uint8)
    statuses[-1] = FeatureStatus.NULL_VALUE
    given = request.get("ms_since_impression")
    if given is not None:
        values[-1], statuses[-1] = given, FeatureStatus.PRESENT
    return values, statuses, np.full(length, -1, np.int64)


@dataclass
class MemoryPublisher:
    """Keeps what was published; `fail` may raise or wait first."""

    published: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    fail: Callable[[], Awaitable[None]] | None = None

    async def publish(self, topic: str, key: bytes, value: bytes) -> None:
        if self.fail is not None:
            await self.fail()
        self.published.append((topic, key, value))


def random_ensemble(feature_count: int, seed: int = 7) -> Ensemble:
    """Twelve trees of depth four with thresholds from 0 to 50."""
    rng = np.random.default_rng(seed)
    return Ensemble(feature_count, tuple(_random_tree(rng, feature_count) for _ in range(12)))


def _random_tree(rng: np.random.Generator, feature_count: int) -> Tree:
    builder = TreeBuilder()
    waiting = [(builder.reserve(), 4)]
    while waiting:
        node, depth = waiting.pop()
        if depth == 0:
            builder.set_leaf(node, float(rng.normal(scale=0.6)))
            continue
        left, right = builder.reserve(), builder.reserve()
        feature, threshold = int(rng.integers(feature_count)), float(rng.uniform(0, 50))
        builder.set_split(node, feature, threshold, bool(rng.integers(2)), left, right)
        waiting += [(left, depth - 1), (right, depth - 1)]
    return builder.build()


def publish_model(
    store: ModelStore,
    *,
    refs: Sequence[str] = FEATURES,
    fingerprint: str = FINGERPRINT,
    seed: int = 7,
    service: str = SERVICE,
    families: Sequence[str] = (),
    reasons: Sequence[ReasonText] = (),
    alias: str = "champion",
    reads: str | None = None,
) -> str:
    """Publishes a model that reads `refs`, points the alias at it and returns its version.

    `families`: for each ref the name of its reason, one of `reasons`, or "". `reads`: the feature service, if its name
    is not the model's.
    """
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0, 50, size=(12, len(refs)))
    card = ModelCard(
        model_name=service,
        label="the click is invalid traffic",
        service=Service(name=reads or service, fingerprint=fingerprint),
        features=tuple(
            Feature(ref=ref, code=ref.upper().replace(":", "_"), family=family)
            for ref, family in zip(refs, families or [""] * len(refs), strict=True)
        ),
        thresholds=Thresholds(review=0.4, block=0.8),
        calibration="none",
        reasons=tuple(reasons),
    )
    draft = BundleDraft(card, export_trees(random_ensemble(len(refs), seed)), rows[:8], "eight rows", rows)
    version = store.publish(draft)
    store.set_alias(service, alias, version, at_ms=NOW_MS, by="tests")
    return version


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def decision(self) -> Decision:
        assert self.status == 200, self.body
        return msgspec.json.decode(self.body, type=Decision)


@dataclass
class World:
    """A server over in-memory parts, and a client of it."""

    features: MemoryFeatures
    publisher: MemoryPublisher
    store: ModelStore
    service: ScoringService
    rollouts: RolloutFollower
    app: ScoringApp
    shut_downs: list[None]

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        part_bytes: int = 1 << 16,
    ) -> Answer:
        """One request, its body in parts, as a server would hand it over."""
        parts = [body[i : i + part_bytes] for i in range(0, len(body), part_bytes)] or [b""]
        messages = [
            {"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)
        ]
        return await self.exchange(method, path, [*messages, {"type": "http.disconnect"}], headers)

    async def exchange(
        self,
        method: str,
        path: str,
        messages: Sequence[dict[str, Any]],
        headers: Mapping[str, str] | None = None,
        root_path: str = "",
    ) -> Answer:
        """One request of these ASGI messages. Status 0 means that the application sent nothing."""
        sent: list[Any] = []
        waiting = iter(messages)

        async def receive() -> Any:
            return next(waiting)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path.partition("?")[0],
            "query_string": path.partition("?")[2].encode(),
            "root_path": root_path,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        }
        await self.app(scope, receive, send)
        if not sent:
            return Answer(0, {}, b"")
        assert [message["type"] for message in sent] == [
            "http.response.start",
            *["http.response.body"] * (len(sent) - 1),
        ]
        assert [message.get("more_body", False) for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
        answered = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], answered, b"".join(message["body"] for message in sent[1:]))

    async def score(self, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """`POST /v1/score` with a body given as bytes, or as what JSON says."""
        return await self.post("/v1/score", body, headers)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """The same at another path."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.call("POST", path, data, {"content-type": "application/json", **(headers or {})})


@dataclass
class MemoryLog:
    """Keeps the decisions that it is handed."""

    entries: list[LoggedDecision] = field(default_factory=list)

    def wants(self, decision_id: str) -> bool:
        return bool(decision_id)

    def append(self, entries: Sequence[LoggedDecision], layout: FeatureLayout) -> None:
        assert all(len(entry.values) == len(layout.features) for entry in entries)
        self.entries += entries

    def counts(self) -> LogCounts:
        return LogCounts(logged=len(self.entries))

    def notes(self) -> list[str]:
        return []

    def decisions(self, mode: Mode) -> list[Decision]:
        """Those of a mode, oldest first."""
        return [entry.decision for entry in self.entries if entry.decision.mode == mode]


@dataclass
class MemoryAnswers:
    """Answers kept in a dict, for ever; `failing` may raise or wait first."""

    kept: dict[str, bytes] = field(default_factory=dict)
    failing: Callable[[], Awaitable[None]] | None = None

    async def take(self, name: str, value: bytes, ttl_ms: int) -> bytes | None:
        await self._answers(ttl_ms)
        found = self.kept.get(name)
        self.kept.setdefault(name, value)
        return found

    async def put(self, name: str, value: bytes, ttl_ms: int) -> None:
        await self._answers(ttl_ms)
        self.kept[name] = value

    async def delete(self, name: str) -> None:
        await self._answers(1)
        self.kept.pop(name, None)

    async def _answers(self, ttl_ms: int) -> None:
        assert ttl_ms > 0
        if self.failing is not None:
            await self.failing()


def build_world(
    root: Path,
    log: DecisionLog | None = None,
    clock: Clock | None = None,
    answers: AnswerStore | None = None,
    finder: DecisionFinder | None = None,
    tracing: Tracing | None = None,
    store: ModelStore | None = None,
) -> World:
    """A server without models, over a new model store in `root`; its clock, unless one is given, stands at NOW_MS, and
    its stopwatch ticks."""
    features, publisher, store = MemoryFeatures(), MemoryPublisher(), store or ModelStore(root)
    ticks, tokens, shut_downs = itertools.count(0, 250_000), itertools.count(1), list[None]()

    async def shut_down() -> None:
        shut_downs.append(None)

    clock = clock or Clock(now_ms=lambda: NOW_MS, monotonic_ns=lambda: next(ticks))
    service = ScoringService(
        features,
        store,
        publisher,
        clock,
        lambda length: next(tokens).to_bytes(length, "big"),
        publish_timeout_s=0.05,
        log=log,
        tracing=tracing,
    )
    intake = EventIntake(publisher, timeout_s=0.05, events_max=EVENTS_MAX, remembered_max=REMEMBERED_MAX)
    app = ScoringApp(
        service,
        clock,
        body_bytes_max=BODY_BYTES_MAX,
        notes=["a note"],
        shut_down=shut_down,
        intake=intake,
        entities=EntityFeaturesApi(features, clock.now_ms),
        first_answers=None if answers is None else FirstAnswers(answers, secrets.token_bytes),
        finder=finder,
    )
    rollouts = RolloutFollower(service, Rollouts(root), clock)
    return World(features, publisher, store, service, rollouts, app, shut_downs)


def loaded_world(root: Path) -> World:
    """A server that answers for the champion in `root`, and knows the IP 203.0.113.9."""
    world = build_world(root)
    world.features.values["203.0.113.9"] = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]
    asyncio.run(world.service.load(CHAMPION))
    return world


def click(**changes: Any) -> dict[str, Any]:
    """A valid click of 203.0.113.9, a second ago."""
    event = {
        "event_id": "click-1",
        "event_time": NOW_MS - 1000,
        "event_type": "click",
        "advertiser_id": "adv-1",
        "creator_id": "cre-1",
        "ip": "203.0.113.9",
        "device_id": "dev-1",
        "country": "DE",
        "ms_since_impression": 180,
    }
    return {name: value for name, value in (event | changes).items() if value is not ...}


KEYS = {"ip": "203.0.113.9", "device_id": "dev-1"}
