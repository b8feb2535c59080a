"""When a controller is sent what: the node behind it is a list of what was published."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from driven_arm import PERIOD_NS, DrivenArm, real_profile

from pirl_contract.schema import Alteration, ControlSource
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import Command

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="rclpy is not importable: pip install 'pirl[ros]' or source an apt ROS 2")

READY = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4])
ROWS = READY + 0.01 * np.arange(5)[:, None]


class Node(SimpleNamespace):
    """Keeps what is published, by topic."""

    def __init__(self) -> None:
        super().__init__(sent={})

    def create_publisher(self, kind: Any, topic: str, qos_profile: Any, **options: Any) -> Any:
        return SimpleNamespace(publish=self.sent.setdefault(topic, []).append)

    def get_clock(self) -> Any:
        from builtin_interfaces.msg import Time

        stamp = Time(sec=1, nanosec=500_000_000)
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=1_500_000_000, to_msg=lambda: stamp))


def command(joints: np.ndarray | None) -> Any:
    from pirl_ros.control.action_mapping import ArmCommand

    executed = np.zeros(4, np.float32)
    return ArmCommand(joints, 0.02, executed, Alteration.NONE, ControlSource.POLICY)


def ahead() -> Any:
    from pirl_ros.control.lookahead import Ahead

    return Ahead(ROWS, np.zeros_like(ROWS), 0.05, ROWS[0])


def make(profile: Profile, **changes: Any) -> tuple[Node, list[Any]]:
    from pirl_ros.adapters.controllers import make_controllers

    node = Node()
    return node, make_controllers(node, replace(profile, **changes), dry_run=False, gave_up=print)


def test_a_chunk_is_sent_once_as_long_as_it_is_followed(profile: Profile) -> None:
    node, (arm, _) = make(profile, tick="timer")
    for row in ROWS:
        arm.send(command(row), ahead)
    [message] = node.sent[profile.command.topic]
    assert message.joint_names == [joint.name for joint in profile.arm.joints]
    np.testing.assert_allclose([point.positions for point in message.points], ROWS)
    spans = [point.time_from_start.sec + point.time_from_start.nanosec / 1e9 for point in message.points]
    np.testing.assert_allclose(spans, 0.05 * np.arange(1, 6))
    assert not np.any(message.points[-1].velocities), "it ends at rest"


@pytest.mark.parametrize("why", ["deviation", "new chunk"])
def test_what_no_longer_holds_is_sent_anew(profile: Profile, why: str) -> None:
    node, (arm, _) = make(profile, tick="timer")
    arm.send(command(ROWS[0]), ahead)
    if why == "new chunk":
        arm.renew()
    arm.send(command(ROWS[1] + (0.001 if why == "deviation" else 0.0)), ahead)
    assert len(node.sent[profile.command.topic]) == 2


def test_an_arm_in_lock_step_gets_each_command_by_itself(profile: Profile) -> None:
    node, (arm, gripper) = make(profile)
    for row in ROWS[:2]:
        arm.send(command(row), ahead)
        gripper.send(command(row), ahead)
    assert [len(message.points) for message in node.sent[profile.command.topic]] == [1, 1]
    assert [message.points[0].positions[0] for message in node.sent[profile.gripper.topic]] == [0.02, 0.02]


def test_positions_and_twists_go_out_every_period(profile: Profile) -> None:
    for given in (Command("forward_position", "there"), Command("servo_twist", "there", frame="panda_link0")):
        node, (arm, _) = make(profile, tick="timer", command=given)
        for row in ROWS:
            arm.send(command(row), ahead)
        assert len(node.sent["there"]) == len(ROWS)


def test_what_is_stamped_has_the_nodes_time_and_the_profiles_frame(profile: Profile) -> None:
    node, (arm, _) = make(profile, tick="timer", command=Command("servo_twist", "there", frame="panda_link0"))
    arm.send(command(ROWS[0]), ahead)
    arm.send(command(ROWS[1]), ahead)
    arm.rest(ahead)
    headers = [message.header for message in node.sent["there"]]
    assert [(header.frame_id, header.stamp.sec, header.stamp.nanosec) for header in headers] == [
        ("panda_link0", 1, 500_000_000)
    ] * len(headers)
    node, (arm, _) = make(profile, tick="timer")
    arm.send(command(ROWS[0]), ahead)
    [plan] = node.sent[profile.command.topic]
    assert (plan.header.stamp.sec, plan.header.stamp.nanosec) == (0, 0), "from now on, by the controller's clock"


SPACES = {
    "gripper first": ("[gripper, joints]", 1.0, 0.04),
    "gripper first, closing": ("[gripper, joints]", -1.0, -0.01),
    "1 closes": ("[joints, closing gripper]", 1.0, -0.01),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_goal_is_the_grippers_own_entry_wherever_it_stands(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from pirl_ros.adapters import gripper_controllers
    from pirl_ros.control.action_mapping import ActionMapper
    from pirl_ros.profile.action_parts import ActionPart

    goals: list[float] = []
    client = SimpleNamespace(ready=True, send=lambda goal: goals.append(goal.command.position))
    monkeypatch.setattr(gripper_controllers, "LatestGoalClient", lambda *_: client)
    goal = SimpleNamespace(Goal=lambda: SimpleNamespace(command=SimpleNamespace()))
    monkeypatch.setattr(gripper_controllers, "control_action", lambda _: goal)
    order, entry, position = SPACES[name]
    joints = ActionPart("joint_position")
    parts = (
        (joints, ActionPart("gripper", closed=1.0, open=0.0)) if "closing" in order else (ActionPart("gripper"), joints)
    )
    gripper = replace(profile.gripper, kind="gripper_command", settle=0.0)
    grasping = replace(profile, action=parts, tcp_step=0.0, gripper=gripper)
    controller = gripper_controllers.GripperGoals(Node(), grasping)
    values = [*READY, entry] if "closing" in order else [entry, *READY]
    # The joint at the other end of the action is beyond the band either way: it must move no gripper.
    sent = ActionMapper(grasping).step(np.array(values, np.float32), READY, 0.0, 0.0, READY)
    controller.send(sent, ahead)
    assert goals == pytest.approx([position])


def test_an_arm_whose_messages_cease_to_fit_is_braked_and_not_left_without_commands(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pose that comes in another frame, for instance: without a command a position controller stops at once."""
    from pirl_ros.nodes import arm_node

    robot = real_profile(profile)
    arm = DrivenArm(replace(robot, poses=tuple(replace(pose, frame="base") for pose in robot.poses)))
    monkeypatch.setattr(arm_node, "time", SimpleNamespace(monotonic_ns=lambda: arm.now_ns))
    header = SimpleNamespace(frame_id="base")

    def newest() -> tuple[Any, str]:
        bundle = arm.bundle()
        for name, message in bundle.values.items():
            if name.startswith("pose"):
                message.header = header
        return bundle, ""

    def follow(tick: Any) -> None:
        arm.ticks.append(tick)
        if tick.command is not None:
            arm.joints = arm.joints + 0.6 * (tick.command.joints - arm.joints)

    streams, sensors = SimpleNamespace(newest=newest), SimpleNamespace(take=lambda: None)
    node = SimpleNamespace(
        _by_state=False, _sensors=sensors, _streams=streams, active=True, _arm=arm.executor, _send=follow
    )

    def run(periods: int) -> None:
        for _ in range(periods):
            arm.now_ns += PERIOD_NS
            arm_node.ArmNode._tick(node)
            reasons.add(node._reason)

    reasons: set[str] = set()
    run(2)
    arm.executor.begin("e")
    arm.chunk(arm.sweep(50))
    run(20)
    moving, count = arm.commands[-1] - arm.commands[-2], len(arm.commands)
    assert np.abs(moving).max() > 0.005
    header.frame_id = "elsewhere"
    run(40)
    assert any("'elsewhere'" in reason for reason in reasons)
    assert len(arm.commands) > count + 3
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])
    assert arm.violations() == {}
    stopping = np.array(arm.commands[count - 1 :])
    assert (np.abs(np.diff(stopping, axis=0)).max(axis=1) <= np.abs(moving).max() + 1e-9).all(), "it only slows down"


def test_without_a_command_nothing_is_sent(profile: Profile) -> None:
    kinds: list[Callable[[], Command]] = [
        lambda: profile.command,
        lambda: Command("forward_position", "there"),
        lambda: Command("servo_twist", "there", frame="panda_link0"),
    ]
    for kind in kinds:
        node, controllers = make(profile, tick="timer", command=kind())
        for controller in controllers:
            controller.send(command(None), ahead)
        assert not any(node.sent.values())


def test_a_dry_run_shows_each_plan_and_commands_nothing(profile: Profile) -> None:
    from pirl_ros.adapters.controllers import make_controllers

    node = Node()
    [plan] = make_controllers(node, profile, dry_run=True, gave_up=print)
    for row in ROWS:
        plan.send(command(row), ahead)
    plan.renew()
    plan.send(command(ROWS[1]), ahead)
    plan.send(command(None), ahead)
    plan.rest(ahead)
    assert set(node.sent) == {"~/planned"}, "no controller's topic"
    assert len(node.sent["~/planned"]) == 2, "one for each chunk"
    first = node.sent["~/planned"][0]
    np.testing.assert_allclose([point.positions for point in first.points], ROWS)
    assert (first.header.stamp.sec, first.header.frame_id) == (1, profile.base_frame)


def test_a_robot_with_two_arms_shows_both_plans_and_both_boxes() -> None:
    from pirl_ros.adapters.controllers import make_controllers
    from pirl_ros.adapters.workspace_marker import WorkspaceMarker

    aloha = load_profile(Path(__file__).parents[2] / "launch" / "params" / "aloha.yaml")
    names = [joint.name for joint in aloha.arm_joints]
    rows, node = np.zeros((3, len(names))), Node()
    [plan] = make_controllers(node, aloha, dry_run=True, gave_up=print)
    plan.send(command(rows[0]), lambda: replace(ahead(), positions=rows, before=rows[0]))
    [message] = node.sent["~/planned"]
    assert message.joint_names == names
    assert [len(point.positions) for point in message.points] == [len(names)] * 3
    for single in aloha.singles:
        WorkspaceMarker(node, single).publish()
    left, right = node.sent["~/workspace"]
    assert (left.ns, left.id) != (right.ns, right.id), "one would take the other's place in RViz"


def test_the_workspace_is_drawn_as_its_box(profile: Profile) -> None:
    from pirl_ros.adapters.workspace_marker import WorkspaceMarker

    node = Node()
    WorkspaceMarker(node, profile).publish()
    [marker] = node.sent["~/workspace"]
    box, centre, size = profile.safety.workspace, marker.pose.position, marker.scale
    corners = [[getattr(centre, axis) + side * getattr(size, axis) / 2 for axis in "xyz"] for side in (-1, 1)]
    np.testing.assert_allclose(corners, [box.low, box.high], atol=1e-12)
    assert (marker.type, marker.header.frame_id) == (marker.CUBE, "panda_link0")
    assert 0 < marker.color.a < 1, "what is within is seen"
    unnamed = replace(profile, kinematics=replace(profile.kinematics, frame=""))
    node = Node()
    WorkspaceMarker(node, unnamed).publish()
    assert not node.sent["~/workspace"], "no frame, no box"


def test_an_action_without_its_package_is_refused_in_words(profile: Profile) -> None:
    if importlib.util.find_spec("control_msgs") is not None:
        pytest.skip("control_msgs is there: nothing is refused")
    with pytest.raises(ValueError, match="control_msgs"):
        make(profile, command=Command("follow_joint_trajectory", "there"))
