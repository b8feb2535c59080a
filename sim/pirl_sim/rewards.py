"""ManiSkill's normalised dense reward and success conditions, from the state vector alone.

phi is in [0, 1] and 1 exactly at success. Formulas and thresholds are those of ManiSkill 3.0.1
(`mani_skill/envs/tasks/tabletop/`), evaluated in float64 on the float32 state: they agree to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from math import dist, hypot, tanh

from pirl_contract.schema import Vector
from pirl_sim.panda import GOAL, OBJECT, QVEL, TCP
from pirl_sim.tasks import PICK_CUBE, PULL_CUBE, PUSH_CUBE

Progress = tuple[float, bool]
"""(phi, success)"""
Grasped = Callable[[], bool]

CUBE_HALF_SIZE = 0.02
GOAL_RADIUS = 0.1
GOAL_THRESHOLD = 0.025
STATIC_SPEED = 0.2
REACHED = 0.01


def _positions(state: Vector) -> tuple[list[float], list[float], list[float]]:
    """Return tool centre, object and goal, [3] each."""
    values = state.tolist()
    return values[TCP][:3], values[OBJECT][:3], values[GOAL]


def push_cube(state: Vector, grasped: Grasped) -> Progress:
    """PushCube: get behind the cube, then bring it within the disc without lifting it."""
    tcp, cube, goal = _positions(state)
    to_goal = hypot(cube[0] - goal[0], cube[1] - goal[1])
    if to_goal < GOAL_RADIUS and cube[2] < CUBE_HALF_SIZE + 5e-3:
        return 1.0, True
    to_push = dist((cube[0] - CUBE_HALF_SIZE - 0.005, cube[1], cube[2]), tcp)
    reward = 1 - tanh(5 * to_push)
    if to_push < REACHED:
        place = 1 - tanh(5 * to_goal)
        reward += place * (1 + (1 - tanh(5 * abs(cube[2] - CUBE_HALF_SIZE))))
    return reward / 4, False


def pull_cube(state: Vector, grasped: Grasped) -> Progress:
    """PullCube: get in front of the cube, then bring it within the disc."""
    tcp, cube, goal = _positions(state)
    to_goal = hypot(cube[0] - goal[0], cube[1] - goal[1])
    if to_goal < GOAL_RADIUS:
        return 1.0, True
    to_pull = dist((cube[0] + CUBE_HALF_SIZE + 2 * 0.005, cube[1], cube[2]), tcp)
    reward = 1 - tanh(5 * to_pull)
    if to_pull < REACHED:
        reward += 1 - tanh(5 * to_goal)
    return reward / 3, False


def pick_cube(state: Vector, grasped: Grasped) -> Progress:
    """PickCube: reach, grasp, bring to the goal, hold still."""
    tcp, cube, goal = _positions(state)
    speeds = state[QVEL].tolist()[:7]
    to_goal = dist(goal, cube)
    placed = to_goal <= GOAL_THRESHOLD
    if placed and max(map(abs, speeds)) <= STATIC_SPEED:
        return 1.0, True
    reward = 1 - tanh(5 * dist(cube, tcp))
    if grasped():
        reward += 1 + (1 - tanh(5 * to_goal))
    if placed:
        reward += 1 - tanh(5 * hypot(*speeds))
    return reward / 5, False


PROGRESS: dict[str, Callable[[Vector, Grasped], Progress]] = {
    PUSH_CUBE.id: push_cube,
    PULL_CUBE.id: pull_cube,
    PICK_CUBE.id: pick_cube,
}
"""task id -> its progress function"""
