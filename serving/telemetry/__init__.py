"""What the server tells Prometheus about itself.

answers ──► ModelTally.decided ─┐ plain additions, a few microseconds
rounds  ──► ModelTally.read ────┤ arrays put aside, looked at together
requests ─► Telemetry.count_… ──┤
                                └──► Telemetry.render: metric families, when somebody scrapes
"""

from __future__ import annotations

from serving.telemetry.model_tally import ModelTally
from serving.telemetry.page import ServiceState, Telemetry

__all__ = ["ModelTally", "ServiceState", "Telemetry"]
