"""Settings of foreign controllers: the shipped files hold what is asked of them, and their defaults do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import Command

pytest.importorskip("rclpy", reason="rclpy is not importable: pip install 'pirl[ros]' or source an apt ROS 2")
pytestmark = pytest.mark.ros

CONTROLLERS = Path(__file__).parents[2] / "launch" / "controllers"
SERVO = Command("servo_twist", "servo_node/delta_twist_cmds", frame="panda_link0")
PLAN = Command("joint_trajectory", "arm_controller/joint_trajectory")
DEFAULTS = {
    "moveit_servo.command_in_type": "unitless",
    "moveit_servo.incoming_command_timeout": 0.1,
    "moveit_servo.scale.linear": 0.4,
    "moveit_servo.scale.rotational": 0.8,
    "interpolate_from_desired_state": False,
}
"""of moveit_servo and joint_trajectory_controller, as their parameter descriptions state them"""


def robot(profile: Profile, command: Command, **changes: Any) -> Profile:
    return replace(profile, tick="timer", command=command, **changes)


def flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def shipped(file: str, node: str) -> dict[str, Any]:
    return flat(yaml.safe_load((CONTROLLERS / file).read_text())[node]["ros__parameters"])


def misfits(profile: Profile, values: dict[str, Any]) -> list[str]:
    from pirl_ros.adapters.controller_settings import wanted_settings

    return [each.name for each in wanted_settings(profile) if each.name in values and not each.fits(values[each.name])]


def test_the_shipped_settings_fit_and_the_defaults_do_not(profile: Profile) -> None:
    servo, plan = robot(profile, SERVO), robot(profile, PLAN)
    assert misfits(servo, shipped("moveit_servo.yaml", "servo_node")) == []
    assert misfits(plan, shipped("joint_trajectory_controller.yaml", "arm_controller")) == []
    assert misfits(servo, DEFAULTS) == [
        "moveit_servo.command_in_type", "moveit_servo.scale.linear", "moveit_servo.scale.rotational",
    ]  # fmt: skip
    assert misfits(plan, DEFAULTS) == ["interpolate_from_desired_state"]
    assert misfits(plan, {"open_loop_control": False}) == ["open_loop_control"], "on Humble"


def test_servo_must_outlast_two_control_periods(profile: Profile) -> None:
    slow = robot(profile, SERVO, rate_hz=10.0)
    assert "moveit_servo.incoming_command_timeout" in misfits(slow, DEFAULTS)
    assert "moveit_servo.incoming_command_timeout" not in misfits(robot(profile, SERVO), DEFAULTS)


def test_the_file_is_the_one_of_the_profiles_topic() -> None:
    values = shipped("moveit_servo.yaml", "servo_node")
    node, _, topic = SERVO.topic.partition("/")
    assert node in yaml.safe_load((CONTROLLERS / "moveit_servo.yaml").read_text())
    assert values["moveit_servo.cartesian_command_in_topic"] == f"~/{topic}"
    assert values["moveit_servo.scale.linear"] >= SERVO.max_linear_speed
    assert "switch_command_type" in (CONTROLLERS / "moveit_servo.yaml").read_text()


def test_nothing_is_asked_of_what_we_know_nothing_of(profile: Profile) -> None:
    from pirl_ros.adapters.controller_settings import wanted_settings

    assert wanted_settings(profile) == (), "in lock-step with its states"
    assert wanted_settings(robot(profile, replace(PLAN, topic="joint_trajectory"))) == (), "no controller's name"
    assert wanted_settings(robot(profile, replace(PLAN, kind="forward_position"))) == ()


@pytest.mark.parametrize("fits", [True, False])
def test_a_servo_node_that_reads_twists_as_unitless_is_named(probe: Any, profile: Profile, fits: bool) -> None:
    from rclpy.node import Node

    from pirl_ros.adapters.controller_settings import ControllerSettings

    servo = Node("servo_node", namespace=probe.namespace)
    servo.declare_parameter("moveit_servo.command_in_type", "speed_units" if fits else "unitless")
    servo.declare_parameter("moveit_servo.incoming_command_timeout", 0.1)
    probe.executor.add_node(servo)
    settings = ControllerSettings(probe.node, robot(profile, SERVO))
    answers = 0
    answered = settings._answered

    def count(*given: Any) -> None:
        nonlocal answers
        answers += 1
        answered(*given)

    settings._answered = count  # type: ignore[method-assign]
    probe.until(lambda: settings.look() or answers == 4, "the settings are not read")
    assert ("set moveit_servo.command_in_type: speed_units" in settings.problem) is not fits
    assert "timeout" not in settings.problem
    assert "scale." not in settings.problem, "what a node hides is taken to be right"
    servo.destroy_node()
