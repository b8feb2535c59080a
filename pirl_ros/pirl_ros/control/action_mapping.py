"""Maps a policy action or teleop command to one limited joint command and gripper target."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from pirl_contract.schema import Alteration, ControlSource, Vector
from pirl_ros.control.action_entries import Anchors
from pirl_ros.control.action_space import STANDING, ActionSpace
from pirl_ros.control.control_source import JointTarget, TcpTwist, Teleop
from pirl_ros.control.governor import Governor, shorten
from pirl_ros.control.gripper import Grippers
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limits import Limits
from pirl_ros.control.rotations import turned
from pirl_ros.profile.profile import Profile

_ALTERS_THE_PATH = ~(Alteration.CLIPPED | Alteration.NONE)
_LEAD_RAD = 0.1
"""how far the aim of a person's twist may be ahead of the command"""
_LEAD_M = 0.02
"""the same of a joint that slides"""
_REFUSED = Alteration.NOT_FINITE | Alteration.STALE


@dataclass(frozen=True)
class ArmCommand:
    """What to send and what to report."""

    joints: Array | None
    """[J] rad; None: nothing may be sent, the controller holds by itself"""
    gripper_m: float
    """target of the finger, of the first arm's where there are several; in the gripper's unit"""
    executed: Vector
    """[D] in the units of the contract's action"""
    alterations: Alteration
    source: ControlSource
    before: Array | None = None
    """[J] rad, the governed command that precedes this one; None: the arm stands"""
    base: tuple[float, float, float] = STANDING
    """velocity of a mobile base: m/s along x and y, rad/s about z; it stands unless a policy drives it"""
    more_grippers_m: tuple[float, ...] = ()
    """targets of the fingers of the arms behind the first"""
    gripper_asked: tuple[bool, ...] = (True,)
    """of each arm: whether its gripper is to be moved; False: nothing is sent to it, it stays as it is"""

    def of_arm(self, number: int, joints: slice) -> ArmCommand:
        """Return what of it is for one of several arms."""
        gripper_m, asked = (self.gripper_m, *self.more_grippers_m)[number], self.gripper_asked[number]
        own, before = (None if each is None else each[joints] for each in (self.joints, self.before))
        return replace(self, joints=own, gripper_m=gripper_m, before=before, more_grippers_m=(), gripper_asked=(asked,))


class ActionMapper:
    """Turns actions of the profile's `ActionSpace` into governed joint commands.

    Entries that count from where the action before was to lead do so as long as the command keeps up: what they name
    is never further ahead of it than `_LEAD_RAD` or `_LEAD_M`, or two periods at the joint's own speed.
    """

    def __init__(self, profile: Profile) -> None:
        self.space = ActionSpace(profile)
        self._limits = Limits.from_profile(profile)
        chains = [Chain.from_table(single.kinematics) for single in profile.singles]
        self._chain = chains[0]
        self._governor = Governor(self._limits, chains if profile.arms else chains[0])
        slides = np.concatenate([chain.slides for chain in chains])
        self._twist_lead = np.where(slides, _LEAD_M, _LEAD_RAD)
        self._lead = np.maximum(self._twist_lead, 2 * self._limits.velocity * self._limits.period_s)
        grippers = [single.gripper for single in profile.singles]
        self._grippers = Grippers(grippers, self._limits.period_s, profile.safety.speed_scale)
        self._base, self._base_scale = profile.base, profile.safety.speed_scale
        self._own_scale = profile.safety.speed_scale
        self._aim: Array | None = None
        """[J] where the action before, or a person's twist, was to lead"""

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

    def release(self) -> None:
        """Restart from the arm's position, at rest: when an episode begins or another source has moved the arm."""
        self._governor.release()
        self._aim = None

    def set_speed_scale(self, share: float) -> None:
        """Use only this part of the velocity limits; ValueError unless in (0, 1]."""
        self._governor.set_speed_scale(share)
        self._grippers.set_speed_scale(share)
        self._base_scale = share * self._own_scale

    def grippers_at(self, fingers: Sequence[float | None], keep_grasp: bool) -> None:
        """Start each arm's gripper from where it is measured, in its own unit; None: it is not measured.

        `keep_grasp`: within an episode a target that presses an object stays.
        """
        self._grippers.start_at(fingers, keep_grasp)

    def copy(self) -> ActionMapper:
        """Return an independent copy, for lookahead."""
        other = copy(self)
        other._governor = self._governor.copy()
        other._grippers = self._grippers.copy()
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

        `reference` [J]: the measured joints of the chunk's observation. None, for entries that count from them: holds.
        """
        known = measured if reference is None else reference
        if not all(np.isfinite(values).all() for values in (action, measured, known)):
            return self.brake(Alteration.NOT_FINITE)
        if reference is None and self.space.counts_from_observation:
            return self.brake(Alteration.STALE)
        clipped = self.space.clip(action)
        altered = Alteration.NONE if np.array_equal(clipped, action) else Alteration.CLIPPED
        target, bits = self._target(clipped, measured, known)
        before = self._governor.position
        joints, more = self._governor.command(target, measured, chunk_age_s, observation_age_s)
        altered |= bits | more
        if joints is None or altered & _REFUSED:
            self._aim = None
            return self._report(joints, measured if before is None else before, known, altered, ControlSource.HOLD)
        self._aim = target if self.space.aims.any() else None
        altered |= self._move_grippers(self.space.openings(clipped))
        wanted = self.space.base(clipped)
        base = self._base_velocity(wanted)
        if base != wanted:
            altered |= Alteration.LIMIT
        if not altered & _ALTERS_THE_PATH:
            return self._command(joints, clipped, altered, ControlSource.POLICY, base)
        return self._report(joints, measured, known, altered, ControlSource.POLICY, clipped, base)

    def follow(self, hand: Teleop, measured: Array, observation_age_s: float) -> ArmCommand:
        """Return the command for what a person wants; it passes the same limits as the policy's.

        `measured` [J] rad. Raises ValueError for a joint target of another length.
        """
        if not np.isfinite(measured).all():
            return self.brake(Alteration.NOT_FINITE)
        if isinstance(hand, JointTarget):
            target, bits, self._aim = hand.joints, Alteration.NONE, None
            if target.shape != measured.shape:
                raise ValueError(f"teleop command has {target.size} joints, the arm has {measured.size}")
        else:
            target, bits = self._moved(hand, measured)
            self._aim = target
        joints, more = self._governor.command(target, measured, 0.0, observation_age_s)
        more |= self._move_grippers(hand.grippers)
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

    def _move_grippers(self, wanted: Sequence[float | None]) -> Alteration:
        return Alteration.NONE if self._grippers.move(wanted) else Alteration.LIMIT

    def _target(self, action: Vector, measured: Array, origin: Array) -> tuple[Array, Alteration]:
        """[J] and what had to be changed for it; not within the limits yet."""
        at = measured if self._governor.position is None else self._governor.position
        aim = at if self._aim is None else self._aim
        target, altered = self.space.target(action, Anchors(measured, aim, origin))
        aims = self.space.aims
        if not aims.any():
            return target, altered
        near = shorten(np.where(aims, target, at), at, self._lead)
        if (np.abs(near - target)[aims] > 0).any():
            target, altered = np.where(aims, near, target), altered | Alteration.LIMIT
        return target, altered

    def _moved(self, twist: TcpTwist, measured: Array) -> tuple[Array, Alteration]:
        """A period further than the last aim, unless the arm cannot keep up with it."""
        at = measured if self._governor.position is None else self._governor.position
        start = at if self._aim is None else self._aim
        if (np.abs(start - at) > self._twist_lead).any():
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
        self,
        joints: Array | None,
        start: Array,
        origin: Array,
        altered: Alteration,
        source: ControlSource,
        asked: Vector | None = None,
        base: tuple[float, float, float] = STANDING,
    ) -> ArmCommand:
        """What was really done, in the units of the action: from `start`, from the command before, or from `origin`."""
        end = start if joints is None else joints
        previous = self._governor.previous
        anchors = Anchors(start, start if previous is None else previous, origin)
        executed = self.space.executed(end, anchors, self._grippers.openings, asked, base)
        return self._command(joints, executed, altered, source, base)

    def _command(
        self,
        joints: Array | None,
        executed: Vector,
        altered: Alteration,
        source: ControlSource,
        base: tuple[float, float, float] = STANDING,
    ) -> ArmCommand:
        first, *more = self._grippers.metres
        previous, asked = self._governor.previous, self._grippers.asked
        return ArmCommand(joints, first, executed, altered, source, previous, base, tuple(more), asked)

    def _base_velocity(self, wanted: tuple[float, float, float]) -> tuple[float, float, float]:
        """At most the base's speeds times the speed scale; the curve that it drives stays the same."""
        if self._base is None:
            return STANDING
        linear, angular = (self._base_scale * limit for limit in (self._base.linear, self._base.angular))
        excess = max(abs(wanted[0]) / linear, abs(wanted[1]) / linear, abs(wanted[2]) / angular)
        if excess <= 1.0:
            return wanted
        x, y, turn = (value / excess for value in wanted)
        return x, y, turn
