"""The search behind `action_spaces.py`: robots in every action space, any limits, any input. Simulated time, no ROS."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pirl_contract.schema import Alteration, Vector
from pirl_ros.control.action_mapping import ActionMapper, ArmCommand
from pirl_ros.control.control_source import JointTarget, TcpTwist
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.profile.action_parts import ActionPart
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import ArmGroup, ArmSection, Box, Joint

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "ros"))
from space_samples import GRIPPER, spaces, tool  # noqa: E402

READY = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4])
ACTIONS = ("ordinary", "extreme", "alternating", "huge", "not finite", "tiny")
STATES = ("follows", "follows", "follows", "moved away", "not finite")
AGES = ("fresh", "fresh", "fresh", "stale", "unknown")
WHOLE = 100
"""periods of one trial, at most"""


def two_armed(profile: Profile) -> Profile:
    """Two of the same arm, side by side."""
    arms = []
    for side in ("left", "right"):
        joints = tuple(replace(joint, name=f"{side}_{joint.name}") for joint in profile.arm.joints)
        fingers = tuple(replace(finger, name=f"{side}_{finger.name}") for finger in profile.gripper.joints)
        gripper = replace(profile.gripper, joints=fingers, command_joint=fingers[0].name, topic=f"{side}_gripper")
        command = replace(profile.command, topic=f"{side}_arm")
        arms.append(ArmSection(side, joints, command, gripper, profile.safety.workspace, profile.kinematics))
    first = arms[0]
    return replace(
        profile, arms=tuple(arms), arm=ArmGroup(first.joints), command=first.command, gripper=first.gripper,
        action="joint_position", tcp_step=0.0,
    )  # fmt: skip


def for_both(left: ActionPart, right: ActionPart) -> tuple[ActionPart, ...]:
    """A part for each arm, and the grippers."""
    sides = (("left", left), ("right", right))
    return tuple(replace(part, arm=side) for side, one in sides for part in (one, GRIPPER))


def robots(profile: Profile) -> dict[str, Profile]:
    """The robot in each action space."""
    timed = replace(profile, tick="timer", poses=(), cameras=())
    found = {name: replace(timed, action=parts, tcp_step=0.0) for name, parts in spaces().items()}
    two = two_armed(timed)
    pairs = {
        "two arms, joints": (ActionPart("joint_position"), ActionPart("joint_delta")),
        "two arms, poses": (tool("tool_pose", "axis_angle"), tool("tool_pose", "rotation_6d")),
        "two arms, velocity and pose": (
            ActionPart("joint_velocity"),
            tool("tool_delta", "quaternion", frame="tool", counts_from="observation"),
        ),
    }
    return found | {name: replace(two, action=for_both(*pair)) for name, pair in pairs.items()}


def with_limits(profile: Profile, rng: np.random.Generator) -> Profile:
    """The robot with any limits, period, and often a tight box around the tool."""

    def arm(joints: tuple[Joint, ...]) -> tuple[Joint, ...]:
        return tuple(
            Joint(
                joint.name, joint.low, joint.high, rng.uniform(0.3, 3.0), 10 ** rng.uniform(-0.5, 2.5),
                10 ** rng.uniform(0.3, 4.5),
            )
            for joint in joints
        )  # fmt: skip

    chain = Chain.from_table(profile.kinematics)
    centre, size = chain.forward(READY)[0], rng.uniform(0.03, 0.3, (2, 3))
    tight = Box(tuple(centre - size[0]), tuple(centre + size[1]))
    box = tight if rng.random() < 0.6 else Box((-2.0, -2.0, -2.0), (2.0, 2.0, 2.0))
    lowest = float(chain.places(READY)[1:, 2].min())
    floor = lowest - rng.uniform(0.01, 0.3) if rng.random() < 0.4 else -np.inf
    safety = replace(
        profile.safety, floor=floor, speed_scale=1.0, workspace=box, max_jump=rng.uniform(0.1, 1.0), max_chunk_age=0.5,
        max_observation_age=0.3, watchdog_s=0.2, link_loss_s=0.3,
    )  # fmt: skip
    arms = tuple(replace(each, joints=arm(each.joints), workspace=box) for each in profile.arms)
    first = arms[0].joints if arms else arm(profile.arm.joints)
    rate = float(rng.choice([20.0, 50.0, 100.0]))
    return replace(profile, rate_hz=rate, arms=arms, arm=ArmGroup(first), safety=safety)


@dataclass
class Found:
    """What came of all cases."""

    cases: int = 0
    trials: int = 0
    sent: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    bits: Counter[str] = field(default_factory=Counter)
    stops: int = 0
    worst: list[str] = field(default_factory=list)


class Trial:
    """One robot with limits of its own, driven by whatever comes."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.profile = with_limits(profile, self.rng)
        self.motion, self.limits = ActionMapper(self.profile), Limits.from_profile(self.profile)
        self.chains = [Chain.from_table(single.kinematics) for single in self.profile.singles]
        count = len(self.chains)
        self.measured = np.tile(READY, count) + self.rng.uniform(-0.02, 0.02, 7 * count)
        fields = self.profile.contract.action
        self.low, self.high = (np.array([getattr(each, end) for each in fields]) for end in ("low", "high"))
        self.commands: list[Array] = []
        self.fingers: list[tuple[float, ...]] = []
        self.problems: Counter[str] = Counter()
        self.bits: Counter[str] = Counter()
        self.cases = self.stops = 0
        self._still = self.rng.uniform(self.low, self.high)

    def run(self, segments: list[tuple[str, str, str, int]]) -> None:
        """Live through segments of (action, state, age, periods), then come to rest."""
        for action, state, age, periods in segments:
            reference = None if self.rng.random() < 0.1 else self.measured.copy()
            driver = self.rng.choice(["policy"] * 8 + ["person", "stop"])
            if self.rng.random() < 0.1:
                self.motion.set_speed_scale(float(self.rng.uniform(0.05, 1.0)))
            for period in range(periods):
                self.cases += 1
                self._take(self._command(str(driver), self._action(action, period), age, reference))
                self._drive(state)
            self._check_stop()
        for _ in range(20_000):
            if self.motion.at_rest:
                break
            self._take(self.motion.brake(Alteration.NONE))
        else:
            self.problems["it never stops"] += 1
        self._check()

    def _command(self, driver: str, action: Vector, age: str, reference: Array | None) -> ArmCommand:
        seconds = {"fresh": 0.01, "stale": 7.0, "unknown": float(self.rng.choice([np.nan, -1.0, np.inf]))}[age]
        seen_s = 0.0 if self.rng.random() < 0.7 else seconds
        if driver == "stop":
            return self.motion.brake(Alteration.EMERGENCY_STOP)
        if driver == "policy":
            return self.motion.step(action, self.measured, seconds, seen_s, reference)
        size = 10 ** self.rng.uniform(-3, 3)
        hand = TcpTwist(size * self.rng.normal(size=3), size * self.rng.normal(size=3), float(self.rng.uniform(-1, 1)))
        if len(self.chains) > 1 or self.rng.random() < 0.5:
            grippers = tuple(float(value) for value in self.rng.uniform(-1, 1, len(self.chains)))
            return self.motion.follow(
                JointTarget(size * self.rng.normal(size=len(self.measured)), grippers), self.measured, seen_s
            )
        return self.motion.follow(hand, self.measured, seen_s)

    def _action(self, kind: str, period: int) -> Vector:
        rng, middle, half = self.rng, (self.low + self.high) / 2, (self.high - self.low) / 2
        if period == 0:
            self._still = rng.uniform(self.low, self.high)
        signs = rng.choice([-1.0, 1.0], len(self.low))
        with np.errstate(over="ignore", invalid="ignore"):
            values = {
                "ordinary": self._still + 0.05 * half * rng.normal(size=len(half)),
                "extreme": np.where(self._still > middle, self.high, self.low),
                "alternating": middle + half * (1 if period % 2 else -1) * np.sign(self._still - middle),
                "huge": signs * 10 ** rng.uniform(0, 45, len(half)),
                "not finite": np.where(rng.random(len(half)) < 0.3, rng.choice([np.nan, np.inf, -np.inf]), self._still),
                "tiny": signs * 10 ** rng.uniform(-45, -6, len(half)),
            }[kind]
            return values.astype(np.float32)

    def _drive(self, state: str) -> None:
        """Where the arm is measured next."""
        if not self.commands:
            return
        newest, rng = self.commands[-1], self.rng
        if not np.isfinite(self.measured).all():
            self.measured = newest.copy()
        self.measured = self.measured + rng.uniform(0.2, 1.0) * (newest - self.measured)
        if state == "moved away" and rng.random() < 0.2:
            self.measured = self.measured + rng.uniform(-1.0, 1.0, len(newest))
        if state == "not finite" and rng.random() < 0.3:
            self.measured = np.full_like(newest, np.nan)

    def _take(self, command: ArmCommand) -> None:
        self.bits.update(bit.name or "" for bit in Alteration if bit and command.alterations & bit)
        if not np.isfinite(command.executed).all():
            self.problems["report not finite"] += 1
        self.fingers.append((command.gripper_m, *command.more_grippers_m))
        if command.joints is None:
            return
        if not self.commands:
            before = command.before
            self.commands.append(command.joints if before is None else before)
        self.commands.append(command.joints)

    def _check_stop(self) -> None:
        """The stop that is available now ends within what speed, acceleration and jerk make of it, and is lawful."""
        if len(self.commands) < 3 or self.rng.random() < 0.5:
            return
        self.stops += 1
        motion, path = self.motion.copy(), [*self.commands]
        while not motion.at_rest and len(path) < len(self.commands) + 20_000:
            joints = motion.brake(Alteration.NONE).joints
            assert joints is not None, "there was a command"
            path.append(joints)
        dt, a, j = self.limits.period_s, self.limits.acceleration, self.limits.jerk
        v = np.abs(path[len(self.commands) - 1] - path[len(self.commands) - 2]) / dt
        pull = np.abs(np.diff(self.commands[-3:], 2, axis=0)[0]) / dt**2
        speed = v + pull * dt + pull**2 / (2 * j)
        ramps = np.where(speed * j >= a**2, speed / 2 * (speed / a + a / j), speed * np.sqrt(speed / j))
        largest = ramps + speed * (pull / j + 3 * dt) + 1e-9
        if (np.abs(path[-1] - self.commands[-1]) > largest).any():
            self.problems["stop distance"] += 1

    def _check(self) -> None:
        if self.commands:
            chain = self.chains if len(self.chains) > 1 else self.chains[0]
            self.problems.update(dict.fromkeys(violations(np.array(self.commands), self.limits, chain), 1))
        for single, path in zip(self.profile.singles, np.array(self.fingers).T):
            gripper = single.gripper
            ends = sorted((gripper.closed, gripper.open))
            if ((path < ends[0] - 1e-9) | (path > ends[1] + 1e-9)).any():
                self.problems["gripper position"] += 1
            # The first target of a gripper that is not measured may be any.
            steps = np.abs(np.diff(path[np.flatnonzero(np.diff(path))[:1].sum() + 1 :]))
            if (steps > gripper.velocity_limit * self.limits.period_s * (1 + 1e-9) + 1e-12).any():
                self.problems["gripper speed"] += 1


def segments(rng: np.random.Generator) -> Iterator[tuple[str, str, str, int]]:
    """What a trial lives through, at most `WHOLE` periods."""
    left = WHOLE
    while left > 0:
        periods = min(left, int(rng.integers(1, 40)))
        yield str(rng.choice(ACTIONS)), str(rng.choice(STATES)), str(rng.choice(AGES)), periods
        left -= periods


def search(cases: int, seed: int = 0, path: Path = ROOT / "launch/params/panda_sim.yaml") -> Found:
    """Run so many cases and say what was found."""
    found, each = Found(), list(robots(load_profile(path)).items())
    while found.cases < cases:
        name, profile = each[found.trials % len(each)]
        number = seed * 1_000_003 + found.trials
        trial = Trial(profile, number)
        trial.run(list(segments(trial.rng)))
        found.trials += 1
        found.cases += trial.cases
        found.sent += len(trial.commands)
        found.stops += trial.stops
        found.broken.update(trial.problems)
        found.bits.update(trial.bits)
        if trial.problems:
            found.worst.append(f"{name}, trial {number}: {', '.join(trial.problems)}")
    return found
