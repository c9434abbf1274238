"""`actor-risk stream`: workers of one group, started again when they die, and what they say of themselves.

`actor_risk.streaming.run` is a worker put together; it is imported by its own name, for it brings Feast along.
"""

from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.report import StreamStatus, WorkerReport

__all__ = ["StreamStatus", "WorkerOptions", "WorkerReport"]
