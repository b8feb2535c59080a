"""Two namespaced robots against the shipped policy in the real server: logged apart, stopped and labelled apart."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import patient

from pirl_contract import ControlSource
from pirl_ros.profile.profile import Profile
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES
from pirl_server.training.episode_cut import cut

pytestmark = [pytest.mark.ros, pytest.mark.slow]

BASE = Path(__file__).parents[2] / "server/pirl_server/checkpoints/pushcube-base"
SIDES = ("left", "right")


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


class Server:
    """`pirl serve` and its REST side."""

    def __init__(self, probe: Any, root: Path) -> None:
        self.grpc_port, self.rest_port = free_ports()
        command = [sys.executable, "-m", "pirl_contract.commands.cli", "serve", str(BASE), "--root", str(root)]
        command += ["--grpc-port", str(self.grpc_port), "--rest-port", str(self.rest_port), "--stop-port", "0"]
        process = probe.run(command)
        line = ""
        while "pirl serves" not in line:
            line = process.stdout.readline()
            assert line, "it does not start"

    def rest(self, path: str, body: dict[str, str] | None = None) -> Any:
        """Get, or post a body, and return the answer."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.rest_port}/v1{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=patient(30)) as answer:
            return json.loads(answer.read())


def run(probe: Any, goals: Any, goal: Any) -> Any:
    sent = goals.send_goal_async(goal)
    probe.until(sent.done, "no answer to the goal")
    assert sent.result().accepted
    return sent.result().get_result_async()


def test_two_robots_and_one_real_server(ros: Any, tmp_path: Path, profile: Profile) -> None:
    pytest.importorskip("torch", reason="torch is not installed: no policy can be served here")
    from rclpy.action import ActionClient
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos
    from pirl_ros.adapters.interfaces import ExecuteInstruction, MarkSuccess, SafetyState

    probes = {side: ros.Probe(f"/{side}") for side in SIDES}
    for probe in probes.values():
        probe.patience_s = 120.0  # a server that loads a policy, two robots and their simulators start side by side
    results = {}
    try:
        server = Server(probes["left"], tmp_path)
        goals = {
            side: ActionClient(probe.node, ExecuteInstruction, "execute_instruction") for side, probe in probes.items()
        }
        for side, probe in probes.items():
            probe.listen(SafetyState, "safety_state", quality=qos.LATCHED)
            probe.listen(JointState, "joint_states")
            address = f"127.0.0.1:{server.grpc_port}"
            probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")
            probe.start("robot_node", server_address=address, robot_id=side, timeout_s=30.0, patience_s=60.0)
        for side, probe in probes.items():
            probe.until(goals[side].server_is_ready, "no action server")
            probe.until(
                lambda probe=probe: probe.seen["safety_state"] and probe.seen["safety_state"][-1].ready, "no arm"
            )
            goal = ExecuteInstruction.Goal(instruction=f"push {side}", seed=1, max_duration=3.0)
            results[side] = run(probe, goals[side], goal)
        for side, probe in probes.items():
            probe.until(results[side].done, "no result")
        told = {side: results[side].result().result for side in SIDES}
        for side in SIDES:
            [episode] = server.rest(f"/episodes?robot={side}")["data"]
            assert (episode["robot_id"], episode["instruction"]) == (side, f"push {side}")
            assert episode["path"] == told[side].path
            assert episode["steps"] > 0
            assert episode["success"] is False, "its time was over"
        assert told["left"].path != told["right"].path

        # Labelled after it was published, at the robot it was of.
        answer = probes["left"].call(MarkSuccess, "mark_success", label="success", note="seen late")
        assert (answer.ok, answer.message) == (True, "")
        success = {side: server.rest(f"/episodes?robot={side}")["data"][0]["success"] for side in SIDES}
        assert success == {"left": True, "right": False}

        stopped_from_the_server(server, probes)
        taken_over(probes["right"], goals["right"], profile)
        newest = server.rest("/episodes?robot=right")["data"][0]["id"]
        human_steps_are_windows_with_images(EpisodeStore(tmp_path / EPISODES).open(newest))
    finally:
        for probe in reversed(probes.values()):
            probe.close()


def stopped_from_the_server(server: Server, probes: dict[str, Any]) -> None:
    """A person at the server stops one of them."""
    assert server.rest("/robots/left/emergency-stop", {"reason": "a hand in the way"})["notified"] == ["left"]
    arm = lambda side: probes[side].seen["safety_state"][-1]  # noqa: E731
    probes["left"].until(lambda: "a hand in the way" in arm("left").reason, "it does not stop")
    assert arm("left").emergency_stop
    assert "on the policy server" in arm("left").reason
    probes["right"].more("safety_state", 3)
    assert not arm("right").emergency_stop


def taken_over(probe: Any, goals: Any, profile: Profile) -> None:
    """A second episode that a person drives from its first second to its end, by joint targets."""
    from sensor_msgs.msg import JointState
    from std_srvs.srv import Trigger

    from pirl_ros.adapters.interfaces import ExecuteInstruction

    hand = probe.publisher(JointState, "teleop/joint_targets")
    result = run(probe, goals, ExecuteInstruction.Goal(instruction="push right", seed=2, max_duration=4.0))
    probe.until(lambda: probe.seen["safety_state"][-1].mode == "playing", "the policy does not begin")
    assert probe.call(Trigger, "arm_node/takeover").success

    def driven() -> bool:
        now = probe.seen["joint_states"][-1]
        names = [joint.name for joint in profile.arm.joints]
        positions = dict(zip(now.name, now.position))
        hand.publish(JointState(header=now.header, name=names, position=[positions[name] + 0.01 for name in names]))
        return bool(result.done())

    probe.until(driven, "the episode does not end")


def human_steps_are_windows_with_images(episode: Episode) -> None:
    """The policy was asked while the person drove, about once per chunk, and nothing of it was played."""
    human = episode.steps.source == int(ControlSource.HUMAN)
    assert human.sum() > 20
    part = cut(episode, 8, sees=True)
    start = part.rows["start"]
    mine = human[np.maximum(start, 0)]
    assert mine.sum() >= human.sum() // (4 * episode.info.execute_horizon)
    assert (episode.calls.step[part.rows["call"][mine]] == -1).all()
    captured, times = episode.calls.capture_time_ns[part.rows["call"][mine]], episode.steps.time_ns
    assert np.isin(captured, times).any(), "an observation is of the state that a step led to, on the same clock"
