"""What stream workers tell Prometheus: their reports as metric families, one page for all workers of a command.

The counting is the workers' own, and prometheus_client only writes the page: importing Feast switches
prometheus_client's own metrics, for the whole process, to memory-mapped files that all registries share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from actor_risk.errors import ActorRiskError
from actor_risk.streaming.report import StreamStatus, WorkerReport
from materialize.stream.measures import Distribution

Reports = Mapping[str, WorkerReport]

COUNTERS = {
    "records": "Records taken through the whole protocol",
    "bytes": "Bytes of the values of the records done with",
    "folded": "Events folded into a row, once for each view",
    "duplicates": "Events that a row had already under another offset, by their identity",
    "replayed": "Events whose offset a row had applied already",
    "too_late": "Events older than any window of their row",
    "owned_by_batch": "Events of a time that a backfill owns",
    "without_key": "Events without the entity of a view",
    "records_lost": "Times that retention removed records before they were read",
    "commits_rejected": "Commits of partitions that had moved to another worker",
    "retries": "Micro-batches tried again because Redis or the log was away or slow",
    "rows_written": "Rows written",
    "rows_unchanged": "Rows that had every event already",
    "rows_large": "Rows written that are large",
    "conflicts": "Rows read and folded again because another writer was faster",
}
BY_REASON = {"dead_letters": "Records put aside", "rows_refused": "Stored rows that could not be read, and began anew"}
DISTRIBUTIONS = {
    "batch_seconds": ("batch_s", "Time of a micro-batch"),
    "batch_records": ("batch_records", "Records of a micro-batch"),
    "event_to_row_seconds": ("since_event_s", "From the time of an event to the writing of its rows, of a sample"),
    "log_to_row_seconds": ("since_log_s", "From the log's time of a record to the writing of its rows, of a sample"),
}
PREFIX = "actor_risk_stream_"


class StreamMetrics(Collector):
    """The metric families of a command's workers, each series with the worker's name: sum over it for the whole."""

    def __init__(self, status: Callable[[], StreamStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Every family, for prometheus_client."""
        status = self._status()
        reports = status.workers
        for name, told in COUNTERS.items():
            yield _counter(name, told, {worker: getattr(report, name) for worker, report in reports.items()})
        yield _counter("worker_restarts", "Times that a dead worker was started again", status.restarts)
        for name, told in BY_REASON.items():
            yield _by_reason(name, told, reports)
        for name, (field, told) in DISTRIBUTIONS.items():
            family = HistogramMetricFamily(PREFIX + name, told, labels=["worker"])
            for worker, report in reports.items():
                _add(family, [worker], getattr(report, field))
            yield family
        yield _stages(reports)
        yield from _gauges(reports)


class MetricsServer:
    """Serves the page at `/metrics` until it is closed."""

    def __init__(self, status: Callable[[], StreamStatus], host: str, port: int) -> None:
        """Port 0 takes a free one. Raises ActorRiskError when the port is taken."""
        registry = CollectorRegistry()
        registry.register(StreamMetrics(status))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            what = f"cannot serve metrics at {host}:{port}: {error}"
            raise ActorRiskError(f"{what}; choose another --metrics-port") from error
        self.url = f"http://{host}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _counter(name: str, told: str, values: Mapping[str, float]) -> Metric:
    counter = CounterMetricFamily(PREFIX + name, told, labels=["worker"])
    for worker, value in values.items():
        counter.add_metric([worker], value)
    return counter


def _by_reason(name: str, told: str, reports: Reports) -> Metric:
    family = CounterMetricFamily(PREFIX + name, told, labels=["worker", "reason"])
    for worker, report in reports.items():
        for reason, count in getattr(report, name).items():
            family.add_metric([worker, reason], count)
    return family


def _stages(reports: Reports) -> Metric:
    told = "Time of a micro-batch by stage"
    family = HistogramMetricFamily(PREFIX + "stage_seconds", told, labels=["worker", "stage"])
    for worker, report in reports.items():
        for stage, distribution in report.stage_s.items():
            _add(family, [worker, stage], distribution)
    return family


def _gauges(reports: Reports) -> Iterator[Metric]:
    lag = GaugeMetricFamily(PREFIX + "lag_records", "Records behind", labels=["worker", "topic", "partition"])
    ahead = GaugeMetricFamily(
        PREFIX + "event_time_ahead_seconds",
        "How far the newest event of the last micro-batch is ahead of the clock; below 0: behind it",
        labels=["worker"],
    )
    up = GaugeMetricFamily(PREFIX + "worker_state", "1 for the state that the worker is in", labels=["worker", "state"])
    for worker, report in reports.items():
        for place, behind in report.lag.items():
            lag.add_metric([worker, *place.rsplit(":", 1)], behind)
        ahead.add_metric([worker], report.event_time_ahead_s)
        up.add_metric([worker, report.state], 1)
    yield from (lag, ahead, up)


def _add(family: HistogramMetricFamily, labels: list[str], seen: Distribution) -> None:
    """Each bucket counts all that is not above its bound."""
    bounds = [*map(repr, seen.bounds), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(map(float, seen.counts)), strict=True)), seen.total)
