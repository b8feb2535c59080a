"""`pirl serve` as a process, with little memory for episodes: full, ended, killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from patience import patient, until

import pirl_server
from pirl_contract import Contract, Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.episodes.store import EpisodeStore
from pirl_server.serving.recorder import Recorder

CHECKPOINT = Path(pirl_server.__path__[0]) / "checkpoints" / "pushcube-base"
CALLS = 40
"""of 12 KiB and their chains: more than stays in memory of 2 MiB, of which a robot keeps an eighth"""


class Serve:
    """The process, its ports, and the store below its root."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as one, socket.socket() as two:
            for each in (one, two):
                each.bind(("127.0.0.1", 0))
            self.grpc, self.rest = one.getsockname()[1], two.getsockname()[1]
        command = [sys.executable, "-m", "pirl_contract.commands.cli", "serve", str(CHECKPOINT), "--root", str(root)]
        command += [
            "--grpc-port",
            str(self.grpc),
            "--rest-port",
            str(self.rest),
            "--stop-port",
            "0",
            "--episode-memory-mib",
            "2",
        ]
        self.log = root.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        assert b"pirl serves" in self.process.stdout.readline(), self.log.read_text()
        self.store = EpisodeStore(root / "episodes")

    @property
    def staging(self) -> list[str]:
        return [path.name for path in (self.store.root / "staging").iterdir()]

    def robot(self, robot_id: str) -> PolicyClient:
        return PolicyClient(f"127.0.0.1:{self.grpc}", robot_id, patient(30.0), encoding="rgb8")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made = Serve(tmp_path / "root")
    yield made
    made.close()


def observe(contract: Contract, number: int) -> Observation:
    rng = np.random.default_rng(number)
    images = {each.name: rng.integers(0, 256, (each.height, each.width, 3), np.uint8) for each in contract.cameras}
    return Observation(images, rng.normal(size=contract.state_dim).astype(np.float32), "push the cube to the goal")


def drive(client: PolicyClient, calls: int) -> tuple[str, Contract]:
    contract = client.info().contract
    episode_id, reports = client.start_episode(contract, "push the cube to the goal"), list[StepOutcome]()
    executed, state = np.zeros(contract.action_dim, np.float32), np.zeros(contract.state_dim, np.float32)
    for number in range(calls):
        chunk = client.infer(observe(contract, number), reports)
        reports = [StepOutcome(chunk.chunk_id, 0, executed, state, time_ns=number + 1)]
    client.report_outcomes(reports)
    return episode_id, contract


@pytest.mark.slow
def test_full_memory_ends_and_a_kill_leaves_nothing_behind(serve: Serve) -> None:
    large, small = serve.robot("arm-1"), serve.robot("arm-2")
    large_id, contract = drive(large, CALLS)
    until(lambda: serve.staging == [f"{large_id}.open"], "calls on the disk")
    small_id, _ = drive(small, 1)
    assert large.end_episode("success", "sim", "success").steps == CALLS
    assert small.end_episode("success", "operator", "success").steps == 1
    for episode_id, source, calls in ((large_id, "sim", CALLS), (small_id, "operator", 1)):
        episode = serve.store.open(episode_id)
        assert (episode.info.success, episode.info.label_source) == (True, source)
        for name, pixels in episode.calls.images.items():
            np.testing.assert_array_equal(pixels, [observe(contract, n).images[name] for n in range(calls)])
    assert serve.staging == []
    rest = f"http://127.0.0.1:{serve.rest}/v1"
    assert httpx.post(f"{rest}/emergency-stop", json={"reason": "hand"}).json()["notified"] == ["arm-1", "arm-2"]
    with pytest.raises(ValueError, match=r"emergency stop by .*: hand"):
        [large.infer(observe(contract, 0)) for _ in range(1000)]
    killed_id, _ = drive(small, CALLS)
    until(lambda: serve.staging == [f"{killed_id}.open"], "calls on the disk")
    serve.process.send_signal(signal.SIGKILL)
    serve.process.wait()
    for client in (large, small):
        client.close()
    assert serve.staging == [f"{killed_id}.open"]
    Recorder(serve.store).close()
    assert serve.staging == []
    assert {summary.id for summary in serve.store.list()} == {large_id, small_id}
