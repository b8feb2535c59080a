"""Initial states of episodes: ManiSkill's own randomisation for a seed, without the cost of its reset."""

from __future__ import annotations

from typing import Any

import numpy as np

from pirl_sim.maniskill.tasks import LIFT_PEG_UPRIGHT, PICK_CUBE, PULL_CUBE, PUSH_CUBE, STACK_CUBE
from pirl_sim.maniskill.world import World

_REST = np.array([0.0, np.pi / 8, 0, -np.pi * 5 / 8, 0, np.pi * 3 / 4, np.pi / 4, 0.04, 0.04])
"""rad and m, joint positions before noise"""
_JOINT_NOISE = 0.02
_SPAWN_HALF_SIZE = 0.1
_CUBE_HALF_SIZE = 0.02
_PEG_HALF_WIDTH = 0.025
_GOAL_OFFSET = {PUSH_CUBE.id: 0.2, PULL_CUBE.id: -0.2}
"""m, along x, from the cube to the disc"""
_DISC_ROTATION = (np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0)
_MAX_GOAL_HEIGHT = 0.3


def place(world: World, seed: int) -> None:
    """Put robot, object and goal where ManiSkill's `reset(seed)` would, at rest."""
    _place_robot(world, seed)
    object_pose, goal_pose = _poses(world.task.id, seed)
    world.object.set_pose(object_pose)
    world.goal.set_pose(goal_pose)
    for body in world.bodies:
        body.set_linear_velocity(np.zeros(3, np.float32))
        body.set_angular_velocity(np.zeros(3, np.float32))


def _poses(task_id: str, seed: int) -> tuple[Any, Any]:
    """Of the object and of what the goal is, or stands on."""
    others = {PICK_CUBE.id: _picking, STACK_CUBE.id: _stacking, LIFT_PEG_UPRIGHT.id: _lying}
    return others[task_id](seed) if task_id in others else _sliding(task_id, seed)


def _place_robot(world: World, seed: int) -> None:
    joints = np.random.RandomState(seed).normal(0, _JOINT_NOISE, len(_REST)) + _REST
    joints[-2:] = 0.04
    world.robot.set_qpos(joints.astype(np.float32))
    world.robot.set_qvel(np.zeros(len(_REST), np.float32))
    world.robot.set_qf(np.zeros(len(_REST), np.float32))


def _sliding(task_id: str, seed: int) -> tuple[Any, Any]:
    import sapien
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cube = torch.zeros(3)
        cube[:2] = torch.rand((1, 2))[0] * 0.2 - 0.1
    cube[2] = _CUBE_HALF_SIZE
    goal = cube + torch.tensor([_GOAL_OFFSET[task_id], 0, 0])
    goal[2] = 1e-3
    return sapien.Pose(cube.numpy()), sapien.Pose(goal.numpy(), _DISC_ROTATION)


def _picking(seed: int) -> tuple[Any, Any]:
    import sapien
    import torch
    from mani_skill.envs.utils.randomization import random_quaternions

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cube, goal = torch.zeros(3), torch.zeros(3)
        cube[:2] = torch.rand((1, 2))[0] * _SPAWN_HALF_SIZE * 2 - _SPAWN_HALF_SIZE
        cube[2] = _CUBE_HALF_SIZE
        rotation = random_quaternions(1, lock_x=True, lock_y=True)[0]
        goal[:2] = torch.rand((1, 2))[0] * _SPAWN_HALF_SIZE * 2 - _SPAWN_HALF_SIZE
        goal[2] = torch.rand(1)[0] * _MAX_GOAL_HEIGHT + cube[2]
    return sapien.Pose(cube.numpy(), rotation.numpy()), sapien.Pose(goal.numpy())


def _stacking(seed: int) -> tuple[Any, Any]:
    import sapien
    import torch
    from mani_skill.envs.utils.randomization import UniformPlacementSampler, random_quaternions

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = torch.rand((1, 2)) * 0.2 - 0.1
        sampler = UniformPlacementSampler(bounds=[[-0.1, -0.2], [0.1, 0.2]], batch_size=1)
        radius = torch.linalg.norm(torch.tensor([_CUBE_HALF_SIZE] * 2)) + 0.001
        places = [(middle + sampler.sample(radius, 100))[0].tolist() for _ in range(2)]
        turns = [random_quaternions(1, lock_x=True, lock_y=True)[0].numpy() for _ in range(2)]
    red, green = (sapien.Pose([*place, _CUBE_HALF_SIZE], turn) for place, turn in zip(places, turns))
    return red, green


def _lying(seed: int) -> tuple[Any, Any]:
    import sapien
    import torch
    from transforms3d.euler import euler2quat

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peg = torch.zeros(3)
        peg[:2] = torch.rand((1, 2))[0] * 0.2 - 0.1
    peg[2] = _PEG_HALF_WIDTH
    pose = sapien.Pose(peg.numpy(), euler2quat(np.pi / 2, 0, 0))
    return pose, pose
