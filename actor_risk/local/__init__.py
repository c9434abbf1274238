"""Servers on this machine for the demo and the tests: Valkey, Apache Kafka, and how processes are started and ended."""

from actor_risk.local._kafka_broker import KAFKA_VERSION, Kafka, default_cache
from actor_risk.local.errors import DeadlineError, FetchError, LocalRuntimeError, MissingToolError, StartError
from actor_risk.local.processes import free_port, start_child, stop_by_pid, wait_until
from actor_risk.local.valkey import Valkey

__all__ = [
    "KAFKA_VERSION",
    "DeadlineError",
    "FetchError",
    "Kafka",
    "LocalRuntimeError",
    "MissingToolError",
    "StartError",
    "Valkey",
    "default_cache",
    "free_port",
    "start_child",
    "stop_by_pid",
    "wait_until",
]
