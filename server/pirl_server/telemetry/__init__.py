"""Observability of the running server: Prometheus metrics, OpenTelemetry spans, one log line per event."""
