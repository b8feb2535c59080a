"""The policy service over a real socket."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from patience import patient

from pirl_contract import Contract, Observation, Policy, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_contract.conformance import PolicyConformance
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_contract.wire import codec
from pirl_server.episodes.store import EpisodeStore
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

INSTRUCTION = "push the cube to the goal"
Observe = Callable[[int], Observation]


class TestClientKeepsThePolicyContract(PolicyConformance):
    @pytest.fixture(autouse=True)
    def _world(self, service: Any, observe: Observe) -> None:
        self._service, self._observe = service, observe

    def make_policy(self) -> Policy:
        client: Policy = self._service.connect()
        return client

    def make_observation(self) -> Observation:
        return self._observe(0)


@pytest.fixture
def stub(service: Any) -> Iterator[Any]:
    with grpc.insecure_channel(service.address) as channel:
        yield policy_pb2_grpc.PolicyServiceStub(channel)


def refusal(call: Callable[[], object]) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def request(observe: Observe, contract: Contract, **changes: Any) -> Any:
    base: dict[str, Any] = {
        "robot_id": "arm-1",
        "contract_hash": contract.hash,
        "observation": codec.observation_to_proto(observe(0)),
    }
    return pb.InferRequest(**(base | changes))


def test_a_reply_names_version_seed_and_stage_times(service: Any, observe: Observe) -> None:
    chunk = service.connect().infer(observe(3))
    assert chunk.policy_version == "v1"
    assert chunk.execute_horizon == 3
    assert chunk.dt_s == pytest.approx(0.05)
    assert chunk.start_time_ns == 1003
    assert set(chunk.timings_ms) == {"decode", "queue", "infer", "encode", "total"}
    stages = sum(chunk.timings_ms[stage] for stage in ("decode", "queue", "infer", "encode"))
    assert 0 < stages <= chunk.timings_ms["total"]


def test_another_contract_is_refused_in_words(service: Any, contract: Contract) -> None:
    client = service.connect()
    with pytest.raises(ValueError, match=r"failed_precondition.*rate_hz: 20\.0 here, 10\.0 there"):
        client.start_episode(replace(contract, rate_hz=10.0), "push")


def test_infer_without_the_right_hash_is_refused(stub: Any, observe: Observe, contract: Contract) -> None:
    code, text = refusal(lambda: stub.Infer(request(observe, contract, contract_hash="feed")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "feed" in text
    assert contract.hash in text


def test_malformed_requests_are_invalid_arguments(stub: Any, observe: Observe, contract: Contract) -> None:
    torn = codec.observation_to_proto(observe(0))
    torn.state.shape[0] = 2**40
    for changes in (
        {"observation": torn},
        {"observation": pb.Observation()},
        {"mode": 9},
        {"outcomes": [pb.StepOutcome(chunk_id="x", index=0)]},
        {"observation": codec.observation_to_proto(Observation({}, np.zeros(9, np.float32), "x"))},
    ):
        code, text = refusal(functools.partial(stub.Infer, request(observe, contract, **changes)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT, text
        assert "Traceback" not in text


def test_unknown_episode_and_alias_are_not_found(stub: Any, observe: Observe, contract: Contract) -> None:
    for call in (
        lambda: stub.Infer(request(observe, contract, episode_id="../../etc")),
        lambda: stub.Infer(request(observe, contract, alias="shadow")),
        lambda: stub.EndEpisode(pb.EndEpisodeRequest(episode_id="f" * 32, end_reason="operator")),
        lambda: stub.GetInfo(pb.GetInfoRequest(alias="shadow")),
    ):
        assert refusal(call)[0] is grpc.StatusCode.NOT_FOUND


def test_a_robot_id_that_is_no_folder_name_is_refused(service: Any, contract: Contract) -> None:
    for robot_id in ("../up", "", "a/b", ".hidden"):
        with pytest.raises(ValueError, match=r"robot id .* set robot_id of PolicyClient or policy_node"):
            service.connect(robot_id)


def test_messages_over_the_limit_are_refused(stub: Any, observe: Observe, contract: Contract) -> None:
    big = pb.InferRequest(robot_id="x" * (17 * 2**20))
    assert refusal(lambda: stub.Infer(big))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_taken_port_is_said_in_words(service: Any) -> None:
    taken = PolicyService(service.engine, service.recorder, explore=False)
    with pytest.raises(ValueError, match="port is in use"):
        start_grpc(taken, service.address)


def test_without_a_policy_it_is_unavailable(observe: Observe, contract: Contract, service: Any) -> None:
    empty = Engine()
    server, port = start_grpc(PolicyService(empty, service.recorder, explore=False), "127.0.0.1:0")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        assert refusal(lambda: stub.Infer(request(observe, contract)))[0] is grpc.StatusCode.UNAVAILABLE
        assert refusal(lambda: stub.GetInfo(pb.GetInfoRequest()))[0] is grpc.StatusCode.UNAVAILABLE
    server.stop(None).wait()
    empty.close()


def test_a_bug_in_the_policy_is_internal_without_its_text(
    service: Any, stub: Any, make_policy: Any, observe: Observe, contract: Contract
) -> None:
    armed = threading.Event()

    def fail() -> None:
        if armed.is_set():
            raise RuntimeError("secret /home/path")

    service.engine.swap(make_policy(version="v2", before=fail))
    armed.set()
    code, text = refusal(lambda: stub.Infer(request(observe, contract)))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in text
    armed.clear()
    assert stub.Infer(request(observe, contract)).policy_version == "v2"


def test_actions_that_are_not_finite_never_leave(
    service: Any, stub: Any, make_policy: Any, observe: Observe, contract: Contract
) -> None:
    service.engine.swap(make_policy(version="v2", mark=float("nan")))
    assert refusal(lambda: stub.Infer(request(observe, contract)))[0] is grpc.StatusCode.INTERNAL


def test_info_and_episodes_do_not_wait_for_inference(
    service: Any, stub: Any, make_policy: Any, observe: Observe, contract: Contract
) -> None:
    """With the device held and its queue full, further requests are refused and everything else still answers."""
    hold, reached, armed = threading.Event(), threading.Event(), threading.Event()

    def busy() -> None:
        if armed.is_set():
            reached.set()
            assert hold.wait(patient(30))

    service.engine.swap(make_policy(version="v2", before=busy))
    armed.set()
    pending = [stub.Infer.future(request(observe, contract, robot_id="arm-0"))]
    assert reached.wait(patient(30))
    pending += [stub.Infer.future(request(observe, contract, robot_id=f"arm-{i}")) for i in range(1, 5)]
    while service.engine.stats().waiting < 4:
        time.sleep(0.001)
    full = refusal(lambda: stub.Infer(request(observe, contract, robot_id="arm-9")))
    assert full[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    client = service.connect()
    client.start_episode(contract, "push")
    assert client.end_episode("unlabeled", "", "operator").path == ""
    assert not any(call.done() for call in pending)
    hold.set()
    assert all(call.result(patient(30)).policy_version == "v2" for call in pending)


def test_a_deadline_that_passes_in_the_queue_is_an_error_not_a_late_chunk(
    service: Any, stub: Any, make_policy: Any, observe: Observe, contract: Contract
) -> None:
    hold, armed = threading.Event(), threading.Event()
    service.engine.swap(make_policy(version="v2", before=lambda: armed.is_set() and hold.wait(patient(30))))
    armed.set()
    first = stub.Infer.future(request(observe, contract))
    code, _ = refusal(lambda: stub.Infer(request(observe, contract, robot_id="arm-2"), timeout=0.2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    hold.set()
    assert first.result(patient(30))


def test_200_swaps_under_load_fail_no_request_and_mix_no_chunk(
    service: Any, make_policy: Any, observe: Observe
) -> None:
    """Every chunk is uniform and its value belongs to the version it names."""
    done, chunks = threading.Event(), []

    def drive(robot_id: str) -> None:
        client = service.connect(robot_id)
        while not done.is_set():
            chunks.append(client.infer(observe(1)))

    drivers = [threading.Thread(target=drive, args=(f"arm-{i}",)) for i in range(4)]
    for driver in drivers:
        driver.start()
    for mark in range(2, 202):
        service.engine.swap(make_policy(version=f"v{mark}", mark=float(mark)))
        seen = len(chunks)
        while mark % 10 == 0 and len(chunks) < seen + 4 and any(driver.is_alive() for driver in drivers):
            time.sleep(0.001)
    done.set()
    for driver in drivers:
        driver.join()
    assert len({chunk.policy_version for chunk in chunks}) > 20
    for chunk in chunks:
        assert (chunk.actions == float(chunk.policy_version[1:])).all()
    # a thread that met a refused request has ended with its exception, which pytest turns into an error


def test_outcomes_without_an_episode_are_refused(service: Any, observe: Observe) -> None:
    step = StepOutcome("x", 0, np.zeros(2, np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="outcomes without an episode"):
        service.connect().infer(observe(0), [step])


def test_the_store_is_untouched_by_unlogged_requests(service: Any, observe: Observe, tmp_path: Path) -> None:
    service.connect().infer(observe(0))
    assert service.store.list() == []
    assert list((tmp_path / "store" / "staging").iterdir()) == []


def test_a_request_without_an_instruction_means_the_only_one(
    service: Any, observe: Observe, contract: Contract
) -> None:
    client = service.connect()
    client.start_episode(contract, "  ")
    client.infer(replace(observe(0), instruction=""))  # which an episode of another instruction would reject
    assert service.engine.current.batches[-1][0].observation.instruction == INSTRUCTION


@pytest.mark.parametrize("known", [(), ("push", "pull")])
def test_without_exactly_one_it_is_rejected_or_the_server_s_default(
    tmp_path: Path, make_policy: Any, observe: Observe, known: tuple[str, ...]
) -> None:
    silent = replace(observe(0), instruction="")
    for default, words in (("", f"has {len(known)} instructions, not one.*--default-instruction"), ("tidy up", "")):
        engine = Engine()
        engine.swap(policy := make_policy(instructions=known))
        recorder = Recorder(EpisodeStore(tmp_path / f"store{default}"))
        server, port = start_grpc(
            PolicyService(engine, recorder, explore=False, default_instruction=default), "127.0.0.1:0"
        )
        client = PolicyClient(f"127.0.0.1:{port}", "arm-1", timeout_s=patient(20.0))
        client.info()
        if words:
            with pytest.raises(ValueError, match=words):
                client.infer(silent)
        else:
            client.infer(silent)
            assert policy.batches[-1][0].observation.instruction == default
        client.close()
        server.stop(None).wait()
        engine.close()
        recorder.close()
