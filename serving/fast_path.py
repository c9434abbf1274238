"""Whether Ray Serve runs in the mode that this server is measured in: HAProxy in front of replicas that speak HTTP.

The default Python proxy answers about 400 requests a second at 5 ms; HAProxy and throughput mode some 8,000 at 0.2 ms.
"""

from __future__ import annotations

from collections.abc import Mapping

WANTED = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}
"""Controller, proxies and replicas must all see these: set them before Ray starts."""

QUICK = {"RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1"}
"""Likewise, for replicas to tell their load every second; by default they do every 10 s, and bursts are over."""


def fast_path_notes(environ: Mapping[str, str]) -> list[str]:
    """What is not as it should be, one line each; empty when the fast path is on."""
    notes = {
        "Ray Serve's fast path (HAProxy and throughput mode) is not fully on": WANTED,
        "autoscaling hears of load too late": QUICK,
    }
    absent = {
        note: [f"{name}={value}" for name, value in variables.items() if environ.get(name) != value]
        for note, variables in notes.items()
    }
    return [f"{note}: set {' '.join(told)} before Ray starts" for note, told in absent.items() if told]
