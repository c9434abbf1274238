"""Metric families as text, in the two formats that Prometheus reads.

prometheus_client writes the same ten times more slowly, and nobody is answered meanwhile. Sources:
https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate

from serving.telemetry.counting import Buckets

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
Series = tuple[Sequence[object], float]


class Exposition:
    """A page under construction."""

    def __init__(self, accept: str, common: dict[str, str]) -> None:
        """In the format that the header `accept` asks for; `common` are labels of every series."""
        self._is_open_metrics = "application/openmetrics-text" in accept
        self._common = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in common.items()]
        self._lines: list[str] = []

    @property
    def content_type(self) -> str:
        """The format."""
        return OPEN_METRICS if self._is_open_metrics else TEXT

    def counter(self, name: str, told: str, labels: Sequence[str] = (), series: Iterable[Series] = ()) -> None:
        """A family of counters: label values → value. The series' name has `_total` behind it."""
        self._head(name if self._is_open_metrics else f"{name}_total", "counter", told)
        self._lines += [f"{name}_total{self._braced(labels, key)} {float(value)}" for key, value in series]

    def gauge(self, name: str, told: str, labels: Sequence[str] = (), series: Iterable[Series] = ()) -> None:
        """A family of gauges: label values → value."""
        self._head(name, "gauge", told)
        self._lines += [f"{name}{self._braced(labels, key)} {float(value)}" for key, value in series]

    def histogram(
        self,
        name: str,
        told: str,
        labels: Sequence[str],
        series: Iterable[tuple[Sequence[object], Buckets]],
        unit: float = 1.0,
    ) -> None:
        """A family of histograms, their values times `unit`. Each bucket here counts all that is below its bound."""
        self._head(name, "histogram", told)
        for key, buckets in series:
            same = ",".join(self._pairs(labels, key))
            ends = _ends(buckets.bounds, unit)
            counts = list(accumulate(buckets.counts))
            self._lines += [
                f'{name}_bucket{{{same},le="{end}"}} {count}' for end, count in zip(ends, counts, strict=True)
            ]
            self._lines += [
                f"{name}_count{{{same}}} {counts[-1]}",
                f"{name}_sum{{{same}}} {buckets.total * unit}",
            ]

    def page(self) -> bytes:
        """All of it."""
        return "\n".join([*self._lines, *(["# EOF"] if self._is_open_metrics else []), ""]).encode()

    def _head(self, name: str, kind: str, told: str) -> None:
        self._lines += (f"# HELP {name} {told}", f"# TYPE {name} {kind}")

    def _pairs(self, labels: Sequence[str], values: Sequence[object]) -> list[str]:
        own = [f'{label}="{str(value).translate(_ESCAPES)}"' for label, value in zip(labels, values, strict=True)]
        return own + self._common

    def _braced(self, labels: Sequence[str], values: Sequence[object]) -> str:
        pairs = self._pairs(labels, values)
        return f"{{{','.join(pairs)}}}" if pairs else ""


@lru_cache(maxsize=64)
def _ends(bounds: tuple[float, ...], unit: float) -> tuple[str, ...]:
    return (*(repr(round(float(bound) * unit, 9)) for bound in bounds), "+Inf")
