"""A policy that leads an arm evenly on from what it observes, in any action space, with answers that come late."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
from driven_arm import PERIOD_NS, DrivenArm, real_profile
from scipy.spatial.transform import Rotation
from space_samples import meant, sizes, with_space, written

from pirl_contract.schema import ActionChunk
from pirl_ros.control.action_space import ActionSpace
from pirl_ros.control.chunk_buffer import FADE_STEPS
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.policy_session.rtc import RtcTracker
from pirl_ros.profile.action_parts import ActionPart
from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import ArmGroup

DT_S = PERIOD_NS / 1e9
VELOCITY = 0.25 * np.array([1, 0.3, -1, 0.3, 1, 0.3, -1])
"""rad/s"""
LINEAR, ANGULAR = np.array([0.02, 0.05, -0.02]), np.array([0.1, -0.05, 0.15])
"""m/s, rad/s of the tool, base frame"""


def wide(profile: Profile, parts: tuple[ActionPart, ...]) -> Profile:
    """An arm by time whose limits do not bind, so that every jump of a target is one of the command."""
    real = real_profile(profile, max_jump=1.2, speed_scale=12.0)
    joints = tuple(replace(joint, acceleration=1e6, jerk=1e9) for joint in real.arm.joints)
    return with_space(replace(real, arm=ArmGroup(joints)), parts)


def path(
    part: ActionPart, joints: Array, chain: Chain, horizon: int, start: tuple[Array, Rotation] | None = None
) -> Array:
    """Entries [horizon, K] of one part that lead evenly on from `joints`; of a pose from `start`, where it is given."""
    steps = np.arange(1, horizon + 1)[:, None]
    if part.kind == "gripper":
        return np.full((horizon, 1), part.open)
    if not part.of_tool:
        ways = {"joint_velocity": VELOCITY + 0 * steps, "joint_position": joints + steps * VELOCITY * DT_S}
        even = steps if part.anchor == "observation" else 1 + 0 * steps
        return ways.get(part.kind, even * VELOCITY * DT_S)
    position, matrix = chain.forward(joints)
    observed = Rotation.from_matrix(matrix)
    at, facing = (position, observed) if start is None else start
    turn, rows = Rotation.from_rotvec(ANGULAR * DT_S), []
    for _ in range(horizon):
        before, at, facing = (at, facing), at + LINEAR * DT_S, turn * facing
        origin = (np.zeros(3), Rotation.identity()) if part.kind == "tool_pose" else (position, observed)
        origin = before if part.anchor in ("command", "measured") else origin
        way, rotation = at - origin[0], facing * origin[1].inv()
        if part.frame == "tool":
            way, rotation = origin[1].inv().apply(way), origin[1].inv() * facing
        rows.append(np.concatenate([way, written(rotation, part.rotation)]))
    return np.array(rows)


@dataclass
class Loop:
    """An arm, and a policy that is asked every `every` periods and answers `delay` periods later."""

    profile: Profile
    delay: int
    every: int = 25
    horizon: int = 100
    rtc: bool = False

    def __post_init__(self) -> None:
        self.arm = DrivenArm(self.profile)
        self.parts = self.profile.action_parts
        space = ActionSpace(self.profile)
        self.tracker = RtcTracker(space.rebased_by_state if space.counts_from_observation else None)
        self.entered: list[int] = []

    def run(self, periods: int) -> np.ndarray:
        """The commands [N, J]."""
        self.arm.run()
        self.arm.executor.begin("e")
        answers: list[tuple[int, SimpleNamespace]] = []
        for period in range(periods):
            if period % self.every == 0:
                answers.append((period + self.delay, self._observe()))
            for due, answer in [each for each in answers if each[0] == period]:
                self._deliver(answer)
                answers.remove((due, answer))
                self.entered.append(len(self.arm.commands))
            tick = self.arm.run()
            if tick.outcome is not None:
                self.tracker.report(tick.outcome)
        return np.array(self.arm.commands)

    def seam_ratio(self, commands: np.ndarray) -> float:
        """The largest step where a chunk replaces another, in largest steps inside of chunks."""
        steps = np.abs(np.diff(commands, axis=0)).max(axis=1)
        seam = np.zeros(len(steps), bool)
        for entry in self.entered[1:]:
            seam[entry - 1 : entry + FADE_STEPS + 1] = True
        seam[:FADE_STEPS] = False
        inside = ~seam
        inside[: FADE_STEPS + 2] = False
        return float(steps[seam].max() / steps[inside].max())

    def _observe(self) -> SimpleNamespace:
        joints = self.arm.joints.copy()
        state = np.concatenate([joints, np.zeros(30)]).astype(np.float32)
        found = SimpleNamespace(joints=joints, state=state, stamp_ns=self.arm.stamp_ns, now_ns=self.arm.now_ns)
        found.previous = self.tracker.from_stamp(found.stamp_ns, ("prefix",), state) if self.rtc else None
        return found

    def _deliver(self, seen: SimpleNamespace) -> None:
        columns = [path(part, seen.joints, self.arm.chain, self.horizon) for part in self.parts]
        if seen.previous is not None:
            kept = seen.previous.actions[: seen.previous.inference_delay]
            ends = np.cumsum(sizes(self.parts))
            for number, (part, end, width) in enumerate(zip(self.parts, ends, sizes(self.parts))):
                columns[number] = self._continued(part, kept[:, end - width : end].astype(float), seen)
        actions = np.hstack(columns).astype(np.float32)
        if seen.previous is not None:
            actions[: len(kept)] = kept
        age = (self.arm.now_ns - seen.now_ns) // PERIOD_NS
        self.arm.chunk(actions, execute=self.horizon, age=age)
        self.tracker.begin(ActionChunk(actions, DT_S, f"c{self.arm.sequence}", "v", 0, self.horizon), seen.state)
        self.tracker.age.add(self.arm.now_ns - seen.now_ns)

    def _continued(self, part: ActionPart, kept: np.ndarray, seen: SimpleNamespace) -> np.ndarray:
        """What a server makes of the previous chunk: its actions, then evenly on from the last of them."""
        left = self.horizon - len(kept)
        if part.of_tool and (part.kind == "tool_pose" or part.anchor == "observation"):
            start = meant(part, kept[-1], self.arm.chain.forward(seen.joints))
            return np.vstack([kept, path(part, seen.joints, self.arm.chain, left, start)])
        rest = path(part, seen.joints, self.arm.chain, left)
        if part.kind == "joint_position" or part.anchor == "observation":
            rest += kept[-1] - (seen.joints if part.kind == "joint_position" else 0.0)
        return np.vstack([kept, rest])
