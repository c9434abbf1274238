"""The sink of decisions: from the event log into Parquet, by the hour."""

from actor_risk.decision_sink.archive import Archive
from actor_risk.decision_sink.sink import DecisionSink, SinkSettings, SinkStatus

__all__ = ["Archive", "DecisionSink", "SinkSettings", "SinkStatus"]
