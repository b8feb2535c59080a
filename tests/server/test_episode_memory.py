"""Over the wire: whatever open episodes hold, every robot can end its own, and what it said of them is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from patience import patient, until

from pirl_contract import Camera, Contract, Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_server.episodes.store import EpisodeStore
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Limits, Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

SIDE, CALLS = 64, 60
SHARE = 20 * SIDE * SIDE * 3
INSTRUCTION = "push"


class World:
    """A service with little memory for episodes, on a real socket."""

    def __init__(self, root: Path, policy: Any, limits: Limits, idle_limit_s: float) -> None:
        self.contract, self.store, self.engine = policy.contract, EpisodeStore(root), Engine()
        self.engine.swap(policy)
        self.recorder = Recorder(self.store, limits, idle_limit_s)
        self.service = PolicyService(self.engine, self.recorder, explore=True)
        self.server, self.port = start_grpc(self.service, "127.0.0.1:0")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = policy_pb2_grpc.PolicyServiceStub(self.channel)
        self.clients: list[PolicyClient] = []

    @property
    def staging(self) -> list[Path]:
        return list((self.store.root / "staging").iterdir())

    def start(self, robot_id: str) -> tuple[PolicyClient, str]:
        client = PolicyClient(f"127.0.0.1:{self.port}", robot_id, patient(20.0))
        self.clients.append(client)
        client.info()
        return client, client.start_episode(self.contract, INSTRUCTION)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.channel.close()
        self.server.stop(None).wait()
        self.engine.close()
        self.recorder.close()


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path, contract: Contract, make_policy: Any) -> Iterator[Make]:
    worlds: list[World] = []

    def made(idle_limit_s: float = 60.0, **limits: Any) -> World:
        seeing = replace(contract, cameras=(Camera("wrist", SIDE, SIDE),))
        usual = {"memory": 2 * SHARE, "memory_per_robot": SHARE, "free": 0}
        world = World(tmp_path, make_policy(contract=seeing), Limits(**(usual | limits)), idle_limit_s)
        worlds.append(world)
        return world

    yield made
    for world in worlds:
        world.close()


def observe(number: int, robot_id: str = "arm-1") -> Observation:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Observation({"wrist": image}, rng.normal(size=3).astype(np.float32), INSTRUCTION, robot_id, number)


def step(chunk_id: str, time_ns: int) -> StepOutcome:
    return StepOutcome(chunk_id, 0, np.zeros(2, np.float32), np.zeros(3, np.float32), time_ns=time_ns)


def fill(client: PolicyClient) -> str:
    """Ask until the robot's share is used up and the disk has been tried; return the words of the refusal."""
    reports: list[StepOutcome] = []
    for number in range(10 * CALLS):
        try:
            reports = [step(client.infer(observe(number), reports).chunk_id, number)]
        except TimeoutError as error:
            if "more slowly" not in str(error):
                return str(error)
            time.sleep(0.01)
    raise AssertionError("the share was never used up")


def test_one_robots_full_memory_refuses_nobody_an_end(make: Make) -> None:
    """The disk takes nothing before the end: a robot fills its share, and only its own calls are refused."""
    world = make(free=2**62)
    (large, large_id), (small, small_id) = world.start("arm-1"), world.start("arm-2")
    words = fill(large)
    assert "open episodes of robot 'arm-1'" in words
    assert "MiB of disk space left" in words
    chunk = small.infer(observe(0, "arm-2"))
    assert small.report_outcomes([step(chunk.chunk_id, 1)]) == 1
    assert large.report_outcomes([step("", 10**6)]) > 10
    with pytest.raises(TimeoutError, match="share"):
        large.start_episode(world.contract, INSTRUCTION)
    assert small.infer(observe(1, "arm-2"))
    assert large.end_episode("success", "sim", "success").path
    assert small.end_episode("success", "operator", "success").path
    for episode_id, source in ((large_id, "sim"), (small_id, "operator")):
        info = world.store.open(episode_id).info
        assert (info.success, info.label_source, info.end_reason) == (True, source, "success")
    assert large.start_episode(world.contract, INSTRUCTION)


def test_many_robots_that_fill_everything_can_all_end(make: Make) -> None:
    world = make(memory=SHARE, free=2**62)
    started = [world.start(f"arm-{number}") for number in range(4)]
    for number, (client, _) in enumerate(started):
        client.report_outcomes([step("", number + 1)])
    refused = set[int]()
    for number in range(CALLS):
        for robot, (client, _) in enumerate(started):
            try:
                client.infer(observe(number, f"arm-{robot}"))
            except TimeoutError:
                refused.add(robot)
    assert refused == {0, 1, 2, 3}
    assert world.recorder.nbytes()[0] < 2 * SHARE
    for client, episode_id in started:
        assert client.end_episode("failure", "sim", "time_limit").path
        assert world.store.open(episode_id).info.success is False


def test_what_went_to_the_disk_comes_back_bit_for_bit(make: Make) -> None:
    world = make()
    client, episode_id = world.start("arm-1")
    reports: list[StepOutcome] = []
    for number in range(CALLS):
        until(lambda: world.recorder.nbytes()[0] < SHARE, "the disk")
        reports = [step(client.infer(observe(number), reports).chunk_id, number)]
    until(lambda: world.recorder.nbytes()[1] > SHARE, "calls on the disk")
    assert [path.name for path in world.staging] == [f"{episode_id}.open"]
    assert client.end_episode("success", "sim", "success", outcomes=reports).steps == CALLS
    assert world.staging == []
    episode = world.store.open(episode_id)
    np.testing.assert_array_equal(episode.calls.images["wrist"], [observe(n).images["wrist"] for n in range(CALLS)])
    np.testing.assert_array_equal(episode.calls.state, [observe(n).state for n in range(CALLS)])
    np.testing.assert_array_equal(episode.steps.call, np.arange(CALLS))
    np.testing.assert_array_equal(episode.calls.step, np.arange(CALLS))
    policy = world.engine.current
    for number in (0, CALLS - 1):
        again = policy.sample(observe(number), explore=True, seed=int(episode.calls.seed[number]))  # type: ignore[union-attr]
        np.testing.assert_array_equal(episode.calls.chain[number], again.chain)


def test_a_discarded_episode_leaves_no_file_and_is_discarded_once(make: Make) -> None:
    world = make()
    client, episode_id = world.start("arm-1")
    for number in range(CALLS):
        until(lambda: world.recorder.nbytes()[0] < SHARE, "the disk")
        client.infer(observe(number), [step("", number + 1)])
    until(lambda: world.staging, "calls on the disk")
    discard = pb.EndEpisodeRequest(episode_id=episode_id, discard=True)
    assert world.stub.EndEpisode(discard) == world.stub.EndEpisode(discard) == pb.EndEpisodeReply(steps=CALLS)
    assert (world.staging, world.store.list()) == ([], [])


def test_a_disk_that_fails_is_named_and_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world, full = make(), threading.Event()
    full.set()

    def write(file: Any, data: memoryview) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        file.write(data)

    monkeypatch.setattr("pirl_server.serving.episode_log._write", write)
    client, episode_id = world.start("arm-1")
    assert "No space left on device" in fill(client)
    assert world.start("arm-2")[0].infer(observe(0, "arm-2"))
    full.clear()
    until(lambda: world.recorder.nbytes()[0] < SHARE, "the disk to be tried again")
    assert client.infer(observe(0), [step("", 1)])
    assert client.end_episode("success", "sim", "success").path
    assert world.store.open(episode_id).info.success is True


def test_a_robot_has_a_share_of_the_open_episodes(make: Make) -> None:
    world = make(open_per_robot=2)
    greedy, _ = world.start("arm-1")
    greedy.start_episode(world.contract, INSTRUCTION)
    with pytest.raises(TimeoutError, match="robot 'arm-1' has 2 open episodes already: end one of them"):
        greedy.start_episode(world.contract, INSTRUCTION)
    world.start("arm-2")
    with pytest.raises(ValueError, match="metadata: 70001 characters, at most 65536 are kept"):
        greedy.start_episode(world.contract, INSTRUCTION, {"x": "y" * 70_000})


def driven(world: World, robot_id: str = "arm-1") -> tuple[PolicyClient, str]:
    client, episode_id = world.start(robot_id)
    chunk = client.infer(observe(0, robot_id))
    client.report_outcomes([step(chunk.chunk_id, 1)])
    return client, episode_id


SUCCESS: dict[str, Any] = {"outcome": pb.OUTCOME_SUCCESS, "label_source": "sim", "end_reason": "success"}


@pytest.mark.parametrize("why", ["disk", "outcomes"])
def test_an_ending_that_failed_is_what_the_janitor_writes(
    make: Make, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """The robot said success, the call failed, and the robot was never seen again."""
    world = make(idle_limit_s=patient(0.4))
    write, failures = world.store.write, iter([OSError(28, "No space left on device")] * 2)

    def fails(episode: Any) -> Any:
        if why == "disk" and (failure := next(failures, None)):
            raise failure
        return write(episode)

    monkeypatch.setattr(world.store, "write", fails)
    _, episode_id = driven(world)
    wrong = [pb.StepOutcome(chunk_id="feed", executed=[0, 0], state=[0, 0, 0])] if why == "outcomes" else []
    with pytest.raises(grpc.RpcError):
        world.stub.EndEpisode(pb.EndEpisodeRequest(episode_id=episode_id, outcomes=wrong, **SUCCESS))
    assert world.store.list() == []
    until(world.store.list, "the janitor")
    info = world.store.open(episode_id).info
    assert (info.success, info.label_source, info.end_reason) == (True, "sim", "success")


def test_a_label_given_while_open_outlives_its_robot(make: Make) -> None:
    world = make(idle_limit_s=patient(0.2))
    client, episode_id = driven(world)
    client.label_episode("success", "operator")
    until(world.store.list, "the janitor")
    info = world.store.open(episode_id).info
    assert (info.success, info.label_source, info.end_reason) == (True, "operator", "fault")


def test_an_end_that_is_asked_for_again_is_answered_as_before(make: Make) -> None:
    world = make()
    _, episode_id = driven(world)
    request = pb.EndEpisodeRequest(episode_id=episode_id, **SUCCESS)
    first = world.stub.EndEpisode(request)
    assert first.path
    assert world.stub.EndEpisode(request) == first
    assert world.stub.EndEpisode(pb.EndEpisodeRequest(episode_id=episode_id, discard=True)) == first
    assert len(world.store.list()) == 1
    with pytest.raises(grpc.RpcError) as caught:
        world.stub.EndEpisode(pb.EndEpisodeRequest(episode_id="f" * 32, end_reason="operator"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_ends_and_labels_meet_while_the_end_is_written(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's deadline passes in the middle of the writing: it asks again, and an operator labels meanwhile."""
    world, entered, go_on = make(), threading.Event(), threading.Event()
    write = world.store.write

    def slow(episode: Any) -> Any:
        entered.set()
        assert go_on.wait(patient(30))
        return write(episode)

    monkeypatch.setattr(world.store, "write", slow)
    _, episode_id = driven(world)
    request = pb.EndEpisodeRequest(episode_id=episode_id, **SUCCESS)
    label = pb.LabelEpisodeRequest(episode_id=episode_id, outcome=pb.OUTCOME_FAILURE, label_source="operator")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(world.stub.EndEpisode, request)
        assert entered.wait(patient(30))
        second = pool.submit(world.stub.EndEpisode, request)
        third = pool.submit(world.stub.EndEpisode, pb.EndEpisodeRequest(episode_id=episode_id, discard=True))
        assert world.stub.LabelEpisode(label).previous == pb.OUTCOME_SUCCESS
        assert world.recorder.robot_of(episode_id) == "arm-1", "the token of another robot is refused meanwhile, too"
        go_on.set()
        assert first.result(patient(30)) == second.result(patient(30)) == third.result(patient(30))
    assert first.result().path
    info = world.store.open(episode_id).info
    assert (info.success, info.label_source) == (False, "operator"), "the label came after the end was asked for"
    label.outcome = pb.OUTCOME_UNLABELED
    assert world.stub.LabelEpisode(label).previous == pb.OUTCOME_FAILURE
