"""The simulated Panda described as a real arm: commanded by time, with limits that bind and much patience."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.profile.profile import load_profile

ROOT = Path(__file__).parents[2]
READY = [0.0, 0.3927, 0.0, -1.9635, 0.0, 2.3562, 0.7854]
NAMES = [f"panda_joint{number}" for number in range(1, 8)]
FINGERS = ["panda_finger_joint1", "panda_finger_joint2"]
PERIOD_S = 0.1
WAYS = np.array([1, 0.3, -1, 0.3, 1, 0.3, -1])
"""how the joints share a motion of ours"""
ACCELERATION, JERK = 8.0, 80.0
OVERLAY = ROOT / ".ros/test_install/control_msgs"


def write_profile(path: Path, safety: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write the profile: joint positions at 10 Hz, no cameras; ages and watchdogs are long unless given."""
    profile = yaml.safe_load((ROOT / "launch/params/panda_sim.yaml").read_text())
    profile |= {"robot": "test", "rate_hz": 1 / PERIOD_S, "tick": "timer", "poses": [], "action": "joint_position"}
    del profile["tcp_step"]
    profile["cameras"] = []
    for joint in profile["arm"]["joints"]:
        joint |= {"acceleration": ACCELERATION, "jerk": JERK}
    profile["safety"] |= {
        "speed_scale": 1.0, "max_jump": 1.0, "watchdog_s": 20.0, "link_loss_s": 20.0, "max_chunk_age": 20.0,
        "max_observation_age": 10.0,
    } | (safety or {})  # fmt: skip
    gripper = profile["gripper"] | changes.pop("gripper", {})
    path.write_text(yaml.safe_dump(profile | {"gripper": gripper} | changes))
    return path


def overlay() -> dict[str, str]:
    """Environment in which control_msgs is there: the tests' own look-alike, which no user gets."""
    library = next((OVERLAY / "lib").glob("python3.*/site-packages"))
    python = f"{library}:{Path(__file__).parent}"
    added = {"AMENT_PREFIX_PATH": OVERLAY, "LD_LIBRARY_PATH": OVERLAY / "lib", "PYTHONPATH": python}
    return {name: f"{path}:{os.environ.get(name, '')}" for name, path in added.items()}


def commanded(outcomes: Sequence[Any]) -> Array:
    """Return the commands [N, J] that these outcomes of one arm tell of, from READY on.

    While an arm stands nothing is reported: that it stood is put in where the way goes on as it could not without. A
    stop that was none, or a jump, breaks a limit with that too.
    """
    path = [np.array(READY)] * 3
    for outcome in outcomes:
        path.append(np.array(outcome.executed[:7], np.float64))
        # The first step after it may look like part of the stop: only the second one tells.
        stood = [[*path[:-back], *[path[-back - 1]] * 3, *path[-back:]] for back in (1, 2)]
        path = next((way for way in (path, *stood) if _smooth(way[-8:])), path)
    return np.array(path)


def _smooth(path: list[Array]) -> bool:
    bends, kinks = np.diff(path, 2, axis=0), np.diff(path, 3, axis=0)
    return bool(max(np.abs(bends).max() / ACCELERATION, np.abs(kinks).max() / JERK / PERIOD_S) <= 1.001 * PERIOD_S**2)


def broken_limits(profile: Path, commands: Array) -> dict[str, float]:
    """Limits that commands [N, J], reported as float32, go beyond by more than rounding."""
    robot = load_profile(profile)
    beyond = violations(commands, Limits.from_profile(robot), Chain.from_table(robot.kinematics))
    return {name: size for name, size in beyond.items() if size > 1e-3}


class RealArm:
    """The arm's process, and the test as its policy."""

    def __init__(self, probe: Any, *arguments: str) -> None:
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String

        from pirl_ros.adapters import qos
        from pirl_ros.adapters.interfaces import ActionChunk, SafetyState, StepOutcome

        self.probe, self._sequence, self.episode = probe, 0, 0
        probe.environment = overlay()
        probe.run([sys.executable, str(Path(__file__).with_name("arm_process.py")), probe.namespace, *arguments])
        probe.listen(JointState, "joint_states")
        probe.listen(SafetyState, "safety_state", quality=qos.LATCHED)
        probe.listen(StepOutcome, "step_outcomes")
        probe.listen(String, "happened")
        self._chunks = probe.node.create_publisher(ActionChunk, "action_chunks", qos.CHUNK)
        self._orders = probe.node.create_publisher(String, "orders", qos.OUTCOME)

    def start(self, profile: Path, node: str = "arm_node", listeners: int = 2, **parameters: object) -> None:
        """Start the robot side and wait until it takes chunks and so many, the test among them, hear the arm."""
        self.probe.start(node, profile=profile, **parameters)
        self.ready(listeners)

    def ready(self, listeners: int = 2) -> None:
        """Wait until the robot side takes chunks and hears the arm."""
        heard = lambda: f'"count": {listeners}' in str(self.probe.seen["happened"][-1:])  # noqa: E731
        self.probe.until(heard, "nobody hears the arm")
        self.probe.until(lambda: self.probe.seen["safety_state"] and self.state.ready, "arm_node is not ready")
        self.probe.until(lambda: self._chunks.get_subscription_count() > 0, "nobody takes chunks")
        self.probe.more("joint_states", 5)
        # One end of a topic knows the other before that knows it: that the arm has a reader is not yet that it is read.
        self.probe.more("safety_state", 2)
        self.probe.until(lambda: "no fresh state" not in self.state.reason, "the robot side hears no arm")

    def up_to_date(self) -> None:
        """Wait for a joint state of after this call: many older ones may be queued while another test spun."""
        from pirl_ros.sensing.sensor_messages import stamp_to_ns

        now_ns = self.probe.node.get_clock().now().nanoseconds
        newest = self.probe.seen["joint_states"]
        self.probe.until(lambda: newest and stamp_to_ns(newest[-1].header.stamp) > now_ns, "no new joint state")

    @property
    def state(self) -> Any:
        """What arm_node says."""
        return self.probe.seen["safety_state"][-1]

    @property
    def joints(self) -> Array:
        """[J] as measured last."""
        return np.array(self.probe.seen["joint_states"][-1].position[:7])

    def chunk(self, speed: float = 0.4, gripper: float = 1.0, length: int = 60) -> None:
        """Send joint targets [length, 8] that go on from here at `speed` rad/s, an answer to the newest state."""
        from pirl_ros.adapters.interfaces import ActionChunk

        self._sequence += 1
        ways = np.arange(1, length + 1)[:, None] * speed * PERIOD_S * WAYS
        actions = np.hstack([self.joints + ways, np.full((length, 1), gripper)]).astype(np.float32)
        message = ActionChunk(
            episode_id=f"e{self.episode}", sequence=self._sequence, chunk_id=f"c{self._sequence}", dt=PERIOD_S
        )
        message.horizon, message.action_dim, message.execute_horizon = length, 8, length
        message.header.stamp = self.probe.seen["joint_states"][-1].header.stamp
        message.actions = actions.ravel().tolist()
        self._chunks.publish(message)

    def happened(self, event: str, action: str) -> list[dict[str, Any]]:
        """What the arm's controllers told of this kind so far."""
        told = [yaml.safe_load(message.data) for message in self.probe.seen["happened"]]
        return [one for one in told if one["event"] == event and one.get("action") == action]

    def order(self, words: str) -> None:
        """Give the controllers an order and wait until it was heard."""
        from std_msgs.msg import String

        self.probe.until(lambda: self._orders.get_subscription_count() > 0, "nobody takes orders")
        heard = len(self.probe.seen["happened"])
        self._orders.publish(String(data=words))
        self.probe.until(
            lambda: any('"heard"' in message.data for message in self.probe.seen["happened"][heard:]), "not heard"
        )

    def wait(self, event: str, action: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until this happened `count` times in all."""
        self.probe.until(lambda: len(self.happened(event, action)) >= count, f"{action}: no {event}")
        return self.happened(event, action)
