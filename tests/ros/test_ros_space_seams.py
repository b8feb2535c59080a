"""Where one chunk replaces another: no jump in any action space, at any delay, blended or continued by RTC."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chunking_policy import ANGULAR, DT_S, VELOCITY, Loop, path, wide
from driven_arm import READY, DrivenArm, real_profile
from scipy.spatial.transform import Rotation
from space_samples import GRIPPER, spaces, tool

from pirl_contract import Alteration
from pirl_ros.control.action_space import ActionSpace
from pirl_ros.policy_session.rtc import LatencyEstimate
from pirl_ros.profile.profile import Profile

DELAYS = (0, 5, 15, 40)
"""periods of 20 ms: up to 800 ms"""
LARGEST = 1.5
_NAMES = [f"tool_pose {rotation}" for rotation in ("axis_angle", "euler_xyz", "quaternion", "rotation_6d")]
_NAMES += [f"tool_delta axis_angle base {anchor}" for anchor in ("measured", "command", "observation")]
_NAMES += ["tool_delta euler_xyz base command", "tool_delta quaternion base observation"]
_NAMES += ["tool_delta rotation_6d tool observation", "tool_delta axis_angle tool command"]
_NAMES += [
    "joint_position",
    "joint_velocity",
    *(f"joint_delta {anchor}" for anchor in ("measured", "command", "observation")),
]
SPACES = {name: spaces()[name] for name in _NAMES}
ANCHORED = {name: parts for name, parts in SPACES.items() if parts[0].anchor == "observation"}


@pytest.mark.parametrize("rtc", [False, True], ids=["blended", "continued"])
@pytest.mark.parametrize("name", SPACES)
def test_no_chunk_makes_the_arm_jump(profile: Profile, name: str, rtc: bool) -> None:
    for delay in DELAYS:
        loop = Loop(wide(profile, SPACES[name]), delay, rtc=rtc)
        commands = loop.run(110)
        assert len(loop.entered) >= 3
        assert len(commands) > 60, "it moves on"
        assert loop.seam_ratio(commands) < LARGEST, f"delay {20 * delay} ms"
        moved = np.abs(commands[-1] - READY).max()
        assert moved > 0.05, "and it gets somewhere"


@pytest.mark.parametrize("rtc", [False, True], ids=["blended", "continued"])
@pytest.mark.parametrize("name", ANCHORED)
def test_it_would_jump_if_nothing_were_counted_from_the_new_observation(
    profile: Profile, name: str, rtc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: what is left of a chunk is taken as it is."""
    monkeypatch.setattr(ActionSpace, "rebased", lambda self, actions, old, new: actions)
    loop = Loop(wide(profile, ANCHORED[name]), 15, rtc=rtc)
    assert loop.seam_ratio(loop.run(110)) > LARGEST


def test_what_is_sent_to_be_continued_names_the_same_joints(profile: Profile) -> None:
    robot = wide(profile, SPACES["joint_delta observation"])
    loop = Loop(robot, 5, rtc=True)
    loop.run(40)
    seen = loop._observe()
    assert seen.previous is not None
    following = loop.arm.commands[-1] + VELOCITY * DT_S
    np.testing.assert_allclose(seen.joints + seen.previous.actions[0, :7], following, atol=1e-3)


@pytest.mark.parametrize("rotation", ["axis_angle", "euler_xyz", "quaternion"])
def test_a_tool_that_points_down_is_not_turned_over_by_blending(profile: Profile, rotation: str) -> None:
    """Half a turn from the base every representation of three or four numbers changes sign: the mean is no rotation."""
    parts = (tool("tool_pose", rotation), GRIPPER)
    space = ActionSpace(wide(profile, parts))
    old = Rotation.from_rotvec([0, 0, 0.3]) * Rotation.from_rotvec([np.pi - 0.02, 0, 0])
    new = Rotation.from_rotvec([0, 0, 0.32]) * Rotation.from_rotvec([np.pi + 0.02, 0, 0])
    written = {
        "axis_angle": lambda r: r.as_rotvec(), "euler_xyz": lambda r: r.as_euler("xyz"),
        "quaternion": lambda r: np.roll(r.as_quat(), 1),
    }[rotation]  # fmt: skip
    rows = [np.concatenate([[0.5, 0, 0.3], written(each), [1.0]]).astype(np.float32)[None] for each in (old, new)]
    if rotation == "quaternion":
        rows[1][:, 3:7] *= -1
    between = space.mixed(rows[0], rows[1], np.array([0.5], np.float32))
    read = {
        "axis_angle": Rotation.from_rotvec, "euler_xyz": lambda v: Rotation.from_euler("xyz", v),
        "quaternion": lambda v: Rotation.from_quat(np.roll(v, -1)),
    }[rotation](between[0, 3:-1].astype(float))  # fmt: skip
    assert (read * old.inv()).magnitude() < 0.05
    assert (read * new.inv()).magnitude() < 0.05
    if rotation != "euler_xyz":
        plain = (rows[0] + rows[1])[0, 3:-1] / 2
        assert np.linalg.norm(plain) < 2.0, "the mean of the numbers is far from both"


def test_answers_slower_than_the_chunk_is_long_turn_nothing_over(profile: Profile) -> None:
    """lerobot#4580: 800 ms of inference, chunks of 16 actions at 30 Hz; the wrist turned by half a turn.

    Here what is overdue is not played and nothing is counted from anything but its observation: the arm brakes, waits
    and turns no joint further than the policy wants.
    """
    for name in ("tool_delta axis_angle base observation", "joint_delta observation"):
        robot = wide(profile, SPACES[name])
        robot = replace(robot, safety=replace(robot.safety, link_loss_s=2.0))
        loop = Loop(robot, delay=40, every=40, horizon=16)
        commands = loop.run(400)
        turned = np.abs(commands - READY).max(axis=0)
        wanted = 400 * DT_S * (np.abs(VELOCITY).max() if "joint" in name else 2.0 * np.linalg.norm(ANGULAR) + 0.3)
        assert (turned < wanted).all()
        assert np.abs(np.diff(commands, axis=0)).max() < 0.02
        assert not any(tick.command and tick.command.alterations & Alteration.STALE for tick in loop.arm.ticks)


def test_the_first_chunk_is_played_from_its_first_action_however_long_it_took(profile: Profile) -> None:
    """lerobot#4223, #4454: a cold policy took 21 periods; skipping so many actions of an arm that stood is a jump."""
    arm = DrivenArm(wide(profile, SPACES["joint_position"]))
    arm.run(30)
    arm.executor.begin("e")
    arm.run(21)
    arm.chunk(np.hstack([path(part, READY, arm.chain, 50) for part in arm.profile.action_parts]), age=21)
    arm.run()
    np.testing.assert_allclose(arm.commands[-1], READY + VELOCITY * DT_S, atol=1e-6)


def test_a_warm_up_is_no_latency_once_there_is_another_answer() -> None:
    """lerobot#4223: it stayed the largest for ever."""
    age = LatencyEstimate()
    age.add(700_000_000)
    for _ in range(3):
        age.add(100_000_000)
    assert age.expected_ns() == 100_000_000


def test_nothing_is_padded_onto_what_is_left_of_a_chunk(profile: Profile) -> None:
    """lerobot#4454: zeros behind the prefix are the mean of the data, and the arm was pulled towards that."""
    loop = Loop(wide(profile, SPACES["joint_position"]), delay=5, rtc=True, horizon=40)
    loop.run(33)
    seen = loop._observe()
    assert seen.previous is not None
    # Of the chunk that answered period 25, which was entered in period 30.
    assert len(seen.previous.actions) == 40 - 8
    assert seen.previous.inference_delay <= len(seen.previous.actions)
    assert (np.abs(seen.previous.actions[:, 3]) > 1.0).all(), "joint 4 is nowhere near 0"


@pytest.mark.parametrize("name", ["joint_position", "joint_delta observation", "tool_pose axis_angle"])
@pytest.mark.parametrize("rtc", [False, True], ids=["blended", "continued"])
def test_a_lagging_arm_makes_no_saw_tooth(profile: Profile, name: str, rtc: bool) -> None:
    """almond-bot/axol#191: each chunk began at the measured arm, which lags, and stepped back by 20 to 70 mrad."""
    loop = Loop(wide(profile, SPACES[name]), delay=5, every=10, rtc=rtc)
    commands = loop.run(110)
    along = np.diff(commands[10:], axis=0) @ np.sign(commands[-1] - commands[10])
    assert along.min() > 0.0, "it never steps back"
    assert np.abs(np.diff(commands[10:], 2, axis=0)).max() < 0.004


@pytest.mark.parametrize("name", SPACES)
def test_what_is_planned_ahead_is_what_is_commanded(profile: Profile, name: str) -> None:
    """A trajectory controller is sent the rest of the chunk; from period to period nothing else may be commanded."""
    robot = replace(real_profile(profile), action=SPACES[name], tcp_step=0.0)
    arm = DrivenArm(robot)
    arm.run()
    arm.executor.begin("e")
    arm.chunk(np.hstack([path(part, arm.joints, arm.chain, 40) for part in robot.action_parts]), execute=40)
    for _ in range(8):
        arm.run()
        arm.joints = arm.commands[-1].copy()  # as the plan assumes: the arm follows at once
    ahead = arm.executor.ahead()
    assert ahead is not None
    before = len(arm.commands)
    for _ in range(len(ahead.positions) - 1):
        arm.run()
        arm.joints = arm.commands[-1].copy()
    # The state is measured in float32, and each period's rounding counts where that is what the next one starts from.
    rounding = 1e-5 if "measured" in name else 1e-9
    np.testing.assert_allclose(np.array(arm.commands[before:]), ahead.positions[1:], atol=rounding)
    assert len(ahead.positions) > 32


def test_real_limits_hold_through_all_of_it(profile: Profile) -> None:
    for name in ANCHORED:
        robot = replace(real_profile(profile), action=SPACES[name], tcp_step=0.0)
        loop = Loop(robot, delay=15)
        loop.run(120)
        assert loop.arm.violations() == {}
