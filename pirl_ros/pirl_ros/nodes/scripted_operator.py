"""A scripted operator: takes over when the policy fails for long enough, drives on by an expert, hands back at the end.

It stands for a person at a leader arm, for takeovers in simulation by the hundred: it knows the arm through the topics
and services that a person's device uses.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from pirl_contract.schema import ControlSource, Vector
from pirl_ros.adapters import qos
from pirl_ros.adapters.gated_subscriptions import GatedGroup
from pirl_ros.adapters.interfaces import EpisodeEvent, SafetyState, StepOutcome
from pirl_ros.adapters.node_main import ends_on_mistake, ros_until_signal
from pirl_ros.adapters.parameters import declare, declare_profile, drop_unknown, read_profile
from pirl_ros.adapters.sensor_streams import SensorStreams
from pirl_ros.adapters.simulated_arm import load_expert
from pirl_ros.control.gripper import gripper_metres
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.messages.pirl_messages import ns_to_stamp
from pirl_ros.sensing.observation import measured_arm, state_vector
from pirl_ros.sensing.synchronizer import Bundle

_AGAIN_S = 1.0
"""after which a button that the arm did not agree to is pressed again"""
_OUT_OF_REACH = 0.3
"""share of a step that the arm can't make, which linearised joints are moved by"""


class ScriptedOperator(Node):
    """Watches a share of the episodes; the expert's actions are those of a `tcp_delta` contract."""

    def __init__(self) -> None:
        super().__init__("scripted_operator", automatically_declare_parameters_from_overrides=True)
        declare_profile(self)
        spec = declare(self, "expert", "pirl_sim.maniskill.experts:expert_action", "module:function of the expert")
        task = declare(self, "task", "PushCube-v1", "task name, passed to the expert")
        self._takeover_after = declare(self, "takeover_after", 24, "actions of the policy before it is helped")
        self._share = declare(self, "share", 1.0, "share of the episodes that are watched", between=(0.0, 1.0))
        self._random = np.random.default_rng(declare(self, "seed", 0, "of the choice of episodes"))
        sees = declare(self, "sees", False, "drive by the cameras' pace, as a person does: one image for each command")
        for sentence in drop_unknown([self]):
            self.get_logger().warning(sentence)
        self._profile = read_profile(self)
        if self._profile.action != "tcp_delta":
            raise ValueError(
                f"an expert moves the tool: the profile's action is '{self._profile.action}', not tcp_delta"
            )
        self._expert, self._chain = load_expert(spec, task), Chain.from_table(self._profile.kinematics)
        self._watched, self._played, self._drives = False, 0, False
        self._episode = self._button = ""
        self._pressed_s, self._answered_ns = 0.0, 0
        self._streams = SensorStreams(self, self._profile, sees, self._drive, followers=GatedGroup())
        self._targets = self.create_publisher(JointState, "teleop/joint_targets", qos.STATE)
        self._buttons = {name: self.create_client(Trigger, f"arm_node/{name}") for name in ("takeover", "hand_back")}
        self.create_subscription(EpisodeEvent, "episode_events", self._on_episode, qos.OUTCOME)
        self.create_subscription(StepOutcome, "step_outcomes", self._on_outcome, qos.OUTCOME)
        self.create_subscription(SafetyState, "safety_state", self._on_arm, qos.LATCHED)
        self.create_timer(_AGAIN_S / 2, self._press_again, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_episode(self, event: Any) -> None:
        if event.event == EpisodeEvent.START:
            self._episode, self._button = event.episode_id, ""
            self._watched, self._played = bool(self._random.random() < self._share), 0
        elif event.event == EpisodeEvent.END:
            self._episode, self._button, self._watched = "", "", False
            if self._drives:
                self._press("hand_back")

    def _on_outcome(self, outcome: Any) -> None:
        self._played += bool(outcome.chunk_id)
        if self._watched and not self._drives and self._played >= self._takeover_after:
            self._watched = False
            self._press("takeover")

    def _on_arm(self, state: Any) -> None:
        self._drives = state.control_source == ControlSource.HUMAN.name.lower()
        self._drive(again=True)

    def _press(self, button: str) -> None:
        """Press until the arm agrees, another button is pressed, or the episode ends or begins."""
        self._button, self._pressed_s = button, time.monotonic()
        pressed = self._buttons[button].call_async(Trigger.Request())
        pressed.add_done_callback(partial(self._on_answer, button, self._episode))

    def _press_again(self) -> None:
        if self._button and time.monotonic() > self._pressed_s + _AGAIN_S:
            self.get_logger().warning(f"{self._button}: no agreement of arm_node, pressed again")
            self._press(self._button)

    def _on_answer(self, button: str, episode: str, pressed: Any) -> None:
        answer = pressed.result()
        if not answer.success:
            self.get_logger().warning(f"{button}: rejected: {answer.message}")
        elif button == "takeover" and episode != self._episode:
            self.get_logger().warning("takeover: it came after its episode, handed back")
            self._press("hand_back")
        elif button == self._button:
            self._button = ""

    def _drive(self, again: bool = False) -> None:
        """Answer each state once, and the newest again with each message of the arm: the answer may have been lost."""
        bundle, _ = self._streams.newest() if self._drives else (None, "")
        if bundle is not None and (again or bundle.stamp_ns != self._answered_ns):
            self._answered_ns = bundle.stamp_ns
            self._targets.publish(self._target(bundle))

    def _target(self, bundle: Bundle) -> JointState:
        """Joints and finger that the expert's action leads to from the measured state."""
        profile, measured = self._profile, measured_arm(self._profile, bundle).joints
        action: Vector = self._expert(state_vector(profile, bundle))
        message = JointState(
            name=[*(joint.name for joint in profile.arm.joints), profile.gripper.command_joint],
            position=[*self._reach(measured, action[:3]), gripper_metres(profile.gripper, float(action[-1]))],
        )
        ns_to_stamp(bundle.stamp_ns, message.header.stamp)
        return message

    def _reach(self, measured: Array, delta: Vector) -> Array:
        """Joints [J] that move the tool by `delta` [3] m without turning it; out of reach, a part of it."""
        position, rotation = self._chain.forward(measured)
        low, high = np.array([(joint.low, joint.high) for joint in self._profile.arm.joints]).T
        joints = self._chain.inverse(position + delta, rotation, measured, low, high)
        if joints is None:
            jacobian, _, _ = self._chain.jacobian(measured)
            step = np.linalg.lstsq(jacobian, np.append(delta, np.zeros(3)), rcond=0.05)[0]
            joints = np.clip(measured + _OUT_OF_REACH * step, low, high)
        return joints


def main() -> None:
    """Run the node until a signal."""
    with ros_until_signal() as stop:
        with ends_on_mistake():
            node, executor = ScriptedOperator(), SingleThreadedExecutor()
        executor.add_node(node)
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.2)
        node.destroy_node()
