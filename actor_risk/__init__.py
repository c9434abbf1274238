"""The command line, the local runtime (Valkey, Kafka, Ray), the simulator and the demo."""

import materialize  # noqa: F401 - from here on Feast is imported quickly
