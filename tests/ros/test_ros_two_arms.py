"""Two arms in one profile: one contract, one governor, one stop. Without ROS, then through its nodes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from driven_arm import HOUR_NS, PERIOD_NS
from real_arm import FINGERS, NAMES, PERIOD_S, READY, WAYS, RealArm, write_profile

from pirl_contract import Alteration, ControlSource
from pirl_ros.adapters.arm_share import ArmShare
from pirl_ros.control.action_mapping import ArmCommand
from pirl_ros.control.arm_executor import ArmExecutor
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.control.control_source import JointTarget, TcpTwist
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.sensing.observation import JOINTS, state_vector
from pirl_ros.sensing.synchronizer import Bundle

ALOHA = Path(__file__).parents[2] / "launch/params/aloha.yaml"
REST = np.array([0.0, -0.6, 0.6, 0.0, 0.3, 0.0] * 2, np.float32).astype(np.float64)
LEFT, RIGHT = slice(0, 6), slice(6, 12)


@pytest.fixture(scope="module")
def aloha() -> Profile:
    return load_profile(ALOHA)


class Arms:
    """Both arms in simulated time; they follow their commands with a lag."""

    def __init__(self, profile: Profile) -> None:
        self.profile, self.executor = profile, ArmExecutor(profile)
        self.joints, self.now_ns, self.sequence = REST.copy(), HOUR_NS, 0
        self.commands: list[Array] = []
        self.sent: list[ArmCommand] = []
        self.outcomes: list[Any] = []
        self.limits = Limits.from_profile(profile)
        self.chains = [Chain.from_table(arm.kinematics) for arm in profile.arms]

    def bundle(self) -> Bundle:
        names = [joint.name for joint in self.profile.joints]
        values = [*self.joints[LEFT], 0.04, *self.joints[RIGHT], 0.03]
        state = SimpleNamespace(name=names, position=values, velocity=[])
        return Bundle(self.now_ns, self.now_ns, {JOINTS: state})

    def run(self, periods: int = 1) -> None:
        for _ in range(periods):
            self.now_ns += PERIOD_NS
            tick = self.executor.tick(self.bundle(), self.now_ns)
            if tick.outcome is not None:
                self.outcomes.append(tick.outcome)
            if tick.command is not None and tick.command.joints is not None:
                self.sent.append(tick.command)
                self.commands.append(tick.command.joints)
                self.joints = self.joints + 0.6 * (tick.command.joints - self.joints)

    def chunk(self, actions: Array) -> str:
        self.sequence += 1
        horizon = len(actions)
        chunk = PlayableChunk("e", self.sequence, f"c{self.sequence}", actions.astype(np.float32), horizon, self.now_ns)
        return self.executor.accept(chunk)

    def sweep(self, count: int, left: float, right: float) -> Array:
        """Waist and elbow of each arm at so many rad/s; the left gripper closes, the right one opens."""
        start = self.commands[-1] if self.commands else self.joints
        ways = np.concatenate([np.array([1, 0, -0.5, 0, 0, 0]) * speed for speed in (left, right)])
        path = start + np.arange(1, count + 1)[:, None] * PERIOD_NS / 1e9 * ways
        grippers = np.tile([[0.0], [1.0]], (1, count))
        return np.column_stack([path[:, LEFT], grippers[0], path[:, RIGHT], grippers[1]])

    def violations(self) -> dict[str, float]:
        return violations(np.array([REST, *self.commands]), self.limits, self.chains)


@pytest.fixture
def arms(aloha: Profile) -> Arms:
    arms = Arms(aloha)
    arms.run()
    arms.executor.begin("e")
    return arms


def test_the_order_is_that_of_aloha(aloha: Profile, arms: Arms) -> None:
    """Left joints, left gripper, right joints, right gripper: 14 of the state, 14 of the action."""
    action, state = ([field.name for field in part] for part in (aloha.contract.action, aloha.contract.state))
    joints = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"]
    sides = ("left", "right")
    assert action == [name for side in sides for name in (*(f"{side}_{j}.target" for j in joints), f"{side}_gripper")]
    assert state == [f"{side}_{name}.position" for side in sides for name in (*joints, "finger")]
    assert {(field.low, field.high) for field in aloha.contract.action if "gripper" in field.name} == {(0.0, 1.0)}
    vector = state_vector(aloha, arms.bundle())
    np.testing.assert_allclose(vector, [*REST[LEFT], 0.04, *REST[RIGHT], 0.03], atol=1e-6)


def test_one_chunk_moves_both_arms_and_both_grippers(arms: Arms) -> None:
    arms.chunk(arms.sweep(60, 0.3, -0.2))
    arms.run(50)
    newest = arms.sent[-1]
    np.testing.assert_allclose(arms.commands[-1][[0, 6]], [50 * 0.3 * 0.02, -50 * 0.2 * 0.02], atol=1e-6)
    assert (newest.gripper_m, *newest.more_grippers_m) == pytest.approx((0.021, 0.057))
    assert arms.outcomes[-1].executed.shape == (14,)
    assert newest.of_arm(1, RIGHT).gripper_m == pytest.approx(0.057)
    np.testing.assert_array_equal(newest.of_arm(1, RIGHT).joints, arms.commands[-1][RIGHT])
    assert arms.violations() == {}


def at_rest(arms: Arms) -> bool:
    return bool((arms.commands[-1] == arms.commands[-2]).all())


STOPS: dict[str, Callable[[Arms], object]] = {
    "emergency stop": lambda arms: arms.executor.emergency_stop("a test", "test"),
    "hold": lambda arms: arms.executor.set_control_source(ControlSource.HOLD, "test"),
    "end": lambda arms: arms.executor.end("e"),
    "one controller gives up": lambda arms: arms.executor.controller_fault("left aborted"),
    "NaN for one arm": lambda arms: arms.chunk(np.where(np.arange(14) == 9, np.nan, arms.sweep(60, 0.5, -0.5))),
}


@pytest.mark.parametrize("way", STOPS)
def test_what_stops_one_arm_stops_both(arms: Arms, way: str) -> None:
    arms.chunk(arms.sweep(200, 1.0, -1.0))
    arms.run(40)
    speed = np.abs(arms.commands[-1] - arms.commands[-2])
    assert (speed[[0, 6]] > 0.015).all(), "both move"
    before = len(arms.commands)
    STOPS[way](arms)
    arms.run(40)
    stop = np.array(arms.commands[before - 1 :])
    ends = [int(np.flatnonzero(np.abs(np.diff(stop[:, joint])) > 0).max()) for joint in (0, 6)]
    assert abs(ends[0] - ends[1]) <= 1, "they come to rest together"
    assert max(ends) < 25
    assert arms.violations() == {}


def test_a_wall_in_front_of_one_arm_leaves_the_other_free(arms: Arms) -> None:
    high = arms.sweep(300, 0.0, 0.2)
    high[:, 1] = np.linspace(REST[1], 1.2, 300)  # the left arm down onto the table
    arms.chunk(high)
    arms.run(280)
    assert any(command.alterations & Alteration.WORKSPACE for command in arms.sent)
    assert arms.violations() == {}
    assert arms.commands[-1][6] > 0.8, "the right arm has got where it was sent"


def test_a_person_moves_both_by_joint_targets_and_neither_by_a_twist(arms: Arms) -> None:
    arms.executor.set_control_source(ControlSource.HUMAN, "test")
    assert "send joint targets" in arms.executor.update_teleop(TcpTwist(np.array([0.1, 0, 0])), arms.now_ns)
    assert "has 6 joints, the arm has 12" in arms.executor.update_teleop(JointTarget(REST[LEFT]), arms.now_ns)
    assert "names 1 grippers, the robot has 2" in arms.executor.update_teleop(JointTarget(REST, 1.0), arms.now_ns)
    for _ in range(60):
        assert arms.executor.update_teleop(JointTarget(REST + 0.1, (None, -1.0)), arms.now_ns) == ""
        arms.run()
    np.testing.assert_allclose(arms.commands[-1], REST + 0.1, atol=1e-6)
    assert arms.sent[-1].more_grippers_m == pytest.approx((0.021,))
    assert arms.sent[-1].gripper_asked == (False, True), "nobody named the left one"
    assert arms.sent[-1].of_arm(0, LEFT).gripper_asked == (False,)
    assert arms.sent[-1].gripper_m == pytest.approx(0.04), "as it is measured"


def test_after_a_lost_controller_the_next_motion_starts_where_the_arms_are(arms: Arms) -> None:
    arms.chunk(arms.sweep(200, 1.0, -1.0))
    arms.run(30)
    arms.executor.controller_fault("left aborted")
    arms.run(40)
    arms.joints = REST + 0.05  # the left arm had held by itself, and a person moved both
    arms.executor.begin("e2")
    arms.run(2)
    arms.sequence += 1
    held = np.insert(np.insert(arms.joints, 12, 1.0), 6, 1.0)
    arms.executor.accept(PlayableChunk("e2", 99, "c", np.tile(held, (9, 1)).astype(np.float32), 9, arms.now_ns))
    arms.run()
    np.testing.assert_allclose(arms.commands[-1], REST + 0.05, atol=1e-6)


@pytest.mark.parametrize("opened", ["engage", "takeover", "episode"])
def test_a_latch_opened_while_the_others_brake_moves_no_arm_that_gave_up_by_a_jump(arms: Arms, opened: str) -> None:
    """It holds where it gave up; the command went on to where both were to come to rest."""
    arms.chunk(arms.sweep(200, 1.5, -1.5))
    arms.run(40)
    arms.executor.controller_fault("left aborted")
    held = arms.joints[LEFT].copy()

    def run(periods: int) -> None:
        for _ in range(periods):
            arms.run()
            if arms.sent[-1].source == ControlSource.HOLD:
                arms.joints[LEFT] = held

    run(3)
    assert not at_rest(arms)
    assert np.abs(arms.commands[-1][LEFT] - held).max() > 0.05, "the command is far ahead of the arm"
    before = len(arms.sent)
    if opened == "takeover":
        assert arms.executor.set_control_source(ControlSource.HUMAN, "test") == ""
    elif opened == "episode":
        arms.executor.begin("e2")
    else:
        assert arms.executor.engage("test") == ""
    for _ in range(60):
        if opened == "takeover":
            target = JointTarget(np.concatenate([held, arms.joints[RIGHT]]), (None, None))
            assert arms.executor.update_teleop(target, arms.now_ns) == ""
        else:
            actions = np.insert(np.insert(np.concatenate([held, arms.joints[RIGHT]]), 12, 1.0), 6, 1.0)
            arms.sequence += 1
            episode = "e2" if opened == "episode" else "e"
            chunk = np.tile(actions, (9, 1)).astype(np.float32)
            arms.executor.accept(PlayableChunk(episode, arms.sequence, f"c{arms.sequence}", chunk, 9, arms.now_ns))
        run(1)
    first = next(n for n in range(before, len(arms.sent)) if arms.sent[n].source != ControlSource.HOLD)
    largest = arms.limits.velocity[LEFT] * arms.limits.period_s
    assert (np.abs(arms.commands[first][LEFT] - held) <= largest).all()
    assert violations(np.array([REST, *arms.commands[:first]]), arms.limits, arms.chains) == {}, "the other arm braked"


class Recorded:
    """A controller that keeps what it is sent."""

    problem, remaining_s = "", 0.0

    def __init__(self) -> None:
        self.sent: list[ArmCommand] = []

    def send(self, command: ArmCommand, ahead: Any) -> Alteration:
        self.sent.append(command)
        return Alteration.NONE

    def rest(self, ahead: Any) -> None: ...
    def renew(self) -> None: ...
    def release(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


def test_a_controller_that_gave_up_is_sent_nothing_while_the_other_brakes(arms: Arms) -> None:
    shares, told = [ArmShare(0, LEFT), ArmShare(1, RIGHT)], list[str]()
    controllers = [Recorded(), Recorded()]
    for share, controller in zip(shares, controllers):
        share.controllers = [controller]
    give_up = shares[0].giving_up(lambda reason: (told.append(reason), arms.executor.controller_fault(reason)))

    def run(periods: int) -> None:
        for _ in range(periods):
            before = len(arms.sent)
            arms.run()
            for command in arms.sent[before:]:
                for share in shares:
                    share.send(command, lambda: None)

    arms.chunk(arms.sweep(200, 1.0, -1.0))
    run(30)
    give_up("left aborted")
    counts = [len(each.sent) for each in controllers]
    run(40)
    assert told == ["left aborted"]
    assert len(controllers[0].sent) == counts[0]
    braking = [command.joints for command in controllers[1].sent[counts[1] :]]
    assert len(braking) > 3
    assert (braking[-1] == braking[-2]).all()  # type: ignore[index, union-attr]
    arms.executor.engage("test")
    run(1)
    arms.chunk(arms.sweep(200, 0.5, 0.5))
    run(3)
    assert len(controllers[0].sent) == counts[0] + 3, "a policy moves it again"


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "'arm' and 'arms': each of several arms has a arm": lambda raw: raw.update(arm={"joints": []}),
    "arms: needs two or more": lambda raw: raw["arms"].pop(),
    "arms[1]: 'kinematics' is missing": lambda raw: raw["arms"][1].pop("kinematics"),
    "safety: 'workspace' and 'arms'": lambda raw: raw["safety"].update(workspace={"low": [0] * 3, "high": [1] * 3}),
    "arm 'middle' of joint_position is not one of left, right": lambda raw: raw["action"][0].update(arm="middle"),
    "arm '' of gripper is not one of left, right": lambda raw: raw["action"][1].pop("arm"),
    "arms: 'left/arm_controller/joint_trajectory' is commanded twice": lambda raw: raw["arms"][1]["command"].update(
        topic="left/arm_controller/joint_trajectory"
    ),
    "arms: 'left/gripper_controller/joint_trajectory' is commanded twice": lambda raw: raw["arms"][1]["gripper"].update(
        topic="left/gripper_controller/joint_trajectory"
    ),
    "two arms are named 'left'": lambda raw: raw["arms"][1].update(name="left"),
    "arm right: action needs one part of kind gripper": lambda raw: raw["action"].pop(),
    "'left_waist' is defined twice": lambda raw: raw["arms"][1]["joints"][0].update(name="left_waist"),
    "arm right: kinematics.joints needs 6 entries": lambda raw: raw["arms"][1]["kinematics"]["joints"].pop(),
    "joints of several arms come on one topic": lambda raw: raw["arms"][0]["gripper"].update(joint_states="hand"),
}


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_profile_is_rejected_by_name(tmp_path: Path, said: str) -> None:
    raw = yaml.safe_load(ALOHA.read_text())
    WRONG[said](raw)
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ValueError, match=f"^[^\n]*{re.escape(said)}[^\n]*$"):
        load_profile(path)


def test_an_arm_of_a_robot_with_one_has_no_name(aloha: Profile) -> None:
    single = aloha.singles[0]
    assert [field.name for field in single.contract.action][-1] == "gripper"
    with pytest.raises(ValueError, match="arm 'left' of joint_position is not one of the robot's: it has one"):
        replace(single, action=aloha.action_parts[:2])


# Through ROS.


def two_pandas(path: Path, kind: str) -> Path:
    """Two of the tests' arm, whose joints, topics and actions begin with left_ and right_."""
    profile = yaml.safe_load(write_profile(path).read_text())
    arms = []
    for side in ("left_", "right_"):
        joints = [joint | {"name": side + joint["name"]} for joint in profile["arm"]["joints"]]
        gripper = dict(profile["gripper"])
        gripper |= {"topic": f"{side}gripper", "command_joint": side + gripper["command_joint"]}
        gripper["joints"] = [finger | {"name": side + finger["name"]} for finger in gripper["joints"]]
        topic = f"{side}follow" if kind.startswith("follow") else f"{side}arm_controller/joint_trajectory"
        arms.append(
            {"name": side.strip("_"), "joints": joints, "gripper": gripper, "command": {"kind": kind, "topic": topic}}
            | {"workspace": profile["safety"]["workspace"], "kinematics": profile["kinematics"]}
        )
    for key in ("arm", "command", "gripper", "kinematics"):
        del profile[key]
    del profile["safety"]["workspace"]
    path.write_text(yaml.safe_dump(profile | {"arms": arms}))
    return path


class RealArms(RealArm):
    """Both arms' process, and the test as their policy."""

    @property
    def both(self) -> Array:
        """[14] as measured last."""
        states = self.probe.seen["joint_states"]
        newest = {side: next(m for m in reversed(states) if m.name[0].startswith(side)) for side in ("left", "right")}
        return np.concatenate([newest[side].position[:7] for side in ("left", "right")])

    def two_chunks(self, speed: float = 0.4, length: int = 60) -> None:
        """Send joint targets [length, 16]; the right arm goes the other way."""
        from pirl_ros.adapters.interfaces import ActionChunk

        self._sequence += 1
        ways = np.arange(1, length + 1)[:, None] * speed * PERIOD_S * WAYS
        both, grippers = self.both, np.ones((length, 1))
        actions = np.hstack([both[:7] + ways, grippers, both[7:] - ways, -grippers]).astype(np.float32)
        message = ActionChunk(episode_id=f"e{self.episode}", sequence=self._sequence, chunk_id=f"c{self._sequence}")
        message.dt, message.horizon, message.action_dim, message.execute_horizon = PERIOD_S, length, 16, length
        message.header.stamp = self.probe.seen["joint_states"][-1].header.stamp
        message.actions = actions.ravel().tolist()
        self._chunks.publish(message)


def stopped(arms: RealArms) -> None:
    """Both arms come to stand: what the node has sent is played to its end first."""
    arms.probe.more("joint_states", 50)
    before = arms.both
    arms.probe.more("joint_states", 20)
    np.testing.assert_allclose(arms.both, before, atol=1e-6)


def commands_of(outcomes: list[Any]) -> Array:
    path = [[*READY, *READY]] * 3
    return np.array(path + [[*outcome.executed[:7], *outcome.executed[8:15]] for outcome in outcomes])


@pytest.mark.ros
def test_both_arms_are_driven_and_stopped_by_one_node(probe: Any, tmp_path: Path) -> None:
    path = two_pandas(tmp_path / "arms.yaml", "joint_trajectory")
    profile = load_profile(path)
    arms = RealArms(probe, "two")
    from trajectory_msgs.msg import JointTrajectory

    probe.listen(JointTrajectory, "left_gripper", "right_gripper")
    arms.start(path, listeners=2)
    arms.two_chunks()
    outcomes = probe.seen["step_outcomes"]
    probe.until(lambda: len(outcomes) > 15, "the chunk is not played")
    moved = arms.both - np.array([*READY, *READY])
    assert moved[0] > 0.1
    assert moved[7] < -0.1
    from pirl_ros.adapters.interfaces import EmergencyStop

    assert probe.call(EmergencyStop, "emergency_stop", source="test", reason="a test").ok
    probe.until(lambda: arms.state.mode == "stopped", "it does not stop")
    stopped(arms)
    commands = commands_of(outcomes)
    beyond = violations(
        commands, Limits.from_profile(profile), [Chain.from_table(arm.kinematics) for arm in profile.arms]
    )
    assert {name: size for name, size in beyond.items() if size > 1e-3} == {}
    ends = [probe.seen[f"{side}_gripper"][-1].points[0].positions[0] for side in ("left", "right")]
    assert ends == pytest.approx([0.04, -0.01], abs=1e-6)
    assert {message.joint_names[0] for message in probe.seen["right_gripper"]} == {f"right_{FINGERS[0]}"}
    assert len(NAMES) == 7


@pytest.mark.ros
def test_when_one_controller_aborts_the_other_arm_is_braked(probe: Any, tmp_path: Path) -> None:
    path = two_pandas(tmp_path / "arms.yaml", "follow_joint_trajectory")
    arms = RealArms(probe, "two", "goals")
    arms.start(path, listeners=2)
    arms.two_chunks()
    arms.wait("goal", "left_follow")
    arms.wait("goal", "right_follow")
    probe.until(lambda: len(probe.seen["step_outcomes"]) > 10, "the chunk is not played")
    arms.order("abort left_follow")
    probe.until(lambda: arms.state.mode == "stopped", "the robot goes on")
    assert "left_follow aborted" in arms.state.reason
    stopped(arms)
    events = [yaml.safe_load(message.data) for message in probe.seen["happened"]]
    aborted = next(n for n, each in enumerate(events) if each["event"] == "abort" and each["action"] == "left_follow")
    goals = [each for each in events[aborted:] if each["event"] == "goal"]
    assert {each["action"] for each in goals} == {"right_follow"}, (
        "the right arm is sent the way to rest, the left nothing"
    )
    np.testing.assert_allclose(goals[-1]["last"], 0.0)
    np.testing.assert_allclose(arms.both[7:], goals[-1]["end"], atol=1e-6)
