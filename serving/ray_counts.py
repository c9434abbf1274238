"""Ray Serve's own counts of a replica: what is under way, by which it scales and drains, and how requests ended.

Ray counts in its own handling of a request. Who answers before that counts here, by the same object, which is private
to Ray: a Ray that is built otherwise than 2.60 has none that is found, and then handles every request itself.
"""

from __future__ import annotations

from typing import Any

from ray.serve._private.common import RequestMetadata, RequestProtocol

_FIRST_ERROR = 400


class RayCounts:
    """The counts of the replica in this process."""

    def __init__(self, replica: Any) -> None:
        """Raises AttributeError for an object that is not a replica as Ray 2.60 has it."""
        metrics, deployment = replica._metrics_manager, replica._deployment_id
        self._begin, self._end = metrics.inc_num_ongoing_requests, metrics.dec_num_ongoing_requests
        self._answered, self._answered_http = metrics.record_request_metrics, metrics.record_ingress_request_metrics
        self._names = {"app_name": deployment.app_name, "deployment_name": deployment.name}
        self._request = RequestMetadata("", "", _request_protocol=RequestProtocol.HTTP, is_direct_ingress=True)

    def begin(self) -> None:
        """One more is under way."""
        self._begin(self._request)

    def end(self, method: str, route: str, status: int, took_ms: float) -> None:
        """One that was under way has ended with an HTTP status."""
        self._end(self._request)
        self._answered(route=route, latency_ms=took_ms, is_error=False)
        self._answered_http(
            protocol=RequestProtocol.HTTP,
            method=method,
            route=route,
            latency_ms=took_ms,
            is_error=status >= _FIRST_ERROR,
            status_code=str(status),
            **self._names,
        )


def ray_counts_of(app: Any) -> RayCounts | None:
    """The counts of the replica whose request handling `app` is, under whatever Ray wraps around it."""
    while hasattr(app, "_app"):
        app = app._app
    try:
        return RayCounts(app.__self__)
    except AttributeError:
        return None
