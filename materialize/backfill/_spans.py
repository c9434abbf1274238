"""Spans of event time, and how they add up: pure functions on integer milliseconds UTC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise


@dataclass(frozen=True, order=True)
class Span:
    """start_ms ≤ event time < end_ms."""

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms

    def overlaps(self, other: Span) -> bool:
        """Whether some moment is in both."""
        return self.start_ms < other.end_ms and other.start_ms < self.end_ms

    def __str__(self) -> str:
        return f"{moment(self.start_ms)} – {moment(self.end_ms)}"


def moment(time_ms: int) -> str:
    """A time as the command line takes it: RFC 3339 in UTC, to the millisecond only where it has any."""
    when = datetime.fromtimestamp(time_ms / 1000, UTC)
    return when.isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds").replace("+00:00", "Z")


def cut(span: Span, step_ms: int) -> list[Span]:
    """The span in pieces that end at multiples of the step since 1970, so that another job's pieces fit to them."""
    edges = [span.start_ms, *range((span.start_ms // step_ms + 1) * step_ms, span.end_ms, step_ms), span.end_ms]
    return [Span(begin, end) for begin, end in pairwise(edges) if begin < end]


def union(spans: Iterable[Span]) -> list[Span]:
    """The same moments in as few spans as can be, in order."""
    joined: list[Span] = []
    for span in sorted(spans):
        if span.length_ms <= 0:
            continue
        if joined and span.start_ms <= joined[-1].end_ms:
            joined[-1] = Span(joined[-1].start_ms, max(joined[-1].end_ms, span.end_ms))
        else:
            joined.append(span)
    return joined


def holes(span: Span, covered: Iterable[Span]) -> list[Span]:
    """What of the span none of the others covers, in order."""
    open_ms, left = span.start_ms, []
    for other in union(covered):
        if other.start_ms >= span.end_ms:
            break
        if open_ms < other.start_ms:
            left.append(Span(open_ms, other.start_ms))
        open_ms = max(open_ms, other.end_ms)
    return [*left, Span(open_ms, span.end_ms)] if open_ms < span.end_ms else left


def gaps(covered: Sequence[Span]) -> list[Span]:
    """What lies between the first and the last of these spans, and in none of them."""
    joined = union(covered)
    return [Span(before.end_ms, after.start_ms) for before, after in pairwise(joined)]
