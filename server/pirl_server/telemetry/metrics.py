"""Prometheus metrics of one server, in its own registry. A scrape reads counters: it never waits for inference."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pirl_contract import Alteration
from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.rpc.interceptor import Call
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder

STAGES = ("decode", "queue", "infer", "encode", "total")
MAX_ROBOTS = 64
"""robots with a series of their own; the later ones share the label `other`, so that ids cannot fill a database"""
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32)
_OUTCOMES = ("answered", "failed", "superseded", "expired", "given_up", "refused")


class Metrics:
    """Listens to calls, and answers scrapes."""

    def __init__(self, engine: Engine, attendance: RobotConnections, recorder: Recorder) -> None:
        into = self.registry = CollectorRegistry()
        into.register(_Live(engine, attendance, recorder))
        self._stages = Histogram(
            "pirl_stage_seconds", "Latency of an inference request by stage", ["stage"], buckets=_SECONDS, registry=into
        )
        self._calls = Counter("pirl_calls", "gRPC calls by method and status", ["rpc", "code"], registry=into)
        self._robots = Counter("pirl_robot_requests", "Inference requests by robot", ["robot"], registry=into)
        self._steps = Counter("pirl_steps", "Executed actions reported by robots", registry=into)
        self._altered = Counter(
            "pirl_altered_steps", "Executed actions that were altered, by kind", ["alteration"], registry=into
        )
        self._rest = Counter("pirl_rest_calls", "REST calls", ["method", "route", "status"], registry=into)
        self._rest_seconds = Histogram(
            "pirl_rest_seconds", "From a REST call to its response's header", ["route"], buckets=_SECONDS, registry=into
        )
        self._stage = {stage: self._stages.labels(stage) for stage in STAGES}
        self._call_series = _Series(lambda key: self._calls.labels(*key))
        self._by_robot: dict[str, Counter] = {}
        self._lock = threading.Lock()

    def began(self, call: Call) -> None:
        """Count what robots report; it is kept even when the call is rejected afterwards."""
        for outcome in getattr(call.request, "outcomes", ()):
            self._steps.inc()
            for bit in Alteration(outcome.alterations & _ALL_BITS):
                self._altered.labels(str(bit.name).lower()).inc()

    def ended(self, call: Call, reply: Message | None, code: str) -> None:
        """Count the call, and the stages of an answered one."""
        self._call_series[call.rpc, code].inc()
        if call.rpc != "Infer":
            return
        self._robot_series(call.robot_id).inc()
        if isinstance(reply, pb.InferReply):
            for stage, milliseconds in reply.timings_ms.items():
                if (series := self._stage.get(stage)) is not None:
                    series.observe(milliseconds / 1000)

    def rest_call(self, row: tuple[str, str] | None, status: int, seconds: float) -> None:
        """Count a REST call by its row of the table of scopes, None for a call of no route."""
        method, route = row or ("(other)", "(none)")
        self._rest.labels(method, route, status).inc()
        self._rest_seconds.labels(route).observe(seconds)

    def _robot_series(self, robot_id: str) -> Counter:
        if (series := self._by_robot.get(robot_id)) is not None:
            return series
        with self._lock:
            if len(self._by_robot) >= MAX_ROBOTS:
                return self._robots.labels("other")
            return self._by_robot.setdefault(robot_id, self._robots.labels(robot_id))


class _Series(dict[tuple[str, str], Counter]):
    """Children of a counter by their labels: finding one in the library takes longer than counting."""

    def __init__(self, make: Callable[[tuple[str, str]], Counter]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: tuple[str, str]) -> Counter:
        return self.setdefault(key, self._make(key))


class _Live(Collector):
    """What the parts of the server say of themselves at the moment of a scrape; none of them waits for the device."""

    def __init__(self, engine: Engine, attendance: RobotConnections, recorder: Recorder) -> None:
        self._engine, self._attendance, self._recorder = engine, attendance, recorder

    def collect(self) -> Iterable[Metric]:
        stats = self._engine.stats()
        yield GaugeMetricFamily("pirl_queue_depth", "Inference requests waiting for the device", stats.waiting)
        yield _rows(stats.batches)
        yield CounterMetricFamily("pirl_swaps", "Switches to another policy version", stats.swaps)
        yield CounterMetricFamily("pirl_shadow_draws", "Shadow inferences, for comparison only", stats.idle_answered)
        outcomes = CounterMetricFamily("pirl_inferences", "Inference requests by outcome", labels=["outcome"])
        for outcome in _OUTCOMES:
            outcomes.add_metric([outcome], getattr(stats, outcome))
        yield outcomes
        loaded = GaugeMetricFamily("pirl_version_loaded", "1: loaded; 2: served by default", labels=["version"])
        for version in stats.loaded:
            loaded.add_metric([version], 2 if version == stats.current else 1)
        yield loaded
        robots = sum(presence.sessions > 0 for presence in self._attendance.list())
        yield GaugeMetricFamily("pirl_robots_connected", "Robots with an open session", robots)
        yield GaugeMetricFamily("pirl_episodes_open", "Episodes being recorded", self._recorder.open_episodes)
        held = GaugeMetricFamily("pirl_episode_bytes", "Bytes of open episodes, by location", labels=["where"])
        for where, size in zip(("memory", "disk"), self._recorder.nbytes()):
            held.add_metric([where], size)
        yield held


def _rows(batches: Mapping[int, int]) -> HistogramMetricFamily:
    """A histogram of so many batches by number of rows."""
    most: tuple[tuple[str, float], ...] = (*((f"{rows}.0", rows) for rows in _ROWS), ("+Inf", math.inf))
    buckets = [(name, float(sum(count for rows, count in batches.items() if rows <= limit))) for name, limit in most]
    return HistogramMetricFamily(
        "pirl_batch_rows",
        "Requests per inference batch",
        buckets=buckets,
        sum_value=float(sum(rows * count for rows, count in batches.items())),
    )


_ALL_BITS = sum(bit.value for bit in Alteration)


MAX_LATENCIES = 1024


class Latencies:
    """Listens to calls; the robots that were silent for longest are forgotten first."""

    def __init__(self) -> None:
        self._last_ms: OrderedDict[str, float] = OrderedDict()

    def of(self, robot_id: str) -> float | None:
        """Return milliseconds from the request's arrival to its reply; None when the robot was never answered."""
        return self._last_ms.get(robot_id)

    def began(self, call: Call) -> None:
        """Nothing is known yet."""

    def ended(self, call: Call, reply: Message | None, code: str) -> None:
        """Remember how long an answered inference took."""
        if call.rpc != "Infer" or reply is None:
            return
        self._last_ms[call.robot_id] = 1000 * call.seconds
        self._last_ms.move_to_end(call.robot_id)
        while len(self._last_ms) > MAX_LATENCIES:
            self._last_ms.popitem(last=False)
