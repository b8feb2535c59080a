"""Entries of an action to joint targets and back: those that place the tool centre and those that move joints.

J = joints of the arm, K = entries of the part, N = actions. Joints rad, lengths m, in the base frame of the kinematics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Alteration, Vector
from pirl_ros.control import rotations
from pirl_ros.control.governor import shorten
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.profile.action_parts import ROTATION_NAMES, ActionPart

_SLACK = 1.0 + 1e-6
"""rounding of a way that is compared with the largest one"""
_BRAKING_S = 0.5
"""in which an approach comes from its largest speed to where the goal is one step away"""

Pose = tuple[Array, Array]
"""position [3] and rotation [3, 3]"""


@dataclass(frozen=True)
class Anchors:
    """Joints [J] that entries may count from."""

    measured: Array
    command: Array
    """where the action before was to lead; of a report: the command before"""
    observed: Array
    """at the observation of the chunk"""

    def of(self, name: str) -> Array:
        """Return the joints [J] of `profile.action_parts.Anchor`; of an absolute part, where it comes from."""
        return {"measured": self.measured, "observation": self.observed}.get(name, self.command)

    def part(self, joints: slice) -> Anchors:
        """Return those of one arm, `joints` of [J]."""
        return Anchors(self.measured[joints], self.command[joints], self.observed[joints])


@dataclass(frozen=True)
class ArmShape:
    """What the entries of one arm are worked out with."""

    chain: Chain
    low: Array
    """[J]"""
    high: Array
    box_low: Array
    """[3] workspace"""
    box_high: Array
    max_jump: float
    """rad, no joint may be asked to go further at once"""
    largest_steps: Array
    """[J] rad per period at the joints' own speeds"""
    period_s: float


class ToolEntries:
    """Places the tool centre; joints that have an entry of their own are left where that puts them.

    A pose that cannot be reached, or only by a jump of the joints as at a singularity, moves nothing. One that is far
    away is approached on the straight way, rotation on the shortest, by at most `step` and `turn` per period.
    """

    def __init__(self, part: ActionPart, arm: ArmShape) -> None:
        self._part, self._arm, self._representation = part, arm, part.rotation
        turning = len(ROTATION_NAMES[part.rotation or "none"])
        self.width = 3 + turning
        self.anchor = part.anchor
        scale = np.ones(self.width)
        if part.normalised:
            scale[:3] = part.step
            scale[3:] = part.turn if turning == 3 else 1.0
        self._scale = scale
        self._limited = part.absolute or turning > 3
        # The plain step of the tool has always left it to the governor to shorten what jumps.
        plain = part.rotation == "none" and part.anchor == "measured"
        self._max_jump = np.inf if plain else arm.max_jump

    def aims(self) -> bool:
        """Whether it counts from, or is approached from, where the action before was to lead."""
        return self._part.absolute or self.anchor == "command"

    def target(self, values: Array, anchors: Anchors, low: Array, high: Array) -> tuple[Array, Alteration]:
        """Return joints [J] for entries [K] and what had to be changed. `low`, `high`: where they may be, [J] both."""
        seed = anchors.command if self._part.absolute else anchors.of(self.anchor)
        goal = self._goal(values * self._scale, anchors)
        if goal is None:
            return seed, Alteration.LIMIT
        (position, rotation), altered = self._approached(goal, seed)
        inside = np.clip(position, self._arm.box_low, self._arm.box_high)
        if not np.array_equal(inside, position):
            altered |= Alteration.WORKSPACE
        joints = self._arm.chain.inverse(inside, rotation, seed, low, high)
        if joints is None or np.abs(joints - seed).max() > self._max_jump:
            return seed, altered | Alteration.LIMIT
        if not self.aims():
            return joints, altered
        # All joints by the same share: the tool stays on its way where one of them can go no faster.
        near = shorten(joints, seed, self._arm.largest_steps)
        return near, altered if near is joints else altered | Alteration.LIMIT

    def executed(self, end: Array, anchors: Anchors, asked: Vector | None) -> Array:
        """Return entries [K] of a motion to joints `end` [J]. `asked` [K]: of two ways to write it, the nearer one."""
        near = None if asked is None else (asked * self._scale)[3:]
        return self._written(self._arm.chain.forward(end), self._start(anchors), near) / self._scale

    def rebased(self, values_NK: Array, old: Array, new: Array) -> Array:
        """Return entries [N, K] that count from joints `old` [J] as they count from `new` [J]; others as they are."""
        if self.anchor != "observation":
            return values_NK
        before, after = self._arm.chain.forward(old), self._arm.chain.forward(new)
        rows = values_NK.copy()
        for row in rows:
            pose = self._pose(row * self._scale, before)
            if pose is not None:
                row[:] = self._written(pose, after, (row * self._scale)[3:]) / self._scale
        return rows

    def mixed(self, old: Array, new: Array, share: float) -> Array:
        """Return `share` of `new` [K] and the rest of `old` [K], as [K]; rotations on the shortest way."""
        mixture: Array = share * new + (1 - share) * old
        if self.width > 3:
            start, goal = (rotations.matrix(v[3:] * self._scale[3:], self._representation) for v in (old, new))
            if start is None or goal is None:
                return new
            between = rotations.between(start, goal, share)
            near = new[3:] * self._scale[3:]
            mixture[3:] = rotations.values_of(between, self._representation, near) / self._scale[3:]
        return mixture

    def _start(self, anchors: Anchors) -> Pose:
        return self._arm.chain.forward(anchors.of(self.anchor))

    def _goal(self, values: Array, anchors: Anchors) -> Pose | None:
        return self._pose(values, self._start(anchors))

    def _pose(self, values: Array, start: Pose) -> Pose | None:
        """The pose that entries in m and rad name, counted from `start`; None: its rotation is none."""
        position, rotation = start
        way = values[:3]
        turn = rotations.matrix(values[3:], self._representation) if self.width > 3 else np.eye(3)
        if turn is None:
            return None
        if self._part.kind == "tool_pose":
            return way, rotation if self.width == 3 else turn
        if self._part.frame == "tool":
            return position + rotation @ way, rotation @ turn
        return position + way, rotation if self.width == 3 else turn @ rotation

    def _written(self, pose: Pose, start: Pose, near: Array | None) -> Array:
        """The inverse of `_pose`, in m and rad."""
        way, turn = pose
        if self._part.kind == "tool_delta":
            way = way - start[0]
            turn = turn @ start[1].T
            if self._part.frame == "tool":
                way, turn = start[1].T @ way, start[1].T @ pose[1]
        if self.width == 3:
            return way
        return np.concatenate([way, rotations.values_of(turn, self._representation, near)])

    def _approached(self, goal: Pose, seed: Array) -> tuple[Pose, Alteration]:
        """The goal, or as far towards it as one period may lead from joints `seed`: position and rotation together."""
        if not self._limited:
            return goal, Alteration.NONE
        position, rotation = self._arm.chain.forward(seed)
        if not self._part.absolute:
            # The positions of a delta per period are within `step` each by their range.
            turned = rotations.shortened(rotation, goal[1], self._part.turn * _SLACK)
            return (goal[0], turned), Alteration.NONE if turned is goal[1] else Alteration.LIMIT
        far = float(np.linalg.norm(goal[0] - position)) / self._part.step
        if self.width > 3:
            far = max(far, float(np.linalg.norm(rotations.vector(goal[1] @ rotation.T))) / self._part.turn)
        if far <= _SLACK:
            return goal, Alteration.NONE
        share = _pace(far, self._arm.period_s) / far
        reached = position + share * (goal[0] - position)
        return (reached, rotations.between(rotation, goal[1], share)), Alteration.LIMIT


class JointEntries:
    """Moves some of the arm's joints, one entry each.

    Beside a tool part of the same arm they approach their targets at their own speed: the other joints make up for what
    they do to the tool, and cannot for a jump.
    """

    def __init__(
        self, part: ActionPart, arm: ArmShape, joints: NDArray[np.int64], ranges: Array, beside_tool: bool = False
    ) -> None:
        """`joints` [K]: which of the arm's; `ranges` [K]: of the entries, which a normalised one of 1 stands for."""
        self._largest = arm.largest_steps[joints] if beside_tool else np.full(len(joints), np.inf)
        self.kind, self.anchor, self.joints = part.kind, part.anchor, joints
        self.width = len(joints)
        self._low, self._high, self._period_s = arm.low[joints], arm.high[joints], arm.period_s
        self._scale = ranges if part.normalised else np.ones(self.width)

    def aims(self) -> bool:
        """Whether it counts from where the action before was to lead."""
        return self.anchor == "command" or self.kind == "joint_velocity"

    def target(self, values: Array, anchors: Anchors) -> tuple[Array, Alteration]:
        """Return where the part's joints [K] are to be for entries [K], and what had to be changed."""
        wanted, altered = self._wanted(values, anchors)
        start = anchors.command[self.joints]
        far = float(np.max(np.abs(wanted - start) / self._largest))
        if far <= _SLACK:
            return wanted, altered
        return start + _pace(far, self._period_s) / far * (wanted - start), altered | Alteration.LIMIT

    def _wanted(self, values: Array, anchors: Anchors) -> tuple[Array, Alteration]:
        if self.kind == "joint_position":
            # The limit itself may be a little larger as a float32.
            return np.clip(values, self._low, self._high), Alteration.NONE
        way = values * self._scale * (self._period_s if self.kind == "joint_velocity" else 1.0)
        target = anchors.of(self.anchor)[self.joints] + way
        if not self.aims():
            return target, Alteration.NONE
        inside = np.clip(target, self._low, self._high)
        return inside, Alteration.NONE if np.array_equal(inside, target) else Alteration.LIMIT

    def executed(self, end: Array, anchors: Anchors) -> Array:
        """Return the entries [K] of a motion to joints `end` [J]."""
        if self.kind == "joint_position":
            return end[self.joints]
        way: Array = (end - anchors.of(self.anchor))[self.joints]
        return way / self._scale / (self._period_s if self.kind == "joint_velocity" else 1.0)

    def rebased(self, values_NK: Array, old: Array, new: Array) -> Array:
        """Return entries [N, K] that count from joints `old` [J] as they count from `new` [J]; others as they are."""
        if self.anchor != "observation":
            return values_NK
        return values_NK + (old - new)[self.joints] / self._scale


def _pace(far: float, period_s: float) -> float:
    """How much of a largest step to go in one period, towards a goal `far` of them away.

    Braking at an even rate: the governor takes a goal that moves on evenly for one that will, and passes it where that
    stops at once. The last step is one, and a single one is no motion to it.
    """
    periods = _BRAKING_S / period_s
    return min(1.0, max(1.0 / periods, float(np.sqrt(2.0 * (far - 1.0) / periods))))
