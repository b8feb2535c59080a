"""ManiSkill's normalised dense reward and success conditions, from the state vector and a few extra values.

phi is in [0, 1] and 1 exactly at success. Formulas and thresholds are those of ManiSkill 3.0.1
(`mani_skill/envs/tasks/tabletop/`), evaluated in float64 on the float32 state: they agree to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from math import atan2, dist, hypot, pi, tanh
from typing import Protocol

from pirl_contract.schema import Vector
from pirl_sim.maniskill.panda import FINGER_LIMITS, GOAL, OBJECT, QPOS, QVEL, TCP
from pirl_sim.maniskill.tasks import LIFT_PEG_UPRIGHT, PICK_CUBE, PULL_CUBE, PUSH_CUBE, STACK_CUBE

Progress = tuple[float, bool]
"""(phi, success)"""


class Touch(Protocol):
    """What a reward must know of the scene beyond the state; asked only where it counts."""

    def grasped(self) -> bool:
        """Whether the hand holds the object."""

    def speeds(self) -> tuple[float, float]:
        """The object's speed in m/s and its rate of rotation in rad/s."""


CUBE_HALF_SIZE = 0.02
GOAL_RADIUS = 0.1
GOAL_THRESHOLD = 0.025
STATIC_SPEED = 0.2
"""rad/s of the fastest joint"""
RESTING_SPEEDS = (0.01, 0.5)
"""m/s and rad/s of the object"""
ON_TOP_XY = hypot(CUBE_HALF_SIZE, CUBE_HALF_SIZE) + 0.005
ON_TOP_Z = 0.005
REACHED = 0.01
PEG_HALF_LENGTH = 0.12
UPRIGHT_ANGLE = 0.08
"""rad"""
ON_TABLE_Z = 0.005


def _positions(state: Vector) -> tuple[list[float], list[float], list[float]]:
    """Return tool centre, object and goal, [3] each."""
    values = state.tolist()
    return values[TCP][:3], values[OBJECT][:3], values[GOAL]


def push_cube(state: Vector, touch: Touch) -> Progress:
    """PushCube: get behind the cube, then bring it within the disc without lifting it. State [35]."""
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


def pull_cube(state: Vector, touch: Touch) -> Progress:
    """PullCube: get in front of the cube, then bring it within the disc. State [35]."""
    tcp, cube, goal = _positions(state)
    to_goal = hypot(cube[0] - goal[0], cube[1] - goal[1])
    if to_goal < GOAL_RADIUS:
        return 1.0, True
    to_pull = dist((cube[0] + CUBE_HALF_SIZE + 2 * 0.005, cube[1], cube[2]), tcp)
    reward = 1 - tanh(5 * to_pull)
    if to_pull < REACHED:
        reward += 1 - tanh(5 * to_goal)
    return reward / 3, False


def pick_cube(state: Vector, touch: Touch) -> Progress:
    """PickCube: reach, grasp, bring to the goal, hold still. State [35]."""
    tcp, cube, goal = _positions(state)
    speeds = state[QVEL].tolist()[:7]
    to_goal = dist(goal, cube)
    placed = to_goal <= GOAL_THRESHOLD
    if placed and max(map(abs, speeds)) <= STATIC_SPEED:
        return 1.0, True
    reward = 1 - tanh(5 * dist(cube, tcp))
    if touch.grasped():
        reward += 1 + (1 - tanh(5 * to_goal))
    if placed:
        reward += 1 - tanh(5 * hypot(*speeds))
    return reward / 5, False


def stack_cube(state: Vector, touch: Touch) -> Progress:
    """StackCube: reach, grasp, bring above the other cube, let go, leave it at rest. State [35]."""
    tcp, cube, goal = _positions(state)
    grasped = touch.grasped()
    on_top = hypot(cube[0] - goal[0], cube[1] - goal[1]) <= ON_TOP_XY and abs(cube[2] - goal[2]) <= ON_TOP_Z
    if on_top:
        speed, rotation = touch.speeds()
        if not grasped and speed <= RESTING_SPEEDS[0] and rotation <= RESTING_SPEEDS[1]:
            return 1.0, True
        opening = sum(state[QPOS].tolist()[7:]) / (2 * FINGER_LIMITS[1]) if grasped else 1.0
        reward = 6 + (opening + 1 - tanh(10 * speed + rotation)) / 2
    elif grasped:
        reward = 5 - tanh(5 * dist(goal, cube))
    else:
        reward = 2 * (1 - tanh(5 * dist(cube, tcp)))
    return reward / 8, False


def lift_peg_upright(state: Vector, touch: Touch) -> Progress:
    """LiftPegUpright: reach the peg, turn it upright, its lower end on the table. State [35]."""
    tcp, peg, _ = _positions(state)
    w, x, y, z = state[OBJECT].tolist()[3:]
    double = 2 / (w * w + x * x + y * y + z * z)
    # ManiSkill's third Euler angle, of which the peg's own axis is a quarter turn when it stands.
    turn = atan2(double * (w * z - x * y), 1 - double * (y * y + z * z))
    height = abs(peg[2] - PEG_HALF_LENGTH)
    if abs(abs(turn) - pi / 2) < UPRIGHT_ANGLE and height < ON_TABLE_Z:
        return 1.0, True
    reached = 1.0 if touch.grasped() else 1 - tanh(5 * dist(peg, tcp))
    return (abs(double * (x * z - w * y)) + 1 - tanh(5 * height) + reached / 5) / 3, False


PROGRESS: dict[str, Callable[[Vector, Touch], Progress]] = {
    PUSH_CUBE.id: push_cube,
    PULL_CUBE.id: pull_cube,
    PICK_CUBE.id: pick_cube,
    STACK_CUBE.id: stack_cube,
    LIFT_PEG_UPRIGHT.id: lift_peg_upright,
}
"""task id -> its progress function"""
