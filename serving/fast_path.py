"""Whether Ray Serve runs in the mode that this server is measured in: HAProxy in front of replicas that speak HTTP.

The default Python proxy answers about 400 requests a second at 5 ms; HAProxy and throughput mode some 8,000 at 0.2 ms.
"""

from __future__ import annotations

from collections.abc import Mapping

WANTED = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
}
"""Controller, proxies and replicas must all see these: set them before Ray starts."""


def fast_path_notes(environ: Mapping[str, str]) -> list[str]:
    """What is not as it should be, one line each; empty when the fast path is on."""
    absent = [f"{name}={value}" for name, value in WANTED.items() if environ.get(name) != value]
    if not absent:
        return []
    return [
        f"Ray Serve's fast path (HAProxy and throughput mode) is not fully on: set {' '.join(absent)} before Ray starts"
    ]
