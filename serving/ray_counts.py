"""Ray Serve's own counts of a replica: what is under way, by which it scales and drains, and how requests ended.

Ray counts in its own handling of a request. Who answers before that counts here, by the same object, which is private
to Ray: a Ray that is built otherwise than 2.60 has none that is found, and then handles every request itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ray.serve._private.common import RequestMetadata, RequestProtocol

_FIRST_ERROR = 400
_TELL_EVERY_S, _TOLD_TOGETHER = 0.2, 64
"""How requests ended is told together: among all that a request runs through, code that is called once takes five times
as long as when it is called again and again."""


class RayCounts:
    """The counts of the replica in this process."""

    def __init__(self, replica: Any) -> None:
        """Raises AttributeError for an object that is not a replica as Ray 2.60 has it."""
        metrics, deployment = replica._metrics_manager, replica._deployment_id
        self._begin, self._end = metrics.inc_num_ongoing_requests, metrics.dec_num_ongoing_requests
        self._answered, self._answered_http = metrics.record_request_metrics, metrics.record_ingress_request_metrics
        self._names = {"app_name": deployment.app_name, "deployment_name": deployment.name}
        self._request = RequestMetadata("", "", _request_protocol=RequestProtocol.HTTP, is_direct_ingress=True)
        self._ended: list[tuple[str, str, int, float]] = []
        self._telling: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """One more is under way."""
        self._begin(self._request)

    def end(self, method: str, route: str, status: int, took_ms: float) -> None:
        """One that was under way has ended with an HTTP status. Called in an event loop."""
        self._end(self._request)
        self._ended.append((method, route, status, took_ms))
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_TELL_EVERY_S, self._tell)
        if len(self._ended) >= _TOLD_TOGETHER:
            self._tell()

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        ended, self._ended, self._telling = self._ended, [], None
        for method, route, status, took_ms in ended:
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
