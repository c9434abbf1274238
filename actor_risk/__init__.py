"""The command line, the local runtime (Valkey, Kafka, Ray), the simulator and the demo."""

from materialize.quick_feast import import_feast_quickly

import_feast_quickly()
