"""The simulated arm: ManiSkill's pd_joint_pos physics, held targets, a latched success, frames for a driver's table."""

from __future__ import annotations

import numpy as np
import pytest

from pirl_sim.maniskill.experts import expert_action
from pirl_sim.maniskill.panda import ARM_LIMITS, BASE_POSITION, JOINTS, TCP_IN_HAND
from pirl_sim.maniskill.sim_robot import SimRobot, make_robot
from pirl_sim.maniskill.tasks import task
from pirl_sim.maniskill.world import World

pytestmark = [pytest.mark.sim]


@pytest.fixture
def robot() -> SimRobot:
    """Without renderer: nothing here looks at pictures, except the test that says so."""
    return SimRobot(World(task("PushCube-v1"), cameras=False, image_size=64), image_size=64)


def test_joint_targets_move_it_as_maniskill_moves_it(robot: SimRobot) -> None:
    import torch

    reference = World(task("PushCube-v1"), cameras=False, image_size=64, control_mode="pd_joint_pos")
    reference.gym.reset(seed=4)
    robot.reset(4)
    np.testing.assert_array_equal(robot.state, reference.state())
    rng, start = np.random.default_rng(0), robot.joint_positions[:7]
    target = start.copy()
    for _ in range(40):
        target = np.clip(target + rng.normal(0, 0.05, 7), *ARM_LIMITS.T).astype(np.float32)
        gripper = float(rng.uniform(-1, 1))
        robot.step(target, gripper)
        with torch.inference_mode():
            reference.gym.step(np.append(target, np.float32(gripper)))
        np.testing.assert_allclose(robot.state, reference.state(), atol=1e-6)
    assert np.abs(robot.joint_positions[:7] - start).max() > 0.1
    reference.close(), robot.close()


def test_without_new_targets_it_holds_the_last(robot: SimRobot) -> None:
    robot.reset(0)
    target = robot.joint_positions[:7] + np.float32(0.1)
    robot.step(target, -1.0)
    for _ in range(40):
        robot.step(None, None)
    np.testing.assert_allclose(robot.joint_positions[:7], target, atol=2e-3)
    assert robot.joint_positions[7:].max() < 1e-3, "the gripper closed and stayed closed"
    assert np.abs(robot.joint_velocities[:7]).max() < 1e-2
    robot.close()


def test_success_is_latched_until_reset(robot: SimRobot) -> None:
    """Driven by the expert through the arm's own inverse kinematics; then the cube is pushed on, off the disc."""
    robot.reset(0)
    for _ in range(20):
        action = expert_action("PushCube-v1", robot.state)
        robot._arm.move_tcp(action[:3])
        robot.step(None, float(action[3]))
    assert robot.success
    robot._world.object.set_pose(robot._world.robot.links[0].entity.pose)
    robot.step(None, None)
    assert robot.success
    assert robot.reset(1) in task("PushCube-v1").instructions
    assert not robot.success
    robot.close()


def test_bad_targets_are_refused_and_far_ones_clamped(robot: SimRobot) -> None:
    robot.reset(0)
    before = robot.state
    for targets, gripper in (([np.nan] * 7, 0.0), ([0.0] * 6, 0.0), (None, np.inf)):
        with pytest.raises(ValueError, match=r"finite|shape|number"):
            robot.step(targets if targets is None else np.float32(targets), gripper)
    np.testing.assert_array_equal(robot.state, before)
    robot.step(np.full(7, 99.0, np.float32), None)
    targets = [float(joint.drive_target[0]) for joint in robot._world.joints[:7]]
    np.testing.assert_allclose(targets, ARM_LIMITS[:, 1], atol=1e-6)
    robot.close()


def test_frames_are_the_documented_ones(robot: SimRobot) -> None:
    """Base pose and tool offset, which the robot side's kinematic table relies on."""
    poses = {link.name.split("_panda_")[1]: link.entity.pose for link in robot._world.robot.links}
    np.testing.assert_allclose(poses["link0"].p, BASE_POSITION, atol=1e-6)
    np.testing.assert_allclose(poses["link0"].q, [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose((poses["hand"].inv() * poses["hand_tcp"]).p, TCP_IN_HAND, atol=1e-6)
    hand = poses["link7"].inv() * poses["hand"]
    np.testing.assert_allclose(hand.p, [0, 0, 0.107], atol=1e-6)
    np.testing.assert_allclose(hand.q, [np.cos(np.pi / 8), 0, 0, -np.sin(np.pi / 8)], atol=1e-6)
    np.testing.assert_allclose(robot.tcp_pose[:3], poses["hand_tcp"].p)
    assert robot.joint_names == JOINTS
    robot.close()


def test_limits_are_the_simulators(robot: SimRobot) -> None:
    np.testing.assert_allclose(robot._world.robot.qlimits[:7], ARM_LIMITS, atol=1e-6)
    robot.close()


@pytest.mark.render
def test_it_has_pictures_and_a_contract_that_describes_them() -> None:
    robot = make_robot("PickCube-v1", image_size=48)
    images = robot.images()
    assert {name: image.shape for name, image in images.items()} == {
        camera.name: (camera.height, camera.width, 3) for camera in robot.contract.cameras
    }
    assert images["base"].dtype == np.uint8
    assert images["base"].std() > 10
    robot.close()
    robot.close()


@pytest.mark.render
def test_what_stands_still_is_rendered_once_and_what_moves_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A robot that waits for its next episode publishes images all the while."""
    robot = make_robot("StackCube-v1")
    render, rendered = robot._world.images, []

    def watched() -> dict[str, np.ndarray]:
        rendered.append(render())
        return rendered[-1]

    monkeypatch.setattr(robot._world, "images", watched)

    def shown() -> bool:
        """Whether the image was rendered anew; in either case it is the one of now."""
        before = len(rendered)
        image = robot.images()["base"]
        np.testing.assert_array_equal(image, render()["base"])
        image[:] = 0  # the caller's own
        return len(rendered) > before

    def comes_to_rest() -> None:
        for _ in range(60):
            robot.step(None, None)
        robot.images()

    assert shown()
    comes_to_rest()
    for _ in range(3):
        robot.step(None, None)
        assert not shown(), "held"
    robot.step(robot.joint_positions[:7] + 0.1, None)
    assert shown()
    comes_to_rest()
    assert not shown()
    for thing in (robot._world.object, robot._world.goal):
        pose = thing.pose
        pose.set_q([np.cos(0.2), 0.0, 0.0, np.sin(0.2)])
        thing.set_pose(pose)
        assert shown(), "turned where it stood"
    robot.reset(5)
    assert shown()
    assert len({image["base"].tobytes() for image in rendered}) > 5, "these images differ"
    robot.close()
