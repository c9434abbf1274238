"""OpenTelemetry traces: what a request's spans say, whose children they are, and that no value is in them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.tracing import STAGES, Spans, open_spans
from tests.serving.fakes import CHAMPION, KEYS, SERVICE, World, build_world, click

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NOW_NS = 1_795_000_000_000_000_000


@pytest.fixture
def kept() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def world(published: Path, kept: InMemorySpanExporter) -> World:
    """A server that makes spans, by a clock that ticks."""
    provider, ticks = TracerProvider(), itertools.count(NOW_NS, 10_000_000)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    world = build_world(published, tracing=Spans(provider.get_tracer("tests"), lambda: next(ticks)))
    world.features.values[KEYS["ip"]] = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]
    asyncio.run(world.service.load(CHAMPION))
    return world


def named(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in kept.get_finished_spans()}


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def test_a_request_is_a_span_with_the_decision_and_its_stages_below(world: World, kept: InMemorySpanExporter) -> None:
    decision = asyncio.run(world.score({"model": SERVICE, "event": click()})).decision()
    spans = named(kept)
    request, decided = spans["POST /v1/score"], spans[f"decide {SERVICE}"]
    assert parent_of(request) is None
    assert parent_of(decided) == id_of(request)
    assert {parent_of(spans[stage]) for stage in STAGES} == {id_of(decided)}
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/score",
        "http.response.status_code": 200,
    }
    assert decided.attributes == {
        "actor_risk.decision_id": decision.decision_id,
        "actor_risk.version": decision.model.version,
        "actor_risk.mode": "live",
        "actor_risk.verdict": decision.verdict,
        "actor_risk.degraded": (),
    }


def test_stages_follow_each_other_and_take_what_the_decision_says(world: World, kept: InMemorySpanExporter) -> None:
    took = asyncio.run(world.score({"model": SERVICE, "entities": KEYS})).decision().latency_ms
    spans = named(kept)
    decided = spans[f"decide {SERVICE}"]
    at_ns = decided.start_time
    for stage in STAGES:
        span = spans[stage]
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time == at_ns
        assert (span.end_time - span.start_time) / 1e6 == pytest.approx(getattr(took, stage), abs=1e-5)
        at_ns = span.end_time
    assert at_ns is not None
    assert decided.end_time == pytest.approx(at_ns, abs=100)


def test_a_callers_trace_is_gone_on_with(world: World, kept: InMemorySpanExporter) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    decision = asyncio.run(world.score({"model": SERVICE, "entities": KEYS}, headers)).decision()
    request = named(kept)["POST /v1/score"]
    assert (decision.trace_id, parent_of(request)) == (TRACE, int(PARENT, 16))


def test_without_one_the_decision_is_of_the_trace_that_begins(world: World, kept: InMemorySpanExporter) -> None:
    decision = asyncio.run(world.score({"model": SERVICE, "entities": KEYS})).decision()
    context = named(kept)["POST /v1/score"].context
    assert context is not None
    assert decision.trace_id == f"{context.trace_id:032x}"


def test_a_trace_that_the_caller_does_not_sample_has_no_spans(world: World, kept: InMemorySpanExporter) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert asyncio.run(world.score({"model": SERVICE, "entities": KEYS}, headers)).decision().trace_id == TRACE
    assert kept.get_finished_spans() == ()


def test_a_batch_has_a_span_for_each_decision(world: World, kept: InMemorySpanExporter) -> None:
    body = {"model": SERVICE, "requests": [{"entities": KEYS}] * 3}
    asyncio.run(world.post("/v1/score:batch", body))
    decided = [span for span in kept.get_finished_spans() if span.name.startswith("decide")]
    assert [parent_of(span) for span in decided] == [id_of(named(kept)["POST /v1/score:batch"])] * 3


def test_a_failure_is_an_error_and_a_refusal_is_none(world: World, kept: InMemorySpanExporter) -> None:
    asyncio.run(world.score(b"{"))
    world.features.failure = RuntimeError("swordfish")  # type: ignore[assignment]
    asyncio.run(world.score({"model": SERVICE, "entities": KEYS}))
    refused, failed = kept.get_finished_spans()
    assert [span.attributes["http.response.status_code"] for span in (refused, failed) if span.attributes] == [400, 500]
    assert [span.status.is_ok for span in (refused, failed)] == [True, False]
    assert not failed.events, "an exception's message may quote the request"


def test_health_checks_and_scrapes_are_left_out(world: World, kept: InMemorySpanExporter) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert asyncio.run(world.call("GET", path)).status == 200
    assert kept.get_finished_spans() == ()


def test_no_span_has_a_value_of_the_request(world: World, kept: InMemorySpanExporter) -> None:
    secret = {"ip": "swordfish-ip", "device_id": "swordfish-device"}
    asyncio.run(world.score({"model": SERVICE, "entities": secret, "trace_id": "swordfish"}))
    asyncio.run(world.call("GET", "/swordfish?ip=swordfish"))
    assert len(named(kept)) > 2
    assert "swordfish" not in "".join(span.to_json() for span in kept.get_finished_spans())


class Collector(BaseHTTPRequestHandler):
    """Keeps what is sent to it by OTLP over HTTP."""

    taken: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        self.taken.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    taken: list[ExportTraceServiceRequest] = []
    with HTTPServer(("127.0.0.1", 0), type("Taking", (Collector,), {"taken": taken})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", taken
        server.shutdown()
        thread.join()


def test_spans_reach_a_collector_by_otlp(
    published: Path, collector: tuple[str, list[ExportTraceServiceRequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, taken = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    spans, end = open_spans()
    world = build_world(published, tracing=spans)
    asyncio.run(world.service.load(CHAMPION))
    asyncio.run(world.score({"model": SERVICE, "entities": KEYS}))
    end()
    resources = [resource for request in taken for resource in request.resource_spans]
    told = {pair.key: pair.value.string_value for pair in resources[0].resource.attributes}
    sent = [span.name for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert told["service.name"] == "actor-risk"
    assert set(sent) == {"POST /v1/score", f"decide {SERVICE}", *STAGES}
