"""The online answer: Ray Serve application, HTTP API, decision records, telemetry."""
