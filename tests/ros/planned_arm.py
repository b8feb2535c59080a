"""arm_node's loop in simulated time, before an arm that plays plans: chunks in, real messages out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from trajectory_player import TrajectoryPlayer

from pirl_contract.schema import ControlSource
from pirl_ros.adapters import controllers as controllers_module
from pirl_ros.control.arm_executor import ArmExecutor
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limits import Limits
from pirl_ros.control.safety_report import Mode
from pirl_ros.control.workspace import Workspace
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import Command
from pirl_ros.sensing.observation import GRIPPER, JOINTS
from pirl_ros.sensing.synchronizer import Bundle

PARAMS = Path(__file__).parents[2] / "launch/params"
OUTPUTS = ("joint_trajectory", "follow_joint_trajectory", "forward_position", "servo_twist")
SETTLING_S = 2.0
_POSES: dict[str, Array] = {}
_MOVING = (Mode.PLAYING, Mode.DRAINING, Mode.DECELERATING, Mode.HUMAN)


def shipped(name: str, output: str) -> Profile:
    """A shipped profile of a real arm, commanded by `output`; a twist needs steps of the tool centre."""
    profile = load_profile(PARAMS / f"{name}.yaml")
    if output == "servo_twist":
        command = Command("servo_twist", "arm", frame=profile.base_frame)
        return replace(profile, action="tcp_delta", tcp_step=0.015, command=command)
    return replace(profile, command=Command(output, "arm"))  # type: ignore[arg-type]


def free_pose(profile: Profile) -> Array:
    """Joints [J] far from every limit and from the walls of the workspace, as they are measured: in float32."""
    if profile.robot in _POSES:
        return _POSES[profile.robot]
    limits, chain = Limits.from_profile(profile), Chain.from_table(profile.kinematics)
    workspace = Workspace(limits.workspace_low, limits.workspace_high, chain)
    shares = np.random.default_rng(0).uniform(0.25, 0.75, (2000, len(limits.low)))
    poses = limits.low + shares * (limits.high - limits.low)
    free = max(poses, key=lambda pose: min(workspace.depth(pose), 0.25))
    _POSES[profile.robot] = free.astype(np.float32).astype(np.float64)
    return _POSES[profile.robot]


class _Servo:
    """MoveIt Servo with a drive that lags: the last twist goes on, here for ever, so that only a message ends it."""

    def __init__(self, chain: Chain, start: Array, lag_s: float) -> None:
        self._chain, self._lag_s = chain, lag_s
        self.position, self.desired, self.twist, self.now_s = start.copy(), start.copy(), np.zeros(6), 0.0

    def run_until(self, now_s: float, step_s: float = 0.01) -> None:
        while self.now_s + step_s <= now_s + 1e-9:
            self.now_s += step_s
            jacobian = self._chain.jacobian(self.desired)[0]
            damped = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + 1e-6 * np.eye(6))
            self.desired = self.desired + step_s * damped @ self.twist
            share = 1.0 if self._lag_s == 0 else 1.0 - np.exp(-step_s / self._lag_s)
            self.position = self.position + share * (self.desired - self.position)


class _Positions(TrajectoryPlayer):
    """A forward_command_controller: the set-point is the last message."""

    def command(self, data: list[float]) -> None:
        self.desired = np.array(data)


class PlannedArm:
    """One arm with its controllers; everything between chunk and drive is the product's own."""

    def __init__(
        self,
        profile: Profile,
        monkeypatch: Any,
        lag_s: float = 0.0,
        from_desired: bool = False,
        cycle_s: float = 0.01,
    ) -> None:
        self.profile, self.executor, self.limits = profile, ArmExecutor(profile), Limits.from_profile(profile)
        self.chain, self.dt_s = Chain.from_table(profile.kinematics), 1.0 / profile.rate_hz
        self.start = free_pose(profile)
        self.finger, self.gripper_targets = profile.gripper.open, list[float]()
        self.commands, self.twists, self.bits, self.faults = list[Array](), list[Array](), list[Any](), list[str]()
        self.refused, self.messages = list[str](), list[Any]()
        self._now_ns, self._sequence = 10**12, 0
        self.arm = self._make_arm(lag_s, from_desired, cycle_s)
        # Action servers belong to the tests with processes; here a goal reaches the controller at once.
        from pirl_ros.adapters import trajectory_controller

        goal = SimpleNamespace(Goal=lambda: SimpleNamespace(trajectory=SimpleNamespace()))
        monkeypatch.setattr(trajectory_controller, "control_action", lambda _: goal)
        monkeypatch.setattr(trajectory_controller, "LatestGoalClient", self._goals)
        monkeypatch.setattr(trajectory_controller, "time", SimpleNamespace(monotonic=lambda: self._now_ns / 1e9))
        monkeypatch.setattr(controllers_module, "GripperGoals", lambda *_: controllers_module.GripperPositions(*_))
        node = SimpleNamespace(create_publisher=self._publisher, get_clock=self._clock)
        made = controllers_module.make_controllers(node, profile, False, self._gave_up)
        self.controllers = controllers_module.Controllers(made)

    @property
    def velocity(self) -> Array:
        """[J] rad/s of the newest command."""
        return (self.commands[-1] - self.commands[-2]) / self.dt_s if len(self.commands) > 1 else 0 * self.start

    def chunk(self, actions: Array, execute: int | None = None) -> str:
        """Give it a chunk [H, D] that answers the newest state."""
        self._sequence += 1
        execute = len(actions) if execute is None else execute
        reason = self.executor.accept(
            PlayableChunk("e", self._sequence, f"c{self._sequence}", actions.astype(np.float32), execute, self._now_ns)
        )
        self.controllers.renew()
        return reason

    def chunk_between(self, actions: Array, share: float, at_once: bool = True) -> str:
        """Give it a chunk after `share` of the period; with `at_once` its plan is sent then, as arm_node does."""
        begun_ns = self._now_ns
        self._now_ns += round(share * self.dt_s * 1e9)
        self.arm.run_until((self._now_ns - 10**12) / 1e9)
        reason = self.chunk(actions)
        if at_once and not reason:
            self.controllers.foresee(self.executor.soon)
        self._now_ns = begun_ns
        return reason

    def sweep(self, count: int, speed: float, opening: float = 1.0) -> Array:
        """A chunk [count, D]: joints at up to `speed` rad/s from the newest command, or tool steps of that share."""
        joints = len(self.start)
        if self.profile.action == "tcp_delta":
            step = min(speed * self.dt_s, self.profile.tcp_step) * np.array([0.3, 1.0, 0.3])
            return np.hstack([np.tile(step, (count, 1)), np.full((count, 1), opening)])
        newest = self.commands[-1] if self.commands else self.start
        ways = np.where(newest > (self.limits.low + self.limits.high) / 2, -1.0, 1.0) * np.linspace(1.0, 0.3, joints)
        steps = np.arange(1, count + 1)[:, None] * speed * self.dt_s * ways
        return np.hstack([newest + steps, np.full((count, 1), opening)])

    def run(self, periods: int = 1, state: bool = True) -> None:
        """Let periods pass."""
        for _ in range(periods):
            self._now_ns += round(self.dt_s * 1e9)
            self.arm.run_until((self._now_ns - 10**12) / 1e9)
            tick = self.executor.tick(self._bundle() if state else None, self._now_ns)
            report = self.executor.report
            self.controllers.heed(report.control_source, report.episode_id)
            self.bits.append(self.controllers.send(tick.command, self.executor.ahead))
            if tick.command is not None:
                self.bits[-1] |= tick.command.alterations
                if tick.command.joints is not None:
                    self.commands.append(tick.command.joints)

    def settle(self) -> None:
        """Let the arm come to whatever end it was sent, nobody asking anything of it."""
        self.run(round(SETTLING_S / self.dt_s))

    def deactivate(self) -> None:
        """As arm_node does."""
        self.executor.end(self.executor.episode_id)
        for _ in range(round(2.0 / self.dt_s)):
            if self.executor.report.mode not in _MOVING:
                break
            self.run()
        self.controllers.send(None, self.executor.ahead)
        self.controllers.stop()
        self._now_ns += round(SETTLING_S * 1e9)
        self.arm.run_until((self._now_ns - 10**12) / 1e9)

    def ending(self, way: str) -> None:
        """End the motion and wait until the arm is where that leads."""
        ends: dict[str, Callable[[], object]] = {
            "end": lambda: self.executor.end("e"),
            "next episode": lambda: self.executor.begin("other"),
            "emergency stop": lambda: self.executor.emergency_stop("a test", "test"),
            "hold": lambda: self.executor.set_control_source(ControlSource.HOLD, "test"),
            "takeover": lambda: self.executor.set_control_source(ControlSource.HUMAN, "test"),
        }
        if way == "deactivate":
            self.deactivate()
        elif way == "no state":
            self.run(round(SETTLING_S / self.dt_s), state=False)
        elif way == "chunk, then end":
            self.chunk(self.sweep(50, 0.5))
            self.executor.end("e")
            self.settle()
        else:
            ends[way]()
            self.settle()

    def stopping_distance(self) -> Array:
        """[J] closed form: two periods at the speed of the newest command, then the stop at acceleration and jerk."""
        accelerating = np.abs(np.diff(self.commands[-3:], 2, axis=0)).max(axis=0, initial=0.0) / self.dt_s
        speed, a, j = np.abs(self.velocity) + accelerating, self.limits.acceleration, self.limits.jerk
        long, short = speed / 2 * (speed / a + a / j), speed * np.sqrt(speed / j)
        return 2 * speed * self.dt_s + np.where(speed * j >= a**2, long, short)

    def _make_arm(self, lag_s: float, from_desired: bool, cycle_s: float) -> Any:
        names = [joint.name for joint in self.profile.arm.joints]
        if self.profile.command.kind == "servo_twist":
            return _Servo(self.chain, self.start, lag_s)
        kind = _Positions if self.profile.command.kind == "forward_position" else TrajectoryPlayer
        return kind(names, self.start, lag_s, from_desired, cycle_s=cycle_s)

    def _gave_up(self, reason: str) -> None:
        self.faults.append(reason)
        self.executor.controller_fault(reason)

    def _publisher(self, kind: Any, topic: str, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(publish=self._on_gripper if topic == self.profile.gripper.topic else self._on_arm)

    def _clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self._now_ns))

    def _goals(self, *_: Any) -> Any:
        send = lambda goal: self._on_arm(goal.trajectory)  # noqa: E731
        # What is cancelled at the end of these tests has come to its end: nothing is held back by it.
        return SimpleNamespace(ready=True, send=send, cancel=lambda: None, close=lambda: None)

    def _on_gripper(self, message: Any) -> None:
        self.gripper_targets.append(message.points[0].positions[0])
        self.finger = self.gripper_targets[-1]

    def _on_arm(self, message: Any) -> None:
        self.messages.append(message)
        if hasattr(message, "points"):
            self.refused += filter(None, [self.arm.accept(message)])
        elif hasattr(message, "twist"):
            parts = (message.twist.linear, message.twist.angular)
            self.arm.twist = np.array([value for part in parts for value in (part.x, part.y, part.z)])
            self.twists.append(self.arm.twist)
        else:
            self.arm.command(message.data)

    def _bundle(self) -> Bundle:
        joints = SimpleNamespace(
            name=[joint.name for joint in self.profile.joints],
            position=[*self.arm.position, *[self.finger] * len(self.profile.gripper.joints)],
            velocity=[],
        )
        streams = {JOINTS: joints}
        if self.profile.gripper.joint_states:
            streams[GRIPPER] = joints
        return Bundle(self._now_ns, self._now_ns, streams)
