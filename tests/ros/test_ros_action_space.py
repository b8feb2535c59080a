"""What every action space makes of an action, against SciPy's reading of the same numbers; and what is reported."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from driven_arm import READY, DrivenArm, real_profile
from scipy.spatial.transform import Rotation
from space_samples import GRIPPER, REACH, STEP, TURN, families, meant, sizes, spaces, tool, turn, with_space, written

from pirl_contract import Alteration, ControlSource
from pirl_ros.control.action_mapping import ActionMapper, ArmCommand
from pirl_ros.control.control_source import JointTarget, TcpTwist
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.profile.action_parts import ActionPart
from pirl_ros.profile.profile import Profile, load_profile

SPACES = spaces()
TOOL_SPACES = {name: parts for name, parts in SPACES.items() if any(part.of_tool for part in parts)}
SMALL = Rotation.from_rotvec([0.02, -0.05, 0.03])
WAY = np.array([0.004, -0.008, 0.006])


def small_action(
    parts: tuple[ActionPart, ...],
    start: tuple[np.ndarray, np.ndarray],
    joints: Array,
    way: np.ndarray = WAY,
    rotation: Rotation = SMALL,
) -> np.ndarray:
    """An action that leads `way` and `rotation` on from `start`, whatever its entries count from."""
    entries: list[np.ndarray] = []
    for part, width in zip(parts, sizes(parts)):
        chosen = [int(name[-1]) - 1 for name in part.joints] or list(range(7))
        if part.kind == "tool_pose":
            goal = rotation * Rotation.from_matrix(start[1])
            entries.append(np.concatenate([start[0] + way, written(goal, part.rotation)]))
        elif part.of_tool:
            along = Rotation.from_matrix(start[1]).inv().apply(way) if part.frame == "tool" and way is not WAY else way
            scale = np.repeat([part.step, part.turn], [3, width - 3]) if part.normalised else 1.0
            entries.append(np.concatenate([along, written(rotation, part.rotation)]) / scale)
        elif part.kind == "joint_position":
            entries.append(joints[chosen] + (0.0 if len(parts) == 3 else 0.01))
        elif part.kind == "gripper":
            entries.append(np.array([part.closed + 0.75 * (part.open - part.closed)]))
        else:
            entries.append(np.full(width, 0.01))
    return np.concatenate(entries).astype(np.float32)


def step(motion: ActionMapper, action: np.ndarray, measured: Array = READY, reference: Array = READY) -> ArmCommand:
    return motion.step(action, measured, 0.0, 0.0, reference)


def pose_of(parts: tuple[ActionPart, ...], action: np.ndarray) -> tuple[ActionPart, np.ndarray]:
    ends = np.cumsum(sizes(parts))
    found = ((part, action[end - width : end]) for part, end, width in zip(parts, ends, sizes(parts)))
    return next((part, values) for part, values in found if part.of_tool)


@pytest.fixture(scope="module")
def chain(profile: Profile) -> Chain:
    return Chain.from_table(profile.kinematics)


@pytest.mark.parametrize("name", TOOL_SPACES)
def test_the_tool_goes_where_the_entries_say(profile: Profile, chain: Chain, name: str) -> None:
    parts = TOOL_SPACES[name]
    action = small_action(parts, chain.forward(READY), READY)
    command = step(ActionMapper(with_space(profile, parts)), action)
    assert command.alterations == Alteration.NONE
    np.testing.assert_array_equal(command.executed, action)
    assert command.joints is not None
    position, rotation = meant(*pose_of(parts, action.astype(float)), chain.forward(READY))
    reached, facing = chain.forward(command.joints)
    np.testing.assert_allclose(reached, position, atol=3e-5)
    assert (rotation * Rotation.from_matrix(facing).inv()).magnitude() < 5e-4


@pytest.mark.parametrize("name", TOOL_SPACES)
def test_what_was_shortened_is_reported_as_it_was_done(profile: Profile, chain: Chain, name: str) -> None:
    """A real arm does not get there in one period; the report, read as an action, leads to the command."""
    parts = TOOL_SPACES[name]
    motion = ActionMapper(with_space(real_profile(profile), parts))
    start = chain.forward(READY)
    previous = READY
    for _ in range(4):
        command = step(motion, small_action(parts, start, READY))
        assert command.alterations & Alteration.LIMIT
        assert command.joints is not None
        part, values = pose_of(parts, command.executed.astype(float))
        origin = previous if part.anchor == "command" else READY
        position, rotation = meant(part, values, chain.forward(origin))
        reached, facing = chain.forward(command.joints)
        np.testing.assert_allclose(reached, position, atol=1e-6)
        if part.rotation != "none":
            assert (rotation * Rotation.from_matrix(facing).inv()).magnitude() < 1e-5
        previous = command.joints


def test_joint_entries_lead_where_they_say(profile: Profile) -> None:
    observed, measured = READY - 0.03, READY + 0.02
    cases = {
        "measured": measured + 0.01,
        "observation": observed + 0.01,
        "command": READY + 0.02,  # the second action of two
    }
    for anchor, expected in cases.items():
        motion = ActionMapper(with_space(profile, SPACES[f"joint_delta {anchor}"]))
        action = np.append(np.full(7, 0.01), 0.5).astype(np.float32)
        step(motion, action, READY)
        command = step(motion, action, measured, observed)
        np.testing.assert_allclose(command.joints, expected, atol=1e-7)
        np.testing.assert_array_equal(command.executed, action)


def test_velocities_are_integrated_from_the_command_and_stop_with_the_chunk(profile: Profile) -> None:
    arm = DrivenArm(with_space(real_profile(profile), SPACES["joint_velocity"]))
    arm.run()
    arm.executor.begin("e")
    speed = 0.3 * np.array([1, 0.3, -1, 0.3, 1, 0.3, -1])
    arm.chunk(np.tile(np.append(speed, 1.0), (30, 1)), execute=30)
    arm.run(30)
    velocity = (arm.commands[-1] - arm.commands[-2]) / arm.limits.period_s
    np.testing.assert_allclose(velocity, speed, atol=1e-6)
    np.testing.assert_allclose(arm.commands[-1] - READY, 30 * speed * arm.limits.period_s, atol=1e-6)
    arm.rest()
    assert arm.violations() == {}
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])


def test_a_velocity_that_is_limited_is_reported_as_it_was(profile: Profile) -> None:
    motion, previous = ActionMapper(with_space(real_profile(profile), SPACES["joint_velocity"])), READY
    for _ in range(3):
        command = step(motion, np.append(np.full(7, 2.0), 1.0).astype(np.float32), previous)
        assert command.joints is not None
        np.testing.assert_allclose(command.executed[:-1], (command.joints - previous) * 50.0, rtol=1e-5)
        previous = command.joints


def test_a_velocity_is_never_caught_up_with_for_long(profile: Profile) -> None:
    """What an arm that can't keep up was to do is not done later: it is at most two periods, or 0.1 rad, behind."""
    slow = with_space(real_profile(profile, speed_scale=0.02), SPACES["joint_velocity"])
    motion, at = ActionMapper(slow), READY
    for _ in range(50):
        command = step(motion, np.append(np.full(7, 1.0), 1.0).astype(np.float32), at)
        assert command.joints is not None
        assert command.alterations & Alteration.LIMIT
        at = command.joints
    for _ in range(400):
        command = step(motion, np.append(np.zeros(7), 1.0).astype(np.float32), at)
        assert command.joints is not None
        at = command.joints
    assert np.abs(at - READY).max() < 50 * 0.02 * 0.02 * 2.61 + 0.11


def test_an_arm_that_was_held_catches_up_with_a_jump_and_a_lead_at_most(profile: Profile) -> None:
    """Held for 4 s at 0.5 rad/s, then let go with velocity 0; after a stop it stays where it is."""
    held = with_space(real_profile(profile, max_jump=0.3), SPACES["joint_velocity"])
    fast, still = (np.array([speed, *[0.0] * 6, 1.0], np.float32) for speed in (0.5, 0.0))
    for stopped in (False, True):
        motion, at = ActionMapper(held), READY
        for _ in range(200):
            step(motion, fast, READY)
        for _ in range(100 if stopped else 0):
            motion.brake(Alteration.NONE, READY)
        for _ in range(300):
            command = step(motion, still, at)
            assert command.joints is not None
            at = at + 0.6 * (command.joints - at)
        assert at[0] - READY[0] == pytest.approx(0.0 if stopped else 0.3 + 0.1, abs=1e-3)


@pytest.mark.parametrize("rotation", ["axis_angle", "euler_xyz", "quaternion", "rotation_6d"])
def test_a_pose_far_away_is_approached_by_so_much_per_period(profile: Profile, chain: Chain, rotation: str) -> None:
    """Three quarters of a turn at the wrist in one action: the arm turns at its rate, on the shortest way."""
    parts = (tool("tool_pose", rotation), GRIPPER)
    motion, joints = ActionMapper(with_space(profile, parts)), READY
    start = chain.forward(READY)
    facing = Rotation.from_matrix(start[1])
    goal = Rotation.from_rotvec([0, 0, 1.2]) * facing
    action = np.concatenate([start[0] + [0.0, 0.1, 0.02], written(goal, rotation), [1.0]]).astype(np.float32)
    periods = 0
    for _ in range(30):
        periods += 1
        command = step(motion, action, joints)
        assert command.joints is not None
        (before, turned), (at, now) = chain.forward(joints), chain.forward(command.joints)
        assert np.linalg.norm(at - before) <= STEP + 1e-4
        assert (Rotation.from_matrix(now) * Rotation.from_matrix(turned).inv()).magnitude() <= TURN + 1e-3
        joints = command.joints
        if command.alterations == Alteration.NONE:
            break
    assert 12 <= periods < 24, "1.2 rad at 0.1 per period, and slower towards the end"
    assert (Rotation.from_matrix(chain.forward(joints)[1]) * goal.inv()).magnitude() < 1e-3


def test_a_joint_of_its_own_goes_where_it_is_told_and_the_others_place_the_tool(profile: Profile, chain: Chain) -> None:
    parts = SPACES["gripper first, pose and a joint"]
    motion, joints = ActionMapper(with_space(profile, parts)), READY
    position, rotation = chain.forward(READY)
    pose = np.concatenate([position, Rotation.from_matrix(rotation).as_rotvec()])
    for elbow in np.linspace(0.0, 0.3, 16):
        command = step(motion, np.concatenate([[0.5, elbow], pose]).astype(np.float32), joints)
        assert command.joints is not None
        joints = command.joints
    assert joints[2] == pytest.approx(0.3, abs=1e-6)
    np.testing.assert_allclose(chain.forward(joints)[0], position, atol=1e-4)
    assert np.abs(joints - READY).max() > 0.1, "the others make up for it"
    assert command.gripper_m == pytest.approx(-0.01 + 0.75 * 0.05)


@pytest.mark.parametrize("anchor", ["measured", "observation", "command"])
def test_a_joint_of_its_own_that_would_pass_its_limit_is_reported(profile: Profile, anchor: str) -> None:
    """A rail's entry beside a tool's: what was left out of it must not be learnt from as done."""
    first, *others = profile.arm.joints
    narrow = replace(profile, arm=replace(profile.arm, joints=(replace(first, high=0.01), *others)))
    delta = ActionPart("joint_delta", joints=(first.name,), counts_from=anchor)  # type: ignore[arg-type]
    motion = ActionMapper(with_space(narrow, (delta, tool("tool_delta", "axis_angle"), GRIPPER)))
    for asked, beyond in ((0.008, False), (0.05, True)):
        motion.release()
        action = np.zeros(8, np.float32)
        action[0], action[-1] = asked, 1.0
        command = step(motion, action)
        assert bool(command.alterations & Alteration.LIMIT) == beyond
        assert command.joints is not None
        assert command.executed[0] == pytest.approx(command.joints[0], abs=1e-6)


def test_a_joint_that_is_sent_far_away_gets_there_with_the_tool_in_place(profile: Profile, chain: Chain) -> None:
    """At its own speed: in one step the others could not make up for it, and nothing would move at all."""
    parts = SPACES["gripper first, pose and a joint"]
    real = real_profile(profile, max_jump=0.2)
    motion, joints = ActionMapper(with_space(real, parts)), READY
    position, rotation = chain.forward(READY)
    pose = np.concatenate([[0.5, 0.5], position, Rotation.from_matrix(rotation).as_rotvec()]).astype(np.float32)
    for _ in range(150):
        command = step(motion, pose, joints)
        assert command.joints is not None
        joints = command.joints
        assert np.linalg.norm(chain.forward(joints)[0] - position) < 0.03
        assert joints[2] < 0.51
    assert joints[2] == pytest.approx(0.5, abs=1e-4)
    np.testing.assert_allclose(chain.forward(joints)[0], position, atol=1e-3)


@pytest.mark.parametrize("rotation", ["axis_angle", "quaternion"])
def test_a_real_arm_does_not_pass_a_pose_that_it_was_sent_to_from_afar(
    profile: Profile, chain: Chain, rotation: str
) -> None:
    """At the largest speed of the part, and at rest there: it has to brake on the way."""
    motion, joints = ActionMapper(with_space(real_profile(profile), (tool("tool_pose", rotation), GRIPPER))), READY
    start = chain.forward(READY)
    way, turned = np.array([0.0, 0.25, 0.05]), Rotation.from_rotvec([0, 0, 0.6])
    goal = turned * Rotation.from_matrix(start[1])
    action = np.concatenate([start[0] + way, written(goal, rotation), [1.0]]).astype(np.float32)
    along = []
    for _ in range(150):
        command = step(motion, action, joints)
        assert command.joints is not None
        joints = command.joints
        along.append(float((chain.forward(joints)[0] - start[0]) @ way / (way @ way)))
    assert max(along) < 1.02, "not more than 2 % of the way too far"
    assert max(np.diff(along)) * np.linalg.norm(way) > 0.4 * STEP, "and it does not creep"
    assert along[-1] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("name", TOOL_SPACES)
def test_a_pose_out_of_reach_moves_nothing(profile: Profile, chain: Chain, name: str) -> None:
    stretched = np.array([0.0, 1.2, 0.0, -0.07, 0.0, 1.3, 0.785])
    start = chain.forward(stretched)
    outwards = start[0] - [0, 0, 0.333]
    outwards *= 0.019 / np.linalg.norm(outwards)
    action = small_action(TOOL_SPACES[name], start, stretched, outwards, Rotation.identity())
    motion = ActionMapper(with_space(profile, TOOL_SPACES[name]))
    command = motion.step(action, stretched, 0.0, 0.0, stretched)
    assert command.alterations & Alteration.LIMIT
    np.testing.assert_allclose(command.joints, stretched, atol=1e-6)


def test_a_turn_through_the_wrist_singularity_does_not_flip_the_arm(profile: Profile, chain: Chain) -> None:
    """With joints 5 and 7 in line a small turn asks for half a turn of both: nothing moves then."""
    parts = SPACES["tool_delta axis_angle base command"]
    singular = np.array([0.0, 0.4, 0.0, -2.0, 0.0, 0.0, 0.785])
    motion = ActionMapper(with_space(replace(profile, safety=replace(profile.safety, max_jump=0.3)), parts))
    joints, stayed = singular, 0
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = np.concatenate([rng.uniform(-0.02, 0.02, 3), rng.uniform(-0.1, 0.1, 3), [1.0]]).astype(np.float32)
        command = motion.step(action, joints, 0.0, 0.0, joints)
        assert command.joints is not None
        assert np.abs(command.joints - joints).max() <= 0.3 + 1e-9
        stayed += bool(command.alterations & Alteration.LIMIT)
        joints = command.joints
    assert stayed < 60, "it is not stuck there"


@pytest.mark.parametrize("rotation", ["quaternion", "rotation_6d"])
def test_no_rotation_at_all_moves_nothing(profile: Profile, chain: Chain, rotation: str) -> None:
    motion = ActionMapper(with_space(profile, (tool("tool_pose", rotation), GRIPPER)))
    width = 4 if rotation == "quaternion" else 6
    command = step(motion, np.concatenate([[0.5, 0, 0.5], np.zeros(width), [1.0]]).astype(np.float32))
    assert command.alterations & Alteration.LIMIT
    np.testing.assert_allclose(command.joints, READY)
    assert np.isfinite(command.executed).all()


@pytest.mark.parametrize("name", [name for name in SPACES if "observation" in name])
def test_without_the_observation_it_counts_from_nothing_is_moved(profile: Profile, chain: Chain, name: str) -> None:
    motion = ActionMapper(with_space(profile, SPACES[name]))
    action = small_action(SPACES[name], chain.forward(READY), READY)
    first = step(motion, action)
    held = motion.step(action, READY, 0.0, 0.0, None)
    assert held.alterations & Alteration.STALE
    assert held.source == ControlSource.HOLD
    np.testing.assert_allclose(held.joints, first.joints)


@pytest.mark.parametrize(
    ("closed", "open_", "entry", "metres"),
    [(-1, 1, 0.5, 0.0275), (1, -1, 0.5, 0.0025), (0, 1, 0.75, 0.0275), (1, 0, 0.75, 0.0025), (1, 0, 0.0, 0.04)],
)
def test_a_gripper_entry_means_what_its_part_says(
    profile: Profile, closed: float, open_: float, entry: float, metres: float
) -> None:
    parts = (ActionPart("gripper", closed=closed, open=open_), ActionPart("joint_position"))
    motion = ActionMapper(with_space(profile, parts))
    command = step(motion, np.concatenate([[entry], READY]).astype(np.float32))
    assert command.gripper_m == pytest.approx(metres)
    held = motion.brake(Alteration.EMERGENCY_STOP)
    assert held.executed[0] == pytest.approx(entry)
    beyond = step(motion, np.concatenate([[7.0], READY]).astype(np.float32))
    assert beyond.alterations == Alteration.CLIPPED
    assert beyond.executed[0] == max(closed, open_)


def test_what_a_person_led_the_arm_to_is_not_pulled_back_from(profile: Profile, chain: Chain) -> None:
    """A twist counts from where the twist before led. After joint targets in between that is elsewhere."""
    motion = ActionMapper(profile)
    push = TcpTwist(np.array([0.05, 0.0, 0.0]))
    at = motion.follow(push, READY, 0.0).joints
    assert at is not None
    for _ in range(40):
        at = motion.follow(JointTarget(READY + 0.5 * np.eye(7)[0]), at, 0.0).joints
        assert at is not None
    twisted = motion.follow(push, at, 0.0).joints
    assert twisted is not None
    assert np.abs(twisted - at).max() < 0.05


def test_families_have_the_entries_that_their_checkpoints_have(profile: Profile) -> None:
    contracts = {name: with_space(profile, parts).contract for name, parts in families().items()}
    assert [field.name for field in contracts["LIBERO"].action] == [
        "tcp_dx", "tcp_dy", "tcp_dz", "tcp_drx", "tcp_dry", "tcp_drz", "gripper.closing",
    ]  # fmt: skip
    assert {field.unit for field in contracts["LIBERO"].action} == {"0.05 m", "0.5 rad", "1"}
    assert [field.name for field in contracts["Bridge"].action] == [
        f"tcp_d{name}.from_command" for name in ("x", "y", "z", "roll", "pitch", "yaw")
    ] + ["gripper"]
    assert [(field.low, field.high) for field in contracts["DROID"].action] == [(-1.0, 1.0)] * 7 + [(0.0, 1.0)]
    assert contracts["DROID"].action[0].unit == "3 rad/s"


def test_robots_that_mean_different_things_have_different_contracts(profile: Profile) -> None:
    hashes = {name: with_space(profile, parts).contract.hash for name, parts in SPACES.items()}
    assert len(set(hashes.values())) == len(hashes)
    libero = families()["LIBERO"]
    finer = (replace(libero[0], step=0.04), libero[1])
    assert with_space(profile, finer).contract.hash != hashes["LIBERO"]


@pytest.mark.parametrize("word", ["tcp_delta", "joint_position", "joint_delta"])
def test_a_word_and_its_parts_are_one_contract(profile: Profile, word: str) -> None:
    step = 0.1 if word == "tcp_delta" else 0.0
    named = replace(profile, action=word, tcp_step=step)  # type: ignore[arg-type]
    assert named.contract.hash == with_space(profile, named.action_parts).contract.hash


WRONG = {
    "rotation: 'euler' is not one of none, axis_angle": [{"kind": "tool_pose", "rotation": "euler"}],
    "kind: 'pose' is not one of tool_pose": [{"kind": "pose"}],
    "rotation is missing: one of": [{"kind": "tool_delta", "step": 0.02, "turn": 0.1}],
    "step is missing": [{"kind": "tool_delta", "rotation": "axis_angle", "turn": 0.1}],
    "turn 0: needs the largest rotation": [{"kind": "tool_delta", "rotation": "axis_angle", "step": 0.02}],
    "turn 3: needs": [{"kind": "tool_delta", "rotation": "axis_angle", "step": 0.02, "turn": 3.0}],
    "reach 0: needs": [{"kind": "tool_pose", "rotation": "axis_angle", "step": 0.02, "turn": 0.1}],
    "frame means nothing to kind joint_velocity": [{"kind": "joint_velocity", "frame": "tool"}],
    "normalised is for deltas per control period": [
        {"kind": "tool_delta", "rotation": "none", "step": 0.1, "reach": 1.0, "counts_from": "observation"}
        | {"normalised": True}
    ],
    "limit is missing": [{"kind": "joint_delta", "counts_from": "command", "normalised": True}],
    "not for counts_from observation": [{"kind": "joint_delta", "limit": 1.0, "normalised": True}],
    "closed and open must differ": [{"kind": "gripper", "closed": 1.0, "open": 1.0}],
    "action needs one part of kind gripper": [{"kind": "joint_position"}],
    "names joint 'elbow'": [{"kind": "joint_position", "joints": ["elbow"]}, {"kind": "gripper"}],
    "joint 'panda_joint1' has no entry": [
        {"kind": "joint_position", "joints": [f"panda_joint{n}" for n in range(2, 8)]}, {"kind": "gripper"}
    ],
    "joint 'panda_joint2' is commanded by two parts": [
        {"kind": "joint_position"}, {"kind": "joint_velocity", "joints": ["panda_joint2"]}, {"kind": "gripper"}
    ],
    "needs 6 joints that no other part commands, 5 are left": [
        {"kind": "tool_delta", "rotation": "none", "step": 0.1},
        {"kind": "joint_position", "joints": ["panda_joint1", "panda_joint2"]},
        {"kind": "gripper"},
    ],
    "two tool parts": [
        {"kind": "tool_delta", "rotation": "none", "step": 0.1},
        {"kind": "tool_pose", "rotation": "none", "step": 0.1, "reach": 1.0},
        {"kind": "gripper"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_section_is_rejected_by_name(profile_path: Path, tmp_path: Path, said: str) -> None:
    raw = yaml.safe_load(profile_path.read_text())
    del raw["tcp_step"]
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(raw | {"action": WRONG[said]}))
    with pytest.raises(ValueError, match=f"^[^\n]*{re.escape(said)}[^\n]*$"):
        load_profile(path)


def test_turning_is_read_as_scipy_reads_it() -> None:
    """The oracle itself: LIBERO's and Bridge's conventions by hand."""
    np.testing.assert_allclose(turn(np.array([0, 0, np.pi / 2]), "axis_angle").apply([1, 0, 0]), [0, 1, 0], atol=1e-12)
    quarter = turn(np.array([np.pi / 2, 0, np.pi / 2]), "euler_xyz")
    np.testing.assert_allclose(quarter.apply([0, 1, 0]), [0, 0, 1], atol=1e-12)
    assert REACH == 1.0
