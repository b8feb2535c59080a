"""One action of the policy into one command for the arm: delta of the tool centre -> pose -> joints -> governor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pirl_contract.schema import Alteration, ControlSource, Vector
from pirl_ros.kinematics import Array, Chain
from pirl_ros.profile import GripperGroup, Profile
from pirl_ros.safety import Governor, Limits

_TOOL = slice(0, 3)
_GRIPPER = 3
_ALTERS_THE_PATH = ~(Alteration.CLIPPED | Alteration.NONE)


@dataclass(frozen=True)
class ArmCommand:
    """What to send and what to report."""

    joints: Array | None
    """[J] rad; None: nothing may be sent, the controller holds by itself"""
    gripper_m: float
    executed: Vector
    """[4] in the units of the contract's action"""
    alterations: Alteration
    source: ControlSource


class ArmMotion:
    """Turns actions [tcp_dx, tcp_dy, tcp_dz, gripper] into joint targets; orientation of the tool is kept.

    The start of each delta is the measured arm, not the last target, as in training.
    """

    def __init__(self, profile: Profile) -> None:
        self._chain = Chain.from_table(profile.kinematics)
        self._limits = Limits.from_profile(profile)
        self._governor = Governor(self._limits)
        self._gripper = profile.gripper
        self._range = np.array([profile.tcp_step] * 3 + [1.0], np.float32)
        self._opening = 1.0

    def release(self) -> None:
        """Start anew from wherever the arm is: called when an episode begins or ends."""
        self._governor.release()

    def step(self, action: Vector, measured: Array, chunk_age_s: float, observation_age_s: float) -> ArmCommand:
        """Return the command for one action [4] with the arm at `measured` [J] rad."""
        if not np.isfinite(action).all() or not np.isfinite(measured).all():
            return self._held(Alteration.NOT_FINITE)
        clipped: Vector = np.clip(action, -self._range, self._range)
        altered = Alteration.NONE if np.array_equal(clipped, action) else Alteration.CLIPPED
        target, reachable = self._target(clipped, measured)
        if not reachable:
            altered |= Alteration.LIMIT
        joints, bits = self._governor.command(target, measured, chunk_age_s, observation_age_s)
        altered |= bits
        if joints is None or altered & (Alteration.NOT_FINITE | Alteration.STALE):
            return self._held(altered)
        self._opening = float(clipped[_GRIPPER])
        executed = clipped.copy()
        if altered & _ALTERS_THE_PATH:
            executed[_TOOL] = self._chain.forward(joints)[0] - self._chain.forward(measured)[0]
        return ArmCommand(joints, gripper_metres(self._gripper, self._opening), executed, altered, ControlSource.POLICY)

    def _target(self, action: Vector, measured: Array) -> tuple[Array, bool]:
        position, rotation = self._chain.forward(measured)
        goal = position + action[_TOOL].astype(np.float64)
        joints = self._chain.inverse(goal, rotation, measured, self._limits.low, self._limits.high)
        # Out of reach: stay, as the training environment does.
        return (measured, False) if joints is None else (joints, True)

    def _held(self, altered: Alteration) -> ArmCommand:
        executed = np.array([0.0, 0.0, 0.0, self._opening], np.float32)
        gripper_m = gripper_metres(self._gripper, self._opening)
        return ArmCommand(self._governor.hold(), gripper_m, executed, altered, ControlSource.HOLD)


def gripper_metres(gripper: GripperGroup, action: float) -> float:
    """Return the finger target in metres for a gripper action in [-1 closed, 1 open]."""
    return gripper.closed + (float(action) + 1.0) / 2.0 * (gripper.open - gripper.closed)


def gripper_action(gripper: GripperGroup, metres: float) -> float:
    """Return the gripper action in [-1, 1] for a finger target in metres: the inverse of `gripper_metres`."""
    action = (metres - gripper.closed) / (gripper.open - gripper.closed) * 2.0 - 1.0
    return float(np.clip(action, -1.0, 1.0))
