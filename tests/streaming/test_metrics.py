"""The Prometheus page of a stream command."""

from __future__ import annotations

from contextlib import closing
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actor_risk.errors import ActorRiskError
from actor_risk.streaming.metrics import COUNTERS, MetricsServer
from actor_risk.streaming.report import StreamStatus, WorkerReport
from materialize.stream.measures import SECONDS, Distribution
from tests.streaming.fakes import report, status


def page(server: MetricsServer) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    with urlopen(server.url, timeout=5) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value for sample in samples}


def test_the_page_says_what_the_workers_say() -> None:
    waits = Distribution.over(SECONDS)
    for seconds in (0.0005, 0.0005, 0.3, 100.0):
        waits.add(seconds)
    busy = report(
        12, 1, dead_letters={"malformed": 2}, rows_refused={"other_schema": 4}, stage_s={"fold": waits}, conflicts=5
    )
    told = [status(1, worker_0=busy, worker_1=WorkerReport(state="starting"))]
    with closing(MetricsServer(lambda: told[-1], "127.0.0.1", 0)) as server:
        found = page(server)
        assert found["actor_risk_stream_records_total", "worker-0"] == 12
        assert found["actor_risk_stream_conflicts_total", "worker-0"] == 5
        assert found["actor_risk_stream_dead_letters_total", "malformed", "worker-0"] == 2
        assert found["actor_risk_stream_rows_refused_total", "other_schema", "worker-0"] == 4
        assert found["actor_risk_stream_lag_records", "0", "ad_events", "worker-0"] == 7
        assert found["actor_risk_stream_worker_state", "starting", "worker-1"] == 1
        assert found["actor_risk_stream_log_to_row_seconds_count", "worker-0"] == 12
        stages = {key[1]: value for key, value in found.items() if key[0] == "actor_risk_stream_stage_seconds_bucket"}
        assert (stages["0.001"], stages["0.5"], stages["30.0"], stages["+Inf"]) == (2, 3, 3, 4)
        for name in COUNTERS:
            assert (f"actor_risk_stream_{name}_total", "worker-1") in found
        told.append(StreamStatus(restarts={"worker-0": 3}))
        assert page(server)["actor_risk_stream_worker_restarts_total", "worker-0"] == 3


def test_a_taken_port_is_told() -> None:
    with (
        closing(MetricsServer(StreamStatus, "127.0.0.1", 0)) as server,
        pytest.raises(ActorRiskError, match="--metrics-port"),
    ):
        MetricsServer(StreamStatus, "127.0.0.1", int(server.url.rsplit(":", 1)[1].split("/")[0]))
