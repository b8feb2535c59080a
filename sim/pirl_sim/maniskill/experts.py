"""Scripted experts: the next action from the full state of the simulator (object and goal included).

Each is a function of the current state only, so it also answers for states that noise has led to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pirl_contract.schema import Vector
from pirl_sim.maniskill.panda import ACTION_DIM, GOAL, GRIPPER, OBJECT, QPOS, TCP, TCP_DELTA, TCP_STEP_LIMIT
from pirl_sim.maniskill.rewards import PEG_HALF_LENGTH
from pirl_sim.maniskill.tasks import LIFT_PEG_UPRIGHT, PICK_CUBE, PULL_CUBE, PUSH_CUBE, STACK_CUBE, task

OPEN, CLOSED = 1.0, -1.0
_FINGERS = slice(7, 9)
_GAIN = 1.5
"""the arm makes good only part of a commanded step, so ask for more than the distance left"""
_FIRM, _LOOSE = -0.05, 0.15
"""openings between which the peg slips: it turns in the fingers under its own weight, and is carried nevertheless"""


def push_cube(state: Vector) -> Vector:
    """Go behind the cube above the table, go down, push along x until it lies on the disc. State [35] to action [4]."""
    tcp, cube, goal = state[TCP][:3], state[OBJECT][:3], state[GOAL]
    behind_x = cube[0] - 0.055
    if tcp[0] < cube[0] - 0.015 and abs(tcp[1] - cube[1]) < 0.015 and tcp[2] < 0.045:
        # Aim past the disc's near edge: a slow finish would spend the time limit.
        return _towards(tcp, (goal[0], cube[1], 0.02), CLOSED)
    if np.hypot(tcp[0] - behind_x, tcp[1] - cube[1]) < 0.015:
        return _towards(tcp, (behind_x, cube[1], 0.02), CLOSED)
    return _towards(tcp, (behind_x, cube[1], 0.09), CLOSED)


def pull_cube(state: Vector) -> Vector:
    """Go beyond the cube above the table, go down, drag it back along x until it lies on the disc.

    State [35] to action [4].
    """
    tcp, cube, goal = state[TCP][:3], state[OBJECT][:3], state[GOAL]
    beyond_x = cube[0] + 0.055
    if tcp[0] > cube[0] + 0.015 and abs(tcp[1] - cube[1]) < 0.015 and tcp[2] < 0.045:
        return _towards(tcp, (goal[0], cube[1], 0.02), CLOSED)
    if np.hypot(tcp[0] - beyond_x, tcp[1] - cube[1]) < 0.015:
        return _towards(tcp, (beyond_x, cube[1], 0.02), CLOSED)
    return _towards(tcp, (beyond_x, cube[1], 0.09), CLOSED)


def pick_cube(state: Vector) -> Vector:
    """Go above the cube with open fingers, go down, close, carry it to the goal, keep still there.

    State [35] to action [4].
    """
    tcp, cube, goal = state[TCP][:3], state[OBJECT][:3], state[GOAL]
    between = np.linalg.norm(tcp - cube) < 0.025
    opening = state[QPOS][_FINGERS].sum()
    if between and opening < 0.065:
        return _towards(tcp, tcp + (goal - cube), CLOSED)
    if between and (opening < 0.075 or np.linalg.norm(tcp - cube) < 0.015):
        return _towards(tcp, tcp, CLOSED)
    if np.hypot(tcp[0] - cube[0], tcp[1] - cube[1]) < 0.015:
        return _towards(tcp, cube, OPEN)
    return _towards(tcp, (cube[0], cube[1], cube[2] + 0.08), OPEN)


def stack_cube(state: Vector) -> Vector:
    """Pick the cube up, carry it above the other one, lower it, let go and keep still. State [35] to action [4]."""
    tcp, cube, goal = state[TCP][:3], state[OBJECT][:3], state[GOAL]
    beside = float(np.hypot(cube[0] - goal[0], cube[1] - goal[1]))
    if beside < 0.012 and abs(cube[2] - goal[2]) < 0.004:
        return _towards(tcp, tcp, OPEN)
    held = np.linalg.norm(tcp - cube) < 0.025 and state[QPOS][_FINGERS].sum() < 0.065
    if not held:
        return pick_cube(state)
    if beside < 0.012:
        return _towards(tcp, tcp + (goal - cube), CLOSED)
    above = goal[2] + 0.04
    # Up first: the way across is over the other cube.
    across = goal - cube if cube[2] > goal[2] + 0.01 else np.zeros(3, np.float32)
    return _towards(tcp, (tcp[0] + across[0], tcp[1] + across[1], tcp[2] + above - cube[2]), CLOSED)


def lift_peg_upright(state: Vector) -> Vector:
    """Take the peg near one end and lift: the tool keeps its rotation, the peg swings down in a light grip.

    State [35] to action [4].
    """
    tcp, peg, axis = state[TCP][:3], state[OBJECT][:3], _first_axis(state[OBJECT][3:])
    # The end nearer to the robot; once one is lifted, that one.
    end = np.sign(axis[2]) if abs(axis[2]) > 0.08 else -np.sign(axis[0])
    grip = peg + end * (PEG_HALF_LENGTH - 0.04) * axis
    near = np.linalg.norm(grip - tcp) < 0.02
    if near and state[QPOS][_FINGERS].sum() < 0.0525:
        upright = abs(axis[2])
        if upright > 0.97:
            foot = peg - end * PEG_HALF_LENGTH * axis
            above = (foot[0], foot[1], tcp[2] + PEG_HALF_LENGTH - peg[2])
            return _towards(tcp, above, _FIRM if upright > 0.998 else _LOOSE)
        up = (tcp[0], tcp[1], min(tcp[2] + 0.06, 0.25))
        return _towards(tcp, up, _FIRM if tcp[2] < 0.2 else _LOOSE)
    if near:
        return _towards(tcp, (tcp + grip) / 2, _FIRM)
    if np.hypot(tcp[0] - grip[0], tcp[1] - grip[1]) < 0.012:
        return _towards(tcp, grip, OPEN)
    return _towards(tcp, (grip[0], grip[1], grip[2] + 0.06), OPEN)


def _first_axis(quaternion: Vector) -> Vector:
    """Return the first axis [3] of a body turned by `quaternion` [4], w first."""
    w, x, y, z = quaternion
    return np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], np.float32)


def _towards(tcp: Vector, target: Sequence[float] | Vector, gripper: float) -> Vector:
    action = np.empty(ACTION_DIM, np.float32)
    action[TCP_DELTA] = np.clip(_GAIN * (np.asarray(target, np.float32) - tcp), -TCP_STEP_LIMIT, TCP_STEP_LIMIT)
    action[GRIPPER] = gripper
    return action


EXPERTS: dict[str, Callable[[Vector], Vector]] = {
    PUSH_CUBE.id: push_cube,
    PULL_CUBE.id: pull_cube,
    PICK_CUBE.id: pick_cube,
    STACK_CUBE.id: stack_cube,
    LIFT_PEG_UPRIGHT.id: lift_peg_upright,
}


def expert_action(task_id: str, state: Vector) -> Vector:
    """Return the expert's action [4] for this state [35]. Raises ValueError for a task without an expert."""
    task(task_id)
    if task_id not in EXPERTS:
        raise ValueError(f"no expert for '{task_id}'; there are: {', '.join(EXPERTS)}")
    return EXPERTS[task_id](state)
