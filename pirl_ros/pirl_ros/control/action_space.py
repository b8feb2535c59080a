"""The action vector of a robot: joint targets and gripper openings from it, and what was executed back into it.

Each part of the profile's `action` has its entries; every one ends as a joint target, so that the governor has the last
word. D = entries of an action, H = actions of a chunk, J = joints, K = entries of a part, S = entries of the state.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import Alteration, Vector
from pirl_ros.control.action_entries import Anchors, ArmShape, JointEntries, ToolEntries
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limits import Limits
from pirl_ros.control.workspaces import joint_slices
from pirl_ros.profile.action_parts import ActionPart
from pirl_ros.profile.profile import Profile

STANDING = (0.0, 0.0, 0.0)
"""velocity of a base that stands"""
SAME = 1e-5
"""rad and m by which one action may differ when it was written from two measurements of one state"""


class ActionSpace:
    """What the numbers of an action mean, for one robot profile."""

    def __init__(self, profile: Profile) -> None:
        fields = profile.contract.action
        self._low = np.array([field.low for field in fields], np.float32)
        self._high = np.array([field.high for field in fields], np.float32)
        states = [field.name for field in profile.contract.state]
        self._in_state = np.array([states.index(f"{joint.name}.position") for joint in profile.arm_joints])
        self._arms = [_shape(Limits.from_profile(single), single) for single in profile.singles]
        self._owns = joint_slices([len(arm.low) for arm in self._arms])
        """which joints of all are each arm's"""
        self._tools: list[tuple[slice, slice, ToolEntries]] = []
        """entries of the action, joints of the arm, and what is between"""
        self._joints: list[tuple[slice, slice, JointEntries]] = []
        self._grippers: list[tuple[int, float, float]] = [(0, -1.0, 1.0)] * len(self._arms)
        """of each arm: index, and the entries that close and that open"""
        self._base: list[int] = []
        """entries of the base's velocity"""
        names, start = [arm.name for arm in profile.arms], 0
        for part in profile.action_parts:
            start += self._add(profile, part, names.index(part.arm) if part.arm else 0, start)
        self.aims = self._aiming()
        """[J] joints whose target counts from where the action before was to lead"""

    @property
    def counts_from_observation(self) -> bool:
        """Whether some entries count from the observation of their chunk."""
        return any(part.anchor == "observation" for _, _, part in self._arm_parts())

    def clip(self, action: Vector) -> Vector:
        """Return the action [D] within the ranges of the contract, both alike."""
        clipped: Vector = np.clip(action, self._low, self._high)
        return clipped

    def target(self, action: Vector, anchors: Anchors) -> tuple[Array, Alteration]:
        """Return joints [J] for an action [D] within its ranges, not within the limits yet, and what was changed."""
        target, altered, values = anchors.command.copy(), Alteration.NONE, action.astype(np.float64)
        low, high = (np.concatenate(side) for side in zip(*((arm.low, arm.high) for arm in self._arms)))
        for where, own, part in self._joints:
            moved, bits = part.target(values[where], anchors.part(own))
            altered |= bits
            target[own][part.joints] = moved
            inside = np.clip(moved, low[own][part.joints], high[own][part.joints])
            low[own][part.joints] = high[own][part.joints] = inside
            if self._tools and not np.array_equal(inside, moved):
                # The tool's joints are worked out around it, and what the governor gets is within the limits already.
                altered |= Alteration.LIMIT
        for where, own, tool in self._tools:
            target[own], bits = tool.target(values[where], anchors.part(own), low[own], high[own])
            altered |= bits
        return target, altered

    def openings(self, action: Vector) -> tuple[float, ...]:
        """Return each gripper's opening in [-1 closed, 1 open] for an action [D]."""
        return tuple(_opening(float(action[index]), closed, open_) for index, closed, open_ in self._grippers)

    def base(self, action: Vector) -> tuple[float, float, float]:
        """Return the base's velocity for an action [D]: m/s along x and y, rad/s about z; zero for a robot without."""
        values = [float(action[index]) for index in self._base]
        return (values[0], values[1] if len(values) == 3 else 0.0, values[-1]) if values else STANDING

    def executed(
        self,
        end: Array,
        anchors: Anchors,
        openings: tuple[float, ...],
        asked: Vector | None = None,
        base: tuple[float, float, float] = STANDING,
    ) -> Vector:
        """Return the action [D] of a motion to joints `end` [J], counted from `anchors`, with these openings.

        `base`: its velocity, as `base()` has it. `asked` [D]: of two ways to write a rotation the one nearer to it.
        """
        executed = np.empty(len(self._low))
        for where, own, part in self._joints:
            executed[where] = part.executed(end[own], anchors.part(own))
        for where, own, tool in self._tools:
            executed[where] = tool.executed(end[own], anchors.part(own), None if asked is None else asked[where])
        for (index, closed, open_), opening in zip(self._grippers, openings):
            executed[index] = _entry(opening, closed, open_)
        if self._base:
            executed[self._base] = base if len(self._base) == 3 else (base[0], base[2])
        return executed.astype(np.float32)

    def rebased(self, actions_HD: Vector, old: Array, new: Array) -> Vector:
        """Return actions [H, D] that answer an observation with joints `old` [J] as they would one with `new` [J]."""
        if not self.counts_from_observation:
            return actions_HD
        rebased = actions_HD.copy()
        for where, own, part in self._arm_parts():
            rebased[:, where] = part.rebased(actions_HD[:, where].astype(np.float64), old[own], new[own])
        return rebased

    def rebased_by_state(self, actions_HD: Vector, old: Vector, new: Vector) -> Vector:
        """Return the same actions [H, D] for two observations' states, each [S] in the contract's order."""
        return self.rebased(actions_HD, *(state[self._in_state].astype(np.float64) for state in (old, new)))

    def mixed(self, old_HD: Vector, new_HD: Vector, share_H: NDArray[np.float32]) -> Vector:
        """Return `share_H` of the new actions and the rest of the old ones [H, D]; rotations on the shortest way."""
        mixed: Vector = share_H[:, None] * new_HD + (1 - share_H[:, None]) * old_HD
        for where, _, tool in self._tools:
            for row, old, new, share in zip(mixed, old_HD[:, where], new_HD[:, where], share_H):
                if tool.width > 3:
                    row[where] = tool.mixed(old.astype(np.float64), new.astype(np.float64), float(share))
        return mixed

    def continues(self, action: Vector, played: Vector) -> bool:
        """Whether an action [D] is the one `played` [D] last, but for rounding where it was rebased."""
        if not self.counts_from_observation:
            return np.array_equal(action, played)
        return bool((np.abs(action - played) <= SAME).all())

    def _arm_parts(self) -> Iterator[tuple[slice, slice, JointEntries | ToolEntries]]:
        yield from self._joints
        yield from self._tools

    def _add(self, profile: Profile, part: ActionPart, number: int, start: int) -> int:
        """Take in one part, of arm `number`, whose entries begin at `start`. Returns how many it has."""
        if part.kind == "base_velocity":
            assert profile.base is not None, "the profile checks it"
            self._base = list(range(start, start + (3 if profile.base.sideways else 2)))
            return len(self._base)
        if part.kind == "gripper":
            self._grippers[number] = (start, part.closed, part.open)
            return 1
        arm, own, single = self._arms[number], self._owns[number], profile.singles[number]
        if part.of_tool:
            tool = ToolEntries(part, arm)
            self._tools.append((slice(start, start + tool.width), own, tool))
            return tool.width
        names = [joint.name for joint in single.arm.joints]
        chosen = np.array([names.index(name) for name in part.joints or names])
        ranges = np.array([part.limit or joint.velocity for _, joint in profile.joints_of(part)])
        beside_tool = any(each.of_tool and each.arm == part.arm for each in profile.action_parts)
        joints = JointEntries(part, arm, chosen, ranges, beside_tool)
        self._joints.append((slice(start, start + joints.width), own, joints))
        return joints.width

    def _aiming(self) -> NDArray[np.bool_]:
        aims, free = (np.full(len(self._in_state), value) for value in (False, True))
        for _, own, joints in self._joints:
            aims[own][joints.joints] = joints.aims()
            free[own][joints.joints] = False
        for _, own, tool in self._tools:
            aims[own] |= free[own] & tool.aims()
        return aims


def _shape(limits: Limits, single: Profile) -> ArmShape:
    chain, box = Chain.from_table(single.kinematics), (limits.workspace_low, limits.workspace_high)
    steps = limits.velocity * limits.period_s
    return ArmShape(chain, limits.low, limits.high, *box, limits.max_jump, steps, limits.period_s)


def _opening(entry: float, closed: float, open_: float) -> float:
    return entry if (closed, open_) == (-1.0, 1.0) else 2.0 * (entry - closed) / (open_ - closed) - 1.0


def _entry(opening: float, closed: float, open_: float) -> float:
    return opening if (closed, open_) == (-1.0, 1.0) else closed + (opening + 1.0) / 2.0 * (open_ - closed)
