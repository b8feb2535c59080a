"""A bundle of messages as the contract's observation: order, optional parts, refusals."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pirl_ros.profile.profile import Profile
from pirl_ros.profile.sections import CameraTopic, WrenchTopic
from pirl_ros.sensing.observation import (
    GRIPPER,
    JOINTS,
    camera_images,
    make_synchronizer,
    measured_arm,
    state_vector,
)
from pirl_ros.sensing.synchronizer import Bundle

WRENCH = WrenchTopic("wrist", "ft_sensor/wrench", force=100.0, torque=10.0, rule="asof", max_age=0.1)


def xyz(*values: float) -> SimpleNamespace:
    return SimpleNamespace(x=values[0], y=values[1], z=values[2])


def values_for(profile: Profile) -> dict[str, Any]:
    """Joints in reverse order of the profile, joint i at i, its velocity at 100 + i."""
    names = [joint.name for joint in profile.joints]
    count = range(len(names))
    joints = SimpleNamespace(
        name=names[::-1], position=[float(i) for i in count][::-1], velocity=[100.0 + i for i in count][::-1]
    )
    pose = SimpleNamespace(pose=SimpleNamespace(position=xyz(1, 2, 3), orientation=SimpleNamespace(w=1, x=0, y=0, z=0)))
    wrench = SimpleNamespace(wrench=SimpleNamespace(force=xyz(7, 8, 9), torque=xyz(4, 5, 6)))
    return {JOINTS: joints, "wrench wrist": wrench} | {f"pose {part.name}": pose for part in profile.poses}


def test_state_is_in_the_order_of_the_contract(profile: Profile) -> None:
    robot = replace(profile, wrenches=(WRENCH,))
    state = state_vector(robot, Bundle(0, 0, values_for(robot)))
    by_name = dict(zip((field.name for field in robot.contract.state), state, strict=True))
    for index, joint in enumerate(robot.joints):
        assert by_name[f"{joint.name}.position"] == index
        assert by_name[f"{joint.name}.velocity"] == 100 + index
    assert [by_name[f"goal.{axis}"] for axis in "xyz"] == [1, 2, 3]
    assert [by_name[f"wrist.{part}"] for part in ("fx", "fy", "fz", "tx", "ty", "tz")] == [7, 8, 9, 4, 5, 6]
    assert state.dtype == np.float32


@pytest.mark.parametrize("stream", ["pose tcp", "wrench wrist"])
def test_a_frame_that_the_profile_states_is_kept(profile: Profile, stream: str) -> None:
    poses = tuple(replace(pose, frame="panda_link0" if pose.name == "tcp" else "") for pose in profile.poses)
    robot = replace(profile, poses=poses, wrenches=(replace(WRENCH, frame="panda_link0"),))
    values = values_for(robot)
    for name in ("pose tcp", "wrench wrist"):
        values[name] = SimpleNamespace(**vars(values[name]), header=SimpleNamespace(frame_id="panda_link0"))
    assert state_vector(robot, Bundle(0, 0, values)).size == robot.contract.state_dim
    values[stream].header = SimpleNamespace(frame_id="world")
    with pytest.raises(ValueError, match=f"{stream} is given in frame 'world', the profile says 'panda_link0'.*tf2"):
        state_vector(robot, Bundle(0, 0, values))


def test_a_robot_without_velocities(profile: Profile) -> None:
    robot = replace(profile, velocities=False)
    values = values_for(robot)
    values[JOINTS].velocity = []
    assert state_vector(robot, Bundle(0, 0, values)).size == robot.contract.state_dim == 26
    assert measured_arm(robot, Bundle(0, 0, values)).joints.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_gripper_that_reports_on_its_own(profile: Profile) -> None:
    robot = replace(profile, gripper=replace(profile.gripper, joint_states="hand/joint_states"))
    assert robot.contract.hash == profile.contract.hash, "where a number comes from is no business of the policy's"
    values = values_for(robot)
    merged = state_vector(profile, Bundle(0, 0, values))
    joints = values[JOINTS]
    values[GRIPPER] = SimpleNamespace(name=joints.name[:2], position=joints.position[:2], velocity=joints.velocity[:2])
    values[JOINTS] = SimpleNamespace(name=joints.name[2:], position=joints.position[2:], velocity=joints.velocity[2:])
    np.testing.assert_array_equal(state_vector(robot, Bundle(0, 0, values)), merged)
    with pytest.raises(ValueError, match="lacks panda_finger_joint1"):
        state_vector(profile, Bundle(0, 0, values))


def test_streams_of_a_profile_with_their_rules(profile: Profile) -> None:
    gripper = replace(profile.gripper, joint_states="hand/joint_states")
    sync = make_synchronizer(replace(profile, wrenches=(WRENCH,), gripper=gripper), cameras=True)
    assert sync.silent() == [JOINTS, GRIPPER, "pose tcp", "pose object", "pose goal", "wrench wrist", "camera base"]
    assert [sync._streams[name].rule for name in (JOINTS, GRIPPER, "wrench wrist")] == ["sync", "hold", "asof"]
    assert (sync._streams["wrench wrist"].max_age_s, sync._streams["camera base"].max_age_s) == (0.1, 0.5)
    assert "camera base" not in make_synchronizer(profile, cameras=False).silent()


def test_a_camera_of_another_size_is_refused_and_a_compressed_one_decoded(profile: Profile) -> None:
    cv2 = pytest.importorskip("cv2", reason="compressed images need OpenCV")
    data = cv2.imencode(".png", np.full((4, 6, 3), (1, 2, 3), np.uint8))[1].tobytes()
    bundle = Bundle(0, 0, {"camera base": SimpleNamespace(format="png", data=data)})
    camera = CameraTopic("base", "image", height=4, width=6, compressed=True)
    image = camera_images(replace(profile, cameras=(camera,)), bundle)["base"]
    assert image.tolist() == [[[3, 2, 1]] * 6] * 4
    with pytest.raises(ValueError, match="camera base sends 6x4, the profile says 4x6"):
        camera_images(replace(profile, cameras=(replace(camera, height=6, width=4),)), bundle)
