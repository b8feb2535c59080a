"""The executables as a robot runs them: without the server's packages, through every transition, two arms at once."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_server import ScriptedServer, serving

pytestmark = pytest.mark.ros

# What package.xml asks for, as PyPI names it; `ros-` are the wheels of ROS. Everything else is kept out.
ROBOT_SIDE = {"numpy", "grpcio", "protobuf", "pyyaml", "typing-extensions", "pirl", "setuptools", "pip"}
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ImportError(f"{{name}} is not installed on a robot")
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def robot_side_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes find no package but those that package.xml declares."""
    kept = {
        name
        for name, owners in packages_distributions().items()
        if any(owner.lower().replace("_", "-") in ROBOT_SIDE or owner.startswith("ros-") for owner in owners)
    }
    names = {name for name in packages_distributions() if name not in kept and not name.startswith("pirl_")}
    assert {"torch", "zarr", "fastapi", "safetensors"} & names
    (tmp_path / "sitecustomize.py").write_text(BLOCKER.format(names=names))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("robot_side_only")
def test_every_executable_starts_with_the_robot_sides_packages_only(probe: Any) -> None:
    from lifecycle_msgs.msg import State
    from lifecycle_msgs.srv import GetState

    blocked = subprocess.run([sys.executable, "-c", "import zarr"], capture_output=True, text=True, check=False)
    assert "not installed on a robot" in blocked.stderr, "or this test shows nothing"
    probe.start("robot_node")
    probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")
    for node in ("policy_node", "arm_node", "episode_node", "sim_arm_node"):
        state = State()
        while state.id != State.PRIMARY_STATE_ACTIVE:
            state = probe.call(GetState, f"{node}/get_state").current_state
    library = Path(__file__).parents[2] / ".ros/install/pirl_ros/lib/pirl_ros"
    alone = subprocess.run(
        [library / "run_episodes", "--ros-args", "-p", "patience_s:=0.1"], capture_output=True, text=True, check=False
    )
    assert "run aborted: service 'reset_environment' did not appear" in alone.stderr


def test_every_transition_of_every_node(probe: Any) -> None:
    from lifecycle_msgs.msg import State, Transition

    probe.start("robot_node", autostart=False)
    steps = (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_ACTIVE_SHUTDOWN, State.PRIMARY_STATE_FINALIZED),
    )
    for node in ("policy_node", "arm_node", "episode_node"):
        for transition, expected in steps:
            assert probe.change(node, transition) == expected


@pytest.mark.slow
def test_two_robots_share_a_server_and_nothing_else(ros: Any, profile: Any) -> None:
    from rclpy.action import ActionClient
    from trajectory_msgs.msg import JointTrajectory

    from pirl_ros.adapters.interfaces import ExecuteInstruction

    service = ScriptedServer(profile.contract)
    probes = {side: ros.Probe(f"/{side}") for side in ("left", "right")}
    with serving(service) as address:
        try:
            futures = {}
            for side, probe in probes.items():
                probe.listen(JointTrajectory, profile.command.topic)
                probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")
                probe.start("robot_node", server_address=address, robot_id=side)
            for side, probe in probes.items():
                client = ActionClient(probe.node, ExecuteInstruction, "execute_instruction")
                probe.until(client.server_is_ready, "no action server")
                goal = client.send_goal_async(ExecuteInstruction.Goal(instruction=f"push {side}", seed=1))
                probe.until(goal.done, "no answer")
                assert goal.result().accepted
                futures[side] = goal.result().get_result_async()
            for side, probe in probes.items():
                probe.until(futures[side].done, "no result")
        finally:
            for probe in probes.values():
                probe.close()
    for side in probes:
        assert futures[side].result().result.outcome == "success"
        mine = [observation for observation in service.observations if observation.robot_id == side]
        assert {observation.instruction for observation in mine} == {f"push {side}"}
    assert {start.robot_id for start in service.starts} == {"left", "right"}
    assert np.array([outcome.alterations for outcome in service.outcomes]).any() == 0
