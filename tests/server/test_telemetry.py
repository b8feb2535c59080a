"""What a scrape, a trace and a log say, against what was done: through a real service on a real port."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from patience import Patience, patient
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pirl_contract import Alteration, Contract, Observation
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_contract.wire import codec
from pirl_server.episodes.store import EpisodeStore
from pirl_server.rpc.interceptor import CallInterceptor, CallTracker
from pirl_server.security.permissions import PUBLIC_RPCS
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService
from pirl_server.telemetry import metrics as metrics_module
from pirl_server.telemetry.gpus import Gpus, gpus
from pirl_server.telemetry.logs import CallLog, JsonLines, TextLines
from pirl_server.telemetry.metrics import Latencies, Metrics
from pirl_server.telemetry.spans import Spans, spans_from_environment

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Watched:
    """A running service with everything that looks at it."""

    def __init__(self, root: Path, policy: Any) -> None:
        self.engine, store = Engine(), EpisodeStore(root)
        self.engine.swap(policy)
        self.recorder = Recorder(store)
        service = PolicyService(self.engine, self.recorder, explore=False)
        self.metrics, self.latencies = Metrics(self.engine, service.attendance, self.recorder), Latencies()
        self.spans = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        listeners = [CallLog(), self.metrics, self.latencies, Spans(provider.get_tracer("test"))]
        self.server, port = start_grpc(
            service, "127.0.0.1:0", None, [CallInterceptor([CallTracker(listeners)], PUBLIC_RPCS)]
        )
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub: Any = policy_pb2_grpc.PolicyServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()
        self.server.stop(None).wait()
        self.engine.close()
        self.recorder.close()

    def scrape(self) -> dict[tuple[str, str], float]:
        """(name, label values) -> value."""
        families = text_string_to_metric_families(generate_latest(self.metrics.registry).decode())
        return {(each.name, ",".join(each.labels.values())): each.value for one in families for each in one.samples}

    def scrape_until(self, expected: Mapping[tuple[str, str], float], limit_s: float = 20.0) -> dict[Any, float]:
        """Scrape until it shows this or the time is up: a batch is counted after its robots have their answers."""
        patience = Patience(limit_s)
        while expected.items() - (seen := self.scrape()).items() and patience.left_s > 0:
            time.sleep(0.005)
        return seen


@pytest.fixture
def watched(tmp_path: Path, make_policy: Any) -> Iterator[Watched]:
    made = Watched(tmp_path, make_policy())
    yield made
    made.close()


def request(contract: Contract, seen: Observation, robot: str = "arm-1", **fields: Any) -> pb.InferRequest:
    picture = codec.observation_to_proto(seen)
    return pb.InferRequest(robot_id=robot, contract_hash=contract.hash, observation=picture, **fields)


def test_a_scrape_shows_what_was_done(watched: Watched, contract: Contract, observe: Any, make_policy: Any) -> None:
    stub, ask = watched.stub, request(contract, observe(0))
    for i in range(3):
        stub.Infer(request(contract, observe(0), sequence=i + 1))
    with pytest.raises(grpc.RpcError):
        stub.Infer(pb.InferRequest(robot_id="arm-1", contract_hash="another"))
    calls = [pb.SessionRequest(id=1, infer=ask), pb.SessionRequest(id=2, infer=pb.InferRequest(robot_id="arm-1"))]
    replies = {reply.id: reply for reply in stub.Session(iter(calls))}
    assert (replies[1].WhichOneof("reply"), replies[2].WhichOneof("reply")) == ("infer", "error")
    stub.StartEpisode(pb.StartEpisodeRequest(robot_id="arm-1", contract_json=contract.to_json(), instruction="x"))
    watched.engine.swap(make_policy(version="v2"))
    refused = grpc.StatusCode.FAILED_PRECONDITION.name
    expected = {
        ("pirl_calls_total", "OK,Infer"): 4,
        ("pirl_calls_total", f"{refused},Infer"): 2,
        ("pirl_calls_total", "OK,StartEpisode"): 1,
        ("pirl_calls_total", "OK,Session"): 1,
        ("pirl_robot_requests_total", "arm-1"): 6,
        ("pirl_inferences_total", "answered"): 4,
        ("pirl_inferences_total", "expired"): 0,
        ("pirl_batch_rows_count", ""): 4,
        ("pirl_batch_rows_sum", ""): 4,
        ("pirl_queue_depth", ""): 0,
        ("pirl_episodes_open", ""): 1,
        ("pirl_robots_connected", ""): 0,
        ("pirl_swaps_total", ""): 1,
        ("pirl_version_loaded", "v2"): 2,
        **{("pirl_stage_seconds_count", stage): 4 for stage in metrics_module.STAGES},
    }
    seen = watched.scrape_until(expected)
    assert {key: seen.get(key) for key in expected} == expected
    assert seen["pirl_stage_seconds_sum", "total"] >= seen["pirl_stage_seconds_sum", "infer"] > 0
    latency = watched.latencies.of("arm-1")
    assert latency is not None
    assert latency > 0
    assert watched.latencies.of("arm-2") is None


def test_alterations_are_counted_bit_by_bit(watched: Watched, contract: Contract, observe: Any) -> None:
    steps = [(Alteration.LIMIT | Alteration.BLENDED, 2), (Alteration.LIMIT, 1), (Alteration.NONE, 3)]
    outcomes = [pb.StepOutcome(alterations=bits) for bits, count in steps for _ in range(count)]
    outcomes += [pb.StepOutcome(alterations=1 << 30)]  # of a newer robot: not known here
    with pytest.raises(grpc.RpcError):  # no episode to log them in; they were reported all the same
        watched.stub.Infer(request(contract, observe(0), outcomes=outcomes))
    seen = watched.scrape()
    altered = {label: value for (name, label), value in seen.items() if name == "pirl_altered_steps_total"}
    assert altered == {"limit": 3, "blended": 2}
    assert seen["pirl_steps_total", ""] == 7


def test_robot_ids_cannot_fill_the_database(
    watched: Watched, contract: Contract, observe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "MAX_ROBOTS", 2)
    for i in range(5):
        watched.stub.Infer(request(contract, observe(0), robot=f"arm-{i}"))
    seen = watched.scrape()
    counts = {label: value for (name, label), value in seen.items() if name == "pirl_robot_requests_total"}
    assert counts == {"arm-0": 1, "arm-1": 1, "other": 3}


def test_a_scrape_does_not_wait_for_the_device(
    watched: Watched, contract: Contract, observe: Any, make_policy: Any
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    watched.engine.swap(make_policy(version="slow"))

    def block() -> None:
        entered.set()
        assert go_on.wait(patient(60))

    object.__setattr__(watched.engine.current, "before", block)
    pending = [watched.stub.Infer.future(request(contract, observe(0), robot="a"))]
    assert entered.wait(patient(20))
    pending += [watched.stub.Infer.future(request(contract, observe(0), robot=robot)) for robot in ("b", "c")]
    seen = watched.scrape_until({("pirl_queue_depth", ""): 2})
    assert seen["pirl_queue_depth", ""] == 2
    assert not any(each.done() for each in pending)
    assert seen["pirl_inferences_total", "answered"] == 0
    go_on.set()
    assert [len(each.result().chunk_id) for each in pending] == [32, 32, 32]


def test_spans_join_the_clients_trace_down_to_the_device(watched: Watched, contract: Contract, observe: Any) -> None:
    sent = f"00-{TRACE}-{PARENT}-01"
    reply = watched.stub.Infer(request(contract, observe(0), traceparent=sent))
    watched.stub.Infer(request(contract, observe(0)), metadata=(("traceparent", sent),))
    list(watched.stub.Session(iter([pb.SessionRequest(id=1, infer=request(contract, observe(0), traceparent=sent))])))
    with pytest.raises(grpc.RpcError):
        watched.stub.Infer(pb.InferRequest(robot_id="arm-1", contract_hash="another", traceparent=sent))
    spans = watched.spans.get_finished_spans()
    calls = [span for span in spans if span.name.endswith("/Infer")]
    assert [f"{span.context.trace_id:032x}" for span in calls] == [TRACE] * 4
    assert [f"{span.parent.span_id:016x}" for span in calls if span.parent] == [PARENT] * 4
    assert [span.status.is_ok for span in calls] == [True, True, True, False]
    first = calls[0]
    assert first.attributes is not None
    assert first.attributes["pirl.chunk_id"] == reply.chunk_id
    stages = [span for span in spans if span.parent and span.parent.span_id == first.context.span_id]
    assert [span.name for span in stages] == ["pirl.decode", "pirl.queue", "pirl.infer", "pirl.encode"]
    for before, after in pairwise(stages):
        assert before.end_time == after.start_time
    infer = stages[2]
    assert infer.end_time is not None
    assert infer.start_time is not None
    assert (infer.end_time - infer.start_time) / 1e6 == pytest.approx(reply.timings_ms["infer"], abs=1e-5)
    assert len(spans) == 4 + 3 * 4


def test_a_request_without_a_trace_begins_one(watched: Watched, contract: Contract, observe: Any) -> None:
    watched.stub.Infer(request(contract, observe(0), traceparent="00-nonsense"))
    (call,) = [span for span in watched.spans.get_finished_spans() if span.name.endswith("/Infer")]
    assert call.parent is None


def test_spans_are_made_only_when_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    assert spans_from_environment("1") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert spans_from_environment("1") is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter", None)
    with pytest.raises(ValueError, match="install pirl\\[otel\\]"):
        spans_from_environment("1")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(self.format(record))

    found: list[str] = []
    handler, logger = Kept(), logging.getLogger()
    handler.setFormatter(JsonLines())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_json_lines_name_request_and_robot_and_keep_tracebacks_to_themselves(
    watched: Watched, contract: Contract, observe: Any, lines: list[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("a secret of the policy")

    watched.stub.Infer(request(contract, observe(0)), metadata=(("x-request-id", "abc"),))
    object.__setattr__(watched.engine.current, "before", broken)
    with pytest.raises(grpc.RpcError) as caught:
        watched.stub.Infer(request(contract, observe(0)), metadata=(("x-request-id", "def"),))
    assert "secret" not in caught.value.details()
    found = [json.loads(line) for line in lines if '"request_id"' in line]
    calls = [line for line in found if line["logger"] == "pirl.calls"]
    assert [(line["request_id"], line["code"], line["level"]) for line in calls] == [
        ("abc", "OK", "debug"),
        ("def", "INTERNAL", "info"),
    ]
    (failure,) = [line for line in found if "exception" in line]
    assert (failure["request_id"], failure["robot_id"]) == ("def", "arm-1")
    assert "a secret of the policy" in failure["exception"]
    assert not any("\n" in line for line in lines)


def test_text_lines_say_the_same_for_people() -> None:
    record = logging.LogRecord("pirl.calls", logging.INFO, "", 0, "%s %s", ("Infer", "OK"), None)
    record.about = {"robot_id": "arm-1"}
    assert TextLines().format(record).endswith("INFO pirl.calls: Infer OK [robot_id=arm-1]")


class Driver:
    """NVML of three devices: one answers all, the second has no utilisation, the third can't be opened."""

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 3
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, device: Any) -> int:
        device._obj.value = 100 + index.value
        return NOT_SUPPORTED if index.value == 2 else 0

    def nvmlDeviceGetUUID(self, device: ctypes.c_void_p, text: Any, size: ctypes.c_uint) -> int:
        text.value = f"GPU-{device.value}".encode()[: size.value]
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: ctypes.c_void_p, memory: Any) -> int:
        held = memory._obj
        held.total, held.free, held.used = 1000, 1000 - (device.value or 0), device.value
        return 0

    def nvmlDeviceGetUtilizationRates(self, device: ctypes.c_void_p, rates: Any) -> int:
        rates._obj.gpu, rates._obj.memory = 25, 10
        return NOT_SUPPORTED if device.value == 101 else 0


NOT_SUPPORTED = 3


def test_gpus_are_named_with_what_they_answer() -> None:
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in Gpus(Driver()).collect()
        for sample in family.samples
    }
    assert samples == {
        ("pirl_gpu_memory_bytes", "GPU-100", "total"): 1000,
        ("pirl_gpu_memory_bytes", "GPU-100", "used"): 100,
        ("pirl_gpu_memory_bytes", "GPU-101", "total"): 1000,
        ("pirl_gpu_memory_bytes", "GPU-101", "used"): 101,
        ("pirl_gpu_utilization_ratio", "GPU-100"): 0.25,
    }


def test_the_machine_s_own_gpus_are_those_that_torch_sees() -> None:
    """None where there is no driver, which is said by no metric at all."""
    found = gpus()
    names = {sample.name for family in found.collect() for sample in family.samples} if found else set()
    assert ("pirl_gpu_memory_bytes" in names) >= torch.cuda.is_available()
    assert found is not None or not Path("/proc/driver/nvidia/version").exists()
