"""Selects the control source; commands of every source pass through the governor, so that a change is smooth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import ControlSource

Array = NDArray[np.float64]


@dataclass(frozen=True)
class JointTarget:
    """Joint positions to reach: from a leader arm, a slider."""

    joints: Array
    """[J] rad, of one arm after the other"""
    gripper: float | tuple[float | None, ...] | None = None
    """in [-1 closed, 1 open], of several arms one each; None: as it is"""

    @property
    def grippers(self) -> tuple[float | None, ...]:
        """One value per arm; None: as it is."""
        return self.gripper if isinstance(self.gripper, tuple) else (self.gripper,)


@dataclass(frozen=True)
class TcpTwist:
    """Velocity of the tool centre: from a joystick, a space mouse."""

    linear: Array
    """[3] m/s, base frame"""
    angular: Array = field(default_factory=lambda: np.zeros(3))
    """[3] rad/s, base frame"""
    gripper: float | None = None

    @property
    def grippers(self) -> tuple[float | None, ...]:
        """The one value; None: as it is."""
        return (self.gripper,)


Teleop = JointTarget | TcpTwist


@dataclass(frozen=True)
class Joystick:
    """Axes and buttons of sensor_msgs/Joy as a twist; without the deadman button pressed there is none."""

    axes: tuple[int, int, int] = (1, 0, 4)
    """which axes are x, y, z; each gives -1..1"""
    turns: tuple[int, ...] = ()
    """which axes turn about x, y, z; empty: none does"""
    deadman: int = 4
    close: int = 0
    open: int = 1
    speed: float = 0.1
    """m/s of the tool at full deflection"""
    turn_speed: float = 0.5
    """rad/s at full deflection"""
    dead_zone: float = 0.1

    def read(self, axes: Sequence[float], buttons: Sequence[int]) -> TcpTwist | None:
        """Return the twist; None when the deadman is not pressed or the pad lacks an axis or button named here."""
        needed = (*self.axes, *self.turns)
        if max(self.deadman, self.close, self.open) >= len(buttons) or max(needed) >= len(axes):
            return None
        if not buttons[self.deadman]:
            return None
        linear = np.array([self._deflection(axes[axis]) for axis in self.axes]) * self.speed
        angular = np.zeros(3)
        for index, axis in enumerate(self.turns):
            angular[index] = self._deflection(axes[axis]) * self.turn_speed
        gripper = -1.0 if buttons[self.close] else (1.0 if buttons[self.open] else None)
        return TcpTwist(linear, angular, gripper)

    def _deflection(self, value: float) -> float:
        """Nothing within the dead zone, then evenly up to full: no step where it begins. NaN counts as nothing."""
        size = (abs(value) - self.dead_zone) / (1 - self.dead_zone)
        return float(np.copysign(min(size, 1.0), value)) if size > 0 else 0.0


def stale(stamp_ns: int, now_ns: int, limit_s: float) -> str:
    """Return why a command stamped `stamp_ns` is not of the present, by the same clock as `now_ns`; '' when it is.

    One from the future is none either: clocks that differ show no age.
    """
    if stamp_ns == 0 and now_ns > 0:
        return "it has no stamp: set header.stamp to the present time"
    ahead_s = (stamp_ns - now_ns) / 1e9
    if abs(ahead_s) <= limit_s:
        return ""
    side = "after" if ahead_s > 0 else "before"
    return (
        f"it is stamped {abs(ahead_s):.2f} s {side} this node's time, the limit is {limit_s:g} s: synchronise the"
        " clocks of both machines, and set use_sim_time for both nodes or for none"
    )


def wrong_frame(frame_id: str, base_frame: str) -> str:
    """Return why a twist given in `frame_id` cannot be followed; '' for the base frame, which an empty one means."""
    if not frame_id or frame_id == base_frame:
        return ""
    if not base_frame:
        return f"frame '{frame_id}' is unknown: name the profile's base frame in kinematics.frame, or send no frame_id"
    return f"it is given in frame '{frame_id}', and only the base frame '{base_frame}' is followed: transform it (tf2)"


class ControlSourceMux:
    """The active source, POLICY, HUMAN or HOLD, and the newest teleop command with its age."""

    def __init__(self, timeout_s: float = 0.25) -> None:
        """`timeout_s`: how long a teleop command stays valid."""
        self.source = ControlSource.POLICY
        self.timeout_s = timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._newest: tuple[Teleop, int, int | None] | None = None

    def set_control_source(self, source: ControlSource) -> bool:
        """Activate `source` and drop the newest teleop command. Returns whether the source changed."""
        changed, self.source, self._newest = source != self.source, source, None
        return changed

    def update_teleop(self, command: Teleop, now_ns: int, stamp_ns: int | None = None) -> str:
        """Keep `command`, received at `now_ns` (monotonic), stamped `stamp_ns`. Returns '' or why it is dropped."""
        if self.source != ControlSource.HUMAN:
            return f"control source is {self.source.name.lower()}: take over first"
        values = command.joints if isinstance(command, JointTarget) else np.hstack([command.linear, command.angular])
        grippers = [value for value in command.grippers if value is not None]
        if not np.isfinite(values).all() or not all(abs(value) <= 1 for value in grippers):
            return "teleop command is not finite or its gripper not in [-1, 1]"
        self._newest = (command, now_ns, stamp_ns)
        return ""

    def latest_teleop(self, now_ns: int) -> Teleop | None:
        """Return the newest teleop command; None when it is older than `timeout_s`: then the arm holds."""
        if self._newest is None or now_ns - self._newest[1] > self._timeout_ns:
            return None
        return self._newest[0]

    def answered(self, state_stamp_ns: int) -> bool:
        """Whether the newest teleop command is for this state: a joint target made for an earlier one is not.

        A twist is: a velocity holds until it is replaced.
        """
        if self._newest is None or not isinstance(self._newest[0], JointTarget) or self._newest[2] is None:
            return True
        return self._newest[2] >= state_stamp_ns
