"""What the server tells Prometheus about itself.

The counting is our own, and prometheus_client only writes the page: importing Feast switches prometheus_client's
metrics, for the whole process, to memory-mapped files that all registries share.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving.decision import Decision, Latency, ModelCard, StatusCounts
from serving.event_results import EventResult
from serving.ports import LogCounts

BUCKETS_S = (
    0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02,
    0.03, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
"""A whole answer takes about a millisecond: most of the resolution lies around that."""

_MS_PER_S = 1e3
_NOT_PUBLISHED = frozenset({"event_not_published", "event_publish_unconfirmed"})


class Counts:
    """A counter with labels."""

    def __init__(self, name: str, told: str, labels: Sequence[str] = ()) -> None:
        self._name, self._told, self._labels = name, told, labels
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Add to the series of these label values."""
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def family(self) -> Metric:
        """The counter as Prometheus knows it."""
        family = CounterMetricFamily(self._name, self._told, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return family


class Durations:
    """A histogram of seconds with one label."""

    def __init__(self, name: str, told: str, label: str) -> None:
        self._name, self._told, self._label = name, told, label
        self._buckets: dict[str, list[int]] = {}
        self._sums_s: dict[str, float] = {}

    def observe(self, label: str, seconds: float) -> None:
        """Count one duration."""
        buckets = self._buckets.setdefault(label, [0] * (len(BUCKETS_S) + 1))
        buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._sums_s[label] = self._sums_s.get(label, 0.0) + seconds

    def family(self) -> Metric:
        """The histogram as Prometheus knows it: each bucket counts all that is not above its bound."""
        family = HistogramMetricFamily(self._name, self._told, labels=[self._label])
        bounds = [*map(repr, BUCKETS_S), "+Inf"]
        for label, buckets in self._buckets.items():
            cumulative = [float(sum(buckets[: i + 1])) for i in range(len(buckets))]
            family.add_metric([label], list(zip(bounds, cumulative, strict=True)), self._sums_s[label])
        return family


class Telemetry(Collector):
    """The counters of one application in one process."""

    def __init__(self) -> None:
        self._requests = Counts("actor_risk_requests", "HTTP requests by route and status", ["route", "status"])
        self._stages = Durations("actor_risk_stage_seconds", "Time per stage of an answer", "stage")
        self._features = Counts("actor_risk_features_read", "Features read, by status", ["model", "status"])
        self._verdicts = Counts("actor_risk_verdicts", "Answers by verdict", ["model", "verdict"])
        self._unknown = Counts("actor_risk_unknown_actors", "Answers about actors of whom nothing is stored", ["model"])
        self._degraded = Counts("actor_risk_degraded", "Answers made without something", ["model", "reason"])
        self._unpublished = Counts(
            "actor_risk_event_publish_failures", "Scored events that the stream did not acknowledge"
        )
        self._events = Counts("actor_risk_events_taken", "Events sent over HTTP", ["topic", "status", "reason"])
        self._models: Sequence[ModelCard] = ()
        self._log: LogCounts | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def count_request(self, route: str, status: int) -> None:
        """Count one answer. `route` is one of the application's, so that the series stay few."""
        self._requests.add(route, str(status))

    def count_events(self, results: Sequence[EventResult]) -> None:
        """Count what became of events that were sent. The topic of one that is not valid is not known for sure."""
        for result in results:
            self._events.add(result.topic or "", result.status, result.reason or "")

    def observe(self, decision: Decision) -> None:
        """Count what one decision says."""
        model = decision.model.name
        for stage in Latency.__struct_fields__:
            self._stages.observe(stage, getattr(decision.latency_ms, stage) / _MS_PER_S)
        for status in StatusCounts.__struct_fields__:
            self._features.add(model, status, amount=getattr(decision.feature_statuses, status))
        self._verdicts.add(model, decision.verdict)
        if not decision.actor_known:
            self._unknown.add(model)
        for reason in decision.degraded:
            self._degraded.add(model, reason)
        if not _NOT_PUBLISHED.isdisjoint(decision.degraded):
            self._unpublished.add()

    def collect(self) -> Iterator[Metric]:
        """Every metric family, for prometheus_client."""
        for counts in (self._requests, self._features, self._verdicts, self._unknown, self._degraded):
            yield counts.family()
        yield self._events.family()
        yield self._unpublished.family()
        yield self._stages.family()
        names = ["model", "alias", "version", "service", "fingerprint"]
        info = GaugeMetricFamily("actor_risk_model_info", "1 for each served model", labels=names)
        for card in self._models:
            info.add_metric([card.name, card.alias, card.version, card.service.name, card.service.fingerprint], 1)
        yield info
        if self._log is not None:
            yield from _log_families(self._log)

    def render(self, models: Sequence[ModelCard], log: LogCounts | None, accept: str) -> tuple[bytes, str]:
        """The page that Prometheus scrapes and its content type, in the format that `accept` asks for.

        `log`: what has become of the decisions in the decision log, None without one.
        """
        self._models, self._log = models, log
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


def _log_families(log: LogCounts) -> Iterator[Metric]:
    told = "Decisions of the decision log: logged, shipped to the event log, or lost on the way to one of them"
    decisions = CounterMetricFamily("actor_risk_decision_log_decisions", told, labels=["outcome"])
    for outcome in ("logged", "dropped_full", "dropped_failed", "shipped", "unshippable", "lost_unshipped"):
        decisions.add_metric([outcome], getattr(log, outcome))
    yield decisions
    deleted = "Old files of the decision log that were deleted to make room"
    yield CounterMetricFamily("actor_risk_decision_log_deleted_files", deleted, value=log.deleted_files)
    yield GaugeMetricFamily("actor_risk_decision_log_waiting", "Decisions that wait to be written", value=log.waiting)
    unshipped = "Bytes in the decision log's folder, of all replicas, that wait for the event log"
    yield GaugeMetricFamily("actor_risk_decision_log_unshipped_bytes", unshipped, value=log.unshipped_bytes)
