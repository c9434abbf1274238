"""Which trace a request belongs to, for log lines and for spans. Off unless one of them is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol

from serving.decision import Decision
from serving.http import Scope, header
from serving.identifiers import TRACE_RANDOM_BYTES, trace_id_of

TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""That of the request that is being answered."""
TRACEPARENT = b"traceparent"

_SPAN_RANDOM_BYTES = 8


class Tracing(Protocol):
    """Follows requests: `TraceIds`, or `serving.tracing.Spans`."""

    def request(self, scope: Scope, route: str) -> AbstractContextManager[Callable[[int], None]]:
        """Around one request; what it gives takes the status of the answer. `scope` has a `traceparent` from then on,
        so that the decision is of the same trace."""
        ...

    def decided(self, decision: Decision) -> None:
        """Take note of a decision within the request."""
        ...


class TraceIds:
    """Names the trace of each request for its log lines, and nothing else."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes

    @contextmanager
    def request(self, scope: Scope, route: str) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """See `Tracing.request`."""
        given = header(scope, TRACEPARENT)
        trace_id = None if given is None else trace_id_of(given)
        if trace_id is None:
            trace_id = self._random_bytes(TRACE_RANDOM_BYTES).hex()
            put_traceparent(scope, trace_id, self._random_bytes(_SPAN_RANDOM_BYTES).hex(), sampled=False)
        with within(trace_id):
            yield _ignore

    def decided(self, decision: Decision) -> None:
        """Nothing is noted."""


@contextmanager
def within(trace_id: str) -> Iterator[None]:
    """Log lines from here belong to this trace."""
    token = TRACE_ID.set(trace_id)
    try:
        yield
    finally:
        TRACE_ID.reset(token)


def put_traceparent(scope: Scope, trace_id: str, span_id: str, *, sampled: bool) -> None:
    """Replace the request's `traceparent`. Source: https://www.w3.org/TR/trace-context/#traceparent-header"""
    others = [field for field in scope["headers"] if field[0] != TRACEPARENT]
    scope["headers"] = [*others, (TRACEPARENT, f"00-{trace_id}-{span_id}-{sampled:02x}".encode())]


def _ignore(status: int) -> None:
    pass
