"""The command line, the local runtime (Valkey, Kafka, Ray), the simulator and the demo."""
