"""The camera's constants say where things are in its picture, and a cube is there large enough to be seen."""

from __future__ import annotations

import numpy as np
import pytest

from pirl_contract.schema import Image, Vector
from pirl_sim.maniskill.panda import CAMERA, CAMERA_EYE, CAMERA_FOV, CAMERA_TARGET, OBJECT
from pirl_sim.maniskill.tasks import TASKS, task
from pirl_sim.maniskill.world import World

pytestmark = [pytest.mark.sim, pytest.mark.render]
SIZE = 64


def pixel_of(point: Vector) -> Vector:
    """Column and row of a point of the world frame, by the pinhole model."""
    forward = np.subtract(CAMERA_TARGET, CAMERA_EYE) / np.linalg.norm(np.subtract(CAMERA_TARGET, CAMERA_EYE))
    right = np.cross(forward, (0.0, 0.0, 1.0)) / np.linalg.norm(np.cross(forward, (0.0, 0.0, 1.0)))
    down = np.cross(forward, right)
    ahead = point - np.array(CAMERA_EYE)
    focal = SIZE / 2 / np.tan(CAMERA_FOV / 2)
    return np.array([ahead @ right, ahead @ down]) / (ahead @ forward) * focal + SIZE / 2 - 0.5


def difference(one: Image, other: Image) -> Vector:
    """Where two pictures differ: rows and columns of pixels [M, 2]."""
    return np.argwhere(np.abs(one.astype(int) - other).max(axis=2) > 20)


@pytest.mark.slow
@pytest.mark.parametrize("task_id", [name for name in TASKS if "Cube" in name])
def test_the_object_is_where_the_constants_project_it(task_id: str) -> None:
    world = World(task(task_id), cameras=True, image_size=SIZE)
    for seed in range(3):
        world.gym.reset(seed=seed)
        place = world.state()[OBJECT][:3]
        with_it = world.images()[CAMERA]
        pose = world.object.pose
        pose.p = (0.0, 0.0, -5.0)
        world.object.set_pose(pose)
        pixels = difference(with_it, world.images()[CAMERA])
        middle = (pixels.min(axis=0) + pixels.max(axis=0))[::-1] / 2
        assert np.abs(middle - pixel_of(place)).max() < 2.0, (middle, pixel_of(place))
        assert np.abs(middle - pixel_of(place + np.float32([0.0, 0.03, 0.0]))).max() > 2.0, "it would notice 3 cm"
        assert (np.ptp(pixels, axis=0) >= 4).all(), "at least five pixels across and high"
    world.close()
