"""What people see of the running server: numbers for Prometheus, spans for OpenTelemetry, one log line per event."""
