"""A real arm's control loop in simulated time: states in, chunks in, every command kept. Knows no ROS."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from pirl_contract.schema import StepOutcome
from pirl_ros.control.arm_executor import ArmExecutor, Tick
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.control.control_source import ControlSourceMux
from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import ArmGroup, Box, Joint
from pirl_ros.sensing.observation import JOINTS
from pirl_ros.sensing.synchronizer import Bundle

# As it is measured: the state is float32.
READY = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4], np.float32).astype(np.float64)
PERIOD_NS = 20_000_000
HOUR_NS = 3_600_000_000_000


def real_profile(profile: Profile, action: str = "joint_position", **safety: Any) -> Profile:
    """The simulated Panda as a real arm would be described: 50 Hz, by timer, limits that bind."""
    joints = tuple(Joint(j.name, j.low, j.high, j.velocity, 8.0, 400.0) for j in profile.arm.joints)
    limits: dict[str, Any] = {
        "speed_scale": 1.0, "watchdog_s": 0.1, "link_loss_s": 0.3, "max_observation_age": 0.06, "max_jump": 0.5,
        "workspace": Box((0.1, -0.6, 0.05), (0.8, 0.6, 0.9)),
    }  # fmt: skip
    return replace(
        profile,
        action=action,  # type: ignore[arg-type]
        tick="timer",
        rate_hz=1e9 / PERIOD_NS,
        tcp_step=0.02 if action == "tcp_delta" else 0.0,
        arm=ArmGroup(joints),
        safety=replace(profile.safety, **(limits | safety)),
    )


def real_limits(profile: Profile, **changes: object) -> Limits:
    """Limits of an arm of the Panda's shape, not of one strength, without a box."""
    values: dict[str, object] = {
        "velocity": np.array([2.175] * 4 + [2.61] * 3),
        "acceleration": np.array([7.5, 3.75, 5.0, 6.25, 7.5, 10.0, 10.0]),
        "jerk": np.full(7, 300.0),
        "period_s": 0.02,
    }
    return replace(Limits.from_profile(profile), **(values | changes))  # type: ignore[arg-type]


class DrivenArm:
    """Follows its commands with a lag. `now_ns` is monotonic, `clock_ns` is what its message stamps differ by."""

    def __init__(self, profile: Profile, takeover: ControlSourceMux | None = None) -> None:
        self.profile, self.executor = profile, ArmExecutor(profile, takeover)
        self.now_ns, self.clock_ns, self.joints = 10 * HOUR_NS, 2 * HOUR_NS, READY.copy()
        self.ticks: list[Tick] = []
        self.sequence = 0
        self.limits = Limits.from_profile(profile)
        self.chain = Chain.from_table(profile.kinematics)

    @property
    def stamp_ns(self) -> int:
        """Stamp of a message made now."""
        return self.now_ns + self.clock_ns

    @property
    def commands(self) -> list[np.ndarray]:
        """All that was sent."""
        return [tick.command.joints for tick in self.ticks if tick.command and tick.command.joints is not None]

    @property
    def outcomes(self) -> list[StepOutcome]:
        """All that was reported."""
        return [tick.outcome for tick in self.ticks if tick.outcome is not None]

    @property
    def mode(self) -> str:
        """What the arm says it does."""
        return str(self.executor.report.mode.value)

    def bundle(self) -> Bundle:
        """The state now."""
        names = [joint.name for joint in self.profile.joints]
        values = [*self.joints, 0.04, 0.04]
        pose = SimpleNamespace(position=SimpleNamespace(x=0.1, y=0.2, z=0.3))
        pose.orientation = SimpleNamespace(w=1.0, x=0.0, y=0.0, z=0.0)
        streams = {f"pose {each.name}": SimpleNamespace(pose=pose) for each in self.profile.poses}
        streams[JOINTS] = SimpleNamespace(name=names, position=values, velocity=[0.0] * len(names))
        return Bundle(self.stamp_ns, self.now_ns, streams)

    def run(self, periods: int = 1, state: bool = True) -> Tick:
        """Let periods pass; `state`: whether the arm's state still comes."""
        for _ in range(periods):
            self.now_ns += PERIOD_NS
            tick = self.executor.tick(self.bundle() if state else None, self.now_ns)
            self.ticks.append(tick)
            if tick.command is not None and tick.command.joints is not None:
                self.joints = self.joints + 0.6 * (tick.command.joints - self.joints)
        return self.ticks[-1]

    def rest(self, most: int = 60) -> int:
        """Periods until the command is at rest."""
        for period in range(most):
            before = len(self.commands)
            self.run()
            sent = self.commands[before:]
            if self.mode in ("stopped", "holding", "idle") and (not sent or (sent[-1] == self.commands[-2]).all()):
                return period
        raise AssertionError(f"not at rest after {most} periods: {self.executor.report}")

    def chunk(self, actions: np.ndarray, execute: int | None = None, episode: str = "e", age: int = 0) -> str:
        """Give it a chunk [H, D] that answers the state of `age` periods ago."""
        self.sequence += 1
        stamp = self.stamp_ns - age * PERIOD_NS
        horizon = len(actions) if execute is None else execute
        name = f"c{self.sequence}"
        return self.executor.accept(
            PlayableChunk(episode, self.sequence, name, actions.astype(np.float32), horizon, stamp, PERIOD_NS / 1e9)
        )

    def sweep(self, count: int, speed: float = 0.5) -> np.ndarray:
        """Joint targets [count, 8] that go on from here at `speed` rad/s, gripper open."""
        start = self.commands[-1] if self.commands else self.joints
        steps = np.arange(1, count + 1)[:, None] * speed * PERIOD_NS / 1e9
        return np.hstack([start + steps * np.array([1, 0.3, -1, 0.3, 1, 0.3, -1]), np.ones((count, 1))])

    def violations(self) -> dict[str, float]:
        """Limits that the commands broke."""
        return violations(np.array([READY, *self.commands]), self.limits, self.chain)
