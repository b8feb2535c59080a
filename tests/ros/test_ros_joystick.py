"""Takeover by joystick over processes: the change of hands in both directions, judged by what was commanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_arm import RealArm, broken_limits, commanded, write_profile

pytestmark = pytest.mark.ros

DEADMAN, CLOSE = 4, 0


def pad(y: float = 0.0, deadman: bool = True, close: bool = False) -> Any:
    from sensor_msgs.msg import Joy

    buttons = [0] * 8
    buttons[DEADMAN], buttons[CLOSE] = int(deadman), int(close)
    return Joy(axes=[y, 0.0, 0.0, 0.0, 0.0, 0.0], buttons=buttons)


@pytest.mark.slow
def test_a_joystick_takes_over_and_hands_back_without_a_jerk(probe: Any, tmp_path: Path) -> None:
    from sensor_msgs.msg import Joy
    from std_srvs.srv import Trigger
    from trajectory_msgs.msg import JointTrajectory

    from pirl_ros.adapters import qos

    profile = write_profile(tmp_path / "arm.yaml")
    probe.listen(JointTrajectory, "arm_controller/joint_trajectory", "gripper_controller/joint_trajectory")
    arm = RealArm(probe)
    arm.start(profile, joy_speed=0.2)
    joy = probe.publisher(Joy, "joy", qos.COMMAND)
    outcomes, grips = probe.seen["step_outcomes"], probe.seen["gripper_controller/joint_trajectory"]

    def send(message: Any) -> None:
        message.header.stamp = probe.node.get_clock().now().to_msg()
        joy.publish(message)

    def pushed(count: int, message: Any) -> list[Any]:
        """Keep the pad so until `count` more steps are reported as the human's."""
        mine = lambda: [o for o in outcomes if o.source == o.SOURCE_HUMAN]  # noqa: E731
        before = len(mine())
        probe.until(lambda: send(message) or len(mine()) >= before + count, "no step of the human's")
        return mine()[before:]

    arm.chunk(speed=0.6)
    probe.until(lambda: len(outcomes) > 8, "nothing is played")
    send(pad(1.0))
    probe.more("safety_state", 2)
    assert not any(o.source == o.SOURCE_HUMAN for o in outcomes), "a joystick alone takes nothing over"
    assert probe.call(Trigger, "arm_node/takeover").success
    pushed(15, pad(1.0))
    assert pushed(5, pad(1.0, close=True))[-1].executed[7] == -1.0
    assert grips[-1].points[0].positions[0] == pytest.approx(-0.01)
    # The deadman let go: what the axes say counts no more.
    probe.until(lambda: send(pad(1.0, deadman=False)) or arm.state.mode == "holding", "it goes on without a hand")
    probe.more("joint_states", 10)
    stands = arm.joints
    probe.more("joint_states", 5)
    np.testing.assert_allclose(arm.joints, stands, atol=1e-4)
    pushed(5, pad(-1.0))
    assert probe.call(Trigger, "arm_node/hand_back").success
    probe.until(lambda: arm.state.mode == "holding", "it waits for no chunk")
    before = len(outcomes)
    arm.chunk(speed=-0.6)
    probe.until(lambda: sum(bool(o.chunk_id) for o in outcomes[before:]) > 10, "the policy does not play on")

    commands = commanded(outcomes)
    assert broken_limits(profile, commands) == {}
    # The check can fail: a hand that took the arm up where it had been eight steps before.
    assert "velocity" in broken_limits(profile, np.vstack([commands[:20], commands[12:]]))
