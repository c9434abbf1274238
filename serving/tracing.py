"""OpenTelemetry traces: a span for each request, below it one for each decision and its stages.

    POST /v1/score                                        SERVER, child of the caller's span
    └─ decide ad_click_risk                               version, mode, verdict, what is degraded
       └─ parse ─ wait ─ features ─ score ─ explain ─ publish     from the laps that were measured anyway

The only module that knows OpenTelemetry; it needs the extra `otel`. No span has a value of the request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.decision import Decision
from serving.http import Scope, header
from serving.trace_context import TRACEPARENT, put_traceparent, within

STAGES = ("parse", "wait", "features", "score", "explain", "publish")
QUIET = frozenset({"/healthz", "/readyz", "/health", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Asked every few seconds by machines: nobody looks for them."""
INTERNAL_ERROR = 500

_NS_PER_MS = 1e6
_PROPAGATOR = TraceContextTextMapPropagator()
_REQUEST: ContextVar[Span] = ContextVar("request_span", default=INVALID_SPAN)


class Spans:
    """Makes spans with a tracer. See `Tracing`."""

    def __init__(self, tracer: Tracer, now_ns: Callable[[], int] = time.time_ns) -> None:
        """`now_ns`: the time of day in nanoseconds UTC."""
        self._tracer = tracer
        self._now_ns = now_ns

    @contextmanager
    def request(self, scope: Scope, route: str) -> Iterator[Callable[[int], None]]:
        """See `Tracing.request`."""
        if route in QUIET:
            yield _ignore
            return
        method = str(scope["method"])
        span = self._tracer.start_span(
            f"{method} {route}",
            _PROPAGATOR.extract(_carrier(scope)),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": route},
            start_time=self._now_ns(),
        )
        here = span.get_span_context()
        trace_id = format_trace_id(here.trace_id)
        put_traceparent(scope, trace_id, format_span_id(here.span_id), sampled=here.trace_flags.sampled)

        def answered(status: int) -> None:
            span.set_attribute("http.response.status_code", status)
            if status >= INTERNAL_ERROR:
                span.set_status(Status(StatusCode.ERROR))

        token = _REQUEST.set(span)
        try:
            with within(trace_id):
                yield answered
        finally:
            _REQUEST.reset(token)
            span.end(self._now_ns())

    def decided(self, decision: Decision) -> None:
        """See `Tracing.decided`."""
        request = _REQUEST.get()
        if not request.is_recording():
            return
        took, end_ns = decision.latency_ms, self._now_ns()
        at_ns = end_ns - int(took.total * _NS_PER_MS)
        whole = self._tracer.start_span(
            f"decide {decision.model.name}",
            set_span_in_context(request),
            attributes={
                "actor_risk.decision_id": decision.decision_id,
                "actor_risk.version": decision.model.version,
                "actor_risk.mode": decision.mode,
                "actor_risk.verdict": decision.verdict,
                "actor_risk.degraded": list(decision.degraded),
            },
            start_time=at_ns,
        )
        parent = set_span_in_context(whole)
        for stage in STAGES:
            until_ns = at_ns + int(getattr(took, stage) * _NS_PER_MS)
            self._tracer.start_span(stage, parent, start_time=at_ns).end(until_ns)
            at_ns = until_ns
        whole.end(end_ns)


def open_spans(exporter: SpanExporter | None = None) -> tuple[Spans, Callable[[], None]]:
    """Spans that are sent in batches, from a thread, and what ends that. Without `exporter` by OTLP over HTTP.

    Where to, how many of them and so on is said by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, …), which its SDK reads.
    """
    named = "OTEL_SERVICE_NAME" in os.environ or SERVICE_NAME in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: "actor-risk"}))
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    return Spans(provider.get_tracer("actor_risk")), provider.shutdown


def _carrier(scope: Scope) -> Mapping[str, str]:
    fields = {name: header(scope, name.encode()) for name in (TRACEPARENT.decode(), "tracestate")}
    return {name: value for name, value in fields.items() if value is not None}


def _ignore(status: int) -> None:
    pass
