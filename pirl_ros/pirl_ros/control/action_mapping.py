"""Maps a policy action or teleop command to one limited joint command and gripper target."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import numpy as np

from pirl_contract.schema import Alteration, ControlSource, Vector
from pirl_ros.control.control_source import JointTarget, TcpTwist, Teleop
from pirl_ros.control.governor import Governor
from pirl_ros.control.kinematics import Array, Chain, turned
from pirl_ros.control.limits import Limits
from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import GripperGroup

_ALTERS_THE_PATH = ~(Alteration.CLIPPED | Alteration.NONE)
_LEAD_RAD = 0.1
"""how far the aim of a person's twist may be ahead of the command"""
_REFUSED = Alteration.NOT_FINITE | Alteration.STALE


@dataclass(frozen=True)
class ArmCommand:
    """What to send and what to report."""

    joints: Array | None
    """[J] rad; None: nothing may be sent, the controller holds by itself"""
    gripper_m: float
    executed: Vector
    """[D] in the units of the contract's action"""
    alterations: Alteration
    source: ControlSource
    before: Array | None = None
    """[J] rad, the governed command that precedes this one; None: the arm stands"""


class ActionMapper:
    """Turns actions into joint targets; the last entry of an action is the gripper.

    tcp_delta: way of the tool centre from the measured arm, not from the last target, as in training; it is not turned.
    joint_position: the targets. joint_delta: targets relative to the measured joints of the chunk's observation.
    """

    def __init__(self, profile: Profile) -> None:
        self._kind = profile.action
        self._chain = Chain.from_table(profile.kinematics)
        self._limits = Limits.from_profile(profile)
        self._governor = Governor(self._limits, self._chain)
        self._gripper = profile.gripper
        fields = profile.contract.action
        self._low = np.array([field.low for field in fields], np.float32)
        self._high = np.array([field.high for field in fields], np.float32)
        self._opening = 1.0
        # A goal's speed is the gripper driver's business.
        follows = profile.gripper.kind == "joint_trajectory"
        scale = profile.safety.speed_scale
        self._gripper_rate = GripperRate(profile.gripper, self._limits.period_s, scale) if follows else None
        self._aim: Array | None = None
        """[J] where a person's twist has got to"""

    @property
    def at_rest(self) -> bool:
        """Whether the arm is commanded to stand still, or not at all."""
        return self._governor.at_rest

    @property
    def position(self) -> Array | None:
        """[J] the newest command; None when there is none."""
        return self._governor.position

    @property
    def previous(self) -> Array | None:
        """[J] what preceded the newest command: the one before it, or the arm at rest where it was found."""
        return self._governor.previous

    @property
    def gripper_m(self) -> float:
        """The newest finger target in metres."""
        return gripper_metres(self._gripper, self._opening)

    def release(self) -> None:
        """Restart from the arm's position, at rest: when an episode begins or another source has moved the arm."""
        self._governor.release()

    def set_speed_scale(self, share: float) -> None:
        """Use only this part of the velocity limits; ValueError unless in (0, 1]."""
        self._governor.set_speed_scale(share)
        if self._gripper_rate is not None:
            self._gripper_rate.set_speed_scale(share)

    def gripper_at(self, finger: float | None, keep_grasp: bool) -> None:
        """Start the gripper from where it is measured, in its own unit; None: it is not measured.

        `keep_grasp`: within an episode a target that presses an object stays.
        """
        if self._gripper_rate is not None:
            self._gripper_rate.start_at(finger, keep_grasp)

    def copy(self) -> ActionMapper:
        """Return an independent copy, for lookahead."""
        other = copy(self)
        other._governor = self._governor.copy()
        other._gripper_rate = None if self._gripper_rate is None else self._gripper_rate.copy()
        return other

    def step(
        self,
        action: Vector,
        measured: Array,
        chunk_age_s: float,
        observation_age_s: float,
        reference: Array | None = None,
    ) -> ArmCommand:
        """Return the command for one action [D] with the arm at `measured` [J] rad.

        `reference` [J]: the measured joints of the chunk's observation, for joint_delta.
        """
        if not np.isfinite(action).all() or not np.isfinite(measured).all():
            return self.brake(Alteration.NOT_FINITE)
        clipped: Vector = np.clip(action, self._low, self._high)
        altered = Alteration.NONE if np.array_equal(clipped, action) else Alteration.CLIPPED
        self._aim, origin = None, measured if reference is None else reference
        target, bits = self._target(clipped, measured, origin)
        before = self._governor.position
        joints, more = self._governor.command(target, measured, chunk_age_s, observation_age_s)
        altered |= bits | more
        previous = self._governor.previous
        if joints is None or altered & _REFUSED:
            return self._report(joints, measured if before is None else before, origin, altered, ControlSource.HOLD)
        altered |= self._move_gripper(float(clipped[-1]))
        if not altered & _ALTERS_THE_PATH:
            return ArmCommand(joints, self.gripper_m, clipped, altered, ControlSource.POLICY, previous)
        return self._report(joints, measured, origin, altered, ControlSource.POLICY)

    def follow(self, hand: Teleop, measured: Array, observation_age_s: float) -> ArmCommand:
        """Return the command for what a person wants; it passes the same limits as the policy's.

        `measured` [J] rad. Raises ValueError for a joint target of another length.
        """
        if isinstance(hand, JointTarget):
            target, bits = hand.joints, Alteration.NONE
            if target.shape != measured.shape:
                raise ValueError(f"teleop command has {target.size} joints, the arm has {measured.size}")
        else:
            target, bits = self._moved(hand, measured)
            self._aim = target
        joints, more = self._governor.command(target, measured, 0.0, observation_age_s)
        if hand.gripper is not None:
            more |= self._move_gripper(float(hand.gripper))
        refused = joints is None or bool(more & _REFUSED)
        source = ControlSource.HOLD if refused else ControlSource.HUMAN
        return self._report(joints, measured, measured, bits | more, source)

    def brake(self, altered: Alteration, measured: Array | None = None) -> ArmCommand:
        """Return the next command on the way to rest, and then the one of rest; the gripper stays.

        An arm found elsewhere long after is held where it was `measured` [J].
        """
        before, self._aim = self._governor.position, None
        if measured is not None:
            self._governor.settle(measured)
        joints = self._governor.brake()
        start = np.zeros_like(self._limits.low) if before is None else before
        return self._report(joints, start, start, altered, ControlSource.HOLD)

    def _move_gripper(self, wanted: float) -> Alteration:
        """Move the opening to `wanted` as fast as its limit allows."""
        self._opening = wanted if self._gripper_rate is None else self._gripper_rate.step(wanted)
        return Alteration.NONE if self._opening == wanted else Alteration.LIMIT

    def _target(self, action: Vector, measured: Array, origin: Array) -> tuple[Array, Alteration]:
        """[J] and what had to be changed for it; not within the limits yet."""
        if self._kind == "joint_position":
            # The limit itself may be a little larger as a float32.
            return np.clip(action[:-1].astype(np.float64), self._limits.low, self._limits.high), Alteration.NONE
        if self._kind == "joint_delta":
            return origin + action[:-1], Alteration.NONE
        position, rotation = self._chain.forward(measured)
        return self._reach(position + action[:3].astype(np.float64), rotation, measured)

    def _moved(self, twist: TcpTwist, measured: Array) -> tuple[Array, Alteration]:
        """A period further than the last aim, unless the arm cannot keep up with it."""
        at = measured if self._governor.position is None else self._governor.position
        start = at if self._aim is None else self._aim
        if np.abs(start - at).max() > _LEAD_RAD:
            return start, Alteration.LIMIT
        position, rotation = self._chain.forward(start)
        step = self._limits.period_s
        return self._reach(position + twist.linear * step, turned(rotation, twist.angular * step), start)

    def _reach(self, position: Array, rotation: Array, start: Array) -> tuple[Array, Alteration]:
        """Joints for a pose; the position is moved onto the wall of the workspace that it lies behind."""
        goal = np.clip(position, self._limits.workspace_low, self._limits.workspace_high)
        altered = Alteration.NONE if np.array_equal(goal, position) else Alteration.WORKSPACE
        joints = self._chain.inverse(goal, rotation, start, self._limits.low, self._limits.high)
        # Out of reach: stay, as the training environment does.
        return (start, altered | Alteration.LIMIT) if joints is None else (joints, altered)

    def _report(
        self, joints: Array | None, start: Array, origin: Array, altered: Alteration, source: ControlSource
    ) -> ArmCommand:
        """What was really done, in the units of the action: from `start`, for joint_delta from `origin`."""
        end = start if joints is None else joints
        if self._kind == "tcp_delta":
            arm = self._chain.forward(end)[0] - self._chain.forward(start)[0]
        else:
            arm = end if self._kind == "joint_position" else end - origin
        executed: Vector = np.append(arm, self._opening).astype(np.float32)
        return ArmCommand(joints, self.gripper_m, executed, altered, source, self._governor.previous)


class GripperRate:
    """Bounds the speed of a gripper target that follows the action step by step; in units of the action, [-1, 1].

    Where the fingers are is measured at the start and after another source may have moved them. Fingers that press an
    object stand wider than their target: within an episode such a target is kept, or the object would slip.
    """

    def __init__(self, gripper: GripperGroup, period_s: float, speed_scale: float) -> None:
        stroke = abs(gripper.open - gripper.closed)
        self._gripper, self._largest = gripper, 2.0 * gripper.velocity_limit * speed_scale * period_s / stroke
        self._share = 1.0
        self._at: float | None = None

    def set_speed_scale(self, share: float) -> None:
        """Use only this share (0, 1] of the velocity limit."""
        self._share = share

    def start_at(self, finger: float | None, keep_grasp: bool = False) -> None:
        """Start from the measured finger, in the gripper's unit; None: it is not measured, continue from the target."""
        if finger is None or not math.isfinite(finger):
            return
        measured = gripper_action(self._gripper, finger)
        if not (keep_grasp and self._at is not None and self._at < measured):
            self._at = measured

    def step(self, wanted: float) -> float:
        """Return the action one period on: `wanted`, or as far towards it as the limit allows."""
        largest = self._share * self._largest
        if self._at is None or abs(wanted - self._at) <= largest:
            self._at = wanted
        else:
            self._at += math.copysign(largest, wanted - self._at)
        return self._at

    def copy(self) -> GripperRate:
        """Return an independent copy."""
        return copy(self)


def gripper_metres(gripper: GripperGroup, action: float) -> float:
    """Return the finger target in metres for a gripper action in [-1 closed, 1 open]."""
    return gripper.closed + (float(action) + 1.0) / 2.0 * (gripper.open - gripper.closed)


def gripper_action(gripper: GripperGroup, metres: float) -> float:
    """Return the gripper action in [-1, 1] for a finger target in metres: the inverse of `gripper_metres`."""
    action = (metres - gripper.closed) / (gripper.open - gripper.closed) * 2.0 - 1.0
    return min(1.0, max(-1.0, action))
