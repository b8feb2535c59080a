"""The whole robot side as processes: simulated arm, policy_node, arm_node, episode_node, against a gRPC server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import output_of
from scripted_server import EXECUTE, ScriptedServer, serving

from pirl_contract.v1 import policy_pb2 as pb
from pirl_ros.profile.profile import Profile

pytestmark = pytest.mark.ros


@pytest.fixture
def server(profile: Profile) -> Iterator[tuple[ScriptedServer, str]]:
    service = ScriptedServer(profile.contract)
    with serving(service) as address:
        yield service, address


def start(probe: Any, address: str) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import JointState

    probe.listen(DiagnosticArray, "/diagnostics")
    probe.listen(JointState, "joint_states")
    probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")
    probe.start("arm_node")
    probe.start("policy_node", server_address=address)


def test_episodes_run_to_success_and_everything_is_reported(
    probe: Any, server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    service, address = server
    start(probe, address)
    runner = probe.start(
        "run_episodes",
        episodes=2,
        first_seed=3,
        summary_path=tmp_path / "s.json",
        record_dir=tmp_path,
        record_seeds="[4]",
    )
    probe.until(lambda: runner.poll() is not None, "episodes do not end")
    assert runner.returncode == 0, runner.communicate()[0]

    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["complete"], summary["success_rate"]) == (True, 1.0)
    assert [episode["seed"] for episode in summary["episodes"]] == [3, 4]
    assert summary["episodes"][0]["path"] == "episode1.zarr"
    assert [start.instruction for start in service.starts] == ["task of seed 3", "task of seed 4"]
    assert dict(service.starts[1].metadata)["seed"] == "4"
    assert [(end.outcome, end.end_reason) for end in service.ends] == [(pb.OUTCOME_SUCCESS, "success")] * 2
    frames = np.load(tmp_path / "episode_4.npz")["frames"]
    assert frames.shape[1:] == (64, 64, 3)
    assert not (tmp_path / "episode_3.npz").exists()


def test_the_policy_sees_the_state_after_its_last_action(
    probe: Any, server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    service, address = server
    start(probe, address)
    runner = probe.start("run_episodes", summary_path=tmp_path / "s.json")
    probe.until(lambda: runner.poll() is not None, "episodes do not end")
    reported = [(outcome.chunk_id, outcome.index) for outcome in service.outcomes]
    expected = [(f"c{chunk}", index) for chunk in range(1, len(reported)) for index in range(EXECUTE)]
    assert reported == expected[: len(reported)], "every action once, in order"
    assert len(reported) >= 4
    lasts = [outcome for outcome in service.outcomes if outcome.index == EXECUTE - 1]
    for observation, outcome in zip(service.observations[1:], lasts):
        np.testing.assert_allclose(observation.state[18], outcome.state[18], atol=0.02)
        assert observation.state[18] >= outcome.state[18] - 1e-6, "never a state from before the action's end"
        assert observation.images["base"].shape == (64, 64, 3)
    assert [(o.chunk_id, o.index, o.alterations, o.executed.tolist()) for o in service.outcomes if o.alterations] == []


def test_without_a_server_the_arm_holds_and_the_reason_is_told(probe: Any, ros: Any) -> None:
    from pirl_ros.adapters.interfaces import ActionChunk, PolicyStatus, StartEpisode

    probe.listen(ActionChunk, "action_chunks")
    probe.listen(PolicyStatus, "policy_node/status")
    start(probe, "127.0.0.1:9")
    before = probe.more("joint_states", 1)[0].position
    answer = probe.call(StartEpisode, "start_episode", instruction="push")
    assert not answer.ok
    assert "not reachable" in answer.message
    probe.until(lambda: "127.0.0.1:9 is not reachable" in ros.warnings_of(probe, "policy_node"), "not in diagnostics")
    probe.until(lambda: any(s.phase == "blocked" for s in probe.seen["policy_node/status"]), "not in status")
    assert list(probe.more("joint_states", 5)[-1].position) == list(before)
    assert probe.seen["action_chunks"] == []


def test_another_contract_is_refused_at_start(probe: Any, server: tuple[ScriptedServer, str], profile: Profile) -> None:
    from pirl_ros.adapters.interfaces import StartEpisode

    service, address = server
    service.contract = profile.without_cameras().contract
    start(probe, address)
    answer = probe.call(StartEpisode, "start_episode", instruction="push")
    assert not answer.ok
    assert "cameras" in answer.message
    assert service.starts == []


def test_a_missing_camera_means_no_question(probe: Any, ros: Any, server: tuple[ScriptedServer, str]) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    from pirl_ros.adapters.interfaces import StartEpisode, StopEpisode

    service, address = server
    probe.listen(DiagnosticArray, "/diagnostics")
    probe.start("policy_node", server_address=address)
    assert probe.call(StartEpisode, "start_episode", instruction="push").ok
    probe.until(lambda: "nothing received yet" in ros.warnings_of(probe, "policy_node"), "not said")
    assert "camera base" in ros.warnings_of(probe, "policy_node")
    answer = probe.call(StopEpisode, "stop_episode", outcome="failure", label_source="operator", reason="fault")
    assert answer.ok
    assert service.observations == []
    assert [end.outcome for end in service.ends] == [pb.OUTCOME_FAILURE]


def test_without_an_arm_nothing_is_asked(probe: Any, ros: Any, server: tuple[ScriptedServer, str]) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    from pirl_ros.adapters.interfaces import StartEpisode

    service, address = server
    probe.listen(DiagnosticArray, "/diagnostics")
    probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")
    probe.start("policy_node", server_address=address)
    assert probe.call(StartEpisode, "start_episode", instruction="push").ok
    probe.until(lambda: "no arm_node" in ros.warnings_of(probe, "policy_node"), "not said")
    assert service.observations == []


def test_an_id_that_no_stop_could_reach_is_refused_at_configure(probe: Any) -> None:
    process = probe.start("policy_node", robot_id="cell/arm")
    words = output_of(process, 20)[0]
    assert process.returncode == 1
    assert "robot id 'cell/arm' must be 1 to 64 letters" in words
