"""What people see of the running server: numbers for Prometheus, spans for OpenTelemetry, one log line per event."""

from pirl_server.telemetry.calls import CallWatcher
from pirl_server.telemetry.latency import Latencies
from pirl_server.telemetry.logs import CallLog, configure_logs
from pirl_server.telemetry.metrics import Metrics
from pirl_server.telemetry.spans import spans_from_environment

__all__ = ["CallLog", "CallWatcher", "Latencies", "Metrics", "configure_logs", "spans_from_environment"]
