"""Metrics of what surrounds inference: process, jobs, episodes, disk, rejected calls, certificates.

No file of the root is read; certificates are, after they have changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from pirl_server.jobs.job import Status
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.security.access_control import AccessControl
from pirl_server.security.tls import TlsFiles
from pirl_server.serving.recorder import Recorder
from pirl_server.telemetry.gpus import gpus


class Operations(Collector):
    """Counts that their owners keep, taken at each scrape."""

    def __init__(
        self, root: Path, jobs: Supervisor, recorder: Recorder, gate: AccessControl, tls: TlsFiles | None = None
    ) -> None:
        self._root, self._jobs, self._recorder, self._gate = root, jobs, recorder, gate
        self._expiries = tls.expiries() if tls else dict

    def register(self, into: CollectorRegistry) -> None:
        """Add these, those of the process (memory, open files, CPU time, start), and those of GPUs where there are."""
        into.register(self)
        ProcessCollector(registry=into)
        if (devices := gpus()) is not None:
            into.register(devices)

    def collect(self) -> Iterable[Metric]:
        """Return one family after the other."""
        yield InfoMetricFamily("pirl_build", "What runs here", {"version": version("pirl")})
        counts = self._jobs.counts()
        jobs = GaugeMetricFamily("pirl_jobs", "Jobs by status", labels=["status"])
        for status in Status:
            jobs.add_metric([status.value], counts[status])
        yield jobs
        ended = CounterMetricFamily("pirl_episodes_ended", "Ended episodes by result", labels=["result"])
        for result, count in self._recorder.ended.items():
            ended.add_metric([result], count)
        yield ended
        size = self._recorder.published_bytes
        yield CounterMetricFamily("pirl_episodes_published_bytes", "Bytes of the calls of published episodes", size)
        refused = CounterMetricFamily("pirl_calls_rejected", "Calls without the right token", labels=["reason"])
        for reason, count in self._gate.rejected.items():
            refused.add_metric([reason], count)
        yield refused
        failures = self._gate.audit.failures
        yield CounterMetricFamily("pirl_audit_failures", "Lines that the audit log could not take", failures)
        disk = shutil.disk_usage(self._root)
        room = GaugeMetricFamily("pirl_disk_bytes", "Disk of the root", labels=["what"])
        for what in ("total", "free"):
            room.add_metric([what], getattr(disk, what))
        yield room
        ends = GaugeMetricFamily(
            "pirl_certificate_expiry_timestamp_seconds", "When a certificate runs out", labels=["certificate"]
        )
        for name, seconds in self._expiries().items():
            ends.add_metric([name], seconds)
        yield ends
